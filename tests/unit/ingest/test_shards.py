"""A log that is read in shards has the bytes of one that is read as a whole, and the same errors."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.readers import jsonl
from fae.ingest.shards import kept_parts, log_order, shard_cuts, sharded_reading

TAGS = ColumnConfig(name="tags", max_length=3)
QUOTED: dict[str, Any] = {"label": "y", "categorical": ("user", "item", "text"), "dense": ("x",)}
PLAIN: dict[str, Any] = {"label": "y", "categorical": ("user", "item", TAGS), "dense": ("x",)}
CLICKED = "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id"
CLICKED += ",device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"


def popular(draw: random.Random, most: int) -> int:
    return int(draw.paretovariate(0.7)) % most


def criteo(draw: random.Random, number: int) -> str:
    lines = []
    for _ in range(number):
        counts = ["" if draw.random() < 0.3 else str(popular(draw, 10**6)) for _ in range(13)]
        ids = ["" if draw.random() < 0.1 else f"{popular(draw, 5000):08x}" for _ in range(26)]
        lines.append("\t".join([str(draw.randint(0, 1)), *counts, *ids]) + "\n" * draw.choice((1, 1, 1, 2)))
    return "".join(lines)


def quoted(draw: random.Random, number: int, end: str, share: float) -> str:
    """CSV of which a share of the lines has a value of two lines."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator=end)
    rows.writerow(["y", "user", "item", "text", "x"])
    for _ in range(number):
        text = 'a\nb, "c"' if draw.random() < share else draw.choice(["k", "l", "m,n"])
        user, item = f"u{popular(draw, 300)}", f"i{popular(draw, 900)}"
        rows.writerow([draw.randint(0, 1), user, item, text, draw.choice(["", "1.5", "-2", "7"])])
    return out.getvalue()


def plain(draw: random.Random, number: int, end: str = "\n", *, ended: bool = True) -> str:
    lines = ["y,user,item,tags,time,x"]
    for _ in range(number):
        tags = "|".join(str(draw.randint(0, 50)) for _ in range(draw.randint(0, 4)))
        time = f"2024-01-{draw.randint(1, 28):02} 10:00:00"
        user, item = f"u{popular(draw, 300)}", f"i{popular(draw, 900)}"
        lines.append(f"{draw.randint(0, 1)},{user},{item},{tags},{time},{draw.choice(['', '1.5', '-2'])}")
    return end.join(lines) + end * ended


def avazu(draw: random.Random, number: int) -> str:
    lines = [CLICKED]
    for index in range(number):
        hour = f"1410{21 + index * 10 // number}{index * 240 // number % 24:02}"
        lines.append(
            ",".join([str(index), str(draw.randint(0, 1)), hour, *(str(popular(draw, 200)) for _ in range(21))])
        )
    return "\n".join(lines) + "\n"


def objects(draw: random.Random, number: int) -> str:
    """JSON lines, of which some have no value of a column, and the later ones a key that is a folder's name too."""
    lines = []
    for index in range(number):
        found: dict[str, Any] = {"y": draw.randint(0, 1), "user": f"u{popular(draw, 300)}", "item": popular(draw, 900)}
        found |= {"tags": [f"t{draw.randint(0, 40)}" for _ in range(draw.randint(0, 4))], "x": draw.choice([None, 1.5])}
        found |= {"day": 5} if index > 50 else {}
        lines.append(
            json.dumps({key: value for key, value in found.items() if value is not None or draw.random() < 0.5})
        )
    return "\n\n".join(lines) + "\n"


def stored(draw: random.Random, number: int) -> Any:
    return pa.table(
        {
            "y": [draw.randint(0, 1) for _ in range(number)], "user": [popular(draw, 300) for _ in range(number)],
            "item": [f"i{popular(draw, 900)}" for _ in range(number)],
            "tags": [[f"t{draw.randint(0, 40)}" for _ in range(draw.randint(0, 4))] for _ in range(number)],
            "x": [draw.random() for _ in range(number)],
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw = tmp_path_factory.mktemp("logs"), random.Random(5)
    texts = {
        "a.tsv": criteo(draw, 400), "b.tsv": criteo(draw, 200), "q.csv": quoted(draw, 600, "\n", 0.1),
        "qr.csv": quoted(draw, 500, "\r\n", 0.3), "p.csv": plain(draw, 700), "pc.csv": plain(draw, 300, "\r"),
        "pr.csv": plain(draw, 300, "\r\n", ended=False), "v.csv": avazu(draw, 600), "none.csv": plain(draw, 0),
        "brackets.csv": "y,user,tags\n" + "".join(f"{i % 2},u{i % 7},[{i % 3} {i % 5}]\n" for i in range(1500)),
        "late.csv": "y,user,tags\n" + "".join(
            f"{i % 2},u{i % 7}," + (f"[{i % 3} {i % 5}]\n" if i > 1200 else f"{i % 3}|{i % 5}\n") for i in range(2500)
        ),
        "one_line.csv": "y,user,item,tags,time,x\n1," + "u" * 9000 + ",i,1,2024-01-01 10:00:00,1",
    }  # fmt: skip
    texts |= {"j.jsonl": objects(draw, 500), "k.jsonl": objects(draw, 100), "blank.jsonl": "\n" * 9000}
    texts["object.jsonl"] = texts["j.jsonl"] + "{\n" + texts["k.jsonl"]
    texts["missing.jsonl"] = texts["j.jsonl"].replace('"x"', '"z"')
    texts["late.jsonl"] = texts["missing.jsonl"] + '{"y": 0, "user": "u", "x": 3}'
    texts["long.jsonl"] = texts["j.jsonl"] + json.dumps({"y": 1, "user": "u" * 1100}) + "\n" + texts["j.jsonl"]
    texts["fields.tsv"] = texts["a.tsv"] + "1\t2\n" + texts["b.tsv"]
    texts["day.csv"] = texts["v.csv"] + "\n".join(texts["v.csv"].splitlines()[1:20]) + "\n"
    texts["time.csv"] = texts["p.csv"] + "1,u1,i1,3,7,\n1,u1,i1,3,2024-01-01 10:00:00,\n"
    texts["number.csv"] = texts["p.csv"] + "1,u1,i1,3,2024-01-01 10:00:00,zz\n" + "1,u,i,3,2024-01-01 10:00:00,\n" * 99
    texts["quote.csv"] = texts["q.csv"] + '0,"u5,i6,k,1\n' + "0,u5,i6,k,1\n" * 200
    (folder / "day=1").mkdir()
    texts["day=1/j.jsonl"] = texts["j.jsonl"]
    for name, text in texts.items():
        (folder / name).write_text(text, newline="")
    pq.write_table(stored(draw, 900), folder / "t.parquet", row_group_size=90)
    pq.write_table(stored(draw, 30), folder / "u.parquet", row_group_size=1)
    return folder


LOGS: dict[str, dict[str, Any]] = {
    "criteo": {"format": "criteo", "train": ("a.tsv", "b.tsv")},
    "constants": {"format": "criteo", "train": "a.tsv", "dense_transform": "standardize"},
    "values of two lines": {"train": "q.csv", **QUOTED},
    "many of two lines": {"train": "qr.csv", **QUOTED},
    "lists": {"train": ("p.csv", "pr.csv"), **PLAIN},
    "CR alone": {"train": "pc.csv", **PLAIN},
    "one line": {"train": ("one_line.csv", "p.csv"), **PLAIN},
    "by time": {"train": ("p.csv", "pr.csv"), "time": "time", **PLAIN},
    "at random": {"train": "p.csv", "split": "random", "split_by": "user", **PLAIN},
    "days": {"format": "avazu", "train": "v.csv"},
    "row groups": {"format": "parquet", "train": ("t.parquet", "u.parquet"), **PLAIN},
    "json lines": {"format": "jsonl", "train": ("j.jsonl", "k.jsonl"), **PLAIN},
    "json lines of a folder": {
        "format": "jsonl", "train": "day=1/j.jsonl", "label": "y", "categorical": ("user", "day"), "dense": ("x",),
    },
    "a column of the last line alone": {"format": "jsonl", "train": "late.jsonl", **PLAIN},
    "a part of blank lines": {"format": "jsonl", "train": ("j.jsonl", "blan*.jsonl"), **PLAIN},
    "an empty part": {"train": ("p.csv", "none*.csv", "pr.csv"), **PLAIN},
    "brackets behind many lists": {"train": "late.csv", "label": "y", "categorical": ("user", TAGS)},
    "one table": {
        "train": "p.csv", "label": "y", "dense": ("x",),
        "categorical": ("user", ColumnConfig(name="item", table="user")),
    },
}  # fmt: skip


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def read(logs: Path, out: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, threads: int, **log: Any) -> Path:
    monkeypatch.setattr(shard_cuts, "SHARD_BYTES", size)
    monkeypatch.setenv("FAE_NUM_THREADS", str(threads))
    ingest(LogConfig(**log), out, base=logs)
    return out


@pytest.mark.parametrize("name", LOGS)
def test_shards_do_not_matter(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = contents(read(logs, tmp_path / "whole", monkeypatch, None, 1, **LOGS[name]))
    for size, threads in ((20_000, 2), (3_000, 3)):
        out = tmp_path / f"{size}"
        assert contents(read(logs, out, monkeypatch, size, threads, **LOGS[name])) == whole
        assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "fields": ({"format": "criteo", "train": ("b.tsv", "fields.tsv")}, "fields.tsv, line [0-9]+: 2 fields"),
    "an open quote": ({"train": "quote.csv", **QUOTED}, "quote.csv, line 6[0-9][0-9]: a quote begins a value here"),
    "an early day": ({"format": "avazu", "train": "day.csv"}, "day.csv, line 602: day 141021 follows 141030"),
    "a time": ({"train": "time.csv", "time": "time", **PLAIN}, "time.csv, line 702: the time 'time' is '7', a number"),
    "a number": ({"train": "number.csv", **PLAIN}, "number.csv, line 702: field 6 is 'zz'"),
    "brackets": (
        {"train": "brackets.csv", "label": "y", "categorical": ("user", TAGS)}, "line 2: the list column 'tags'",
    ),
    "no object": ({"format": "jsonl", "train": "object.jsonl", **PLAIN}, "object.jsonl, line 1000: '{' is not JSON"),
    "a column of no line": (
        {"format": "jsonl", "train": ("j.jsonl", "missing.jsonl", "object.jsonl"), **PLAIN},
        "missing.jsonl: there is no column 'x' in any line",
    ),
    "blank lines": ({"format": "jsonl", "train": ("j.jsonl", "blank.jsonl"), **PLAIN}, "blank.jsonl holds no inputs"),
    "no inputs": ({"train": ("p.csv", "none.csv"), **PLAIN}, "none.csv holds a header and no inputs"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_is_the_first_of_the_log(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    log, line = FAULTS[name]
    lines = set()
    for size, threads in ((None, 1), (20_000, 2), (3_000, 3)):
        with pytest.raises(LogError, match=line) as fault:
            read(logs, tmp_path / str(size), monkeypatch, size, threads, **log)
        lines.add(str(fault.value))
    assert len(lines) == 1


def test_a_line_is_too_long_wherever_blocks_begin(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is read behind what is left of the one before it, so that a longer line may be whole in it."""
    log: dict[str, Any] = {"format": "jsonl", "train": "long.jsonl", **PLAIN}
    for block in (1000, 1024):
        monkeypatch.setattr(jsonl, "_BLOCK_BYTES", block)
        for size in (None, 20_000, 3_000, 1_500):
            with pytest.raises(LogError, match=r"long\.jsonl, line 1000: it is longer than "):
                read(logs, tmp_path / f"{block}-{size}", monkeypatch, size, 1, **log)


def test_a_shard_that_does_not_follow_is_read_again(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some shards of the quoted log begin inside a value; of the plain one none does."""
    again: list[int] = []
    real = log_order.read_rows
    monkeypatch.setattr(log_order, "read_rows", lambda task: again.append(task.span.begin) or real(task))
    read(logs, tmp_path / "quoted", monkeypatch, 300, 2, **LOGS["many of two lines"])
    assert again
    again.clear()
    read(logs, tmp_path / "plain", monkeypatch, 3_000, 2, **LOGS["criteo"])
    assert not again


def test_small_memory_does_not_matter(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabularies are then in files, of which nothing is left in a part."""
    whole = contents(read(logs, tmp_path / "whole", monkeypatch, None, 1, **LOGS["criteo"]))
    monkeypatch.setattr(sharded_reading, "_SMALLEST_MEMORY", 1000)
    seen: list[set[str]] = []
    real = kept_parts.KeptParts.drop_rows

    def drop_rows(parts: kept_parts.KeptParts, *what: Any, **options: Any) -> None:
        seen.extend({path.name for path in part.iterdir()} for part in parts.folder.iterdir())
        real(parts, *what, **options)

    monkeypatch.setattr(kept_parts.KeptParts, "drop_rows", drop_rows)
    ingest(LogConfig(**LOGS["criteo"]), tmp_path / "small", base=logs, memory_bytes=1000)
    assert contents(tmp_path / "small") == whole
    assert seen
    assert all(names == {"ids.npy", "dense.npy", "labels.npy", "work", "values", "part.json"} for names in seen)


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\r\nb\rc\n\r\n\r\rd")
    monkeypatch.setattr(log_order, "_LOOK_BYTES", 2)
    assert [log_order.count_lines(path, stop, log_order.CRLF) for stop in (1, 2, 3, 5, 7, 9, 11, 12)] == [
        0, 1, 1, 2, 3, 4, 6, 6,
    ]  # fmt: skip
    assert log_order.count_lines(path, 12, log_order.LF) == 3
