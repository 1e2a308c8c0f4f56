"""What a log may get wrong, seen from the command line: status 2, one line with place and value, nothing half-written.

Every fault is shown to a fresh folder, and to a folder with a good run, which must come out of it byte by byte as it
was. The reader's own tests (``test_ingest_errors``) have the finer points.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import HEADER, artifacts, contents, csv_text, fae, fault, succeed, unfinished, write_recipe, zipf_inputs

GOOD = csv_text(zipf_inputs(60)).encode()
NUM_LINES = len(GOOD.splitlines())
NEXT = f"line {NUM_LINES + 1}:"


def with_line(line: bytes) -> bytes:
    """A good log with one more line, and good lines behind it."""
    return GOOD + line + b"\n" + b"".join(GOOD.splitlines(keepends=True)[1:])


LOGS: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["log.csv is empty (0 bytes)"]),
    "header only": (csv_text([]).encode(), ["log.csv holds a header and no inputs"]),
    "blank lines only": (b"\n\n", ["log.csv holds no text"]),
    "short line": (with_line(b"1,u1,i1"), [NEXT, "3 fields, expected 6"]),
    "long line": (with_line(b"1,u1,i1,s1,1,2,3"), [NEXT, "7 fields, expected 6"]),
    "text for a number": (with_line(b"1,u1,i1,s1,cheap,2"), [NEXT, "'cheap', expected a number"]),
    "nan": (with_line(b"1,u1,i1,s1,NaN,2"), [NEXT, "'price' is nan, expected a finite number"]),
    "inf": (with_line(b"1,u1,i1,s1,inf,2"), [NEXT, "'price' is inf, expected a finite number"]),
    "minus infinity": (with_line(b"1,u1,i1,s1,1,-inf"), [NEXT, "'views' is -inf, expected a finite number"]),
    "label 2": (with_line(b"2,u1,i1,s1,1,2"), [NEXT, "the label 'label' is '2', expected 0 or 1"]),
    "label in words": (with_line(b"yes,u1,i1,s1,1,2"), [NEXT, "'yes', expected 0 or 1"]),
    "no label": (with_line(b",u1,i1,s1,1,2"), [NEXT, "is missing, expected 0 or 1"]),
    "label nan": (with_line(b"nan,u1,i1,s1,1,2"), [NEXT, "'nan', expected 0 or 1"]),
    "not UTF-8": (with_line(b"1,u\xff,i1,s1,1,2"), [NEXT, "field 2 is not UTF-8"]),
    "column not there": (GOOD.replace(b"item", b"itemid", 1), ["no column 'item'", "did you mean 'itemid'?"]),
    "column twice": (GOOD.replace(b"site", b"item", 1), ["the column 'item' is 2 times in the header"]),
    "quote never closed": (with_line(b'1,"u1,i1,s1,1,2'), [f"line {NUM_LINES + 1}"]),
    "gz without its name": (gzip.compress(GOOD), ["is compressed but not named so", "log.csv.gz"]),
    "too little": (csv_text(zipf_inputs(1)).encode(), ["1 inputs", "none is left for training", "test_fraction"]),
}


def refused(folder: Path, expected: list[str], **log: Any) -> None:
    """Run on the log in `folder`, into a new folder and over a good run."""
    recipe = write_recipe(folder, log=log)
    fault(fae("run", recipe, "--out", folder / "new"), *expected)
    assert not artifacts(folder / "new")
    before = contents(folder / "run")
    fault(fae("ingest", recipe, "--out", folder / "run", "--replace", "--json"), *expected)
    assert contents(folder / "run") == before
    assert not unfinished(folder)


@pytest.mark.parametrize("case", LOGS)
def test_text(finished: Path, case: str) -> None:
    content, expected = LOGS[case]
    (finished / "log.csv").write_bytes(content)
    refused(finished, expected, test_fraction=0.5 if case == "too little" else 0.2)


def zst(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zst)])
def test_truncated(finished: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = finished / f"log.csv.{suffix}"
    for keep in (-6, -200):
        path.write_bytes(compress(GOOD)[:keep])
        refused(finished, [path.name, "cut short or damaged", "copy it again"], train=path.name)
    path.write_bytes(GOOD)
    refused(finished, [path.name, f"is not {suffix}, though its name says so", "log.csv"], train=path.name)


def test_files_that_are_not_there(finished: Path) -> None:
    refused(finished, [str(finished / "none.csv"), "does not exist", "[log] train"], train="none.csv")
    refused(finished, ["'day_*.csv' matches no file under", str(finished)], train="day_*.csv")
    refused(finished, ["test", "none.csv", "does not exist"], test="none.csv", test_fraction=None)
    refused(finished, ["is a folder"], train="run")
    refused(finished, ["names no file"], train=[])
    refused(finished, ["log.csv is named twice"], train=["log.csv", "*.csv"])
    refused(finished, ["log.csv is named twice"], test="log.csv", test_fraction=None)


def test_second_file_with_another_header(finished: Path) -> None:
    (finished / "more.csv").write_text(csv_text(zipf_inputs(5), [*HEADER[:-1], "clicks"]))
    refused(finished, ["more.csv: there is no column 'views'"], train=["log.csv", "more.csv"])


def test_fault_in_a_test_file(finished: Path) -> None:
    (finished / "test.csv").write_bytes(with_line(b"7,u1,i1,s1,1,2"))
    refused(finished, ["test.csv", NEXT, "'7', expected 0 or 1"], test="test.csv", test_fraction=None)


def test_parquet(finished: Path) -> None:
    (finished / "log.parquet").write_bytes(GOOD)
    refused(finished, ["is text and not Parquet"], format="parquet", train="log.parquet")
    columns = dict(zip(HEADER, zip(*zipf_inputs(20), strict=True), strict=True))
    columns["price"] = [*columns["price"][:-1], float("nan")]
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), finished / "log.parquet")
    refused(finished, ["input 20", "'price' is nan"], format="parquet", train="log.parquet")


def test_criteo(finished: Path) -> None:
    line = "\t".join(["1", *["3"] * 13, *["68fd1e64"] * 26]) + "\n"
    (finished / "log.tsv").write_text(line * 30 + line[:-1] + "\t\n")
    own = {"format": "criteo", "train": "log.tsv", "categorical": None, "dense": None, "label": None}
    refused(finished, ["line 31: 41 fields, expected 40"], **own)
    refused(finished, ["has its own columns"], **{**own, "categorical": ["C1"]})
    for field, value, expected in (
        (0, "2", "the label 'label' is '2', expected 0 or 1"),
        (0, "", "the label 'label' is '', expected 0 or 1"),
        (1, "3.5", "the count I1 (field 2) is '3.5', expected a whole number of at most 18 digits"),
        (13, "many", "the count I13 (field 14) is 'many', expected a whole number"),
        (14, "68fd1e6g", "the id C1 (field 15) is '68fd1e6g', expected at most 8 hex digits (0-9, a-f)"),
        (39, "68FD1E64", "the id C26 (field 40) is '68FD1E64', expected at most 8 hex digits"),
    ):
        fields = line[:-1].split("\t")
        fields[field] = value
        (finished / "log.tsv").write_text(line * 30 + "\n" + "\t".join(fields) + "\n" + line)
        refused(finished, ["log.tsv, line 32: ", expected, "fix or remove the line"], **own)


def test_public_logs(finished: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(["categorical", "dense", "label", "test_fraction", "validation_fraction"])
    line = "\t".join(["1", *["3"] * 13, *["68fd1e64"] * 26]) + "\n"
    (finished / "log.tsv").write_text(line * 6)
    for name, expected in (
        ("criteo_terabyte", "halves the last of its files for validation and test, and there is only log.tsv"),
        ("avazu", "there is no column 'click'"),
    ):
        refused(finished, [expected], **nothing, format=name, train="log.tsv")
    this = {**nothing, "format": "taobao", "train": "log.tsv"}
    recipe = write_recipe(finished, log=this, model={"name": "tbsm"})
    fault(fae("run", recipe, "--out", finished / "new"), "log.tsv, line 1: 1 fields, expected 5 (user, item, category,")
    refused(
        finished, ["splits them by user; leave `test`"], **{**nothing, "test_fraction": 0.2}, format="taobao", train="x"
    )
    recipe = write_recipe(finished, log={**nothing, "format": "criteo_kagle", "train": "log.tsv"})
    fault(
        fae("run", recipe, "--out", finished / "new"), "'criteo_kagle' is not one of", "did you mean 'criteo_kaggle'?"
    )


def test_log_that_changes_between_stages_of_one_run(finished: Path) -> None:
    """A new log under old artifacts, as wanted: later stages belong to the old one, and say so when run alone."""
    (finished / "log.csv").write_text(csv_text(zipf_inputs(100, seed=9)))
    recipe, run = finished / "recipe.toml", finished / "run"
    succeed("ingest", recipe, "--out", run, "--replace")
    fault(fae("calibrate", recipe, "--out", run), "the profile was made from another log", "`fae profile RECIPE.toml`")
    fault(fae("train", recipe, "--out", run), "was made from another", "run `fae")
