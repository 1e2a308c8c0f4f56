"""Labels and dense features: convert whatever the log holds to numbers.

Labels become 0 or 1 and dense features finite float32, or the log is refused, naming the first bad value. A missing
dense value is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.readers.text_faults import is_number
from fae.ingest.values import Locate, is_text


def to_labels(array: Any, column: str, locate: Locate) -> npt.NDArray[np.uint8]:
    """Labels as uint8 ``[n]``: 0, 1, 0.0, 1.0, true and false, as numbers or as text.

    Raises
    ------
    LogError
        If a label is missing or something else; it names the first.
    """
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    meanings = np.array([_label(value) for value in array.dictionary.to_pylist()] + [-1], np.int8)
    labels: npt.NDArray[np.int8] = meanings[np.asarray(array.indices.fill_null(-1))]
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise LogError(
            f"{locate(row)}: the label {column!r} is {array[row].as_py()!r}, expected 0 or 1; fix the line, or set "
            "[log] label to another column"
        )
    return labels.astype(np.uint8)


def _label(value: Any) -> int:
    if isinstance(value, str):
        text = value.strip().lower()
        value = {"true": 1.0, "false": 0.0}.get(text, float(text) if is_number(text) else -1.0)
    return int(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else -1


def to_dense(array: Any, transform: str, column: str, locate: Locate) -> npt.NDArray[np.float32]:
    """One dense column as float32 ``[n]``.

    Parameters
    ----------
    transform
        ``"log1p"``: ``log(1 + max(x, 0))``, computed in float64; ``"none"``: unchanged.

    Raises
    ------
    LogError
        If a value is text, NaN, infinite or too large for float32; it names the first.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return to_dense(array.dictionary_decode(), transform, column, locate)
    if is_text(kind):
        array = _numbers(array, column, locate)
    elif not (
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):  # fmt: skip
        raise LogError(f"{locate(0)}: the dense column {column!r} is of type {kind}, expected numbers")
    # Counts above 2^53 lose their last digits here, but float32 could not hold them either.
    values: npt.NDArray[np.float64] = array.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.log1p(np.maximum(values, 0.0)) if transform == "log1p" else values
        result: npt.NDArray[np.float32] = wide.astype(np.float32)
    # The transform turns a negative infinity into 0, so the values before it are checked too.
    finite = np.isfinite(result) & np.isfinite(values)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise LogError(
            f"{locate(row)}: the dense column {column!r} is {values[row]}, expected a finite number; fix the line, or "
            "leave the field empty where it is missing"
        )
    return result


def _numbers(array: Any, column: str, locate: Locate) -> Any:
    text = array.cast(pa.string())
    empty = pc.equal(text, "").fill_null(False)
    try:
        return pc.if_else(empty, pa.scalar(None, pa.string()), text).cast(pa.float64())
    except pa.ArrowInvalid:
        row = next((i for i, value in enumerate(text.to_pylist()) if value and not is_number(value)), 0)
        raise LogError(
            f"{locate(row)}: the dense column {column!r} is {text[row].as_py()!r}, expected a number; fix it, or list "
            "the column as categorical"
        ) from None
