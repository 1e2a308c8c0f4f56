"""Parts of times as values of a column: hour, weekday, day and month, of Unix time, ISO 8601, YYMMDDHH and Arrow times.

Each value is read by itself, so neither its neighbours nor blocks nor files matter: the digits of a number say whether
it is in seconds, milliseconds, microseconds or nanoseconds, which differ for all times from 1973 on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig, Part
from fae.ingest.readers.line_blocks import shown
from fae.ingest.values import Locate, as_text, scalars

Seconds = npt.NDArray[np.int64]
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WHOLE = r"^\+?[0-9]{1,18}$|^\+?[0-8][0-9]{18}$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ZONED = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
_UNIX_UNITS = ((10**8, 1), (10**11, 10**3), (10**14, 10**6), (10**17, 10**9))
"""Least number of each unit, and how many of it are a second: 100,000,000 seconds are in 1973."""
_MOST = 2**63 - 1
_DAY_SECONDS = 86400
_EXPECTED = (
    "expected Unix time from 1973 on (in seconds, ms, us or ns), ISO 8601 (2019-11-24 08:05:00), YYYYMMDD, YYMMDDHH or "
    "YYYYMMDDHHMMSS"
)


def date_parts(array: Any, column: ColumnConfig, locate: Locate, missing: Sequence[str] = ()) -> Any:
    """The part that `column` names of each time, as an Arrow string array without nulls; empty where it is missing.

    A time without a zone is in UTC. A date has no zone, and its hour is 0.

    Parameters
    ----------
    array
        Arrow array ``[n]``: text, numbers, timestamps or dates.
    missing
        Words that mean a missing time.

    Raises
    ------
    LogError
        If a value is no time; it names the first.
    """
    assert column.part is not None
    array = scalars(array, "the column of times", column.source, locate)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    seconds, is_day, known, absent = _read(array, column, locate, missing)
    bad = ~(known | absent)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = f"the time {column.source!r}, whose {column.part} is the column {column.name!r}, is"
        raise LogError(
            f"{locate(row)}: {what} {shown(str(array[row].as_py()).encode())}, {_EXPECTED}; correct it, or name it in "
            "[log] missing"
        )
    if column.zone is not None:
        seconds = np.where(is_day, seconds, _local(seconds, column.zone))
    texts = _part_texts()
    return texts.take(pa.array(np.where(absent, len(texts) - 1, _PARTS[column.part](seconds))))


_Read = tuple[Seconds, npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
"""Seconds since 1970 of n times, in UTC; which are days without a time; which are times at all; which are missing."""


def _read(array: Any, column: ColumnConfig, locate: Locate, missing: Sequence[str]) -> _Read:
    kind, size = array.type, len(array)
    absent = ~array.is_valid().to_numpy(zero_copy_only=False)
    is_day = np.zeros(size, np.bool_)
    if pa.types.is_date(kind):
        return _instants(array.cast(pa.date32()), absent), ~is_day, ~is_day, absent
    if pa.types.is_timestamp(kind):
        return _instants(array, absent), is_day, ~is_day, absent
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        floats = array.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
        absent |= _named_numbers(floats, missing)
        return *_numbers(_whole(floats), floats), absent
    if pa.types.is_integer(kind):
        whole = array.fill_null(0).cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)
        absent |= _named_numbers(whole.astype(np.float64), missing)
        return *_numbers(whole, whole.astype(np.float64)), absent
    return _texts(as_text(array, column.source, locate, missing))


def _named_numbers(values: npt.NDArray[np.float64], words: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which numbers a word for missing values names."""
    named = np.zeros(len(values), np.bool_)
    for word in words:
        try:
            number = float(word)
        except ValueError:
            continue
        named |= np.isnan(values) if np.isnan(number) else values == number
    return named


def _instants(array: Any, absent: npt.NDArray[np.bool_]) -> Seconds:
    """Seconds of Arrow dates or timestamps; 0 where they are missing."""
    if pa.types.is_date(array.type):
        days = array.cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False)
        seconds: Seconds = days.astype(np.int64) * _DAY_SECONDS
        return seconds
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
    found: Seconds = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False) // per_second
    return found


def _whole(floats: npt.NDArray[np.float64]) -> Seconds:
    with np.errstate(invalid="ignore"):
        is_small = np.isfinite(floats) & (np.abs(floats) < 2.0**62)
        return np.where(is_small, np.floor(np.where(is_small, floats, 0.0)), 0.0).astype(np.int64)


def _numbers(
    whole: Seconds, floats: npt.NDArray[np.float64], is_eight: npt.NDArray[np.bool_] | None = None
) -> tuple[Seconds, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Seconds, which are days, and which are times, of numbers whose whole part is `whole`.

    Parameters
    ----------
    is_eight
        Which are written with eight digits; left out, the number says it.
    """
    is_whole = floats == np.floor(floats)
    eight = is_whole & ((whole >= 10**7) & (whole < 10**8) if is_eight is None else is_eight)
    seconds, known = np.zeros(len(whole), np.int64), np.zeros(len(whole), np.bool_)
    for (least, per_second), (most, _) in zip(_UNIX_UNITS, (*_UNIX_UNITS[1:], (_MOST, 0)), strict=True):
        here = (whole >= least) & (whole < most)
        seconds[here], known[here] = whole[here] // per_second, True
    # The third and fourth of eight digits are the month of YYMMDDHH, and 19 or more of YYYYMMDD.
    is_day = eight & ((whole // 10**4) % 100 > 12)
    is_hour, is_second = eight & ~is_day, is_whole & (whole >= 19 * 10**12) & (whole < 21 * 10**12)
    hours, days, clocks = whole[is_hour], whole[is_day], whole[is_second]
    seconds[is_hour], known[is_hour] = _calendar(2000 + hours // 10**6, hours // 10**4, hours // 100, hours * 10**4)
    seconds[is_day], known[is_day] = _calendar(days // 10**4, days // 100, days, np.zeros_like(days))
    seconds[is_second], known[is_second] = _calendar(clocks // 10**10, clocks // 10**8, clocks // 10**6, clocks)
    return seconds, is_day, known


def _calendar(year: Seconds, month: Seconds, day: Seconds, clock: Seconds) -> tuple[Seconds, npt.NDArray[np.bool_]]:
    """Seconds of calendar days and HHMMSS, and whether there are such; of month and day the last two digits count."""
    month, day = month % 100, day % 100
    hour, minute, second = clock // 10**4 % 100, clock // 100 % 100, clock % 100
    good = (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    good &= (year >= 1900) & (year < 2100)
    months = (np.where(good, year, 1970) - 1970) * 12 + np.where(good, month, 1) - 1
    begin = months.astype("datetime64[M]")
    length = ((begin + 1).astype("datetime64[D]") - begin.astype("datetime64[D]")).astype(np.int64)
    good &= day <= length
    days = begin.astype("datetime64[D]").astype(np.int64) + day - 1
    return days * _DAY_SECONDS + hour * 3600 + minute * 60 + second, good


def _texts(text: Any) -> _Read:
    absent = np.asarray(pc.equal(text, ""))
    is_number = np.asarray(pc.match_substring_regex(text, _NUMBER))
    seconds, known = np.zeros(len(text), np.int64), np.zeros(len(text), np.bool_)
    is_day = np.zeros(len(text), np.bool_)
    if is_number.any():
        chosen = text.filter(pa.array(is_number))
        floats = chosen.cast(pa.float64()).to_numpy(zero_copy_only=False)
        whole = _whole(floats)
        digits = np.asarray(pc.match_substring_regex(chosen, _WHOLE))
        if digits.any():
            whole[digits] = chosen.filter(pa.array(digits)).cast(pa.int64()).to_numpy(zero_copy_only=False)
        is_eight = np.asarray(pc.equal(pc.utf8_length(chosen), 8)) & digits
        seconds[is_number], is_day[is_number], known[is_number] = _numbers(whole, floats, is_eight)
    other = ~(is_number | absent)
    if other.any():
        plain = pc.replace_substring_regex(text, r" ?(UTC|GMT)$", "Z")
        is_zoned = other & np.asarray(pc.match_substring_regex(plain, _ZONED))
        is_day |= other & np.asarray(pc.match_substring_regex(plain, _DAY))
        for rows, kind in ((is_zoned, pa.timestamp("ns", tz="UTC")), (other & ~is_zoned, pa.timestamp("ns"))):
            if rows.any():
                seconds[rows], known[rows] = _parsed(plain.filter(pa.array(rows)), kind)
    return seconds, is_day, known, absent


def _parsed(text: Any, kind: Any) -> tuple[Seconds, npt.NDArray[np.bool_]]:
    """Seconds of ISO 8601 texts, up to the first that is none."""
    known = np.ones(len(text), np.bool_)
    try:
        return _instants(text.cast(kind), ~known), known
    except pa.ArrowException:
        row = _first_refused(text, kind)
    seconds = np.zeros(len(text), np.int64)
    seconds[:row] = _instants(text.slice(0, row).cast(kind), ~known[:row])
    known[row:] = False
    return seconds, known


def _first_refused(text: Any, kind: Any) -> int:
    low, high = 0, len(text)  # the first `low` values are read, and one of the first `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            text.slice(low, middle - low).cast(kind)
            low = middle
        except pa.ArrowException:
            high = middle
    return low


def _local(seconds: Seconds, zone: str) -> Seconds:
    """Seconds of the clock in a time zone."""
    instants = pa.array(seconds).cast(pa.timestamp("s")).cast(pa.timestamp("s", tz=zone))
    local: Seconds = pc.local_timestamp(instants).cast(pa.int64()).to_numpy()
    return local


@functools.cache
def _part_texts() -> Any:
    """The text of each part, and of a missing one behind them."""
    return pa.array([*map(str, range(32)), ""], pa.string())


_PARTS: dict[Part, Callable[[Seconds], Seconds]] = {
    "hour": lambda seconds: seconds // 3600 % 24,
    "weekday": lambda seconds: (seconds // _DAY_SECONDS + 3) % 7,  # the first day of 1970 was a Thursday
    "day": lambda seconds: (
        _days(seconds).astype(np.int64) - _months(seconds).astype("datetime64[D]").astype(np.int64) + 1
    ),
    "month": lambda seconds: _months(seconds).astype(np.int64) % 12 + 1,
}


def _days(seconds: Seconds) -> Any:
    return (seconds // _DAY_SECONDS).astype("datetime64[D]")


def _months(seconds: Seconds) -> Any:
    return _days(seconds).astype("datetime64[M]")
