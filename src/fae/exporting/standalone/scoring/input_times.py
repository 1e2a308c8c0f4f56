"""Parts of times as values of a column: hour, weekday, day or month, by the rules in schema.json."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from fae.exporting.standalone.scoring.input_text import InputError, is_text_type, plain_values, to_text

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ZONE_NAME = re.compile(r" ?(UTC|GMT)$")
_LONG_FRACTION = re.compile(r"(\.[0-9]{6})[0-9]+")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3), (10**8, 1))
"""Least number of each unit of Unix time, and how many of it are a second."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS: dict[str, Callable[[datetime], int]] = {
    "hour": lambda moment: moment.hour,
    "weekday": lambda moment: moment.weekday(),
    "day": lambda moment: moment.day,
    "month": lambda moment: moment.month,
}


def time_parts(array: Any, feature: Mapping[str, Any], missing: Sequence[str]) -> Any:
    """Arrow string array ``[n]`` of the feature's part of each time; empty where the time is missing.

    Raises
    ------
    InputError
        For a value that is no time.
    """
    array = plain_values(array)
    if pa.types.is_timestamp(array.type):
        array = pc.floor_temporal(array, unit="second").cast(pa.timestamp("s", tz=array.type.tz)).cast(pa.int64())
        return _each(array, feature, lambda value: _EPOCH + timedelta(seconds=value))
    if pa.types.is_date(array.type):
        return _each(array.cast(pa.date32()), feature, _of_day)
    if is_text_type(array.type):
        return _each(to_text(array, feature["column"], missing), feature, _of_text)
    numbers = {float(word) for word in missing if _NUMBER.fullmatch(word)}
    has_nan = any(word.lower() == "nan" for word in missing)
    return _each(
        array, feature, lambda value: None if value in numbers or (has_nan and value != value) else _of_number(value)
    )


def _each(array: Any, feature: Mapping[str, Any], read: Callable[[Any], Any]) -> Any:
    coded = array.dictionary_encode()
    zone = ZoneInfo(feature["zone"]) if feature["zone"] else UTC
    texts = []
    for value in coded.dictionary.to_pylist():
        try:
            moment = None if value is None or value == "" else read(value)
        except (ValueError, OverflowError, ArithmeticError):
            raise InputError(
                f"{feature['column']!r} is {value!r}, expected a time (Unix time from 1973 on, ISO 8601, YYYYMMDD, "
                "YYMMDDHH or YYYYMMDDHHMMSS)"
            ) from None
        if isinstance(moment, datetime):
            moment = moment.astimezone(zone)
        elif moment is not None:  # a day has no zone
            moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        texts.append("" if moment is None else str(_PARTS[feature["part"]](moment)))
    return pa.array(texts, pa.string()).take(coded.indices).fill_null("")


def _of_day(value: date) -> date:
    return value


def _of_text(text: str) -> datetime | date:
    if _NUMBER.fullmatch(text):
        is_digits = text.removeprefix("+").isdigit()
        return _of_number(int(text) if is_digits else Decimal(text), is_eight=is_digits and len(text) == 8)
    if _DAY.fullmatch(text):
        return date.fromisoformat(text)
    moment = datetime.fromisoformat(_LONG_FRACTION.sub(r"\1", _ZONE_NAME.sub("Z", text)))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _of_number(value: Any, *, is_eight: bool | None = None) -> datetime | date:
    whole = math.floor(value)
    is_whole = whole == value
    if is_whole and (10**7 <= whole < 10**8 if is_eight is None else is_eight):
        digits = f"{whole:08d}"
        if int(digits[2:4]) <= 12:
            return _moment(2000 + int(digits[:2]), digits[2:4], digits[4:6], digits[6:8] + "0000")
        return _moment(int(digits[:4]), digits[4:6], digits[6:8], "000000").date()
    if is_whole and 19 * 10**12 <= whole < 21 * 10**12:
        digits = str(whole)
        return _moment(int(digits[:4]), digits[4:6], digits[6:8], digits[8:])
    for least, per_second in _UNITS:
        if whole >= least:
            return _EPOCH + timedelta(seconds=whole // per_second)
    raise ValueError("no time")


def _moment(year: int, month: str, day: str, clock: str) -> datetime:
    if not 1900 <= year < 2100:
        raise ValueError("no year")
    return datetime(year, int(month), int(day), int(clock[:2]), int(clock[2:4]), int(clock[4:]), tzinfo=UTC)
