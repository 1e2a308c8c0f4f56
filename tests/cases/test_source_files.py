"""Which files a log is made of: names, patterns, links, parts without inputs, and files that are gone."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from case_folders import Case, column_values, copy_case, fae_process
from fae.artifacts.columnar_log import ColumnarLog

from commands import contents, fae, fault, toml

HEADER = "y,user,item,price\n"


def lines(first: int, stop: int) -> str:
    return "".join(f"{i % 2},u{i % 7},i{i % 5},{i / 2}\n" for i in range(first, stop))


def write_case(folder: Path, train: object = "*.csv", **log: object) -> Case:
    """A recipe for the columns of `lines`, in its folder."""
    table = {
        "train": train, "label": "y", "categorical": ["user", "item"], "dense": ["price"], "test_fraction": 0.25,
        "validation_fraction": 0.1, "dense_transform": "none", **log,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    tables = {
        "log": table, "model": {"embedding_dim": 4, "bottom_mlp": [8], "top_mlp": [8]}, "hot": {"budget": "64KiB"},
        "train": {"batch_size": 16},
    }  # fmt: skip
    (folder / "recipe.toml").write_text(toml(tables))
    return Case(folder)


def prices(log: ColumnarLog) -> list[float]:
    return [float(value) for value in log.dense[:, 0]]


def log_of(case: Case) -> ColumnarLog:
    return ColumnarLog(case.folder / "out" / "log")


# Links


def test_linked_files_order(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "clicks/day_*.csv")
    for folder in ("blobs", "clicks"):
        (case.folder / folder).mkdir()
    for number, (day, blob) in enumerate((("1", "f1"), ("2", "a2"), ("3", "c3"), ("10", "b4"))):
        (case.folder / "blobs" / blob).write_text(HEADER + lines(10 * number, 10 * number + 10))
        (case.folder / "clicks" / f"day_{day}.csv").symlink_to(f"../blobs/{blob}")
    log = case.ingest()
    assert prices(log) == [i / 2 for i in range(40)]
    assert log.split("test") == (30, 40)
    assert log.manifest.parameters["train"] == ["day_1.csv", "day_2.csv", "day_3.csv", "day_10.csv"]


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_linked_file_gz(tmp_path: Path, packed: str) -> None:
    text = (HEADER + lines(0, 40)).encode()
    data = gzip.compress(text) if packed == ".gz" else pa.compress(text, "zstd", asbytes=True)
    for name, train in (("named", f"train.csv{packed}"), ("found", "tr*")):
        case = write_case(tmp_path / name, train)
        (case.folder / "blobs").mkdir()
        (case.folder / "blobs" / "3f9c0d").write_bytes(data)
        (case.folder / f"train.csv{packed}").symlink_to("blobs/3f9c0d")
        assert prices(case.ingest()) == [i / 2 for i in range(40)]


def test_a_link_to_criteo_text(tmp_path: Path) -> None:
    fields = ["\t".join(["1", *["3"] * 13, *["0a"] * 26]) for _ in range(40)]
    (tmp_path / "blob").write_bytes(gzip.compress(("\n".join(fields) + "\n").encode()))
    case = write_case(tmp_path / "case", "day_0.gz", format="criteo", label="label", categorical=[], dense=[])
    (case.folder / "day_0.gz").symlink_to("../blob")
    assert case.ingest().num_inputs == 40


def test_links_to_nothing_and_in_circles(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case")
    (case.folder / "a.csv").write_text(HEADER + lines(0, 40))
    (case.folder / "b.csv").symlink_to("gone.csv")
    fault(case.fae("ingest"), "b.csv is a link to gone.csv, which does not exist")
    fault(case.fae("ingest", "--set", "log.train=b.csv"), "b.csv is a link to gone.csv, which does not exist")
    (case.folder / "b.csv").unlink()
    (case.folder / "b.csv").symlink_to("b.csv")
    for train in ("*.csv", "b.csv"):
        fault(case.fae("ingest", "--set", f"log.train={train}"), "cannot read", "b.csv: Too many levels of symbolic")
    (case.folder / "b.csv").unlink()
    (case.folder / "circle").symlink_to(".")
    (case.folder / "deep").mkdir()
    (case.folder / "deep" / "circle").symlink_to("..")
    assert case.ingest("log.train=**/*.csv").num_inputs == 40


def test_a_file_by_two_links_is_named_twice(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case")
    (case.folder / "a.csv").write_text(HEADER + lines(0, 40))
    (case.folder / "b.csv").symlink_to("a.csv")
    fault(case.fae("ingest"), "b.csv (also as", "a.csv) is named twice, by [log] train and by [log] train")


# Parts without inputs, folders, and what lies beside the data


def test_empty_part_in_glob(tmp_path: Path) -> None:
    case = copy_case("empty-part-in-glob", tmp_path)
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert log_of(case).num_inputs == 40
    assert "1 file holds no inputs and is passed over: part-1.parquet" in done.stderr
    assert log_of(case).manifest.summary["notes"][0].startswith("1 file holds no inputs")
    fault(case.fae("ingest", "--set", "log.train=['p/part-0.parquet', 'p/part-1.parquet']"), "part-1.parquet holds no")
    fault(case.fae("ingest", "--set", "log.train=p/part-1*"), "hold no inputs at all")


def test_parts_of_a_header_and_of_nothing(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "p/*")
    (case.folder / "p").mkdir()
    for number in range(3):
        (case.folder / "p" / f"part-{number}.csv").write_text(HEADER + lines(10 * number, 10 * number + 10))
    expected = contents(case.ingest().path)
    (case.folder / "p" / "_SUCCESS").write_text("")
    (case.folder / "p" / "_metadata").write_text("x")
    (case.folder / "p" / ".part-0.csv.crc").write_text("x")
    (case.folder / "p" / "part-0.csv~").write_text("x")
    (case.folder / "p" / "part-0.csv.crc").write_text("x")
    (case.folder / "p" / "empty.csv").write_text("")
    assert contents(case.ingest().path) == expected  # the same log
    (case.folder / "p" / "part-1b.csv").write_text(HEADER)
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert prices(log_of(case)) == [i / 2 for i in range(30)]
    for line in (
        "passes over 2 files or folders whose names begin with _",
        "passes over 2 files whose names say that they are no logs: ",
        "passes over 1 file of 0 bytes: empty.csv",
        "1 file holds no inputs and is passed over: part-1b.csv",
    ):
        assert line in done.stderr
    fault(case.fae("ingest", "--set", "log.train=p/empty.csv"), "empty.csv is empty (0 bytes)")
    fault(case.fae("ingest", "--set", "log.train=p/e*.csv"), "matches no file", "1 file of 0 bytes: empty.csv")


def test_the_recipe_beside_the_data(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "*")
    (case.folder / "a.csv").write_text(HEADER + lines(0, 40))
    (case.folder / "README.md").write_text("x")
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert log_of(case).manifest.parameters["train"] == ["a.csv"]
    assert "passes over 2 files whose names say that they are no logs: " in done.stderr
    assert case.fae("ingest").status == 0


def test_folder_named_csv(tmp_path: Path) -> None:
    case = copy_case("folder-named-csv", tmp_path)
    fault(case.fae("ingest"), "matches the folder", "clicks.csv and no file", "write 'clicks.csv/*.csv' to read")
    fault(case.fae("ingest", "--set", "log.train=clicks.csv"), "is a folder; write 'clicks.csv/*.csv' to read")
    fault(case.fae("ingest", "--set", "log.train=clicks.csv/"), "is a folder; write 'clicks.csv/*.csv' to read")
    log = case.ingest("log.train=clicks.csv/*.csv")
    assert log.manifest.parameters["train"] == ["part-00000.csv", "part-00001.csv"]


def test_glob_finds_own_run(tmp_path: Path) -> None:
    case = copy_case("glob-finds-own-run", tmp_path)
    run = case.folder / "runs" / "recipe"
    first = fae("ingest", case.folder / "recipe.toml", "--out", run)
    assert first.status == 0, first.stderr
    second = fae("ingest", case.folder / "recipe.toml", "--out", run)
    assert "ingest: already there" in second.stderr, second.stderr
    assert ColumnarLog(run / "log").manifest.parameters["train"] == ["1.parquet", "2.parquet"]
    shutil.copytree(run / "log", case.folder / "kept")  # an artifact elsewhere
    third = fae("ingest", case.folder / "recipe.toml", "--out", tmp_path / "other")
    assert third.status == 0, third.stderr
    assert "passes over 2 folders that are artifacts or run folders of fae: " in third.stderr


def test_pipes_sockets_and_devices(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "a.csv")
    os.mkfifo(case.folder / "a.csv")
    plain = "a log must be a plain file, because it is read twice"
    fault(case.fae("ingest"), "a.csv is a pipe", plain)
    fault(case.fae("ingest", "--set", "log.train=*.csv"), "a.csv is a pipe", plain)
    fault(case.fae("ingest", "--set", "log.train=/dev/null"), "/dev/null is a device", plain)
    (case.folder / "a.csv").unlink()
    place = os.getcwd()
    os.chdir(case.folder)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("a.csv")
    finally:
        os.chdir(place)
    fault(case.fae("ingest"), "a.csv is a socket", plain)


def test_standard_input(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "/dev/stdin")
    done = fae_process("ingest", "recipe.toml", "--out", "out", folder=case.folder, input=HEADER + lines(0, 4))
    assert done.returncode == 2
    assert "/dev/stdin is a pipe, and a log must be a plain file" in done.stderr.splitlines()[-1]


# One content, several names


def test_same_file_twice(tmp_path: Path) -> None:
    case = copy_case("same-file-twice", tmp_path)
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert "two files have the same bytes: their inputs are in the log twice" in done.stderr
    assert "a.csv and a (1).csv" in done.stderr
    assert log_of(case).num_inputs == 80
    assert case.fae("ingest").stderr.count("the same bytes") == 1  # also where the log is there already
    os.link(case.folder / "a.csv", case.folder / "b.csv")
    done = case.fae("ingest", "--set", "log.train=[ab].csv")
    assert "two files have the same bytes" in done.stderr
    assert "b.csv and a.csv" in done.stderr


def test_a_test_file_that_is_a_copy_of_a_train_file(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "a.csv", test="b.csv", test_fraction=None)
    (case.folder / "recipe.toml").write_text(
        (case.folder / "recipe.toml").read_text().replace("test_fraction = null\n", "")
    )
    for name in ("a.csv", "b.csv"):
        (case.folder / name).write_text(HEADER + lines(0, 40))
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert "the test split is what was trained on, so its metrics say nothing" in done.stderr
    assert "b.csv and a.csv" in done.stderr
    fault(case.fae("ingest", "--set", "log.test=a.csv"), "is named twice, by [log] train and by [log] test")


def test_packed_and_unpacked(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "a*")
    (case.folder / "a.csv").write_text(HEADER + lines(0, 40))
    (case.folder / "a.csv.gz").write_bytes(gzip.compress((HEADER + lines(0, 40)).encode()))
    done = case.fae("ingest")
    assert "two files have one name, packed and unpacked" in done.stderr
    assert "a.csv and a.csv.gz" in done.stderr


# Files that are gone


def test_raw_log_gone(tmp_path: Path) -> None:
    case = copy_case("raw-log-gone", tmp_path)
    first = case.ingest()
    (case.folder / "a.csv").rename(case.folder / "b.csv")
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert "a.csv does not exist: the raw files are not looked at, and" in done.stderr
    assert "ingest: already there" in done.stderr
    assert log_of(case).manifest.fingerprint == first.manifest.fingerprint
    fault(case.fae("ingest", "--set", "log.test_fraction=0.3"), "a.csv does not exist; set [log] train")
    fault(case.fae("ingest", "--set", "log.train=c.csv"), "c.csv does not exist; set [log] train")


def test_a_run_continues_without_its_raw_log(tmp_path: Path) -> None:
    case = copy_case("raw-log-gone", tmp_path)
    assert case.fae("run", "--device", "cpu").status == 0
    (case.folder / "a.csv").unlink()
    done = case.fae("run", "--device", "cpu", "--set", "train.epochs=2")
    assert done.status == 0, done.stderr
    assert done.stderr.count("the raw files are not looked at") == 1


def test_patterns_whose_files_are_gone(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", ["p/day_*.csv", "q/*.csv"])
    for number, name in enumerate(("p/day_1.csv", "p/day_2.csv", "q/x.csv")):
        (case.folder / name).parent.mkdir(exist_ok=True)
        (case.folder / name).write_text(HEADER + lines(10 * number, 10 * number + 10))
    case.ingest()
    shutil.move(case.folder / "p", case.folder / "r")
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert "matches no file" in done.stderr
    assert "(and 1 more): the raw files are not looked at" in done.stderr
    (case.folder / "q" / "x.csv").write_text(HEADER + lines(21, 30) + lines(20, 21))  # as long, other bytes
    fault(case.fae("ingest"), "'p/day_*.csv' matches no file")
    (case.folder / "q" / "x.csv").write_text(HEADER + lines(20, 30))
    (case.folder / "p").mkdir()
    shutil.copy(case.folder / "r" / "day_1.csv", case.folder / "p")  # fewer files are another log
    done = case.fae("ingest")
    assert "already there" not in done.stderr
    assert log_of(case).num_inputs == 20


def test_raw_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fae.ingest.raw_files import source_digests

    case = copy_case("raw-log-gone", tmp_path)
    first = case.ingest().manifest.fingerprint
    os.utime(case.folder / "a.csv", (1, 1))  # so that its digest is not known
    monkeypatch.setattr(source_digests, "_known_digests", {})

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(source_digests, "open_blocks", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    done = case.fae("ingest")
    assert done.status == 0, done.stderr
    assert "a.csv: Permission denied: the raw files are not looked at" in done.stderr
    assert log_of(case).manifest.fingerprint == first
    fault(case.fae("ingest", "--set", "log.min_frequency=2"), "a.csv: Permission denied; check its permissions")


# Order and names


def test_hive_folders(tmp_path: Path) -> None:
    case = copy_case("hive-folders", tmp_path)
    shutil.copytree(case.folder / "p" / "day=2", case.folder / "p" / "day=10")
    half = pq.ParquetFile(case.folder / "p" / "day=1" / "a.parquet").metadata.num_rows
    log = case.ingest("log.test_fraction=0.0")
    assert column_values(log, "day") == ["1"] * half + ["2"] * half + ["10"] * half
    fault(case.fae("ingest", "--set", "log.train=p"), "is a folder; write 'p/**/*.parquet' to read the files in it")
    first = log.manifest.fingerprint
    (case.folder / "p" / "day=10").rename(case.folder / "p" / "day=11")
    again = case.ingest("log.test_fraction=0.0")
    assert again.manifest.fingerprint != first  # the folder's name is a value of the log
    assert column_values(again, "day")[-1] == "11"


def test_brackets_in_names(tmp_path: Path) -> None:
    case = write_case(tmp_path / "run [1] of [a-c]", "data[1]/*.csv")
    (case.folder / "data[1]").mkdir()
    (case.folder / "data1").mkdir()
    (case.folder / "data[1]" / "day[2].csv").write_text(HEADER + lines(0, 40))
    (case.folder / "data1" / "day2.csv").write_text(HEADER + lines(40, 80))
    assert prices(case.ingest()) == [i / 2 for i in range(40)]
    assert prices(case.ingest("log.train=data[1]/day[2].csv")) == [i / 2 for i in range(40)]
    assert prices(case.ingest("log.train=data[0-9]/day[!1].csv")) == [i / 2 for i in range(40, 80)]


@pytest.mark.parametrize("log_format", ["csv", "csv.gz", "parquet"])
def test_names_of_any_bytes(tmp_path: Path, log_format: str) -> None:
    case = write_case(tmp_path / "case", "x*", format=log_format.split(".")[0])
    path = os.fsencode(case.folder) + b"/x\xff\x1b[2J." + log_format.encode()
    text = (HEADER + lines(0, 40)).encode()
    if log_format == "parquet":
        columns = {"y": [i % 2 for i in range(40)], "user": ["u"] * 40, "item": ["i"] * 40, "price": np.arange(40) / 2}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        text = sink.getvalue().to_pybytes()
    with open(path, "wb") as file:
        file.write(gzip.compress(text) if log_format == "csv.gz" else text)
    log = case.ingest()
    assert prices(log) == [i / 2 for i in range(40)]
    assert case.ingest().manifest.fingerprint == log.manifest.fingerprint
    os.rename(path, path + b".bak")
    done = case.fae("ingest")
    assert "\x1b" not in done.stderr


def test_names_that_no_system_has(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", "a.csv")
    for name in ("x" * 5000, "~nobodyxyz/a.csv", "a" * 300):
        fault(case.fae("ingest", "--set", f"log.train={name}"), "[log] train")
    (case.folder / "f.csv").write_text(HEADER + lines(0, 40))
    fault(case.fae("ingest", "--set", "log.train=f.csv/x.csv"), "does not exist")
    fault(case.fae("ingest", "--set", "log.train=f.csv/*.csv"), "matches no file")


def test_many_small_files(tmp_path: Path) -> None:
    from fae.ingest.config import LogConfig
    from fae.ingest.log_plan import plan_ingest

    def num_calls(count: int) -> int:
        """Calls of functions while the files are named, in this thread alone: no clock, so no load of the machine."""
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.csv").write_text(HEADER + lines(number, number + 5))
        config = LogConfig(train=f"{count}/*.csv", label="y", categorical=("user",))
        calls = 0

        def count_call(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count_call)
        try:
            plan = plan_ingest(config, base=tmp_path)
        finally:
            sys.setprofile(before)
        assert plan.parameters["train"] == [f"{number}.csv" for number in range(count)]
        return calls

    num_calls(5)  # imports and caches
    assert num_calls(1500) < 6 * num_calls(300)
