"""Mutated raw logs of every format: ingest refuses them in a line or gives what a slow, strict reader gives.

    python tests/campaigns/raw_logs.py [--count 1000] [--seed 1] [--only 7] [--put-back]

Each case draws a log (one to three files; CSV with or without header, with quotes, without, with escapes, separators of
one and of several characters, decimal commas; JSON lines; Parquet of drawn types; Criteo; plain, gz or zst), changes it
in zero to three places (bytes flipped, inserted, removed, repeated; quotes, line ends, marks and odd values in fields;
blank lines; a missing last line end), ingests it with small and with usual block sizes, and compares labels, dense
values, ids and vocabularies with tests/support/raw_log_reference.py. A finding is: a traceback or a signal, a log that
is taken although it must be refused, one that is refused although it is fine, other values, more than 1.5 GiB of
memory.
"""

from __future__ import annotations

import functools
import gzip
import json
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

from campaign import Ended, Tried, fork_fae, run_campaign, warm_up  # noqa: E402

MEMORY_BYTES = 3 << 29
"""Beyond what the process holds already; the bound of ingest is about 100 MB and its vocabularies."""
WORDS = ("a", "b", "7", "07", "7.0", "é", "x y", "u'1", "NULL", "naïve", "0", "-1", "日本", "a-b", "%", "{", "nan", "#")
ODD_TEXT = (
    "", " ", '"', '""', "'", "\\", "\\N", "\x00", "\u00a05", "\uff15", "1e400", "-0", "+1", "0x1F", "1_000", "nan",
    "inf", "true", "1.", ".5", "-1", "2", "99999999999999999999", "\u202e", "\x1b[31m", "a\tb", "a,b", "a|b", "|", "||",
    "null", "[1, 2]",
)  # fmt: skip
MARKS = (
    b'"',
    b"\r",
    b"\n",
    b"\r\n",
    b",",
    b"\t",
    b"|",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\\",
    b" ",
    b"\xc2\xa0",
    b"{",
    b"}",
)


def draw_inputs(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """Inputs as `raw_log_reference` reads them."""
    words = [draw.choice(WORDS) + str(draw.randrange(9)) * draw.randrange(2) for _ in range(12)]
    return [
        {
            "y": draw.randrange(2),
            "x": draw.choice([None, 0.0, 1.5, -2.0, float(draw.randrange(10**6)), draw.random()]),
            "user": draw.choice(words), "item": draw.choice([*words, ""]),
            "code": draw.choice([None, *range(7)]), "tags": [f"t{draw.randrange(5)}" for _ in range(draw.randrange(4))],
        }
        for _ in range(count)
    ]  # fmt: skip


def mutate_bytes(draw: random.Random, data: bytes) -> bytes:
    """One change somewhere in the text."""
    at = draw.randrange(len(data) + 1)
    kind = draw.randrange(9)
    if kind == 0 and data:
        at %= len(data)
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + draw.choice(MARKS) + data[at:]
    if kind == 2:
        return data[:at] + data[at + draw.choice([1, 2, 9, 60]) :]
    if kind == 3:
        part = data[at : at + draw.choice([1, 5, 40])]
        return data[:at] + part + data[at:]
    if kind == 4:
        return data.replace(b"\n", b"\r\n")
    if kind == 5:
        return data.rstrip(b"\n")
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    if kind == 6:
        lines.insert(place, b"" if draw.random() < 0.7 else b" ")
    elif kind == 7:
        lines.insert(place, lines[draw.randrange(len(lines))])
    else:
        return b"\xef\xbb\xbf" + data
    return b"\n".join(lines)


def compress(data: bytes, suffix: str) -> bytes:
    """The bytes of a file of that suffix."""
    import pyarrow as pa

    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix == ".zst":
        result: bytes = pa.compress(data, codec="zstd", asbytes=True)
        return result
    return data


def draw_form(draw: random.Random) -> tuple[Any, dict[str, Any]]:
    """How a CSV log is written, for the reference and for the recipe."""
    from raw_log_reference import Form

    keys: dict[str, Any] = {"separator": draw.choice([",", "\t", ";", "||", "::"])}
    if draw.random() < 0.25:
        keys["quote"] = ""
    elif draw.random() < 0.2:
        keys["escape"] = "\\"
    if draw.random() < 0.2 and keys["separator"] != ",":
        keys["decimal"] = ","
    if draw.random() < 0.3:
        keys["missing"] = draw.sample(["NULL", "\\N", "NA", "-"], 2)
    if draw.random() < 0.2:
        keys["label_map"] = {"0": 0, "1": 1, "": 0}
    elif draw.random() < 0.2:
        keys["label_threshold"] = 0.5
    columns = draw.random() < 0.2
    form = Form(**{name: tuple(value) if isinstance(value, list) else value for name, value in keys.items()})
    if columns:
        keys["columns"] = list(form.wanted)
        form = Form(**{**vars(form), "columns": form.wanted})
    return form, keys


def text_case(draw: random.Random, folder: Path, kind: str) -> tuple[list[list[Any]] | str, dict[str, Any], Any]:
    """Write the files of a text log: inputs by file (or why it must be refused, or unsure), recipe keys, form."""
    import raw_log_reference as reference

    form, keys = draw_form(draw) if kind == "csv" else (reference.Form(), {})
    suffix = draw.choice(["", "", ".gz", ".zst"])
    files = draw.choice([1, 1, 2, 3])
    mutations = draw.choice([0, 1, 1, 1, 2, 3])
    expected: list[list[Any]] | str = []
    for number in range(files):
        inputs = draw_inputs(draw, draw.randint(3, 40))
        data = _write(draw, kind, inputs, form)
        for _ in range(mutations if number == draw.randrange(files) else 0):
            data = mutate_bytes(draw, data)
        raw = compress(data, suffix)
        if suffix and draw.random() < 0.1:
            raw = mutate_bytes(draw, raw)
        (folder / f"part_{number}.txt{suffix}").write_bytes(raw)
        try:
            text = reference.decompressed(raw, suffix)
            if not text:
                raise reference.Unsure("an empty part")
            read = {"csv": reference.read_csv, "jsonl": reference.read_jsonl}.get(kind)
            found = reference.read_criteo(text) if read is None else read(text, form)
            if isinstance(expected, list):
                expected.append(found)
        except reference.Refused as error:
            expected = expected if expected == "unsure" else f"refused: {error}"
            if str(error) in ("no inputs", "no text"):
                expected = "unsure"  # such parts behind a glob are passed over
        except reference.Unsure:
            expected = "unsure"
    log: dict[str, Any] = {"train": f"part_*.txt{suffix}", "format": kind, "label": "y", **keys}
    if kind == "criteo":
        log["label"] = "label"
    else:
        log["categorical"] = [
            "user", "item", {"name": "code", "encoded": True},
            {"name": "tags", "max_length": 3, "pooling": "mean"},
        ]  # fmt: skip
        log["dense"] = ["x"]
    return expected, {**log, "test_fraction": 0.0, "validation_fraction": 0.0}, form


def _write(draw: random.Random, kind: str, inputs: list[dict[str, Any]], form: Any) -> bytes:
    import raw_log_reference as reference

    odd = draw.random() < 0.3
    if kind == "criteo":
        lines = []
        for found in inputs:
            counts = [draw.choice(["", "0", "7", "-1", str(draw.randrange(10**9))]) for _ in range(13)]
            ids = [draw.choice(["", f"{draw.randrange(2**32):08x}", f"{draw.randrange(9):x}"]) for _ in range(26)]
            if odd and draw.random() < 0.1:
                (counts if draw.random() < 0.5 else ids)[draw.randrange(13)] = draw.choice(ODD_TEXT)
            lines.append("\t".join([str(found["y"]), *counts, *ids]))
        return ("\n".join(lines) + "\n").encode()
    if odd:
        found = draw.choice(inputs)
        found[draw.choice(["y", "x", "user", "item", "code", "tags"])] = draw.choice(ODD_TEXT)
    if kind == "jsonl":
        return "".join(_json_line(draw, found) + "\n" for found in inputs).encode()
    if form.decimal == ",":
        inputs = [
            {**found, "x": str(found["x"]).replace(".", ",") if found["x"] is not None else None} for found in inputs
        ]
    return reference.as_text_log(inputs, form, header=not form.columns)


def _json_line(draw: random.Random, found: dict[str, Any]) -> str:
    row = {name: value for name, value in found.items() if value is not None or draw.random() < 0.5}
    if isinstance(row.get("item"), str) and row["item"].isdigit() and draw.random() < 0.5 and row["item"][0] != "0":
        row["item"] = int(row["item"])
    if draw.random() < 0.02:
        row[draw.choice(["user", "x", "tags", "code"])] = draw.choice([{}, [[1]], {"a": 1}, 1.5, True, 2**70, -1])
    return json.dumps(row, ensure_ascii=draw.random() < 0.5)


PARQUET_IDS = (
    "int8",
    "int32",
    "int64",
    "uint16",
    "float32",
    "float64",
    "string",
    "large_string",
    "dictionary",
    "decimal",
)


def parquet_case(draw: random.Random, folder: Path) -> tuple[list[list[Any]] | str, dict[str, Any], Any]:
    """Whole numbers stored as drawn types, file by file another one: they are the same values."""
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    from raw_log_reference import Form

    expected: list[list[Any]] = []
    for number in range(draw.choice([1, 2, 3])):
        inputs = draw_inputs(draw, draw.randint(3, 40))
        for found in inputs:
            found["item"] = draw.choice(["", *map(str, range(9))])
        kind = draw.choice(PARQUET_IDS)
        items: list[Any] = [None if found["item"] == "" else int(found["item"]) for found in inputs]
        if kind in ("string", "large_string"):
            array = pa.array([None if item is None else str(item) for item in items], getattr(pa, kind)())
        elif kind == "dictionary":
            array = pa.array(items, pa.int32()).dictionary_encode()
        elif kind == "decimal":
            scale = draw.choice([0, 2])
            array = pa.array([None if i is None else decimal.Decimal(i) for i in items], pa.decimal128(9, scale))
        else:
            array = pa.array(items, getattr(pa, kind)())
        label_type = draw.choice([pa.int8(), pa.bool_(), pa.float32(), pa.string(), pa.decimal128(4, 1)])
        labels = pa.array([found["y"] for found in inputs], pa.int8())
        text = pa.array([str(found["y"]) for found in inputs])
        columns = {
            "y": text if label_type == pa.string() else labels.cast(label_type),
            "user": pa.array([found["user"] for found in inputs]), "item": array,
            "code": pa.array([found["code"] for found in inputs], draw.choice([pa.int64(), pa.float64(), pa.uint8()])),
            "tags": pa.array([found["tags"] for found in inputs], pa.list_(pa.string())),
            "x": pa.array([found["x"] for found in inputs], pa.float64()),
        }  # fmt: skip
        pq.write_table(pa.table(columns), folder / f"part_{number}.txt", row_group_size=draw.choice([3, 1000]))
        expected.append(inputs)
    log: dict[str, Any] = {
        "train": "part_*.txt", "format": "parquet", "label": "y", "dense": ["x"],
        "categorical": [
            "user", "item", {"name": "code", "encoded": True}, {"name": "tags", "max_length": 3, "pooling": "mean"},
        ], "test_fraction": 0.0, "validation_fraction": 0.0,
    }  # fmt: skip
    return expected, log, Form()


def compare(folder: Path, inputs: list[dict[str, Any]], kind: str, form: Any) -> str:
    """What differs between the columnar log and the reference's inputs; empty if nothing does."""
    import numpy as np

    from case_folders import column_values, list_values
    from fae.artifacts.columnar_log import ColumnarLog
    from raw_log_reference import transformed

    log = ColumnarLog(folder / "out" / "log")
    label = "label" if kind == "criteo" else form.label
    if log.labels.tolist() != [found[label] for found in inputs]:
        return f"labels {log.labels.tolist()}, expected {[found[label] for found in inputs]}"
    for index, name in enumerate(log.dense_names):
        expected = transformed([found[name] for found in inputs])
        if not np.allclose(log.dense[:, index], expected, rtol=1e-6, atol=0):
            return f"dense {name}: {log.dense[:, index].tolist()}, expected {expected.tolist()}"
    for feature in log.features:
        if feature.length > 1:
            values: list[Any] = list_values(log, feature.name)
            wanted: list[Any] = [found[feature.name][-feature.length :] for found in inputs]
        else:
            values = column_values(log, feature.name)
            wanted = [found[feature.name] for found in inputs]
            if feature.encoded:
                wanted = [None if value is None else str(value) for value in wanted]
        if values != wanted:
            place = next(i for i, pair in enumerate(zip(values, wanted, strict=True)) if pair[0] != pair[1])
            return f"{feature.name} of input {place}: {values[place]!r}, expected {wanted[place]!r}"
    return ""


def small_blocks(draw: random.Random) -> Callable[[], None]:
    """For the forked process: blocks that are shorter than the log."""
    num_bytes = draw.choice([64, 97, 256, 1000])

    def prepare() -> None:
        from fae.ingest.readers import criteo, csv, parquet

        for module in (csv, criteo):
            module._BLOCK_BYTES = max(num_bytes, 4 * 400)
        parquet._BATCH_INPUTS = 5

    return prepare


@functools.cache
def _warm_up() -> None:
    """Load the compiled loops of all formats before anything is forked."""
    from commands import toml

    for kind in ("csv", "jsonl", "criteo"):
        draw = random.Random(0)
        with tempfile.TemporaryDirectory() as name:
            expected: Any = "unsure"
            while isinstance(expected, str):
                _remove(Path(name))
                Path(name).mkdir()
                expected, log, _ = text_case(draw, Path(name), kind)
            (Path(name) / "recipe.toml").write_text(toml({"log": log}), encoding="utf-8")
            warm_up(["ingest", "recipe.toml", "--out", "out"], Path(name))


def case(draw: random.Random, folder: Path) -> Tried:
    """One log, ingested twice."""
    from commands import toml

    _warm_up()
    kind = draw.choice(["csv", "csv", "csv", "jsonl", "criteo", "parquet"])
    expected, log, form = parquet_case(draw, folder) if kind == "parquet" else text_case(draw, folder, kind)
    (folder / "recipe.toml").write_text(toml({"log": log}), encoding="utf-8")
    ended: list[Ended] = []
    for prepare in (small_blocks(draw), None):
        limit = MEMORY_BYTES + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + _mapped_bytes()
        ended.append(fork_fae(["ingest", "recipe.toml", "--out", "out"], folder, prepare=prepare, memory_bytes=limit))
        if fault := ended[-1].fault():
            return Tried(kind, fault, f"{fault}: {ended[-1].stderr[-500:]}")
        if ended[-1].status == 0:
            if isinstance(expected, str) and expected != "unsure":
                return Tried(kind, "taken", f"taken, expected {expected}")
            if isinstance(expected, list):
                inputs = [found for part in expected for found in part]
                if different := compare(folder, inputs, kind, form):
                    return Tried(kind, "other values", different)
        elif isinstance(expected, list):
            return Tried(kind, "refused though fine", ended[-1].last_line)
        _remove(folder / "out")
    if ended[0].status != ended[1].status:
        return Tried(kind, "depends on blocks", f"{ended[0].last_line} | {ended[1].last_line}")
    if expected == "unsure":
        return Tried(kind, "unsure")
    return Tried(kind, "refused in a line" if ended[0].status else "equal")


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


FAULTS: dict[str, Callable[[], None]] = {}

if __name__ == "__main__":
    sys.exit(run_campaign(__file__, case, count=1000, faults=FAULTS, doc=__doc__ or "", arguments=sys.argv[1:]))
