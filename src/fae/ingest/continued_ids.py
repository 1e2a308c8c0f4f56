"""Ids of a log that continues another: values known to the parent keep their ids, new values are appended.

This is ingest where ``[train] from`` names a run to continue. A value with an id of its own in the parent has the same
id here, however often this log shows it, and no two values get one id. The result depends on this log, the
configuration and the parent's vocabulary alone, so older logs of the lineage may be deleted.

The reserved id of rare values keeps its number. That of an encoded column is always one above the largest number, so it
moves when the table grows (`fae.artifacts.lineage.moved_reserved_id`), and training moves its row with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fae.artifacts.checksums import check_contents
from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.lineage import check_same_columns
from fae.core.errors import ArtifactError
from fae.ingest.column_config import columns_of_tables
from fae.ingest.config import LogConfig
from fae.ingest.hex_vocabulary import HexVocabulary
from fae.ingest.readers.criteo_parser import ID_DIGITS
from fae.ingest.vocabulary import Vocabulary

COMMAND = "fae run RECIPE.toml"
_HEX = f"^[0-9a-f]{{0,{ID_DIGITS}}}$"


class KnownIds:
    """One column's vocabulary in the parent log.

    Attributes
    ----------
    schema
        Schema of the column's table in the parent.
    size
        `num_embeddings` of that table.
    """

    def __init__(self, parent: ColumnarLog, feature: int) -> None:
        self.schema: FeatureSchema = parent.features[feature]
        self.size = self.schema.num_embeddings
        self._path = parent.path / "vocabulary" / f"{feature}.parquet"

    def add_to(self, vocabulary: Vocabulary | HexVocabulary) -> None:
        """Add the parent's values to an empty vocabulary, in id order, without the reserved id.

        Raises
        ------
        ArtifactError
            If the parent's file does not hold one value per id, or holds values that the vocabulary cannot.
        """
        nulls: list[int] = []
        for batch in self._batches():
            values = batch.drop_null()
            nulls += (np.flatnonzero(~np.asarray(pc.is_valid(batch))) + vocabulary.size + len(nulls)).tolist()[:2]
            is_hex = pc.all(pc.match_substring_regex(values, _HEX), min_count=0).as_py()
            if isinstance(vocabulary, HexVocabulary) and not is_hex:
                raise ArtifactError(
                    f"{self._path} holds values of {self.schema.name!r} that are no hex ids of up to {ID_DIGITS} "
                    "digits, so no log in Criteo's format can continue it; read this log in the format of that one"
                )
            vocabulary.encode(values)
        if nulls != [self.schema.unknown_id]:
            raise self._damaged(f"the ids {nulls} have no value, expected {self.schema.unknown_id}")
        if vocabulary.size != self.size - 1:
            raise self._damaged(f"{vocabulary.size} different values for {self.size} ids")

    def own_ids(self) -> npt.NDArray[np.bool_]:
        """bool ``[size]``: True where an id belongs to one value; other ids of an encoded column share the reserved id.

        Raises
        ------
        ArtifactError
            If the parent's file does not have `size` lines.
        """
        own = np.concatenate([np.zeros(0, np.bool_), *(np.asarray(pc.is_valid(values)) for values in self._batches())])
        return own.astype(np.bool_)

    def _batches(self) -> Iterator[Any]:
        try:
            with pq.ParquetFile(self._path) as file:
                if "value" not in file.schema_arrow.names:
                    raise self._damaged(f"it has the columns {file.schema_arrow.names}")
                if file.metadata.num_rows != self.size:
                    raise self._damaged(f"{file.metadata.num_rows} lines for {self.size} ids")
                for batch in file.iter_batches(columns=["value"]):
                    yield batch.column(0).cast(pa.string())
        except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
            raise self._damaged(" ".join(str(error).split())) from error

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self._path} is damaged ({what}); name another run in [train] from, or leave it out to start anew"
        )


def known_ids(parent: ColumnarLog | None, config: LogConfig) -> list[KnownIds | None]:
    """The parent's vocabulary of each table; None for each table if there is no parent.

    Raises
    ------
    ArtifactError
        If the parent has other columns, no vocabulary, or a damaged one.
    """
    if parent is None:
        return [None] * len(columns_of_tables(config.categorical_columns()))
    check_same_columns(parent, **config.column_facts())
    check_contents(parent.path, parent.manifest.files, "vocabulary/", command=COMMAND)
    return [KnownIds(parent, index) for index in range(len(parent.features))]
