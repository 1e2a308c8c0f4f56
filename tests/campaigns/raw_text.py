"""Text logs for tests/campaigns/raw_logs.py: drawn inputs, written in a drawn form, and changed in some places."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

import raw_log_reference as reference
from raw_json_reference import read_jsonl

WORDS = (
    "a",
    "b",
    "7",
    "07",
    "7.0",
    "é",
    "x y",
    "u'1",
    "NULL",
    "naïve",
    "0",
    "-1",
    "日本",
    "a-b",
    "%",
    "{",
    "nan",
    "#",
    "two\nlines",
    "a\r\nb",
)
ODD_TEXT = (
    "", " ", '"', '""', "'", "\\", "\\N", "\x00", "\u00a05", "\uff15", "1e400", "-0", "+1", "0x1F", "1_000", "nan",
    "inf", "true", "1.", ".5", "-1", "2", "99999999999999999999", "\u202e", "\x1b[31m", "a\tb", "a,b", "a|b", "|", "||",
    "null", "[1, 2]", "01", "1e0", "0.0", "TRUE", " 1",
)  # fmt: skip
ODD_OF = {
    "y": ("+1", "01", "1.", "1e0", "0.0", "TRUE", "-0", "nan"),
    "code": ("0x1F", "-0", "+1", "1.0", "0X2", "\u0663"),
}
ODD_JSON: tuple[Any, ...] = (
    {}, [[1]], {"a": 1}, 1.5, True, False, 2**70, -1, 7.0, 1e2, 1e300, math.nan, math.inf, "", " ", [None], [1, "1"],
    ["a", {}], "\ud800", -0.0, 0, None, "1e0",
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
    kind = draw.randrange(11)
    if kind == 9:
        return data.replace(b"\n", b"\r")
    if kind == 10:
        return swallow(draw, data)
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


def swallow(draw: random.Random, data: bytes) -> bytes:
    """A quote at the begin of a field, and one at the end of the same field some lines on."""
    lines = data.split(b"\n")
    separator = max((b"::", b"||", b"\t", b";", b","), key=lines[0].count)
    first = draw.randrange(len(lines))
    last = min(first + draw.randint(1, 3), len(lines) - 1)
    place = draw.randrange(lines[0].count(separator) + 1)
    for at, mark in ((first, (b'"', b"")), (last, (b"", b'"'))):
        fields = lines[at].split(separator)
        if place < len(fields):
            fields[place] = mark[0] + fields[place] + mark[1]
        lines[at] = separator.join(fields)
    return b"\n".join(lines)


def compress(data: bytes, suffix: str) -> bytes:
    """The bytes of a file of that suffix."""
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix == ".zst":
        result: bytes = pa.compress(data, codec="zstd", asbytes=True)
        return result
    return data


def draw_form(draw: random.Random) -> tuple[Any, dict[str, Any]]:
    """How a CSV log is written, for the reference and for the recipe."""
    keys: dict[str, Any] = {"separator": draw.choice([",", "\t", ";", "||", "::"])}
    if draw.random() < 0.25:
        keys["quote"] = ""
    elif draw.random() < 0.2:
        keys["escape"] = "\\"
    if draw.random() < 0.2 and keys["separator"] != ",":
        keys["decimal"] = ","
    if draw.random() < 0.3:
        keys["missing"] = ["NULL", draw.choice(["\\N", "NA", "-"])]
    if draw.random() < 0.2:
        keys["label_map"] = {"0": 0, "1": 1, "": 0}
    elif draw.random() < 0.2:
        keys["label_threshold"] = 0.5
    lists: dict[str, Any] = {}
    if draw.random() < 0.3 and keys["separator"] != ",":
        lists["brackets"] = True
    elif draw.random() < 0.2 and keys["separator"] not in ("::", ";"):
        lists["list_separator"] = draw.choice([";", "~~"])
    if draw.random() < 0.3:
        lists["padding"] = draw.choice(["t0", "t1"])
    if draw.random() < 0.2 and keys["separator"] != "::":
        lists["weight_separator"] = ":"
    columns = draw.random() < 0.2
    form = reference.Form(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in keys.items()}, **lists
    )
    if columns:
        keys["columns"] = list(form.wanted)
        form = reference.Form(**{**vars(form), "columns": form.wanted})
    return form, keys


def text_case(draw: random.Random, folder: Path, kind: str) -> tuple[list[list[Any]] | str, dict[str, Any], Any]:
    """Write the files of a text log: inputs by file (or why it must be refused, or unsure), recipe keys, form."""
    form, keys = draw_form(draw) if kind == "csv" else (reference.Form(), {})
    if kind == "jsonl":
        form, keys = draw_json_form(draw)
    suffix = draw.choice(["", "", ".gz", ".zst"])
    files = draw.choice([1, 1, 2, 3])
    mutations = draw.choice([0, 1, 1, 1, 2, 3])
    expected: list[list[Any]] | str = []
    for number in range(files):
        inputs = draw_inputs(draw, draw.randint(3, 40))
        data = _written(draw, kind, inputs, form)
        for _ in range(mutations if number == draw.randrange(files) else 0):
            data = mutate_bytes(draw, data)
        raw = compress(data, suffix)
        if suffix and draw.random() < 0.1:
            raw = mutate_bytes(draw, raw)
        write_file(draw, folder / f"part_{number}.txt{suffix}", raw)
        try:
            text = reference.decompressed(raw, suffix)
            if not text:
                raise reference.Unsure("an empty part")
            found = READERS[kind](text, form)
            if isinstance(expected, list):
                expected.append(found)
        except reference.Refused as error:
            expected = expected if expected == "unsure" else f"refused: {error}"
            if str(error) in ("no inputs", "no text"):
                expected = "unsure"  # such parts behind a glob are passed over
        except reference.Unsure:
            expected = "unsure"
    log: dict[str, Any] = {"train": f"part_*.txt{suffix}", "format": kind, "label": "y", **keys}
    if kind in ("criteo", "avazu"):
        del log["label"]
    else:
        named = {"list_separator": "separator"}
        lists = {
            named.get(name, name): getattr(form, name)
            for name in ("brackets", "padding", "weight_separator", "list_separator")
            if getattr(form, name) != getattr(reference.Form(), name)
        }
        log["categorical"] = [
            "user", "item", {"name": "code", "encoded": True},
            {"name": "tags", "max_length": 3, "pooling": "mean", **lists},
        ]  # fmt: skip
        log["dense"] = ["x"]
    return expected, {**log, "test_fraction": 0.0, "validation_fraction": 0.0}, form


def draw_json_form(draw: random.Random) -> tuple[Any, dict[str, Any]]:
    """Settings of a log of JSON lines."""
    keys: dict[str, Any] = {}
    if draw.random() < 0.3:
        keys["missing"] = draw.sample(["NULL", "\\N", "-1", "7"], 2)
    if draw.random() < 0.2:
        keys["label_map"] = {"0": 0, "1": 1, "": 0}
    elif draw.random() < 0.2:
        keys["label_threshold"] = 0.5
    return reference.Form(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in keys.items()}
    ), keys


def write_file(draw: random.Random, path: Path, data: bytes) -> None:
    """Write a file, now and then as a link to one that is named by its content."""
    if draw.random() < 0.7:
        path.write_bytes(data)
        return
    target = path.parent / "blobs" / f"{draw.randrange(2**64):016x}"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(data)
    path.symlink_to(target)


READERS: dict[str, Callable[[bytes, Any], list[dict[str, Any]]]] = {
    "criteo": lambda data, form: reference.read_criteo(data),
    "avazu": lambda data, form: reference.read_avazu(data),
    "csv": reference.read_csv,
    "jsonl": read_jsonl,
}


def _written(draw: random.Random, kind: str, inputs: list[dict[str, Any]], form: Any) -> bytes:
    odd = draw.random() < 0.4
    if kind == "criteo":
        lines = []
        for found in inputs:
            counts = [draw.choice(["", "0", "7", "-1", str(draw.randrange(10**9))]) for _ in range(13)]
            ids = [draw.choice(["", f"{draw.randrange(2**32):08x}", f"{draw.randrange(9):x}"]) for _ in range(26)]
            if odd and draw.random() < 0.1:
                (counts if draw.random() < 0.5 else ids)[draw.randrange(13)] = draw.choice(ODD_TEXT)
            lines.append("\t".join([str(found["y"]), *counts, *ids]))
        return ("\n".join(lines) + "\n").encode()
    if kind == "avazu":
        header = ["id", "click", *reference.AVAZU]
        lines = [",".join(header)]
        for number, found in enumerate(inputs):
            hour = f"1410{draw.randrange(21, 31)}{draw.randrange(24):02d}"
            values = [str(number), str(found["y"]), hour, *(f"v{draw.randrange(4)}" for _ in header[3:])]
            if odd and draw.random() < 0.1:
                values[draw.choice([1, 2, 2, 9])] = draw.choice([*ODD_TEXT, "14102124", "2014102101", "141021"])
            lines.append(",".join(f'"{v}"' if '"' not in v and "," in v else v for v in values))
        return ("\n".join(lines) + "\n").encode()
    for found in inputs:
        if kind == "csv" and not form.quote:
            found.update({name: " ".join(found[name].split()) for name in ("user", "item") if "\n" in found[name]})
        if form.weight_separator:
            found["tags"] = [item + draw.choice(["", ":1", ":0.5", ":"]) for item in found["tags"]]
    if odd:
        found = draw.choice(inputs)
        column = draw.choice(["y", "x", "user", "item", "code", "tags"])
        found[column] = draw.choice(ODD_OF.get(column, ODD_TEXT) if draw.random() < 0.5 else ODD_TEXT)
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
    if draw.random() < 0.03:
        row[draw.choice(["user", "x", "tags", "code", "y", "other"])] = draw.choice(ODD_JSON)
    text = json.dumps(row, ensure_ascii=draw.random() < 0.5 or r"\ud800" in repr(row))
    if draw.random() < 0.01:
        text = text.removesuffix("}") + f', "{draw.choice([*row])}": 1}}'
    return text
