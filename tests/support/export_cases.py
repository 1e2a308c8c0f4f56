"""Small runs of every model and log format, to be exported: a raw log, a recipe, and inputs that no run has seen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from commands import succeed, toml

NUM_INPUTS = 300


@dataclass(frozen=True, kw_only=True)
class ExportCase:
    """One run.

    Attributes
    ----------
    file
        Name of the raw log.
    write
        Writes inputs, one object each, as the case's format has them.
    log, model
        Tables of the recipe.
    odd
        Inputs with unknown, missing and odd values, to be scored.
    is_old
        Whether the log has not just been written: ingest then remembers where it is.
    """

    file: str
    write: Callable[[Path, Sequence[Mapping[str, Any]]], None]
    log: dict[str, Any]
    model: dict[str, Any]
    inputs: Callable[[np.random.Generator], list[dict[str, Any]]]
    odd: list[dict[str, Any]] = field(default_factory=list)
    is_old: bool = False

    def run(self, folder: Path) -> Path:
        """Train in `folder`; return the run. ``odd...`` beside the log holds the odd inputs."""
        self.write(folder / self.file, self.inputs(np.random.default_rng(5)))
        written = 10**18 if self.is_old else 4 * 10**18
        os.utime(folder / self.file, ns=(written, written))
        if self.odd:
            self.write(self.odd_file(folder), self.odd)
        defaults = {"train": self.file, "test_fraction": 0.2, "validation_fraction": 0.1}
        recipe = {
            "log": {k: v for k, v in {**defaults, **self.log}.items() if v is not None},
            "model": {"embedding_dim": 4, **self.model},
            "hot": {"budget": "64KiB"},
            "train": {"batch_size": 16, "learning_rate": 0.2, "epochs": 2, "seed": 3},
        }
        (folder / "recipe.toml").write_text(toml(recipe))
        succeed("run", folder / "recipe.toml", "--out", folder / "run")
        return folder / "run"

    def odd_file(self, folder: Path) -> Path:
        """Path of the odd inputs."""
        return folder / f"odd{''.join(Path(self.file).suffixes)}"


def write_csv(path: Path, inputs: Sequence[Mapping[str, Any]], separator: str = ",") -> None:
    """A header line, then values as they are printed; None is an empty field."""
    names = list(inputs[0])

    def text(value: Any) -> str:
        found = "" if value is None else str(value)
        return f'"{found}"' if separator in found or "\n" in found else found

    lines = [separator.join(names), *(separator.join(text(each[name]) for name in names) for each in inputs)]
    path.write_text("\n".join(lines) + "\n")


def write_jsonl(path: Path, inputs: Sequence[Mapping[str, Any]]) -> None:
    """An object a line."""
    path.write_text("".join(json.dumps(each) + "\n" for each in inputs))


def write_parquet(path: Path, inputs: Sequence[Mapping[str, Any]]) -> None:
    """Columns of the types of `_PARQUET`."""
    pq.write_table(pa.Table.from_pylist([dict(each) for each in inputs], schema=_PARQUET), path)


def write_criteo(path: Path, inputs: Sequence[Mapping[str, Any]]) -> None:
    """Tab-separated, without a header."""
    path.write_text(
        "".join("\t".join("" if value is None else str(value) for value in each.values()) + "\n" for each in inputs)
    )


_PARQUET = pa.schema(
    [
        ("y", pa.bool_()), ("user", pa.int32()), ("item", pa.float64()), ("day", pa.date32()),
        ("tags", pa.list_(pa.int16())), ("kind", pa.dictionary(pa.int8(), pa.string())), ("number", pa.uint16()),
        ("at", pa.timestamp("us")), ("price", pa.float32()), ("stock", pa.int64()),
    ]
)  # fmt: skip


def _label(random: np.random.Generator, item: int) -> int:
    return int(random.random() < 0.2 + 0.6 * (item % 2))


def _plain(random: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for _ in range(NUM_INPUTS):
        user, item = int(random.zipf(1.5)) % 40, int(random.zipf(1.3)) % 60
        found.append(
            {
                "y": _label(random, item), "user": "NA" if user == 7 else f" u{user} ", "item": item,
                "text": "" if item == 3 else f"a, b{user % 5}",
                "price": None if user == 3 else round(float(random.lognormal()), 2),
                "views": int(random.integers(-3, 5000)), "w": round(float(random.random()) + 0.1, 2), "unused": "x",
            }
        )  # fmt: skip
    return found


def _lists(random: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for _ in range(NUM_INPUTS):
        items = (random.zipf(1.4, int(random.integers(0, 6))) % 30).tolist()
        last = int(random.zipf(1.4)) % 30
        found.append(
            {
                "y": _label(random, last), "item": f"i{last}", "seen": "|".join(f"i{each}" for each in items),
                "tags": str([f"t{each % 7}" for each in items]).replace("'", "'" if last % 2 else '"'),
                "marks": ";".join(f"m{each % 9}:{each / 10}" for each in items) + ("" if items else "0"),
                "change": round(float(random.normal()) * 100, 1),
            }
        )  # fmt: skip
    return found


def _typed(random: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for _ in range(NUM_INPUTS):
        item = int(random.zipf(1.4)) % 40
        found.append(
            {
                "y": bool(_label(random, item)), "user": int(random.integers(0, 30)),
                "item": float(item) if item else None,
                "day": date(2024, 1, 1) + timedelta(days=item % 9), "tags": (random.integers(0, 12, item % 4)).tolist(),
                "kind": f"k{item % 3}", "number": int(random.integers(0, 20)),
                "at": 17 * 10**14 + 36 * 10**8 * int(random.integers(0, 900)),
                "price": float(random.normal()), "stock": int(random.integers(0, 9)) if item % 5 else None,
            }
        )  # fmt: skip
    return found


def _json(random: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for _ in range(NUM_INPUTS):
        item = int(random.zipf(1.4)) % 40
        time = 1_700_000_000 + int(random.integers(0, 10**7))
        found.append(
            {
                "y": _label(random, item), "item": item, "is_new": bool(item % 3), "at": time,
                "tags": [f"t{each}" for each in random.integers(0, 9, item % 5).tolist()],
                "price": None if item == 4 else float(random.lognormal()), "age": int(random.integers(1, 90)),
            }
        )  # fmt: skip
    return found


def _sequences(random: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for _ in range(NUM_INPUTS):
        items = (random.zipf(1.3, int(random.integers(1, 8))) % 50).tolist()
        found.append(
            {
                "y": _label(random, items[-1]), "user": f"u{int(random.integers(0, 9))}",
                "items": "|".join(map(str, items)), "price": round(float(random.lognormal()), 3),
            }
        )  # fmt: skip
    return found


def _criteo(random: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for _ in range(NUM_INPUTS):
        keys = (random.zipf(1.4, 26) % 50).tolist()
        counts = {f"I{i}": None if random.random() < 0.2 else int(random.integers(-2, 90000)) for i in range(1, 14)}
        ids = {f"C{i + 1}": "" if key == 9 else f"{key * 77:0{8 if key % 3 else 4}x}" for i, key in enumerate(keys)}
        found.append({"label": _label(random, keys[0]), **counts, **ids})
    return found


def _avazu(random: np.random.Generator) -> list[dict[str, Any]]:
    others = (  # noqa: SIM905
        "C1 banner_pos site_id site_domain site_category app_id app_domain app_category device_id device_ip "
        "device_model device_type device_conn_type C14 C15 C16 C17 C18 C19 C20 C21"
    ).split()
    found = []
    for index in range(NUM_INPUTS):
        keys = dict(zip(others, (f"v{key}" for key in (random.zipf(1.4, len(others)) % 30).tolist()), strict=True))
        hour = f"1410{21 + index // 100}{int(random.integers(0, 24)):02d}"
        found.append({"id": index, "click": _label(random, int(keys["C21"][1:])), "hour": hour, **keys})
    return found


def _frappe(random: np.random.Generator) -> list[dict[str, Any]]:
    names = "user item daytime weekday isweekend homework cost weather country city".split()  # noqa: SIM905
    found = []
    for _ in range(NUM_INPUTS):
        keys = (random.zipf(1.4, len(names)) % 40).tolist()
        values = (f"{name} {key}" for name, key in zip(names, keys, strict=True))
        found.append({"y": _label(random, keys[1]), **dict(zip(names, values, strict=True))})
    return found


CASES: dict[str, ExportCase] = {
    "dlrm": ExportCase(
        file="log.csv",
        write=write_csv,
        log={"label": "y", "categorical": ["user", "item", "text"], "dense": ["price", "views"],
             "missing": ["NA"], "weight": "w"},
        model={"bottom_mlp": [8], "top_mlp": [8]},
        inputs=_plain,
        is_old=True,
        odd=[
            {"user": " u1 ", "item": "07", "text": "a, b1", "price": "1e2", "views": "-1"},
            {"user": "u1", "item": "nobody", "text": "", "price": "NA", "views": "NA"},
            {"user": "NA", "item": "", "text": "NA", "price": " 3 ", "views": "99999999999"},
        ],
    ),
    "deepfm": ExportCase(
        file="log.csv",
        write=lambda path, inputs: write_csv(path, inputs, "~~"),
        log={
            "label": "y", "separator": "~~", "dense": ["change"], "dense_transform": "signed_log1p", "min_frequency": 2,
            "categorical": [
                "item", {"name": "seen", "max_length": 3, "pooling": "mean", "table": "item"},
                {"name": "tags", "max_length": 2, "brackets": True},
                {"name": "marks", "max_length": 4, "separator": ";", "weight_separator": ":", "padding": "0"},
            ],
        },
        model={"name": "deepfm", "deep_mlp": [8]},
        inputs=_lists,
        is_old=True,
        odd=[
            {"item": "i1", "seen": "i1|nobody|i2|i3|i1", "tags": "['t1' 't2' 't3']",
             "marks": "0;m1:;m2:1e-3;m9", "change": -5},
            {"item": "new", "seen": "", "tags": "[]", "marks": "", "change": ""},
            {"item": "", "seen": "|i5|", "tags": '("t1", "a \\" b")', "marks": "m1:2;m1:2;m1:2;m1:2;m3:2", "change": 0},
        ],
    ),
    "dcnv2": ExportCase(
        file="log.parquet",
        write=write_parquet,
        log={
            "format": "parquet", "label": "y", "dense": ["price", "stock"], "dense_transform": "none",
            "categorical": [
                "user", "item", "day", {"name": "tags", "max_length": 2, "pooling": "mean"}, "kind",
                {"name": "number", "encoded": True}, {"name": "hour", "from": "at", "part": "hour"},
                {"name": "weekday", "from": "at", "part": "weekday", "zone": "Europe/Berlin"},
            ],
        },
        model={"name": "dcnv2", "deep_mlp": [8], "cross_layers": 2, "cross_rank": 2},
        inputs=_typed,
        odd=[
            {"user": 3, "item": 5.0, "day": date(2030, 1, 1), "tags": [1, None, 2, 3], "kind": "new", "number": 999,
             "at": 1_700_000_000_000_000, "price": -1.5, "stock": None},
            {"user": None, "item": None, "day": None, "tags": None, "kind": None, "number": None,
             "at": None, "price": None, "stock": 2**40},
        ],
    ),
    "wide_deep": ExportCase(
        file="log.jsonl",
        write=write_jsonl,
        log={
            "format": "jsonl", "label": "y", "dense": [{"name": "price", "transform": "standardize"},
                      {"name": "age", "clip": [5, 60]}, "item"],
            "categorical": [
                "item", "is_new", {"name": "tags", "max_length": 3}, {"name": "day", "from": "at", "part": "day"},
                {"name": "month", "from": "at", "part": "month"},
            ],
        },
        model={"name": "wide_deep", "deep_mlp": [8], "wide": ["item", "tags"], "embedding_dims": {"tags": 8}},
        inputs=_json,
        odd=[
            {"item": 7.0, "is_new": True, "at": "2024-05-06 07:08:09.5", "tags": ["t1", None, "new"],
             "price": "12", "age": 1},
            {"item": "3", "is_new": None, "at": None, "tags": None, "price": None, "age": 2.5},
            {"item": 1, "is_new": "false", "at": "24050607", "tags": ["t1", "t2", "t3", "t4"], "price": 1, "age": None},
        ],
    ),
    "tbsm": ExportCase(
        file="log.csv",
        write=write_csv,
        log={"label": "y", "categorical": ["user", {"name": "items", "max_length": 5, "pooling": "none"}],
             "dense": ["price"], "dense_transform": "standardize", "dense_clip_quantiles": [0.1, 0.9]},
        model={"name": "tbsm", "top_mlp": [6], "final_mlp": [6]},
        inputs=_sequences,
        odd=[
            {"user": "u1", "items": "1|2|3|4|5|6|7", "price": 2}, {"user": "new", "items": "", "price": ""},
            {"user": "", "items": "1|new", "price": 0},
        ],
    ),
    "criteo": ExportCase(
        file="log.txt",
        write=write_criteo,
        log={"format": "criteo"},
        model={"bottom_mlp": [8], "top_mlp": [8]},
        inputs=_criteo,
        is_old=True,
        odd=[{**{f"I{i}": -i for i in range(1, 14)}, **{f"C{i}": "4d" if i % 2 else "004d" for i in range(1, 27)}}],
    ),
    "frappe": ExportCase(
        file="log.csv",
        write=lambda path, inputs: write_csv(path, inputs, "\t"),
        log={
            "label": "y", "separator": "\t",
            "categorical": ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country",
                            "city"],
        },
        model={"top_mlp": [8, 6]},
        inputs=_frappe,
        is_old=True,
    ),
    "avazu": ExportCase(
        file="log.csv",
        write=write_csv,
        log={"format": "avazu", "test_fraction": None, "validation_fraction": None},
        model={"bottom_mlp": [8], "top_mlp": [8]},
        inputs=_avazu,
        is_old=True,
    ),
}  # fmt: skip
"""One run of each model, and of each format with rules of its own."""
