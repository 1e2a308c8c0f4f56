"""Encode one categorical column, chunk by chunk, into provisional ids.

A column sees its chunks in log order, so its provisional ids depend on the log alone. Tables share nothing and may be
encoded on different threads; the columns of one table share a vocabulary and are encoded together, input by input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fae.core.compiled import Int64
from fae.ingest.coded_text import encode_coded, is_coded_text
from fae.ingest.column_config import ColumnConfig
from fae.ingest.continued_ids import KnownIds
from fae.ingest.hex_vocabulary import HexVocabulary
from fae.ingest.numbering.final_ids import Numbering, number_appended, number_by_popularity, number_encoded
from fae.ingest.scratch import Scratch
from fae.ingest.value_types.date_parts import date_parts
from fae.ingest.value_types.printed_lists import PrintedLists
from fae.ingest.values import Items, Locate, as_text, list_items, whole_numbers
from fae.ingest.vocabulary import Vocabulary

_VALUES_AT_ONCE = 1 << 18


class ColumnEncoder:
    """Turns the values of one categorical column into provisional ids, and later gives their final ids.

    Provisional ids are those of its `Vocabulary`, or the numbers themselves if the column is `encoded`; -2 is a missing
    number and -1 an unused slot.

    Parameters
    ----------
    hexadecimal
        Values come as keys of `fae.ingest.hex_vocabulary`, not as text.
    known
        The column's vocabulary in the log that this one continues: its values get the first provisional ids.
    missing
        Words that mean a missing value.
    owner
        The encoder of the column whose table, and so whose vocabulary, this one shares; None for a table's own column.

    Attributes
    ----------
    printed
        Looks at the text of lists, for brackets that the configuration does not name.
    """

    def __init__(
        self,
        config: ColumnConfig,
        first_slot: int,
        scratch: Scratch,
        *,
        hexadecimal: bool = False,
        known: KnownIds | None = None,
        missing: Sequence[str] = (),
        owner: ColumnEncoder | None = None,
    ) -> None:
        self.config = config
        self.owner = owner
        self.printed = PrintedLists(config)
        self._missing = tuple(missing)
        self.first_slot = first_slot
        self.known = known
        self.vocabulary: Vocabulary | HexVocabulary | None = None
        if owner is not None:
            self.vocabulary = owner.vocabulary
        elif not config.encoded:
            self.vocabulary = (HexVocabulary if hexadecimal else Vocabulary)(config.name, scratch)
            if known is not None:
                known.add_to(self.vocabulary)

    @property
    def slots(self) -> slice:
        """Slots of the column in a row of ids."""
        return slice(self.first_slot, self.first_slot + self.config.max_length)

    @property
    def table_encoder(self) -> ColumnEncoder:
        """The encoder of the first column of its table, which counts the table's values."""
        return self if self.owner is None else self.owner

    @property
    def missing_id(self) -> int:
        """Provisional id of the missing value, -1 if it was not seen."""
        return -2 if self.vocabulary is None else self.vocabulary.missing_id

    def encode(self, array: Any, ids: npt.NDArray[np.int32], locate: Locate) -> None:
        """Write the provisional ids of one chunk into the column's slots of ``ids [n, S]``."""
        if self.config.max_length == 1:
            if self.config.part is None and isinstance(self.vocabulary, Vocabulary) and is_coded_text(array):
                ids[:, self.first_slot] = encode_coded(array, self._codes_with_nulls)
            else:
                ids[:, self.first_slot] = self.codes(self._plain(array, locate), locate)
            return
        items = list_items(array, self.config, locate, self._missing, self.printed)
        ids[:, self.slots] = -1
        codes = self.codes(items.values, lambda index: locate(int(items.rows[index])))
        ids[items.rows, self.first_slot + items.slots] = codes

    def _codes_with_nulls(self, values: Any) -> npt.NDArray[Any]:
        """Provisional ids of text that may have nulls; no text is refused, so no error names a place."""
        return self.codes(as_text(values, self.config.name, str, self._missing), str)

    def _plain(self, array: Any, locate: Locate) -> Any:
        if self.config.part is not None:
            return date_parts(array, self.config, locate, self._missing)
        return as_text(array, self.config.name, locate, self._missing)

    def items(self, array: Any, locate: Locate) -> Items:
        """The values of one chunk, flat; the value of a plain column is in slot 0."""
        if self.config.max_length > 1:
            return list_items(array, self.config, locate, self._missing, self.printed)
        values = self._plain(array, locate)
        return Items(values, np.arange(len(values)), np.zeros(len(values), np.int64))

    def encode_keys(self, keys: Int64, ids: npt.NDArray[np.int32]) -> None:
        """`encode` for a plain column whose values come as keys."""
        assert isinstance(self.vocabulary, HexVocabulary)
        self.vocabulary.encode_keys(keys, ids, self.first_slot)

    def codes(self, values: Any, locate: Locate) -> npt.NDArray[Any]:
        """Provisional ids of an Arrow string array without nulls."""
        if self.vocabulary is not None:
            return self.vocabulary.encode(values)
        return whole_numbers(values, self.config.name, locate)

    @property
    def num_values(self) -> int:
        """Distinct values so far; 0 of an encoded column, and of one that shares the table of another."""
        return 0 if self.vocabulary is None or self.owner is not None else self.vocabulary.size

    def saved_values(self, first: int, stop: int) -> Iterator[bytes]:
        """Values ``first .. stop - 1`` as bytes, in pieces, for `restore_values`.

        Keys are int64. Text is the number of values (int64), the length of each (int32), and their bytes.
        """
        vocabulary = self.vocabulary
        for start in range(first, stop, _VALUES_AT_ONCE):
            end = min(start + _VALUES_AT_ONCE, stop)
            if isinstance(vocabulary, HexVocabulary):
                yield vocabulary.keys[start:end].tobytes()
            elif vocabulary is not None:
                lengths, text = vocabulary.text(start, end)
                yield np.array([end - start], np.int64).tobytes() + lengths.tobytes() + text.tobytes()

    def restore_values(self, data: bytes, count: int) -> None:
        """Add `count` values to the vocabulary, from the bytes of `saved_values`."""
        self.add_values(data, count, np.empty(count, np.int32))

    def add_values(self, data: bytes, count: int, ids: npt.NDArray[np.int32]) -> None:
        """As `restore_values`, also of known values; fills `ids`, int32 ``[count]``, with their provisional ids."""
        vocabulary = self.vocabulary
        if vocabulary is None or not count:
            return
        if isinstance(vocabulary, HexVocabulary):
            keys = np.frombuffer(data, np.int64)
            for start in range(0, count, _VALUES_AT_ONCE):
                stop = min(start + _VALUES_AT_ONCE, count)
                vocabulary.encode_keys(keys[start:stop], ids[start:stop].reshape(-1, 1), 0)
            return
        at = start = 0
        while at < len(data):
            number = int(np.frombuffer(data, np.int64, 1, at)[0])
            offsets = np.zeros(number + 1, np.int32)
            np.cumsum(np.frombuffer(data, np.int32, number, at + 8), out=offsets[1:])
            at += 8 + 4 * number
            text = pa.py_buffer(data[at : at + int(offsets[-1])])
            ids[start : start + number] = vocabulary.encode(
                pa.StringArray.from_buffers(number, pa.py_buffer(offsets), text)
            )
            at, start = at + int(offsets[-1]), start + number

    def assign_final_ids(self, counts: Int64, minimum: int, scratch: Scratch) -> Numbering:
        """Final ids, from the counts in the training split as `fae.ingest.numbering.final_ids.count_ids` gives them."""
        num_values, known = len(counts) - 2, self.known
        if self.vocabulary is None:
            own = None if known is None else known.own_ids()
            return number_encoded(counts[:num_values], minimum, scratch, missing=int(counts[num_values]), own=own)
        if known is None:
            return number_by_popularity(counts[:num_values], minimum, scratch)
        return number_appended(
            counts[:num_values], minimum, scratch, known=known.size - 1, unknown_id=known.schema.unknown_id
        )


def find_owner(encoders: Sequence[ColumnEncoder], column: ColumnConfig) -> ColumnEncoder | None:
    """The encoder whose table a column shares, among those before it; None where its table is its own."""
    if column.table is None:
        return None
    return next(encoder for encoder in encoders if encoder.config.name == column.table)


def encode_together(
    encoders: Sequence[ColumnEncoder], arrays: Sequence[Any], ids: npt.NDArray[np.int32], locate: Locate
) -> None:
    """`ColumnEncoder.encode` for all columns of one table.

    New values are numbered input by input, and within an input in the order of slots, whatever the chunks are.

    Parameters
    ----------
    encoders, arrays
        One of each column, in slot order; the first has the table's vocabulary.
    """
    if len(encoders) == 1 or encoders[0].config.encoded:  # encoded numbers are their own ids, in any order
        for encoder, array in zip(encoders, arrays, strict=True):
            encoder.encode(array, ids, locate)
        return
    items = [encoder.items(array, locate) for encoder, array in zip(encoders, arrays, strict=True)]
    rows = np.concatenate([each.rows for each in items])
    slots = np.concatenate([encoder.first_slot + each.slots for encoder, each in zip(encoders, items, strict=True)])
    order = np.argsort(rows, kind="stable")  # within an input the columns are in order already
    values = pa.concat_arrays([each.values for each in items]).take(pa.array(order))
    ids[:, encoders[0].slots.start : encoders[-1].slots.stop] = -1
    ids[rows[order], slots[order]] = encoders[0].codes(values, locate)
