"""Dense features as the model takes them: numbers from whatever a file holds, clipped and transformed in float64."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from fae.exporting.standalone.scoring.input_text import InputError, is_text_type, plain_values, to_text

SPACES = " \t"
"""What is taken off both ends of a number."""


def from_arrow(array: Any, dtype: torch.dtype) -> Tensor:
    """A tensor of an Arrow array of numbers without nulls, whose type is that of `dtype`."""
    if not len(array):
        return torch.empty(0, dtype=dtype)
    size = torch.empty(0, dtype=dtype).element_size()
    start = array.offset * size
    data = bytearray(memoryview(array.buffers()[1])[start : start + len(array) * size])
    return torch.frombuffer(data, dtype=dtype)


def dense_numbers(array: Any, column: str, missing: Sequence[str], decimal: str = ".") -> Any:
    """Arrow float64 array ``[n]``, null where a value is missing.

    Raises
    ------
    InputError
        For a value that is no number.
    """
    array = plain_values(array)
    try:
        if not is_text_type(array.type):
            numbers = array.cast(pa.float64(), safe=False)
            for word in missing:
                number = _number(word)
                if number is not None:
                    named = pc.is_nan(numbers) if math.isnan(number) else pc.equal(numbers, number)
                    numbers = pc.if_else(named.fill_null(False), pa.scalar(None, pa.float64()), numbers)
            return numbers
        text = to_text(array, column, missing)
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), pc.utf8_trim(text, SPACES))
        if decimal == ",":
            text = pc.replace_substring(pc.replace_substring(text, ".", "x"), ",", ".")
        return text.cast(pa.float64())
    except pa.ArrowException as error:
        raise InputError(f"the dense column {column!r}: {' '.join(str(error).split())}; expected numbers") from None


def _number(word: str) -> float | None:
    try:
        return float(pa.scalar(word.strip(SPACES)).cast(pa.float64()).as_py())
    except pa.ArrowException:
        return None


def transform_dense(numbers: Any, feature: Mapping[str, Any]) -> Tensor:
    """float32 ``[n]`` of an Arrow float64 array: clipped, transformed in float64, rounded once; 0 where missing.

    Raises
    ------
    InputError
        For a number that is not finite, or too large for float32.
    """
    is_missing = from_arrow(numbers.is_null().cast(pa.uint8()), torch.uint8) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = from_arrow(numbers.fill_null(0.0), torch.float64)
    finite = torch.isfinite(x)
    if feature["low"] is not None or feature["high"] is not None:
        x = x.clamp(feature["low"], feature["high"])
    transform = feature["transform"]
    if transform == "log1p":
        x = torch.log1p(x.clamp(min=0.0))
    elif transform == "signed_log1p":
        x = torch.copysign(torch.log1p(x.abs()), x)
    elif transform == "standardize":
        x = (x - feature["mean"]) / feature["deviation"]
    elif transform != "none":
        raise InputError(f"the dense column {feature['name']!r} has the unknown transform {transform!r}")
    result = torch.where(is_missing, 0.0, x).to(torch.float32)
    bad = ~(torch.isfinite(result) & finite)
    if bool(bad.any()):
        at = int(bad.nonzero()[0])
        raise InputError(
            f"the dense column {feature['name']!r} is {numbers[at].as_py()} in input {at + 1}, expected a finite number"
        )
    return result
