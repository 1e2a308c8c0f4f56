"""Times of inputs as keys that sort as the times do: numbers, points in time, or text.

What the first time of a log is, all must be: numbers are compared as numbers, dates and ISO 8601 text as points in time
(to the nanosecond, with or without a zone), any other text by its UTF-8 bytes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.values import as_text, scalars

Keys = npt.NDArray[np.int64]
_WHOLE = r"^[+-]?[0-9]{1,19}$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NO_NUMBER = r"(?i)^[+-]?(nan|inf|infinity)$"
_INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}[0-9:.]*(Z|[+-][0-9]{2}:?[0-9]{0,2})?)?$"
_LOOKED_AT = 1000
_TEXT_BYTES = 48
_TOP_BIT = np.uint64(1 << 63)
_KINDS = {
    "number": "a number", "time": "a date or time without a zone", "zoned": "a time with a zone", "text": "text",
}  # fmt: skip
_TYPES = {"time": pa.timestamp("ns"), "zoned": pa.timestamp("ns", tz="UTC")}


class TimeKeys:
    """Turns the column of times into keys, chunk by chunk.

    Attributes
    ----------
    state
        JSON values: what the times are, whether all numbers are whole, and the first time as messages show it. A new
        object continues from it.
    """

    def __init__(self, config: LogConfig, state: dict[str, Any] | None = None) -> None:
        self._config, self._name = config, config.time or ""
        self.state: dict[str, Any] = state or {"kind": "", "whole": True, "first": ""}

    @property
    def width(self) -> int:
        """Entries of a key, known once there is one: 1 for times, 2 for numbers, 6 for text."""
        return {"number": 2, "text": _TEXT_BYTES // 8}.get(self.state["kind"], 1)

    def keys(self, array: Any, locate: Callable[[int], str]) -> Keys:
        """Keys ``[n, width]`` of an Arrow array of n times.

        Raises
        ------
        LogError
            If a time is missing, or is not of the kind of the first; it names the first such input.
        """
        array = scalars(array, "the time", self._name, locate)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        words = [float(word) for word in self._config.missing if re.fullmatch(_NUMBER, word)]
        if words and any(
            check(array.type) for check in (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)
        ):
            numbers = array.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
            self._refuse_missing(np.isin(numbers, words), locate)
        if pa.types.is_floating(array.type):
            return self._numbers(array, locate)
        if pa.types.is_decimal(array.type):
            return self._texts(array.cast(pa.string()), locate)
        if pa.types.is_unsigned_integer(array.type):
            array = array.cast(pa.string())
        if pa.types.is_integer(array.type):
            return self._numbers(array, locate)
        if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
            return self._instants(array, locate)
        return self._texts(as_text(array, self._name, locate, self._config.missing), locate)

    def numbers_of(self, keys: Keys) -> tuple[npt.NDArray[Any], ...]:
        """The columns to sort by, the most significant first."""
        kind = self.state["kind"]
        if kind == "number":
            return (keys[:, 0],) if self.state["whole"] else (keys[:, 1].view(np.float64),)
        if kind == "text":
            return tuple(keys[:, index] for index in range(keys.shape[1]))
        return (keys[:, 0],)

    def _require(self, kind: str, row: int, array: Any, locate: Callable[[int], str]) -> None:
        known, what = self.state["kind"], f"{locate(row)}: the time {self._name!r} is {_shown(array, row)}"
        if kind == "far":
            raise LogError(f"{what}, which is outside the years 1678 to 2261; correct it")
        if not known:
            self.state.update(kind=kind, first=_shown(array, row))
        elif known != kind:
            first = self.state.get("first", "")
            raise LogError(
                f"{what}, {_KINDS[kind]}, and the first time of the log{f', {first},' if first else ''} is "
                f"{_KINDS[known]}; write all times in one way"
            )

    def _refuse_missing(self, bad: npt.NDArray[np.bool_], locate: Callable[[int], str]) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise LogError(
                f"{locate(row)}: the time {self._name!r} has no value, and [log] time orders the log by it; give every "
                "input its time, or leave `time` out"
            )

    def _numbers(self, array: Any, locate: Callable[[int], str]) -> Keys:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        self._refuse_missing(~valid, locate)
        self._require("number", 0, array, locate)
        if pa.types.is_integer(array.type):
            whole = array.cast(pa.int64()).to_numpy()
            return _number_keys(whole, whole.astype(np.float64))
        floats = array.cast(pa.float64()).to_numpy()
        if not np.isfinite(floats).all():
            row = int(np.flatnonzero(~np.isfinite(floats))[0])
            raise LogError(f"{locate(row)}: the time {self._name!r} is {floats[row]}, no finite number; correct it")
        return self._float_keys(floats)

    def _float_keys(self, floats: npt.NDArray[np.float64]) -> Keys:
        is_whole = (floats == np.floor(floats)) & (np.abs(floats) <= 2.0**62)
        self.state["whole"] = bool(self.state["whole"] and is_whole.all())
        return _number_keys(np.where(is_whole, floats, 0.0).astype(np.int64), floats)

    def _instants(self, array: Any, locate: Callable[[int], str]) -> Keys:
        self._refuse_missing(~array.is_valid().to_numpy(zero_copy_only=False), locate)
        is_zoned = pa.types.is_timestamp(array.type) and array.type.tz is not None
        kind = "zoned" if is_zoned else "time"
        self._require(kind, 0, array, locate)
        try:
            if pa.types.is_date(array.type):
                array = array.cast(pa.timestamp("ms"))
            return _instant_keys(array, kind)
        except pa.ArrowException as error:
            raise LogError(
                f"{locate(0)}: a time of the column {self._name!r} is outside the years 1678 to 2261; correct it"
            ) from error

    def _texts(self, array: Any, locate: Callable[[int], str]) -> Keys:
        array = array.cast(pa.string())
        self._refuse_missing(np.asarray(pc.equal(array.fill_null(""), "")), locate)
        if self._config.decimal == ",":
            numbers = pc.replace_substring(array, ",", ".")
        else:
            numbers = array
        is_number = np.asarray(pc.match_substring_regex(numbers, _NUMBER))
        is_odd = np.asarray(pc.match_substring_regex(array, _NO_NUMBER))
        if is_odd.any():
            row = int(np.flatnonzero(is_odd)[0])
            raise LogError(
                f"{locate(row)}: the time {self._name!r} is {_shown(array, row)}, no finite number; correct it"
            )
        if not self.state["kind"]:
            self._require(_kind_of(array.slice(0, 1)) if not is_number[0] else "number", 0, array, locate)
        kind = self.state["kind"]
        wrong = is_number if kind != "number" else ~is_number
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            self._require(_kind_of(array.slice(row, 1)) if kind == "number" else "number", row, array, locate)
        if kind == "number":
            return self._number_texts(pc.replace_substring_regex(numbers, r"^\+", ""), locate)
        if kind == "text":
            instants = np.flatnonzero(np.asarray(pc.match_substring_regex(array, _INSTANT)))
            for row in instants[:_LOOKED_AT].tolist():  # a date that no calendar has is text
                self._require(_kind_of(array.slice(row, 1)), row, array, locate)
            return self._text_keys(array, locate)
        try:
            return _instant_keys(array, kind)
        except pa.ArrowException:
            row = next(row for row in range(len(array)) if _kind_of(array.slice(row, 1)) != kind)
            self._require(_kind_of(array.slice(row, 1)), row, array, locate)
            raise

    def _number_texts(self, numbers: Any, locate: Callable[[int], str]) -> Keys:
        is_whole = np.asarray(pc.match_substring_regex(numbers, _WHOLE))
        if is_whole.all():
            with contextlib.suppress(pa.ArrowInvalid):  # a number of 19 digits may be too large
                whole = numbers.cast(pa.int64()).to_numpy()
                return _number_keys(whole, whole.astype(np.float64))
        floats = numbers.cast(pa.float64()).to_numpy()
        if not np.isfinite(floats).all():
            row = int(np.flatnonzero(~np.isfinite(floats))[0])
            raise LogError(f"{locate(row)}: the time {self._name!r} is {_shown(numbers, row)}, too large; correct it")
        keys = self._float_keys(floats)
        for row in np.flatnonzero(is_whole & (np.abs(floats) > 2.0**53)).tolist():
            exact = int(numbers[row].as_py())
            if -(2**63) <= exact < 2**63:
                keys[row, 0] = exact
            else:
                self.state["whole"] = False
        return keys

    def _text_keys(self, array: Any, locate: Callable[[int], str]) -> Keys:
        lengths = np.asarray(pc.binary_length(array))
        if (lengths > _TEXT_BYTES).any():
            row = int(np.flatnonzero(lengths > _TEXT_BYTES)[0])
            raise LogError(
                f"{locate(row)}: the time {self._name!r} is text of {lengths[row]} bytes, and a time has at most "
                f"{_TEXT_BYTES}; name the column that holds the time"
            )
        padded = np.array(array.cast(pa.binary()).to_pylist(), dtype=f"S{_TEXT_BYTES}")
        words = padded.view(">u8").reshape(len(padded), -1).astype(np.uint64)
        return (words ^ _TOP_BIT).view(np.int64)  # signed numbers that sort as the unsigned ones


def _number_keys(whole: npt.NDArray[np.int64], floats: npt.NDArray[np.float64]) -> Keys:
    keys = np.empty((len(whole), 2), np.int64)
    keys[:, 0], keys[:, 1] = whole, (floats + 0.0).view(np.int64)
    return keys


def _instant_keys(array: Any, kind: str) -> Keys:
    keys: Keys = array.cast(_TYPES[kind]).cast(pa.int64()).to_numpy().reshape(-1, 1)
    return keys


def _kind_of(value: Any) -> str:
    """What one text is, that is no number."""
    for kind, stored in _TYPES.items():
        try:
            value.cast(stored)
            return kind
        except pa.ArrowException:
            continue
    for stored in (pa.timestamp("s"), pa.timestamp("s", tz="UTC")):
        with contextlib.suppress(pa.ArrowException):
            value.cast(stored)
            return "far"
    return "text"


def _shown(array: Any, row: int) -> str:
    return ascii(str(array[row].as_py()))[:60]
