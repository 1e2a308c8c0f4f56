"""Hour, weekday, day and month of times: every way to write them, in every format, also of files that are scored."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.core.errors import LogError, RecipeError
from fae.ingest.column_config import ColumnConfig, Part
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.scored.known_columns import known_columns
from fae.ingest.scored.raw_inputs import RawInputs
from fae.ingest.scratch import Scratch
from fae.ingest.value_types.date_parts import date_parts

PARTS: tuple[Part, ...] = ("hour", "weekday", "day", "month")
TIMES = [datetime(1996, 2, 29, 23, 59, 59, tzinfo=UTC) + timedelta(hours=977 * step, seconds=31) for step in range(200)]


def expected(time: datetime, part: Part, zone: str = "UTC") -> str:
    local = time.astimezone(ZoneInfo(zone))
    return str({"hour": local.hour, "weekday": local.weekday(), "day": local.day, "month": local.month}[part])


def parts(values: Any, part: Part, zone: str | None = None, missing: tuple[str, ...] = ()) -> list[str]:
    column = ColumnConfig(name="p", from_="at", part=part, zone=zone)
    array = values if isinstance(values, pa.Array) else pa.array(values)
    found: list[str] = date_parts(array, column, lambda row: f"row {row}", missing).to_pylist()
    return found


def writings() -> dict[str, Any]:
    """The same times in every form."""
    seconds = [int(time.timestamp()) for time in TIMES]
    naive = [time.replace(tzinfo=None) for time in TIMES]
    return {
        "seconds": list(map(str, seconds)),
        "fractions": [f"{each}.979" for each in seconds],
        "milliseconds": [f"{each}979" for each in seconds],
        "microseconds": [f"{each}979311" for each in seconds],
        "nanoseconds": [f"{each}999999999" for each in seconds],
        "iso": [time.strftime("%Y-%m-%d %H:%M:%S") for time in TIMES],
        "iso with a zone": [time.astimezone(ZoneInfo("Asia/Tokyo")).isoformat() for time in TIMES],
        "iso with UTC": [time.strftime("%Y-%m-%d %H:%M:%S.25 UTC") for time in TIMES],
        "fourteen digits": [time.strftime("%Y%m%d%H%M%S") for time in TIMES],
        "int64": pa.array(seconds),
        "int64 milliseconds": pa.array([each * 1000 + 7 for each in seconds]),
        "float64": pa.array([each + 0.5 for each in seconds]),
        "timestamp[ms]": pa.array(naive, pa.timestamp("ms")),
        "timestamp[ns, Berlin]": pa.array(TIMES, pa.timestamp("ns", tz="Europe/Berlin")),
        "dictionary": pa.array(list(map(str, seconds))).dictionary_encode(),
    }


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", writings())
def test_every_way_to_write_a_time(name: str, part: Part) -> None:
    assert parts(writings()[name], part) == [expected(time, part) for time in TIMES]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("part", PARTS)
def test_zones_with_summer_time(part: Part, zone: str) -> None:
    assert parts(writings()["seconds"], part, zone) == [expected(time, part, zone) for time in TIMES]


def test_dates_have_no_zone() -> None:
    days = [date(2019, 11, 24), date(2024, 2, 29)]
    for values in (days, ["2019-11-24", "2024-02-29"], ["20191124", "20240229"]):
        assert parts(values, "weekday", "America/New_York") == ["6", "3"]
        assert parts(values, "hour", "America/New_York") == ["0", "0"]


def test_avazu_hours() -> None:
    assert parts(["14102100", "14102123"], "hour") == ["0", "23"]
    assert parts(pa.array([14102100, 14102623]), "weekday") == ["1", "6"]
    assert parts(["05010203"], "month") == ["1"]


def test_missing_times_are_missing_values() -> None:
    assert parts(["1574553663", "", "NULL"], "hour", missing=("NULL",)) == ["0", "", ""]
    assert parts(pa.array([1574553663, None, -1]), "hour", missing=("-1",)) == ["0", "", ""]
    assert parts(pa.array([1574553663.0, float("nan")]), "hour", missing=("nan",)) == ["0", ""]
    assert parts(pa.array([None, None], pa.timestamp("us")), "hour") == ["", ""]


@pytest.mark.parametrize(
    "value",
    ["0", "-5", "12345", "yesterday", "24/11/2019", "2019-02-29", "19113122", "19112424", "20191124250000", "9" * 30],
)
def test_what_is_no_time_is_named(value: str) -> None:
    with pytest.raises(LogError, match=r"row 2: the time 'at', whose hour is the column 'p', is .*YYMMDDHH.*missing"):
        parts(["1574553663", "2019-11-24 08:00:00", value], "hour")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"from_": "at"}, "needs the part"),
        ({"part": "hour"}, "needs the column of times"),
        ({"from_": "at", "part": "minute"}, "did you mean|not one of"),
        ({"from_": "at", "part": "hour", "zone": "Europe/Berlim"}, "did you mean 'Europe/Berlin'"),
        ({"zone": "Europe/Berlin"}, "for a part of a time"),
        ({"from_": "at", "part": "hour", "max_length": 3}, "a time has one"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ColumnConfig(name="p", **settings)


CATEGORICAL = (
    "user",
    ColumnConfig(name="hour", from_="at", part="hour", zone="Europe/Berlin"),
    ColumnConfig(name="weekday", from_="at", part="weekday", encoded=True),
)


def write(folder: Path, log_format: str) -> LogConfig:
    rows = [
        {"label": row % 2, "user": f"u{row % 7}", "at": time.strftime("%Y-%m-%d %H:%M:%S")}
        for row, time in enumerate(TIMES)
    ]
    name = f"log.{log_format}"
    if log_format == "csv":
        (folder / name).write_text("label,user,at\n" + "".join(f"{r['label']},{r['user']},{r['at']}\n" for r in rows))
    elif log_format == "jsonl":
        (folder / name).write_text(
            "".join(json.dumps({**r, "at": t.timestamp() + 0.5}) + "\n" for r, t in zip(rows, TIMES, strict=True))
        )
    else:
        pq.write_table(pa.Table.from_pylist([{**r, "at": t} for r, t in zip(rows, TIMES, strict=True)]), folder / name)
    return LogConfig(train=name, format=log_format, categorical=CATEGORICAL, test_fraction=0.25)  # type: ignore[arg-type]


@pytest.mark.parametrize("log_format", ["csv", "parquet", "jsonl"])
def test_parts_in_every_format_and_in_files_that_are_scored(log_format: str, tmp_path: Path) -> None:
    config = write(tmp_path, log_format)
    log = ingest(config, tmp_path / "log", base=tmp_path)
    assert [feature.name for feature in log.features] == ["user", "hour", "weekday"]
    ids = np.asarray(log.ids)
    values = pq.read_table(log.path / "vocabulary" / "1.parquet")["value"].to_pylist()
    hours = [values[number] for number in ids[: log.manifest.summary["splits"]["train"][1], 1]]
    assert hours == [expected(time, "hour", "Europe/Berlin") for time in TIMES[: len(hours)]]
    assert ids[: len(hours), 2].tolist() == [time.weekday() for time in TIMES[: len(hours)]]

    raw = RawInputs(log, [str(tmp_path / str(config.train))], keep=["at"])
    scratch = Scratch(tmp_path / "scratch", 2**30)
    scored = np.concatenate([part.ids for part in raw.stream(known_columns(log, raw.config, scratch))])
    assert scored.tolist() == ids.tolist()
