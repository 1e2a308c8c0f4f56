"""From the text of a value to its id: a vocabulary that is searched in its own memory, not copied into a dictionary.

Ids are in order of popularity, so the first ones serve most lookups: they are in a dictionary, and all others are
found by halving in an Arrow array, with an order of 8 bytes a value beside the text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fae.exporting.standalone.scoring.input_numbers import from_arrow
from fae.exporting.standalone.scoring.input_text import InputError

_IN_DICTIONARY = 1 << 16
_LARGEST_ENCODED = 2**31 - 4


class ValueIds:
    """One table's vocabulary.

    Parameters
    ----------
    path
        Its Parquet file: ``value``, text, and ``id``, int32, in ascending order of ids.
    unknown_id
        Id of every value that is not there.
    encoded
        Values are whole numbers and their own ids, where the file has them.
    """

    def __init__(self, path: Path, unknown_id: int, *, encoded: bool) -> None:
        table = pq.read_table(path)
        self._values = table.column("value").combine_chunks()
        self._ids = from_arrow(table.column("id").combine_chunks(), torch.int32)
        self._unknown_id, self._encoded = unknown_id, encoded
        first = self._values[:_IN_DICTIONARY].to_pylist()
        self._popular = dict(zip(first, self._ids[:_IN_DICTIONARY].tolist(), strict=True))
        self._is_small = len(self._values) <= _IN_DICTIONARY
        order = pa.array([], pa.uint64()) if self._is_small else pc.array_sort_indices(self._values)
        self._order = memoryview(order.buffers()[1]).cast("Q") if len(order) else memoryview(b"").cast("Q")

    def __len__(self) -> int:
        return len(self._values)

    def find(self, texts: Any, column: str) -> Tensor:
        """int32 ``[n]``: ids of an Arrow string array without nulls.

        Raises
        ------
        InputError
            If a value of an encoded column is no whole number.
        """
        coded = texts.dictionary_encode()
        distinct = coded.dictionary.to_pylist()
        if self._encoded:
            distinct = [self._number(text, column) for text in distinct]
        found = self._popular.get
        ids = [found(text, -1) for text in distinct]
        if not self._is_small:
            ids = [self._halved(text) if each < 0 else each for text, each in zip(distinct, ids, strict=True)]
        table = torch.tensor([self._unknown_id if each < 0 else each for each in ids], dtype=torch.int32)
        if not len(texts):
            return torch.empty(0, dtype=torch.int32)
        return table[from_arrow(coded.indices, torch.int32).long()]

    def _halved(self, text: str) -> int:
        """The id of a value, or -1."""
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            # UTF-8 sorts as code points do, so Python's order of text is Arrow's order of bytes.
            if self._values[self._order[middle]].as_py() < text:
                low = middle + 1
            else:
                high = middle
        if low == len(self._order) or self._values[self._order[low]].as_py() != text:
            return -1
        return int(self._ids[self._order[low]])

    @staticmethod
    def _number(text: str, column: str) -> str:
        """The number without zeros in front; empty where it is missing, which no encoded column has."""
        number = text.lstrip("0") or text[:1]
        if text and not (text.isascii() and text.isdigit() and len(number) < 12 and int(number) <= _LARGEST_ENCODED):
            raise InputError(f"the column {column!r} is {text!r}, expected a whole number from 0 to {_LARGEST_ENCODED}")
        return number
