"""Order and splits of a log: by a column of times, at random, by the values of a column."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from case_folders import column_values, copy_case
from fae.artifacts.columnar_log import ColumnarLog
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.input_order import ordered_rows

from commands import contents

NUMBERS = np.random.default_rng(5)


def write(path: Path, times: Sequence[object], first: int = 0) -> None:
    """Inputs of the users ``u0 .. u9``, whose price is their number in the log."""
    rows = [f"{(first + i) % 2},u{(first + i) % 10},{first + i},{time}\n" for i, time in enumerate(times)]
    path.write_text("y,user,price,t\n" + "".join(rows))


def make(folder: Path, name: str = "log", **changes: object) -> ColumnarLog:
    settings = {
        "train": "a.csv", "label": "y", "categorical": ("user",), "dense": ("price",), "dense_transform": "none",
        **changes,
    }  # fmt: skip
    return ingest(LogConfig(**settings), folder / name, base=folder)  # type: ignore[arg-type]


def prices(log: ColumnarLog, split: str = "") -> list[int]:
    start, stop = log.split(split) if split else (0, log.num_inputs)  # type: ignore[arg-type]
    return [int(value) for value in log.dense[start:stop, 0]]


def check_rows(log: ColumnarLog) -> None:
    """Labels, ids and dense values of a row belong to one input."""
    order = prices(log)
    assert sorted(order) == list(range(log.num_inputs))
    assert log.labels.tolist() == [number % 2 for number in order]
    users = column_values(log, "user")
    assert all(user in (None, f"u{number % 10}") for user, number in zip(users, order, strict=True))
    start, stop = log.split("train")
    assert log.counts.tolist() == np.bincount(log.ids[start:stop, 0], minlength=len(log.counts)).tolist()


def test_log_out_of_time_order(tmp_path: Path) -> None:
    case = copy_case("log-out-of-time-order", tmp_path)
    times = [int(line.split(",")[3]) for line in (case.folder / "a.csv").read_text().splitlines()[1:]]
    done = case.fae("ingest", "--set", "log.time=t", "--set", 'log.dense=["t"]')
    assert done.status == 0, done.stderr
    log = ColumnarLog(case.folder / "out" / "log")
    expected = sorted(times)
    assert [float(value) for value in log.dense[:, 0]] == [float(np.float32(value)) for value in expected]
    start = log.split("test")[0]
    assert start < len(times)
    assert expected[start - 1] < expected[start]
    assert "inputs are earlier than one before them, so the log is sorted by 't'" in done.stderr


FORMS = {
    "whole": lambda i: 1_700_000_000_000_000_000 + i,  # float64 cannot tell these apart
    "whole and decimal": lambda i: (2**60 + i, f"{i}e0")[i < 100],
    "decimal": lambda i: f"{i / 8 - 20}",
    "date": lambda i: (datetime.date(1999, 12, 1) + datetime.timedelta(i)).isoformat(),
    "iso": lambda i: (datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=i)).isoformat(sep=" "),
    "zoned": lambda i: (
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=i % 5)))
        + datetime.timedelta(hours=10 * i)
    ).isoformat(),
    "text": lambda i: f"week {i:04}",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_times_of_every_form(tmp_path: Path, form: str) -> None:
    shuffled = NUMBERS.permutation(200).tolist()
    write(tmp_path / "a.csv", [FORMS[form](number) for number in shuffled])
    log = make(tmp_path, time="t")
    assert prices(log) == np.argsort(shuffled).tolist()
    check_rows(log)
    assert log.split("test") == (180, 200)
    assert log.split("validation") == (171, 180)


@pytest.mark.parametrize(
    "kind", ["int32", "uint64", "float64", "date32", "timestamp[ms]", "timestamp[s, UTC]", "bytes"]
)
def test_times_of_parquet(tmp_path: Path, kind: str) -> None:
    shuffled = NUMBERS.permutation(100)
    if kind == "date32":
        times = pa.array(shuffled.astype(np.int32)).cast(pa.date32())
    elif kind.startswith("timestamp"):
        times = pa.array(shuffled).cast(pa.timestamp("ms") if "ms" in kind else pa.timestamp("s", tz="UTC"))
    elif kind == "bytes":
        times = pa.array([f"t{number:03}".encode() for number in shuffled])
    else:
        times = pa.array(shuffled.astype(kind))
    numbers = np.arange(100)
    table = {"y": numbers % 2, "user": [f"u{i % 10}" for i in numbers], "price": numbers.astype(float), "t": times}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    log = make(tmp_path, train="a.parquet", format="parquet", time="t")
    assert prices(log) == np.argsort(shuffled).tolist()
    check_rows(log)


def test_an_ordered_log_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.csv", range(100))

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ordered_rows, "_write_in_order", refuse)
    plain, ordered = make(tmp_path), make(tmp_path, "ordered", time="t")
    for name in ("ids.npy", "dense.npy", "labels.npy", "counts.npy"):
        assert (plain.path / name).read_bytes() == (ordered.path / name).read_bytes()
    assert plain.manifest.summary["splits"] == ordered.manifest.summary["splits"]
    assert "notes" not in ordered.manifest.summary or not any("earlier" in n for n in ordered.manifest.summary["notes"])


def test_the_order_is_stable_and_over_all_files(tmp_path: Path) -> None:
    write(tmp_path / "a1.csv", [3, 1, 3, 1, 2] * 4)
    write(tmp_path / "a2.csv", [2, 0, 3, 1, 2] * 4, first=20)
    write(tmp_path / "b.csv", [9, 0, 5, 4] * 5, first=40)
    log = make(tmp_path, train="a*.csv", test="b.csv", time="t", validation_fraction=0.0)
    train, test = [3, 1, 3, 1, 2] * 4 + [2, 0, 3, 1, 2] * 4, [9, 0, 5, 4] * 5
    assert prices(log, "train") == np.argsort(train, kind="stable").tolist()
    assert prices(log, "test") == (np.argsort(test, kind="stable") + 40).tolist()
    check_rows(log)


def test_a_time_is_in_one_split(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [i // 30 for i in range(100)])
    log = make(tmp_path, time="t", test_fraction=0.2, validation_fraction=0.3)
    assert log.manifest.summary["splits"] == {"train": [0, 30], "validation": [30, 60], "test": [60, 100]}
    write(tmp_path / "a.csv", [7] * 100)  # one time alone: by number
    log = make(tmp_path, "same", time="t", test_fraction=0.2, validation_fraction=0.0)
    assert log.split("test") == (80, 100)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1, 2, "", 4], "a.csv, line 4: the time 't' has no value"),
        ([1, 2, "2024-01-01", 4], "a.csv, line 4: the time 't' is '2024-01-01', a date or time without a zone"),
        (["2024-01-01", "7", "2024-01-02"], "a.csv, line 3: the time 't' is '7', a number, and the first time of the"),
        (["2024-01-01", "soon", "2024-01-02"], "a.csv, line 3: the time 't' is 'soon', text, and the first time of"),
        (["2024-01-01", "2024-01-02T03:04Z"], "a.csv, line 3: the time 't' is '2024-01-02T03:04Z', a time with a zone"),
        ([1, "nan", 3], "a.csv, line 3: the time 't' is 'nan', no finite number"),
        ([1, "1e999", 3], "a.csv, line 3: the time 't' is '1e999', too large"),
        (["nan", 1], "a.csv, line 2: the time 't' is 'nan', no finite number"),
        (["2024-02-30", "2024-01-30"], "line 3: the time 't' is '2024-01-30', a date or time without a zone, and the"),
        (["2024-01-30", "2024-02-30"], "line 3: the time 't' is '2024-02-30', text, and the first time of the log, '2"),
        (["2024-01-30", "9999-12-31"], "line 3: the time 't' is '9999-12-31', which is outside the years 1678 to 2261"),
        (["9999-12-31", "2024-01-30"], "line 2: the time 't' is '9999-12-31', which is outside the years 1678 to 2261"),
        (["x" * 49, "y"], "a.csv, line 2: the time 't' is text of 49 bytes, and a time has at most 48"),
    ],
)  # fmt: skip
def test_times_that_are_none(tmp_path: Path, times: list[object], expected: str) -> None:
    from fae.core.errors import LogError

    write(tmp_path / "a.csv", times)
    with pytest.raises(LogError) as caught:
        make(tmp_path, time="t")
    assert expected in str(caught.value)


def test_a_random_split_has_the_shares_that_the_fractions_say(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", range(1000))
    log = make(tmp_path, split="random", test_fraction=0.2, validation_fraction=0.1)
    assert log.manifest.summary["splits"] == {"train": [0, 720], "validation": [720, 800], "test": [800, 1000]}
    check_rows(log)
    for split in ("train", "validation", "test"):
        assert prices(log, split) == sorted(prices(log, split))  # within a split the log's order
    test = prices(log, "test")
    assert 70 < sum(number < 500 for number in test) < 130
    again = make(tmp_path, "other", split="random", split_seed=1, test_fraction=0.2, validation_fraction=0.1)
    assert prices(again, "test") != test
    assert again.manifest.fingerprint != log.manifest.fingerprint


def test_a_random_validation_split_beside_test_files(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", range(100))
    write(tmp_path / "b.csv", range(20), first=100)
    log = make(tmp_path, test="b.csv", split="random", validation_fraction=0.25)
    assert log.manifest.summary["splits"] == {"train": [0, 75], "validation": [75, 100], "test": [100, 120]}
    assert prices(log, "test") == list(range(100, 120))
    check_rows(log)


def test_split_by_keeps_a_value_in_one_split(tmp_path: Path) -> None:
    keys = [f"s{number}" for number in NUMBERS.integers(0, 300, 3000)]
    write(tmp_path / "a.csv", keys)
    changes = {"split": "random", "split_by": "t", "test_fraction": 0.2, "validation_fraction": 0.1}
    log = make(tmp_path, **changes)
    found = [{keys[number] for number in prices(log, split)} for split in ("train", "validation", "test")]
    assert sum(map(len, found)) == len(set.union(*found))
    assert 300 < log.num_inputs - log.split("test")[0] < 900
    check_rows(log)
    # Parquet has the same values, and so the same splits.
    table = {
        "y": np.arange(3000) % 2,
        "user": [f"u{i % 10}" for i in range(3000)],
        "price": np.arange(3000.0),
        "t": keys,
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    again = make(tmp_path, "parquet", train="a.parquet", format="parquet", **changes)
    assert prices(again) == prices(log)


def test_a_random_split_in_the_order_of_time(tmp_path: Path) -> None:
    times = NUMBERS.permutation(400).tolist()
    write(tmp_path / "a.csv", times)
    log = make(tmp_path, split="random", time="t")
    for split in ("train", "validation", "test"):
        inside = [times[number] for number in prices(log, split)]
        assert inside == sorted(inside)
    check_rows(log)


def test_small_windows_and_kills_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write(tmp_path / f"a{number}.csv", NUMBERS.permutation(300).tolist(), first=300 * number)
    changes = {"train": "a*.csv", "time": "t", "split": "random", "split_by": "user"}
    expected = contents(make(tmp_path, **changes).path)
    monkeypatch.setattr(ordered_rows, "_WINDOW_BYTES", 500)
    monkeypatch.setattr(ordered_rows, "_STEP_BYTES", 100)
    assert contents(make(tmp_path, "small", **changes).path) == expected
    for module, name, turn in (
        ("input_order.ordered_rows", "_write_in_order", 2), ("input_order.ordered_rows", "_find_order", 1),
        ("numbering.second_pass", "Renumbering", 1), ("ingest", "second_pass", 1),
    ):  # fmt: skip
        path = f"fae.ingest.{module}.{name}"
        with monkeypatch.context() as patch:
            _interrupt(patch, path, turn)
            with pytest.raises(KeyboardInterrupt):
                make(tmp_path, f"killed_{name}", **changes)
        assert contents(make(tmp_path, f"killed_{name}", **changes).path) == expected


def _interrupt(patch: pytest.MonkeyPatch, path: str, turn: int) -> None:
    import importlib

    module, _, name = path.rpartition(".")
    real, calls = getattr(importlib.import_module(module), name), itertools.count(1)

    def work(*arguments: object, **options: object) -> object:
        if next(calls) == turn:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    patch.setattr(path, work)


def test_a_criteo_log_splits_at_random(tmp_path: Path) -> None:
    lines = ["\t".join([str(i % 2), str(i), *["3"] * 12, *["0a"] * 26]) for i in range(200)]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    config = LogConfig(train="train.txt", format="criteo_kaggle", split="random", dense_transform="none")
    log = ingest(config, tmp_path / "log", base=tmp_path)
    assert sorted(prices(log)) == list(range(200))
    assert log.split("test") == (180, 200)
    assert prices(log, "test") != list(range(180, 200))
    assert log.labels.tolist() == [number % 2 for number in prices(log)]


def test_weights_follow_their_inputs(tmp_path: Path) -> None:
    times = NUMBERS.permutation(50).tolist()
    write(tmp_path / "a.csv", times)
    log = make(tmp_path, time="t", weight="price")
    assert np.load(log.path / "weights.npy").tolist() == [float(number) for number in prices(log)]
    assert prices(log) == np.argsort(times).tolist()


def test_a_kill_while_arrays_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.csv", NUMBERS.permutation(200).tolist())
    expected = contents(make(tmp_path, time="t").path)
    real = Path.replace
    with monkeypatch.context() as patch:

        def replace(self: Path, target: Path) -> Path:
            if self.name == "ordered_labels.npy":
                raise KeyboardInterrupt
            return real(self, target)

        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, "killed", time="t")
    assert contents(make(tmp_path, "killed", time="t").path) == expected


def test_a_file_added_behind_an_ordered_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write(tmp_path / f"a{number}.csv", NUMBERS.permutation(100).tolist(), first=100 * number)
    expected = contents(make(tmp_path, train="a[012].csv", time="t").path)
    with monkeypatch.context() as patch:
        _interrupt(patch, "fae.ingest.ingest.second_pass", 1)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, "killed", train="a[01].csv", time="t")
    assert contents(make(tmp_path, "killed", train="a[012].csv", time="t").path) == expected


def test_a_folder_as_time(tmp_path: Path) -> None:
    for day, first in ((10, 0), (9, 20)):
        folder = tmp_path / f"day={day}"
        folder.mkdir()
        write(folder / "a.csv", range(20), first=first)
    log = make(tmp_path, train=("day=10/a.csv", "day=9/a.csv"), time="day")
    assert prices(log) == [*range(20, 40), *range(20)]
