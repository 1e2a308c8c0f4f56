"""Parquet logs for tests/campaigns/raw_logs.py: values that must be the same whatever type each file stores them in."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Inputs = list[dict[str, Any]]
_IDS = (
    "int8", "int32", "int64", "uint8", "uint16", "uint64", "float16", "float32", "float64", "string", "large_string",
    "dictionary", "decimal",
)  # fmt: skip
_BEYOND = {"float16": 2050.0, "float32": 2.0**24 + 2, "float64": 2.0**53 + 2}
_START = datetime.datetime(2026, 1, 30, 22, 10, 1)


def write_parquet_log(draw: random.Random, folder: Path, draw_inputs: Callable[[random.Random, int], Inputs]) -> Any:
    """Write one to three files; return the inputs by file, or why the log must be refused, or ``unsure``."""
    expected: Any = []
    kinds = draw.choice([_whole_times, _days, _truths, _spans])
    seen: set[str] = set()
    for number in range(draw.choice([1, 2, 3])):
        inputs = draw_inputs(draw, draw.randint(3, 40))
        for found in inputs:
            found["item"] = draw.choice(["", *map(str, range(9))])
        items, refused = _stored_ids(draw, [None if found["item"] == "" else int(found["item"]) for found in inputs])
        strange = draw.random() < 0.2
        texts, whens, group = (draw.choice([_whole_times, _days, _truths]) if strange else kinds)(draw, len(inputs))
        for found, text in zip(inputs, texts, strict=True):
            found["user"] = text
        seen |= {group} - {"text"}
        labels = pa.array([found["y"] for found in inputs], pa.int8())
        label_type = draw.choice([pa.int8(), pa.bool_(), pa.float16(), pa.float32(), pa.string(), pa.decimal128(4, 1)])
        columns = {
            "y": pa.array([str(found["y"]) for found in inputs]) if label_type == pa.string() else (
                pa.array(labels.to_numpy().astype("float16")) if label_type == pa.float16() else labels.cast(label_type)
            ),
            "user": whens, "item": items,
            "code": pa.array([found["code"] for found in inputs], draw.choice([pa.int64(), pa.float64(), pa.uint8()])),
            "tags": _stored_lists(draw, [found["tags"] for found in inputs]),
            "x": pa.array([found["x"] for found in inputs], pa.float64()),
        }  # fmt: skip
        path = folder / f"part_{number}.txt"
        pq.write_table(
            pa.table(columns), path, row_group_size=draw.choice([3, 1000]),
            compression=draw.choice(["snappy", "none", "zstd"]), use_dictionary=draw.random() < 0.5,
        )  # fmt: skip
        if draw.random() < 0.25:
            path.write_bytes(_changed(draw, path.read_bytes()))
            expected = "unsure"
        if refused and expected != "unsure":
            expected = "refused: a whole number that its float cannot tell from others"
        if isinstance(expected, list):
            expected.append(inputs)
    if len(seen) > 1 and expected != "unsure":
        expected = f"refused: {' and '.join(sorted(seen))} in one column"
    return expected


def _stored_ids(draw: random.Random, items: list[int | None]) -> tuple[Any, bool]:
    """Whole numbers in a drawn type; sometimes with one that the type cannot tell from its neighbour."""
    kind = draw.choice(_IDS)
    if kind in _BEYOND and draw.random() < 0.5:
        floats = [None if item is None else float(item) for item in items]
        floats[draw.randrange(len(floats))] = _BEYOND[kind]
        return _floats(floats, kind), True
    if kind in ("string", "large_string"):
        return pa.array([None if item is None else str(item) for item in items], getattr(pa, kind)()), False
    if kind == "dictionary":
        return pa.array(items, pa.int32()).dictionary_encode(), False
    if kind == "decimal":
        values = [None if item is None else decimal.Decimal(item) for item in items]
        return pa.array(values, draw.choice([pa.decimal128(9, 0), pa.decimal128(9, 2), pa.decimal256(40, 7)])), False
    if kind.startswith("float"):
        return _floats([None if item is None else float(item) for item in items], kind), False
    return pa.array(items, getattr(pa, kind)()), False


def _floats(values: list[float | None], kind: str) -> Any:
    mask = np.array([value is None for value in values])
    return pa.array(np.array([value or 0.0 for value in values], kind), mask=mask)


def _stored_lists(draw: random.Random, lists: list[list[str]]) -> Any:
    kind = draw.choice(["list", "large", "dictionary", "text"])
    if kind == "text":
        return pa.array(["|".join(items) for items in lists])
    if kind == "large":
        return pa.array(lists, pa.large_list(pa.large_string()))
    array = pa.array([[*items, None] if draw.random() < 0.1 else items for items in lists], pa.list_(pa.string()))
    if kind == "dictionary":
        return pa.ListArray.from_arrays(array.offsets, array.values.dictionary_encode())
    return array


def _whole_times(draw: random.Random, count: int) -> tuple[list[str], Any, str]:
    unit = draw.choice(["s", "ms", "us", "ns"])
    half = unit != "s"
    whens = [
        _START + datetime.timedelta(seconds=draw.randrange(9) * 3600, milliseconds=500 * draw.randrange(2) * half)
        for _ in range(count)
    ]
    texts = [f"{when:%Y-%m-%d %H:%M:%S}" + (".5" if when.microsecond else "") for when in whens]
    if draw.random() < 0.2:
        return texts, pa.array(texts), "text"
    return texts, pa.array(whens, pa.timestamp(unit)), "times"


def _days(draw: random.Random, count: int) -> tuple[list[str], Any, str]:
    days = [_START.date() + datetime.timedelta(days=draw.randrange(-20000, 9)) for _ in range(count)]
    return [day.isoformat() for day in days], pa.array(days, draw.choice([pa.date32(), pa.date64()])), "dates"


def _truths(draw: random.Random, count: int) -> tuple[list[str], Any, str]:
    truths = [draw.random() < 0.5 for _ in range(count)]
    texts = [str(truth).lower() for truth in truths]
    if draw.random() < 0.3:
        return texts, pa.array(texts), "text"
    return texts, pa.array(truths), "booleans"


def _spans(draw: random.Random, count: int) -> tuple[list[str], Any, str]:
    spans = [draw.randrange(-9, 9) * 250 for _ in range(count)]
    texts = [f"{'-' if span < 0 else ''}{abs(span) / 1000:.2f}".rstrip("0").rstrip(".") for span in spans]
    unit = draw.choice(["ms", "us", "ns"])
    return (
        texts,
        pa.array([span * 1000 ** ["ms", "us", "ns"].index(unit) for span in spans], pa.duration(unit)),
        "spans",
    )


def _changed(draw: random.Random, data: bytes) -> bytes:
    """One to three bytes changed, or a part left out, repeated or cut off."""
    kind = draw.randrange(6)
    at = draw.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + draw.choice([1, 4, 50]) :]
    if kind == 2:
        return data[:at] + data[at : at + 20] + data[at:]
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        # Half of the changes are in the footer, where types, sizes and places are.
        place = (
            draw.randrange(len(data)) if draw.random() < 0.5 else len(data) - 1 - draw.randrange(min(len(data), 900))
        )
        changed[place] = draw.choice([0, 255, changed[place] ^ 1 << draw.randrange(8)])
    return bytes(changed)


def read_alone(folder: Path) -> None:
    """Read all files with the library alone, for a forked process: does it end with a signal?"""
    for path in sorted(folder.glob("part_*.txt")):
        with contextlib.suppress(Exception):
            for batch in pq.ParquetFile(path).iter_batches():
                batch.validate(full=True)
