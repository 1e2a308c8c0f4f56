"""Parts of times as values of a column: hour, weekday, day or month, by the rules in schema.json."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fae.exporting.standalone.scoring.input_text import InputError, plain_values, to_text

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ZONE_NAME = re.compile(r" ?(UTC|GMT)$")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ZONED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|[+-][0-9]{2}(:?[0-9]{2})?)")
_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3), (10**8, 1))
"""Least number of each unit of Unix time, and how many of it are a second."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_SECONDS = 86400
_FIRST_DAY = date(1970, 1, 1).toordinal()
_CYCLE_DAYS = 146_097
"""Days of 400 years, after which the calendar repeats."""
Moment = tuple[int, bool]
"""Seconds since 1970, in UTC, and whether it is a day without a time."""


def time_parts(array: Any, feature: Mapping[str, Any], missing: Sequence[str]) -> Any:
    """Arrow string array ``[n]`` of the feature's part of each time; empty where the time is missing.

    Raises
    ------
    InputError
        For a value that is no time.
    """
    array, types = plain_values(array), pa.types
    kind = array.type
    if types.is_timestamp(kind):
        per_second = _PER_SECOND[kind.unit]
        return _each(array.cast(pa.int64()), feature, lambda value: (value // per_second, False))
    if types.is_date(kind):
        days = array.cast(pa.date32()).cast(pa.int32())
        return _each(days, feature, lambda value: (value * _DAY_SECONDS, True))
    if not (types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind)):
        return _each(to_text(array, feature["column"], missing), feature, _of_text)
    numbers = {float(word) for word in missing if _NUMBER.fullmatch(word)}
    has_nan = any(word.lower() == "nan" for word in missing)
    return _each(
        array, feature, lambda value: None if value in numbers or (has_nan and value != value) else _of_number(value)
    )


def _each(array: Any, feature: Mapping[str, Any], read: Callable[[Any], Moment | None]) -> Any:
    """The parts of distinct values, each read by itself."""
    coded = array.dictionary_encode()
    moments: list[Moment | None] = []
    for value in coded.dictionary.to_pylist():
        try:
            moments.append(None if value is None or value == "" else read(value))
        except (ValueError, OverflowError, ArithmeticError):
            raise InputError(
                f"{feature['column']!r} is {value!r}, expected a time (Unix time from 1973 on, ISO 8601, YYYYMMDD, "
                "YYMMDDHH or YYYYMMDDHHMMSS)"
            ) from None
    seconds = pa.array([0 if each is None else each[0] for each in moments], pa.int64())
    local = seconds
    if feature["zone"]:
        instants = seconds.cast(pa.timestamp("s")).cast(pa.timestamp("s", tz=feature["zone"]))
        local = pc.local_timestamp(instants).cast(pa.int64())
    texts = [
        "" if moment is None else str(_part_of(own if moment[1] else there, feature["part"]))
        for moment, own, there in zip(moments, seconds.to_pylist(), local.to_pylist(), strict=True)
    ]
    return pa.array(texts, pa.string()).take(coded.indices).fill_null("")


def _part_of(seconds: int, part: str) -> int:
    days, second = divmod(seconds, _DAY_SECONDS)
    if part == "hour":
        return second // 3600
    if part == "weekday":
        return (days + 3) % 7  # the first day of 1970 was a Thursday
    day = date.fromordinal((days + _FIRST_DAY) % _CYCLE_DAYS + _CYCLE_DAYS)
    return day.day if part == "day" else day.month


def _of_text(text: str) -> Moment:
    if _NUMBER.fullmatch(text):
        is_digits = text.removeprefix("+").isdigit()
        return _of_number(int(text) if is_digits else float(text), is_eight=is_digits and len(text) == 8)
    plain = _ZONE_NAME.sub("Z", text)
    kind = pa.timestamp("ns", tz="UTC") if _ZONED.fullmatch(plain) else pa.timestamp("ns")
    nanoseconds = pa.scalar(plain).cast(kind).cast(pa.int64()).as_py()
    return nanoseconds // 10**9, _DAY.fullmatch(plain) is not None


def _of_number(value: Any, *, is_eight: bool | None = None) -> Moment:
    whole = math.floor(value)
    is_whole = whole == value
    if is_whole and (10**7 <= whole < 10**8 if is_eight is None else is_eight):
        digits = f"{whole:08d}"
        if int(digits[2:4]) <= 12:
            return _moment(2000 + int(digits[:2]), digits[2:4], digits[4:6], digits[6:8] + "0000"), False
        return _moment(int(digits[:4]), digits[4:6], digits[6:8], "000000"), True
    if is_whole and 19 * 10**12 <= whole < 21 * 10**12:
        digits = str(whole)
        return _moment(int(digits[:4]), digits[4:6], digits[6:8], digits[8:]), False
    for least, per_second in _UNITS:
        if least <= whole < 2**63:
            return whole // per_second, False
    raise ValueError("no time")


def _moment(year: int, month: str, day: str, clock: str) -> int:
    if not 1900 <= year < 2100:
        raise ValueError("no year")
    found = datetime(year, int(month), int(day), int(clock[:2]), int(clock[2:4]), int(clock[4:]), tzinfo=UTC)
    return int(found.timestamp())
