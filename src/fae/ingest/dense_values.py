"""Labels, weights and dense features: convert whatever the log holds to numbers.

Labels become 0 or 1, weights and dense features finite float32, or the log is refused, naming the first bad value. A
missing dense value is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.dense.dense_rules import DenseRule
from fae.ingest.readers.line_blocks import shown
from fae.ingest.readers.text_faults import LABELS, SPACES, is_number, number_texts
from fae.ingest.value_types.type_classes import is_bytes, is_text
from fae.ingest.values import Locate, as_text, scalars


@dataclass(frozen=True, kw_only=True)
class DenseColumn:
    """One dense column of a chunk of n inputs.

    Attributes
    ----------
    values
        float32 ``[n]``: behind the transform, 0 where the value is missing.
    missing
        bool ``[n]``; None where no value is missing.
    vanished
        Number of negative values that ``log1p`` made 0.
    largest
        The largest absolute value in `values`; 0 where there is none.
    numbers
        float64 ``[n]``: as they are in the log, 0 where the value is missing.
    """

    values: npt.NDArray[np.float32]
    missing: npt.NDArray[np.bool_] | None
    vanished: int
    largest: float
    numbers: npt.NDArray[np.float64]


def to_labels(array: Any, column: str, locate: Locate, config: LogConfig | None = None) -> npt.NDArray[np.uint8]:
    """Labels as uint8 ``[n]``: 0, 1, 0.0, 1.0, true and false in any case, or as the configuration says.

    Parameters
    ----------
    config
        Its `label_map` or `label_threshold` say what other labels mean, its `missing` which words are none, and its
        `decimal` how their numbers are written.

    Raises
    ------
    LogError
        If a label is missing or something else; it names the first.
    """
    array = scalars(array, "the label", column, locate)
    if pa.types.is_float16(array.type):  # older releases have no dictionary of these
        array = array.cast(pa.float32())
    array = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    texts = _label_texts(array.dictionary, column, locate)
    missing = () if config is None else config.missing
    meaning = _meaning_of_labels(config)
    # The last entry is the missing label.
    found = [meaning("" if text in missing else text) for text in texts]
    meanings = np.array([*found, meaning("")], np.int8)
    labels: npt.NDArray[np.int8] = meanings[np.asarray(array.indices.fill_null(len(texts)))]
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        place = array.indices[row].as_py()
        raise LogError(f"{locate(row)}: {_bad_label('' if place is None else texts[place], column, config)}")
    return labels.astype(np.uint8)


def _label_texts(values: Any, column: str, locate: Locate) -> list[str]:
    """The text form of distinct labels; that of a number with a fraction, which has none, is as it is printed."""
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        numbers = values.to_pylist()
        texts = values.cast(pa.string()).to_pylist()
        return [
            "" if number is None else str(int(number)) if abs(number) < 2**53 and number == int(number) else str(text)
            for number, text in zip(numbers, texts, strict=True)
        ]
    found: list[str] = as_text(values, column, lambda _: locate(0)).to_pylist()
    return found


def _meaning_of_labels(config: LogConfig | None) -> Callable[[str], int]:
    """From the text of a label to 0 or 1, or to -1 if it is neither."""
    if config is not None and config.label_map:
        known = config.label_map
        return lambda text: known.get(text, known.get(text.strip(SPACES), -1))
    if config is not None and config.label_threshold is not None:
        least, decimal = config.label_threshold, config.decimal

        def compare(text: str) -> int:
            text = {"true": "1", "false": "0"}.get(text.lower(), text.strip(SPACES))
            if decimal == "," and "." not in text:
                text = text.replace(",", ".")
            number = float(text) if is_number(text) else np.nan
            return -1 if np.isnan(number) else int(number >= least)

        return compare
    return lambda text: LABELS.get(text.strip(SPACES).lower(), -1)


def _bad_label(text: str, column: str, config: LogConfig | None) -> str:
    value = shown(text.encode()) if text else "missing"
    if config is not None and text in config.missing:
        value += ", a word of [log] missing"
    if config is not None and config.label_map:
        return (
            f"the label {column!r} is {value}, expected one of [log] label_map "
            f"({', '.join(map(repr, config.label_map))}); add it there, or fix the line"
        )
    if config is not None and config.label_threshold is not None:
        return (
            f"the label {column!r} is {value}, expected a number, as [log] label_threshold = "
            f"{config.label_threshold:g} compares it; fix the line, or use label_map"
        )
    advice = 'say in [log] label_map what it means (such as { click = 1, noclick = 0, "" = 0 })'
    if is_number(text):
        advice = "set [log] label_threshold for ratings or counts, or label_map"
    return f"the label {column!r} is {value}, expected 0 or 1; {advice}, fix the line, or correct [log] label"


def to_weights(array: Any, column: str, locate: Locate, config: LogConfig | None = None) -> npt.NDArray[np.float32]:
    """Weights of inputs as float32 ``[n]``.

    Raises
    ------
    LogError
        If a weight is missing, negative, not finite or no number; it names the first.
    """
    words, decimal = ((), ".") if config is None else (config.missing, config.decimal)
    values, missing = _to_numbers(array, f"the weight {column!r}", column, locate, words, decimal)
    with np.errstate(over="ignore"):
        result: npt.NDArray[np.float32] = values.astype(np.float32)
    bad = ~(np.isfinite(result) & (values >= 0))
    if missing is not None:
        bad |= missing
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = "missing" if missing is not None and missing[row] else f"{values[row]:g}"
        raise LogError(f"{locate(row)}: the weight {column!r} is {value}, expected a positive number or 0; fix it")
    return result


def to_dense(
    array: Any,
    transform: str | DenseRule,
    column: str,
    locate: Locate,
    *,
    missing: Sequence[str] = (),
    decimal: str = ".",
) -> DenseColumn:
    """One dense column as float32, with what is to be said about it.

    Parameters
    ----------
    transform
        ``"log1p"``: ``log(1 + max(x, 0))``; ``"signed_log1p"``: ``sign(x) log(1 + |x|)``, both computed in float64;
        ``"none"``: unchanged. Or a rule; the values are 0 where its constants are not known.
    missing
        Words that mean a missing value. A number counts as missing if a word is that number.
    decimal
        The decimal point of numbers that come as text.

    Raises
    ------
    LogError
        If a value is text, NaN, infinite or too large for float32; it names the first.
    """
    values, absent = _to_numbers(array, f"the dense column {column!r}", column, locate, missing, decimal)
    rule = DenseRule(name=column, transform=transform) if isinstance(transform, str) else transform
    vanished = int(np.count_nonzero(rule.clip(values) < 0)) if rule.transform == "log1p" else 0
    with np.errstate(over="ignore", invalid="ignore"):
        # Where constants are not known, only what float32 cannot hold is refused.
        wide = rule.apply(values) if rule.is_known else rule.clip(values)
        if absent is not None and rule.has_constants:
            wide = np.where(absent, 0.0, wide)
        result: npt.NDArray[np.float32] = wide.astype(np.float32)
        largest = float(np.abs(result).max(initial=0.0))
        # The transform turns a negative infinity into 0, so the values before it are checked too.
        finite = np.isfinite(result) & np.isfinite(values)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        hint = ' (name it in [log] missing: ["nan"])' if np.isnan(values[row]) else ""
        raise LogError(
            f"{locate(row)}: the dense column {column!r} is {values[row]}, expected a finite number; fix the line, or "
            f"leave the field empty where it is missing{hint}"
        )
    if not rule.is_known:
        result, largest = np.zeros_like(result), 0.0
    return DenseColumn(values=result, missing=absent, vanished=vanished, largest=largest, numbers=values)


def _to_numbers(
    array: Any, what: str, column: str, locate: Locate, words: Sequence[str], decimal: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
    """Numbers as float64 ``[n]``, 0 where they are missing, and bool ``[n]`` or None: which are."""
    array = scalars(array, what.removesuffix(f" {column!r}"), column, locate)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    from_text = is_text(kind) or is_bytes(kind)
    if from_text:
        array = _parsed(array, what, column, locate, words, decimal)
    elif not (
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):  # fmt: skip
        hint = "; write it as numbers, or list it as categorical" if what.startswith("the dense") else ""
        raise LogError(f"{locate(0)}: {what} is of type {kind}, expected numbers{hint}")
    absent = np.asarray(array.is_null()) if array.null_count else None
    # Counts above 2^53 lose their last digits here, but float32 could not hold them either.
    values: npt.NDArray[np.float64] = array.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
    if words and not from_text:
        named = np.zeros(len(values), np.bool_)
        for word in words:
            if is_number(word):
                number = float(word)
                named |= np.isnan(values) if np.isnan(number) else values == number
        if named.any():
            absent = named if absent is None else named | absent
            values = np.where(named, 0.0, values)
    return values, absent


def _parsed(array: Any, what: str, column: str, locate: Locate, words: Sequence[str], decimal: str) -> Any:
    """Numbers that come as text, as float64 with nulls, as the CSV parser reads them."""
    text = as_text(array, column, locate, words)
    numbers = number_texts(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), decimal)
    try:
        return numbers.cast(pa.float64())
    except pa.ArrowInvalid:
        row = next(i for i, value in enumerate(numbers.to_pylist()) if value is not None and not is_number(value))
        raise LogError(
            f"{locate(row)}: {what} is {shown(text[row].as_py().encode())}, expected a number; fix it, name the word "
            "in [log] missing if it means a missing value, or list the column as categorical"
        ) from None
