"""Random raw logs of every format, in the shapes that cuts into shards may get wrong.

What a log is like (format, line ends, files, splits, transforms, faults) is drawn by hypothesis, so that it shrinks;
its rows follow from one drawn seed.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import random
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from fae.ingest.column_config import ColumnConfig, DenseConfig
from fae.ingest.config import LogConfig
from fae.ingest.formats import KNOWN_LOGS

FORMATS = ("csv", "jsonl", "parquet", "criteo", "avazu", "taobao")
AVAZU = ("id", "click", *KNOWN_LOGS["avazu"].categorical)
NAMES = ("y", "user", "tags", "text", "item", "x", "z", "code", "w", "t")
"""Columns of the formats whose columns a recipe names, in the order of their files."""
SUFFIX = {"csv": "csv", "jsonl": "jsonl", "parquet": "parquet", "criteo": "txt", "avazu": "csv", "taobao": "csv"}


@dataclass(frozen=True, kw_only=True)
class DrawnLog:
    """Files by name, and how to read them; `longest` is the number of bytes of the longest record."""

    files: dict[str, bytes]
    config: LogConfig
    longest: int


def in_store(config: LogConfig, place: str) -> LogConfig:
    """The log whose files are elsewhere."""
    return dataclasses.replace(
        config, train=f"{place}/{config.train}", test=f"{place}/{config.test}" if config.test else ()
    )


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """How the text of a log is written."""

    separator: str = ","
    quote: str = '"'
    escape: str = ""
    end: str = "\n"
    has_header: bool = True


@st.composite
def logs(draw: st.DrawFn, *, has_faults: bool = True, formats: Sequence[str] = FORMATS) -> DrawnLog:
    """A log of one to four files."""
    kind = draw(st.sampled_from(formats))
    seed = draw(st.integers(0, 2**32 - 1))
    settings = _settings(draw, kind)
    syntax = _syntax(draw, kind)
    if kind == "csv":
        settings |= {"separator": syntax.separator, "quote": syntax.quote, "escape": syntax.escape}
        settings |= {} if syntax.has_header else {"columns": NAMES}
    sizes = draw(st.lists(st.one_of(st.integers(1, 90), st.sampled_from([0, 1])), min_size=1, max_size=4))
    sizes = [max(sizes[0], 40)] if kind == "taobao" else [max(sizes[0], 9), *sizes[1:]]
    random_rows = random.Random(seed)
    shapes = draw(st.sets(st.sampled_from(["long", "blank", "open end", "mark", "records in values"])))
    shapes |= draw(st.sampled_from([set(), set(), set(), set(), {"fault"}, {"brackets"}])) if has_faults else set()
    times = draw(st.sampled_from(["numbers", "dates", "mixed"] if "fault" in shapes else ["numbers", "dates"]))
    files: dict[str, bytes] = {}
    longest = 0
    for number, size in enumerate(sizes):
        rows = [_row(random_rows, times, shapes) for _ in range(size)]
        suffix = draw(st.sampled_from(["", "", "", ".gz", ".zst"])) if kind != "parquet" else ""
        name = f"part_{number}.{SUFFIX[kind]}{suffix}"
        if kind == "parquet":
            groups = draw(st.integers(1, 20))
            files[name] = _parquet(rows, groups, is_dictionary=draw(st.booleans()))
            continue
        lines = _lines(kind, rows, syntax, random_rows, day=number)
        if "fault" in shapes and number == len(sizes) - 1 and len(lines) > 1:
            lines.insert(random_rows.randrange(1, len(lines)), _fault(kind, rows[0], syntax, random_rows))
        longest = max(longest, *(len(line.encode()) for line in ["", *lines]))
        files[name] = _packed(suffix, _text(lines, syntax.end, shapes, random_rows), random_rows)
    settings |= _roles(draw, kind, list(files))
    return DrawnLog(files=files, config=LogConfig(**settings), longest=longest + 8)


def large_log(kind: str, num_bytes: int) -> DrawnLog:
    """A log of two files with about that many bytes, whose values first appear here and there."""
    draw, settings = random.Random(7), dict[str, Any](format=kind)
    if kind != "criteo":
        settings |= {"label": "y", "categorical": ("user", "text", "item"), "dense": ("x",), "weight": "w"}
    rows = [_row(draw, "dates", {"long", "records in values"}) for _ in range(2000)]
    lines = [] if kind == "parquet" else _lines(kind, rows, Syntax(), draw, day=0)
    files: dict[str, bytes] = {}
    for number in range(2):
        if kind == "parquet":
            wanted = [{**draw.choice(rows), "item": f"n{place}"} for place in range(num_bytes // 100)]
            files[f"part_{number}.parquet"] = _parquet(wanted, 40, is_dictionary=False)
            continue
        picked, size = ([lines[0]] if kind == "csv" else []), 0
        while size < num_bytes // 2:
            picked.append(lines[draw.randrange(1, len(lines))].replace("i1", f"n{len(picked) % 9999}"))
            size += len(picked[-1])
        files[f"part_{number}.{SUFFIX[kind]}"] = "".join(f"{line}\n" for line in picked).encode()
    config = LogConfig(train=f"part_*.{SUFFIX[kind]}", **settings)
    return DrawnLog(files=files, config=config, longest=0)


def _settings(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """What the recipe says, but for its files."""
    if kind == "taobao":
        return {"format": kind}
    found: dict[str, Any] = {"format": kind, "min_frequency": draw(st.integers(1, 3))}
    if kind == "criteo":
        found["format"] = draw(st.sampled_from(["criteo", "criteo_kaggle", "criteo_terabyte"]))
    found["dense_transform"] = draw(st.sampled_from(["log1p", "signed_log1p", "standardize", "none"]))
    found |= draw(st.sampled_from([{}, {}, {"dense_clip": (-1.0, 5.0)}, {"dense_clip_quantiles": (0.1, 0.9)}]))
    if draw(st.booleans()):
        found["split"] = "random"
    if kind in ("criteo", "avazu"):
        return found
    found |= {
        "label": "y",
        "categorical": (
            "user",
            ColumnConfig(
                name="tags", max_length=3, pooling="mean", table=draw(st.sampled_from([None, "user", "text"])),
                padding=draw(st.sampled_from([None, "0"])),
            ),
            ColumnConfig(name="text", min_frequency=draw(st.sampled_from([None, 2]))),
            ColumnConfig(name="item", table=draw(st.sampled_from([None, "user"]))),
            ColumnConfig(name="code", encoded=True),
        ),
        "dense": ("x", DenseConfig(name="z", transform=draw(st.sampled_from([None, "standardize"])))),
        "missing": draw(st.sampled_from([(), ("NA",)])),
        "weight": draw(st.sampled_from([None, "w"])),
        "time": draw(st.sampled_from([None, "t"])),
    }  # fmt: skip
    if "split" in found:
        found["split_by"] = draw(st.sampled_from([None, "user"]))
    return found


def _roles(draw: st.DrawFn, kind: str, names: list[str]) -> dict[str, Any]:
    """Which files are for what: a pattern for all, or the last one for the test."""
    pattern = f"part_*.{SUFFIX[kind]}*"
    if kind == "taobao" or len(names) == 1 or draw(st.booleans()):
        return {"train": pattern}
    # One that is named outright may not be empty.
    return {"train": f"part_[0-{len(names) - 2}].*", "test": f"part_{len(names) - 1}.*"}


def _syntax(draw: st.DrawFn, kind: str) -> Syntax:
    ends = ["\n", "\r\n", "\r"] if kind in ("csv", "avazu") else ["\n", "\r\n"]
    end = draw(st.sampled_from(ends))
    if kind != "csv":
        return Syntax(end=end)
    return Syntax(
        separator=draw(st.sampled_from([",", ",", "\t", ";;"])), quote=draw(st.sampled_from(['"', '"', "'"])),
        escape=draw(st.sampled_from(["", "", "\\"])), end=end, has_header=draw(st.booleans()),
    )  # fmt: skip


def _row(draw: random.Random, times: str, shapes: Set[str]) -> dict[str, Any]:
    text = draw.choice(
        ["", "k", "l", "é", "m,n", "two\nlines", "a\r\nb", 'say "it"', "it's", "q;;r", "NA", "\ta", "c\rd"]
    )
    if "long" in shapes and draw.random() < 0.03:
        text = draw.choice(["u", "two\n", 'a"'] if draw.random() < 0.5 else ["u"]) * draw.choice((300, 900, 3000))
    if "records in values" in shapes and draw.random() < 0.2:
        # Who begins to read in this value finds an input there.
        inside = f"1,u,a,k,i{_popular(draw, 90)},1,2,3,1,2024-01-01 10:00:00\n"
        text = f"a\n{inside * draw.choice((1, 9))}b"
    day = f"2024-01-{draw.randint(1, 28):02} {draw.randint(0, 23):02}:00:00"
    tags = [draw.choice(["a", "b", "cc", "7", "0", ""]) for _ in range(draw.randint(0, 5))]
    is_number = times == "numbers" or (times == "mixed" and draw.random() < 0.02)
    return {
        "y": draw.randint(0, 1), "user": f"u{_popular(draw, 60)}",
        "tags": f"[{draw.randint(0, 9)} {draw.randint(0, 9)}]" if "brackets" in shapes else tags,
        "text": text, "item": f"i{_popular(draw, 300)}",
        "x": draw.choice([None, 0, 1, 7.5, -2, 10**6]), "z": draw.choice([None, draw.randint(-5, 50)]),
        "code": draw.choice([None, _popular(draw, 9)]), "w": draw.choice([0, 1, 0.25, 3]),
        "t": draw.choice([draw.randint(0, 99), draw.randint(0, 99) / 4]) if is_number else day,
    }  # fmt: skip


def _popular(draw: random.Random, most: int) -> int:
    return int(draw.paretovariate(0.7)) % most


def _lines(kind: str, rows: list[dict[str, Any]], syntax: Syntax, draw: random.Random, day: int) -> list[str]:
    """The records of a file without their ends."""
    if kind == "csv":
        fields = [[_as_text(row[name]) for name in NAMES] for row in rows]
        header = [list(NAMES)] if syntax.has_header else []
        return [syntax.separator.join(_field(value, syntax, draw) for value in each) for each in [*header, *fields]]
    if kind == "jsonl":
        return [_object(row, draw) for row in rows]
    if kind == "criteo":
        return ["\t".join([str(row["y"]), *_counts(draw), *_ids(draw)]) for row in rows]
    if kind == "avazu":
        lines = [",".join(AVAZU)]
        for place, row in enumerate(rows):
            hour = f"1410{21 + day * 2 + place * 2 // len(rows)}{place * 48 // len(rows) % 24:02}"
            lines.append(",".join([str(place), str(row["y"]), hour, *(str(_popular(draw, 90)) for _ in range(21))]))
        return lines
    return _clicks(draw, len(rows))


def _counts(draw: random.Random) -> list[str]:
    return [draw.choice(["", "0", str(_popular(draw, 10**6)), "-2"]) for _ in range(13)]


def _ids(draw: random.Random) -> list[str]:
    return [draw.choice(["", f"{_popular(draw, 500):08x}", f"{_popular(draw, 9):x}"]) for _ in range(26)]


def _clicks(draw: random.Random, number: int) -> list[str]:
    lines: list[str] = []
    for user in range(1, 4 + number // 8):
        for _ in range(draw.randint(1, 14)):
            item = _popular(draw, 50)
            behaviour = draw.choice(["pv", "buy", "cart", "fav"])
            lines.append(f"{user},{item},{item % 7},{behaviour},{draw.randint(0, 500)}")
    return lines


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(value)
    return "" if value is None else str(value)


def _field(value: str, syntax: Syntax, draw: random.Random) -> str:
    marks = (syntax.quote, syntax.separator, "\n", "\r", *([syntax.escape] if syntax.escape else []))
    if draw.random() > 0.05 and not any(mark in value for mark in marks):
        return value
    quoted = value.replace(syntax.quote, (syntax.escape or syntax.quote) + syntax.quote)
    return f"{syntax.quote}{quoted}{syntax.quote}"


def _object(row: dict[str, Any], draw: random.Random) -> str:
    """A JSON object whose keys come in any order; a missing value may be null or not there."""
    keys = [name for name in NAMES if row[name] is not None or draw.random() < 0.5]
    found = {name: row[name] for name in keys}
    found["tags"] = draw.choice([row["tags"], row["tags"], _as_text(row["tags"]), None])
    draw.shuffle(keys)
    return json.dumps({name: found[name] for name in keys}, ensure_ascii=draw.random() < 0.5)


def _fault(kind: str, row: dict[str, Any], syntax: Syntax, draw: random.Random) -> str:
    """A record that no reader takes, or not there."""
    bad = draw.choice([{"y": 5}, {"x": "zz"}, {"code": "-1"}, {"w": -1}, {"t": "" if row["t"] else 0}, {"fields": 1}])
    if kind == "csv":
        if "fields" in bad:
            return draw.choice([syntax.separator.join("1uakz"), f"{syntax.quote}1{syntax.separator}u"])
        return _lines(kind, [row | bad], dataclasses.replace(syntax, has_header=False), draw, 0)[0]
    if kind == "jsonl":
        return draw.choice(['{"y": 1, "user": ', "[1]", json.dumps(row | bad), json.dumps(row | {"user": 1.5})])
    if kind == "criteo":
        return draw.choice(["1\t2\t3", "\t".join(["1", *["1"] * 13, *["0000000g"] * 26])])
    early = "0,1,14010100" + ",1" * 21
    return draw.choice([early, "1,0,14102x00"]) if kind == "avazu" else "1,2,3,seen,4"


def _text(lines: list[str], end: str, shapes: Set[str], draw: random.Random) -> bytes:
    if not lines:
        return draw.choice([b"", end.encode()])
    ends = [end * (draw.choice((1, 1, 1, 2)) if "blank" in shapes else 1) for _ in lines]
    if "open end" in shapes:
        ends[-1] = ""
    text = "".join(line + end for line, end in zip(lines, ends, strict=True)).encode()
    return (b"\xef\xbb\xbf" if "mark" in shapes else b"") + text


def _packed(suffix: str, text: bytes, draw: random.Random) -> bytes:
    """The bytes of a file: of a gzip file, one or two members."""
    if not suffix or not text:
        return text
    if suffix == ".zst":
        return bytes(pa.compress(text, codec="zstd", asbytes=True))
    cut = draw.randrange(len(text) + 1)
    return gzip.compress(text[:cut], mtime=0) + gzip.compress(text[cut:], mtime=0)


def _parquet(rows: list[dict[str, Any]], groups: int, *, is_dictionary: bool) -> bytes:
    is_text = isinstance(rows[0]["tags"], str) if rows else False
    texts = pa.array([row["text"] or None for row in rows], pa.string())
    columns = {
        **{name: pa.array([row[name] for row in rows]) for name in ("y", "user", "item")},
        "tags": pa.array([row["tags"] for row in rows], pa.string() if is_text else pa.list_(pa.string())),
        "text": texts.dictionary_encode() if is_dictionary else texts,
        **{name: pa.array([row[name] for row in rows], pa.float64()) for name in ("x", "z", "w")},
        "code": pa.array([row["code"] for row in rows], pa.int16()),
        "t": pa.array([str(row["t"]) for row in rows], pa.string()),
    }  # fmt: skip
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target, row_group_size=max(1, len(rows) // groups))
    return target.getvalue()
