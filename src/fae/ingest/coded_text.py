"""Encode text that comes as a dictionary of values and the number of one for each input: each value once a batch.

Ids are those that the text itself would get: new values are numbered in the order in which inputs show them, whatever
the order of the dictionary is, and values that no input has get none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fae.core.compiled import compiled, read_only

_UNKNOWN, _LISTED = -1, -2
_NUMBERS = (pa.int8(), pa.int16(), pa.int32())


def is_coded_text(array: Any) -> bool:
    """Whether an Arrow array is a dictionary of text with numbers that `encode_coded` takes."""
    kind = array.type
    return (
        bool(pa.types.is_dictionary(kind)) and bool(pa.types.is_string(kind.value_type)) and kind.index_type in _NUMBERS
    )


@compiled
def list_unknown(numbers: npt.NDArray[np.int32], codes: npt.NDArray[np.int32], unknown: npt.NDArray[np.int32]) -> int:
    """List the numbers whose code is not known, each once, as inputs show them first; return how many there are.

    Parameters
    ----------
    numbers
        int32 ``[n]``; a missing value has the number of values.
    codes
        int32 ``[values + 1]``: -1 where a code is not known; becomes -2 where it is listed.
    unknown
        int32: filled; has room for all.
    """
    count = 0
    for index in range(numbers.size):
        number = numbers[index]
        if codes[number] == _UNKNOWN:
            codes[number] = _LISTED
            unknown[count] = number
            count += 1
    return count


def encode_coded(array: Any, encode: Callable[[Any], npt.NDArray[Any]]) -> npt.NDArray[np.int32]:
    """Codes of the values of an Arrow dictionary array, int32 ``[n]``.

    Parameters
    ----------
    encode
        Codes of the values of an Arrow string array, which may have nulls.
    """
    missing = len(array.dictionary)
    codes = np.full(missing + 1, _UNKNOWN, np.int32)
    numbers = array.indices.cast(pa.int32()).fill_null(missing).to_numpy()
    unknown = np.empty(min(len(numbers), len(codes)), np.int32)
    unknown = unknown[: list_unknown(read_only(numbers), codes, unknown)]
    if len(unknown):
        codes[unknown] = encode(array.dictionary.take(pa.array(unknown, mask=unknown == missing)))
    found: npt.NDArray[np.int32] = codes[numbers]
    return found
