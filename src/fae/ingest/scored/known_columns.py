"""Encode columns with the vocabulary of a finished log: nothing is appended, and what is unknown gets the reserved id.

A value is turned into text by the same code as in ingest, so one value has one id in both. Memory is that of the
vocabularies, which may be larger than memory (`fae.ingest.scratch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.core.compiled import Int64
from fae.ingest.column_config import ColumnConfig, tables_of
from fae.ingest.config import LogConfig
from fae.ingest.continued_ids import KnownIds, known_ids
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.hex_vocabulary import HexVocabulary
from fae.ingest.provisional_ids import ColumnEncoder, find_owner
from fae.ingest.scratch import Scratch
from fae.ingest.values import Locate, whole_numbers
from fae.ingest.vocabulary import Vocabulary


class KnownColumn(ColumnEncoder):
    """Turns the values of one column into the ids of a finished log.

    Parameters
    ----------
    known
        The column's vocabulary in that log.
    """

    def __init__(
        self,
        config: ColumnConfig,
        first_slot: int,
        scratch: Scratch,
        *,
        hexadecimal: bool,
        known: KnownIds,
        missing: Sequence[str] = (),
        owner: ColumnEncoder | None = None,
    ) -> None:
        super().__init__(
            config, first_slot, scratch, hexadecimal=hexadecimal, known=known, missing=missing, owner=owner
        )
        self.schema: FeatureSchema = known.schema
        self._own = known.own_ids() if config.encoded else np.zeros(0, np.bool_)

    def encode_keys(self, keys: Int64, ids: npt.NDArray[np.int32]) -> None:
        """Fill the column's slot of ``ids [n, S]`` from keys of `fae.ingest.hex_vocabulary`."""
        assert isinstance(self.vocabulary, HexVocabulary)
        self.vocabulary.find_keys(keys, ids, self.first_slot)
        ids[:, self.first_slot] = self._final(ids[:, self.first_slot])

    def codes(self, values: Any, locate: Locate) -> npt.NDArray[Any]:
        """Ids of an Arrow string array without nulls."""
        if self.vocabulary is None:
            numbers = whole_numbers(values, self.config.name, locate)
            size = self.schema.num_embeddings
            own = self._own[np.clip(numbers, 0, size - 1)]
            return np.where((numbers >= 0) & (numbers < size) & own, numbers, self.schema.unknown_id)
        assert isinstance(self.vocabulary, Vocabulary)
        return self._final(self.vocabulary.find(values))

    def _final(self, found: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Values were entered in the order of their ids, without the reserved one between them."""
        unknown = np.int32(self.schema.unknown_id)
        return np.where(found < 0, unknown, found + (found >= unknown)).astype(np.int32)


def known_columns(log: ColumnarLog, config: LogConfig, scratch: Scratch) -> list[KnownColumn]:
    """One encoder for each categorical column, in the order of the slots, filled with the log's vocabulary.

    Raises
    ------
    ArtifactError
        If the log has no vocabulary, or a damaged one.
    """
    columns: list[KnownColumn] = []
    hexadecimal = config.format in CRITEO_FORMATS
    settings, known = config.categorical_columns(), known_ids(log, config)
    for column, table in zip(settings, tables_of(settings), strict=True):
        ids = known[table]
        assert ids is not None
        first_slot = columns[-1].slots.stop if columns else 0
        columns.append(
            KnownColumn(
                column, first_slot, scratch, hexadecimal=hexadecimal, known=ids, missing=config.missing,
                owner=find_owner(columns, column),
            )
        )  # fmt: skip
    return columns
