"""Scoring files without labels from a finished run: the values that must come out, one line where none can."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from case_folders import Case, copy_case
from fae.core.errors import RecipeError
from fae.run.predictions import predict
from fae.run.scoring import unknown_counts

from commands import csv_text, fae, fault, strict_json, succeed, unfinished, write_recipe, zipf_inputs
from logs import write_behaviour


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The case ``unlabelled-test`` with a finished run in ``out``, trained on the file that has labels."""
    case = copy_case("unlabelled-test", tmp_path_factory.mktemp("cases"))
    done = case.fae("run", "--set", "log.test=[]", "--set", "log.test_fraction=0.2", "--set", "train.batch_size=8")
    assert done.status == 0, done.stderr
    return case


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def scores_of(path: Path) -> list[float]:
    table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    scores: list[float] = table.column("score").to_pylist()
    return scores


def test_one_probability_a_line_in_the_files_order(case: Case, tmp_path: Path) -> None:
    test = case.folder / "test.csv"
    done = succeed("predict", case.folder / "out", test, "--out", tmp_path / "s.parquet", "--json")
    assert done.result["num_inputs"] == 40
    assert done.result["unknown_share"] == {"user": 0.0, "item": 0.0}
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.names == ["score"]
    assert table.schema.field("score").type == pa.float64()
    scores = scores_of(tmp_path / "s.parquet")
    assert len(scores) == 40
    assert all(0 < score < 1 for score in scores)
    assert sum(scores) / 40 == pytest.approx(done.result["mean_score"])

    # Line by line the same, so in order: another order of lines gives the scores in that order.
    header, *rows = lines(test)
    (tmp_path / "back.csv").write_text("\n".join([header, *rows[::-1]]) + "\n")
    succeed("predict", case.folder / "out", tmp_path / "back.csv", "--out", tmp_path / "back.parquet")
    assert scores_of(tmp_path / "back.parquet") == pytest.approx(scores[::-1], abs=1e-7)


def test_labels_and_other_columns_do_not_matter(case: Case, tmp_path: Path) -> None:
    """The file with labels, columns in another order, a column that is new: the same inputs, the same scores."""
    run = case.folder / "out"
    header, *rows = lines(case.folder / "train.csv")
    assert header == "y,user,item,price"
    (tmp_path / "other.csv").write_text(
        "price,new,item,user\n" + "".join("{3},x,{2},{1}\n".format(*row.split(",")) for row in rows)
    )
    succeed("predict", run, case.folder / "train.csv", "--out", tmp_path / "a.parquet")
    succeed("predict", run, tmp_path / "other.csv", "--out", tmp_path / "b.parquet")
    assert scores_of(tmp_path / "a.parquet") == scores_of(tmp_path / "b.parquet")


def test_kept_columns_come_as_they_are_read(case: Case, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,user,item,price,"a,b"\n007,u1,i1,1.50,"x, ""y"""\n008,u2, i2,,\n')
    run = case.folder / "out"
    keep = ["--keep", "id,price", "--keep", "item,user"]  # both are kept, in this order
    succeed("predict", run, tmp_path / "in.csv", "--out", tmp_path / "new" / "s.csv", *keep)
    found = [line.rsplit(",", 1) for line in lines(tmp_path / "new" / "s.csv")]
    assert [kept for kept, _ in found] == ["id,price,item,user", "007,1.50,i1,u1", "008,, i2,u2"]
    assert found[0][1] == "score"
    succeed("predict", run, tmp_path / "in.csv", "--out", tmp_path / "new" / "s.parquet", *keep)
    assert pq.read_table(tmp_path / "new" / "s.parquet").drop_columns(["score"]).to_pylist() == [
        {"id": "007", "price": "1.50", "item": "i1", "user": "u1"},
        {"id": "008", "price": "", "item": " i2", "user": "u2"},
    ]
    assert scores_of(tmp_path / "new" / "s.parquet") == [float(score) for _, score in found[1:]]


def test_several_files_globs_and_compressed_ones(case: Case, tmp_path: Path) -> None:
    run, (header, *rows) = case.folder / "out", lines(case.folder / "test.csv")
    for number, part in ((2, rows[:10]), (10, rows[10:])):
        text = "\n".join([header, *part]) + "\n"
        (tmp_path / f"part_{number}.csv.gz").write_bytes(gzip.compress(text.encode()))
    succeed("predict", run, case.folder / "test.csv", "--out", tmp_path / "whole.csv")
    succeed("predict", run, tmp_path / "part_*.csv.gz", "--out", tmp_path / "parts.csv")
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "parts.csv").read_bytes()
    succeed("predict", run, tmp_path / "part_10.csv.gz", tmp_path / "part_2.csv.gz", "--out", tmp_path / "swapped.csv")
    whole, swapped = scores_of(tmp_path / "whole.csv"), scores_of(tmp_path / "swapped.csv")
    assert swapped == pytest.approx([*whole[10:], *whole[:10]], abs=1e-7)


def test_its_own_result_is_replaced_and_nothing_else(case: Case, tmp_path: Path) -> None:
    run, test = case.folder / "out", case.folder / "test.csv"
    for name in ("s.csv", "s.parquet"):
        out = tmp_path / name
        succeed("predict", run, test, "--out", out)
        before = out.read_bytes()
        succeed("predict", run, test, "--out", out)
        assert out.read_bytes() == before
    (tmp_path / "mine.csv").write_text("user,score\n1,2\n")
    pq.write_table(pa.table({"score": [0.5]}), tmp_path / "mine.parquet")
    (tmp_path / "folder.csv").mkdir()
    for name in ("mine.csv", "mine.parquet", "folder.csv"):
        fault(fae("predict", run, test, "--out", tmp_path / name), name, "not written by this command", "--out")
    assert (tmp_path / "mine.csv").read_text() == "user,score\n1,2\n"
    fault(fae("predict", run, test, "--out", tmp_path / "s.csv", "--keep", "item"), "whose first line is item,score")
    assert unfinished(tmp_path) == []


def test_values_that_the_run_does_not_know(case: Case, tmp_path: Path) -> None:
    """They share the reserved row: any unknown value gets one score. Where nearly all are, a line says so."""
    (tmp_path / "new.csv").write_text("user,item,price\nU0,i0,1\nnobody,i0,1\n,i0,1\nu0,i0,1\n")
    done = succeed("predict", case.folder / "out", tmp_path / "new.csv", "--out", tmp_path / "s.csv", "--json")
    assert done.result["unknown_share"] == {"user": 0.75, "item": 0.0}
    assert "user 75.0 %" in done.stderr
    assert "warning" not in done.stderr
    scores = scores_of(tmp_path / "s.csv")
    assert scores[:3] == pytest.approx([scores[0]] * 3, abs=1e-7)
    assert abs(scores[3] - scores[0]) > 1e-5
    (tmp_path / "caps.csv").write_text("user,item,price\n" + "U0,i0,1\n" * 20)
    done = succeed("predict", case.folder / "out", tmp_path / "caps.csv", "--out", tmp_path / "s.csv")
    assert "warning: 100.0 % of the values of 'user' are unknown" in done.stderr
    assert "'item'" not in done.stderr


BAD_FILES: dict[str, tuple[str, Sequence[str]]] = {
    "empty": ("", ["bad.csv"]),
    "header alone": ("user,item,price\n", ["bad.csv", "no inputs"]),
    "a number that is none": ("user,item,price\nu0,i0,1\nu0,i0,cheap\n", ["bad.csv", "line 3", "'cheap'"]),
    "a missing column": ("user,price\nu0,1\n", ["bad.csv", "'item'"]),
    "a field too many": ("user,item,price\nu0,i0,1\nu0,i0,1,2\n", ["bad.csv", "line 3"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_bad_file_leaves_no_scores(case: Case, tmp_path: Path, name: str, suffix: str) -> None:
    text, expected = BAD_FILES[name]
    (tmp_path / "bad.csv").write_text(text)
    out = tmp_path / f"s{suffix}"
    fault(fae("predict", case.folder / "out", tmp_path / "bad.csv", "--out", out), *expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]
    # What was there before stays as it was.
    succeed("predict", case.folder / "out", case.folder / "test.csv", "--out", out)
    before = out.read_bytes()
    fault(fae("predict", case.folder / "out", tmp_path / "bad.csv", "--out", out), *expected)
    assert out.read_bytes() == before


def test_options_that_cannot_work(case: Case, tmp_path: Path) -> None:
    run, test = case.folder / "out", case.folder / "test.csv"
    out = tmp_path / "s.csv"
    fault(fae("predict", run, test, "--out", tmp_path / "s.txt"), "s.txt", ".parquet or .csv")
    fault(fae("predict", run, test, "--out", out, "--keep", "usr"), "'usr'", "did you mean 'user'")
    fault(fae("predict", run, test, "--out", out, "--keep", "user,user"), "'user' 2 times")
    fault(fae("predict", run, test, "--out", out, "--keep", "score"), "score")
    fault(fae("predict", run, test, "--out", test), "test.csv")
    fault(fae("predict", run, tmp_path / "none.csv", "--out", out), "none.csv")
    fault(fae("predict", run, tmp_path / "*.csv", "--out", out), "*.csv")
    fault(fae("predict", tmp_path / "no_run", test, "--out", out), "no_run", "does not exist")
    fault(fae("predict", tmp_path, test, "--out", out), "no trained model", "fae run")
    fault(fae("predict", run, test), "--out")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_finished(case: Case, tmp_path: Path) -> None:
    for verb in ("ingest", "profile", "calibrate", "pack"):
        done = case.fae(verb, "--set", "log.test=[]", "--out", tmp_path / "half")
        assert done.status == 0, done.stderr
    fault(
        fae("predict", tmp_path / "half", case.folder / "test.csv", "--out", tmp_path / "s.csv"),
        "no trained model", "fae run",
    )  # fmt: skip


def test_a_damaged_checkpoint_or_vocabulary(case: Case, tmp_path: Path) -> None:
    for name in ("checkpoint/tables/0.safetensors", "checkpoint/dense.safetensors", "log/vocabulary/1.parquet"):
        run = tmp_path / name.replace("/", "_")
        shutil.copytree(case.folder / "out", run)
        data = bytearray((run / name).read_bytes())
        data[-3] ^= 1
        (run / name).write_bytes(data)
        done = fae("predict", run, case.folder / "test.csv", "--out", tmp_path / "s.csv")
        fault(done, name.split("/")[-1], "damaged", "fae run")
    assert not (tmp_path / "s.csv").exists()


def assert_close(found: Any, expected: Any, name: str) -> None:
    """Equal within 1e-6, in every part of what is nested; `name` says which part differs."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), name
        for key, value in expected.items():
            assert_close(found[key], value, f"{name}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for place, value in enumerate(expected):
            assert_close(found[place], value, f"{name}[{place}]")
    else:
        assert found == (pytest.approx(expected, abs=1e-6) if isinstance(expected, float) else expected), name


def test_evaluate_gives_the_metrics_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(csv_text(zipf_inputs(400)))
    (tmp_path / "later.csv").write_text(csv_text(zipf_inputs(200, seed=8)))
    recipe = write_recipe(tmp_path, log={"test": "later.csv", "test_fraction": None})
    succeed("run", recipe, "--out", tmp_path / "run")
    expected: dict[str, Any] = json.loads((tmp_path / "run" / "run.json").read_text())["test"]
    done = succeed("evaluate", tmp_path / "run", tmp_path / "later.csv", "--json")
    for name, value in expected.items():
        assert_close(done.result[name], value, name)
    assert f"200 inputs, AUC {expected['auc']:.5f}, log loss {expected['log_loss']:.5f}" in done.stderr
    assert set(strict_json(done.stdout)["unknown_share"]) == {"user", "item", "site"}
    unlabelled = csv_text((row[1:] for row in zipf_inputs(20)), ("user", "item", "site", "price", "views"))
    (tmp_path / "no_labels.csv").write_text(unlabelled)
    fault(fae("evaluate", tmp_path / "run", tmp_path / "no_labels.csv"), "no_labels.csv", "'label'")


def test_one_kind_of_label_has_no_auc(tmp_path: Path, case: Case) -> None:
    (tmp_path / "ones.csv").write_text("y,user,item,price\n" + "1,u0,i0,1\n" * 5)
    done = succeed("evaluate", case.folder / "out", tmp_path / "ones.csv", "--json")
    assert done.result["auc"] is None
    assert done.result["label_rate"] == 1.0
    assert "AUC not defined" in done.stderr


def criteo_lines(count: int, seed: int) -> list[str]:
    """Lines of Criteo's format: label, 13 counts, 26 hex ids; some fields empty, some ids with zeros in front."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        ids = [f"{int(random.zipf(1.3)) % 40:08x}" if random.random() < 0.9 else "" for _ in range(26)]
        ids[3] = str(int(random.integers(0, 9)))
        counts = [str(int(random.integers(-1, 300))) if random.random() < 0.8 else "" for _ in range(13)]
        found.append("\t".join([str(int(random.random() < 0.3)), *counts, *ids]))
    return found


def test_criteo_files_with_and_without_labels(tmp_path: Path) -> None:
    """The test file of Criteo's competition has no label field: 39 fields instead of 40."""
    test = criteo_lines(120, 2)
    (tmp_path / "train.txt").write_text("\n".join(criteo_lines(300, 1)) + "\n")
    (tmp_path / "labelled.txt").write_text("\n".join(test) + "\n")
    (tmp_path / "unlabelled.txt").write_text("".join(line.split("\t", 1)[1] + "\n" for line in test))
    recipe = write_recipe(
        tmp_path, log={"format": "criteo", "train": "train.txt", "test": "labelled.txt", "test_fraction": None,
                       "categorical": None, "dense": None}, hot={"budget": "64KiB"},
    )  # fmt: skip
    succeed("run", recipe, "--out", tmp_path / "run")
    expected = json.loads((tmp_path / "run" / "run.json").read_text())["test"]
    found = succeed("evaluate", tmp_path / "run", tmp_path / "labelled.txt", "--json").result
    assert (found["auc"], found["log_loss"]) == pytest.approx((expected["auc"], expected["log_loss"]), abs=1e-6)
    succeed("predict", tmp_path / "run", tmp_path / "labelled.txt", "--out", tmp_path / "a.parquet")
    succeed("predict", tmp_path / "run", tmp_path / "unlabelled.txt", "--out", tmp_path / "b.parquet")
    assert scores_of(tmp_path / "a.parquet") == scores_of(tmp_path / "b.parquet")
    fault(
        fae("predict", tmp_path / "run", tmp_path / "labelled.txt", "--out", tmp_path / "c.csv", "--keep", "C1"),
        "--keep C1", "criteo",
    )  # fmt: skip


AVAZU = (
    "id", "click", "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain",
    "app_category", "device_id", "device_ip", "device_model", "device_type", "device_conn_type",
    *(f"C{number}" for number in range(14, 22)),
)  # fmt: skip


def test_avazu_keeps_the_id_that_a_submission_needs(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = [
        [f"1000{number}", int(random.random() < 0.3), f"1410{21 + number // 100}{number % 24:02d}",
         *(f"v{int(random.zipf(1.5)) % 9}" for _ in AVAZU[3:])]
        for number in range(300)
    ]  # fmt: skip
    (tmp_path / "train.csv").write_text(csv_text(rows, AVAZU))
    unlabelled = [[row[0], *row[2:]] for row in rows[:50]]
    (tmp_path / "test.csv").write_text(csv_text(unlabelled, [name for name in AVAZU if name != "click"]))
    recipe = write_recipe(
        tmp_path, log={"format": "avazu", "train": "train.csv", "label": None, "test_fraction": 0.2,
                       "categorical": None, "dense": None}, hot={"budget": "64KiB"},
    )  # fmt: skip
    succeed("run", recipe, "--out", tmp_path / "run")
    succeed("predict", tmp_path / "run", tmp_path / "test.csv", "--out", tmp_path / "s.csv", "--keep", "id,hour")
    found = [line.split(",") for line in lines(tmp_path / "s.csv")]
    assert found[0] == ["id", "hour", "score"]
    assert [line[:2] for line in found[1:]] == [row[:2] for row in unlabelled]
    succeed("predict", tmp_path / "run", tmp_path / "train.csv", "--out", tmp_path / "all.csv")
    assert scores_of(tmp_path / "all.csv")[:50] == pytest.approx(scores_of(tmp_path / "s.csv"), abs=1e-7)


def test_taobao_is_refused(tmp_path: Path) -> None:
    write_behaviour(tmp_path / "log.csv", num_users=60)
    recipe = write_recipe(
        tmp_path, log={"format": "taobao", "train": "log.csv", "label": None, "test_fraction": None,
                       "validation_fraction": None, "categorical": None, "dense": None},
        model={"name": "tbsm", "bottom_mlp": None, "top_mlp": None}, hot={"budget": "1MiB"},
    )  # fmt: skip
    succeed("run", recipe, "--out", tmp_path / "run")
    fault(fae("predict", tmp_path / "run", tmp_path / "log.csv", "--out", tmp_path / "s.csv"), "taobao", "sampled")


def test_a_run_over_a_columnar_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of another run has the vocabulary; one of `fae synthetic --columnar` has no text at all."""
    (tmp_path / "log.csv").write_text(csv_text(zipf_inputs(300)))
    succeed("run", write_recipe(tmp_path), "--out", tmp_path / "first")
    columns = dict.fromkeys(("label", "categorical", "dense", "test_fraction", "validation_fraction"))
    recipe = write_recipe(tmp_path, "columnar.toml", log={**columns, "format": "columnar", "train": "first/log"})
    succeed("run", recipe, "--out", tmp_path / "second")
    for name in ("first", "second"):
        succeed("predict", tmp_path / name, tmp_path / "log.csv", "--out", tmp_path / f"{name}.parquet")
    assert scores_of(tmp_path / "first.parquet") == scores_of(tmp_path / "second.parquet")
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    out = tmp_path / "s.csv"
    fault(
        fae("predict", tmp_path / "second", tmp_path / "log.csv", "--out", out), "the log that", "is not there", "link"
    )
    (tmp_path / "second" / "log").symlink_to(tmp_path / "elsewhere" / "log")
    succeed("predict", tmp_path / "second", tmp_path / "log.csv", "--out", out)

    monkeypatch.chdir(tmp_path)
    succeed("synthetic", "--columnar", "--inputs", 3000, "--scale", 0.0001, "--out", "made")
    succeed("run", "made/recipe.toml", "--out", "made", "--budget", "1MiB", "--set", "train.batch_size=256")
    fault(fae("predict", "made", "log.csv", "--out", tmp_path / "t.csv"), "not made from raw files", "no text")


def small_inputs(count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(11)
    return [
        {
            "y": int(random.random() < 0.4), "u": f"u{int(random.integers(30))}",
            "t": [f"t{int(tag)}" for tag in random.integers(0, 5, random.integers(0, 4))],
            "p": round(float(random.random() * 5), 2),
        }
        for _ in range(count)
    ]  # fmt: skip


def test_a_headerless_file_without_its_label_field(tmp_path: Path) -> None:
    """`columns` names the label; a file with one field less is the same log without it. Lists of JSON are the same."""
    inputs = small_inputs(200)
    fields = [["|".join(value) if isinstance(value, list) else str(value) for value in row.values()] for row in inputs]
    (tmp_path / "log.csv").write_text("".join(",".join(row) + "\n" for row in fields))
    (tmp_path / "new.csv").write_text("".join(",".join(row[1:]) + "\n" for row in fields))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in inputs))
    (tmp_path / "new.jsonl").write_text(
        "".join(json.dumps({"id": number / 4, **row, "y": None}) + "\n" for number, row in enumerate(inputs))
    )
    columns = {"label": "y", "categorical": ["u", {"name": "t", "max_length": 3}], "dense": ["p"]}
    for name, log in {
        "csv": {"train": "log.csv", "columns": ["y", "u", "t", "p"]},
        "jsonl": {"train": "log.jsonl", "format": "jsonl"},
    }.items():
        recipe = write_recipe(tmp_path, f"{name}.toml", log={**log, **columns}, hot={"budget": "64KiB"})
        succeed("run", recipe, "--out", tmp_path / name)
    for run, file in (("csv", "log.csv"), ("csv", "new.csv"), ("jsonl", "log.jsonl"), ("jsonl", "new.jsonl")):
        succeed("predict", tmp_path / run, tmp_path / file, "--out", tmp_path / f"{file}.parquet")
    expected = scores_of(tmp_path / "log.csv.parquet")
    assert len(set(expected)) > 100
    for name in ("new.csv", "log.jsonl", "new.jsonl"):
        assert scores_of(tmp_path / f"{name}.parquet") == expected
    succeed("predict", tmp_path / "csv", tmp_path / "new.csv", "--out", tmp_path / "s.csv", "--keep", "p,t")
    assert [line.rsplit(",", 1)[0] for line in lines(tmp_path / "s.csv")[1:]] == [
        f"{row[3]},{row[2]}" for row in fields
    ]
    succeed("predict", tmp_path / "jsonl", tmp_path / "new.jsonl", "--out", tmp_path / "j.csv", "--keep", "id,p")
    assert lines(tmp_path / "j.csv")[2].startswith(f"0.25,{fields[1][3]},")
    (tmp_path / "two.csv").write_text("u1,t1\n")
    fault(fae("predict", tmp_path / "csv", tmp_path / "two.csv", "--out", tmp_path / "t.csv"), "two.csv", "2 fields")


def test_parquet_lists_are_kept_in_parquet_alone(tmp_path: Path) -> None:
    inputs = small_inputs(100)
    pq.write_table(pa.Table.from_pylist(inputs), tmp_path / "log.parquet")
    columns = {"label": "y", "categorical": ["u", {"name": "t", "max_length": 3}], "dense": ["p"]}
    recipe = write_recipe(
        tmp_path, log={"format": "parquet", "train": "log.parquet", **columns}, hot={"budget": "64KiB"}
    )  # fmt: skip
    succeed("run", recipe, "--out", tmp_path / "run")
    keep = ["--keep", "p,t,y"]
    succeed("predict", tmp_path / "run", tmp_path / "log.parquet", "--out", tmp_path / "s.parquet", *keep)
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.drop_columns(["score"]).to_pylist() == [{name: row[name] for name in "pty"} for row in inputs]
    fault(
        fae("predict", tmp_path / "run", tmp_path / "log.parquet", "--out", tmp_path / "s.csv", *keep),
        "cannot be written as .csv", "t list<", ".parquet",
    )  # fmt: skip
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_part_of_the_scores(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(number, signal.SIG_DFL)  # a test run in the background ignores some of them

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(number)
        return unknown_counts(*arguments)

    monkeypatch.setattr("fae.run.predictions.unknown_counts", interrupted)
    try:
        done = fae("predict", case.folder / "out", case.folder / "test.csv", "--out", tmp_path / "s.csv")
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    assert (done.status, done.stdout) == (status, "")
    assert "interrupted" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_bytes_do_not_depend_on_torchs_threads(case: Case, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            succeed("predict", case.folder / "out", case.folder / "test.csv", "--out", tmp_path / f"{threads}.csv")
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "3.csv").read_bytes()


def test_an_empty_part_is_passed_over_with_a_line(case: Case, tmp_path: Path) -> None:
    header, *rows = lines(case.folder / "test.csv")
    parts = tmp_path / "part-1.csv", tmp_path / "part-2.csv"
    parts[0].write_text("\n".join([header, *rows]) + "\n")
    parts[1].write_text(header + "\n")
    for files in ((tmp_path / "part-*.csv",), parts):  # as the shell leaves it in quotes, and without
        done = succeed("predict", case.folder / "out", *files, "--out", tmp_path / "s.parquet")
        assert len(scores_of(tmp_path / "s.parquet")) == 40
        assert "part-2.csv holds no inputs and is passed over" in done.stderr


def test_metrics_of_a_weighted_log_are_weighted(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    header = ("label", "user", "item", "site", "price", "views", "w")
    for name, count, seed in (("log.csv", 400, 3), ("later.csv", 200, 8)):
        rows = [[*row, float(random.integers(0, 4)) / 2] for row in zipf_inputs(count, seed=seed)]
        (tmp_path / name).write_text(csv_text(rows, header))
    recipe = write_recipe(tmp_path, log={"test": "later.csv", "test_fraction": None, "weight": "w"})
    succeed("run", recipe, "--out", tmp_path / "run")
    expected: dict[str, Any] = json.loads((tmp_path / "run" / "run.json").read_text())["test"]
    found = succeed("evaluate", tmp_path / "run", tmp_path / "later.csv", "--json").result
    for name, value in expected.items():
        assert_close(found[name], value, name)
    unweighted = [line.rsplit(",", 1)[0] for line in lines(tmp_path / "later.csv")]
    (tmp_path / "unweighted.csv").write_text("\n".join(unweighted) + "\n")
    fault(fae("evaluate", tmp_path / "run", tmp_path / "unweighted.csv"), "unweighted.csv", "'w'")
    succeed("predict", tmp_path / "run", tmp_path / "unweighted.csv", "--out", tmp_path / "a.csv")
    succeed("predict", tmp_path / "run", tmp_path / "later.csv", "--out", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_settings_of_values_hold_for_the_files_too(tmp_path: Path) -> None:
    """Words for missing values, decimal commas, brackets, padding, other labels: one form of the file or the other."""
    random = np.random.default_rng(6)

    def rows(count: int) -> list[list[str]]:
        return [
            [
                random.choice(["click", "view"]), random.choice(["u1", "u2", "u3", "NULL", ""]),
                "[" + ", ".join(f"'t{int(tag)}'" for tag in [*random.integers(1, 9, 3), 0]) + "]",
                random.choice(["NULL", "1,5", "2,25", "-3"]),
            ]
            for _ in range(count)
        ]  # fmt: skip

    for name, count in (("log.csv", 300), ("later.csv", 120)):
        (tmp_path / name).write_text("\n".join(";".join(row) for row in [["y", "u", "t", "p"], *rows(count)]) + "\n")
    recipe = write_recipe(
        tmp_path, log={
            "test": "later.csv", "test_fraction": None, "label": "y", "label_map": {"click": 1, "view": 0},
            "separator": ";", "decimal": ",", "missing": ["NULL"], "dense": ["p"], "dense_transform": "signed_log1p",
            "categorical": ["u", {"name": "t", "max_length": 4, "brackets": True, "padding": "t0"}],
        }, hot={"budget": "64KiB"},
    )  # fmt: skip
    succeed("run", recipe, "--out", tmp_path / "run")
    expected = json.loads((tmp_path / "run" / "run.json").read_text())["test"]
    found = succeed("evaluate", tmp_path / "run", tmp_path / "later.csv", "--json").result
    for name in ("auc", "log_loss", "label_rate"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6), name
    assert found["unknown_share"] == {"u": 0.0, "t": 0.0}


def test_a_test_file_without_labels_is_refused_before_any_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_arguments: Any, **_named: Any) -> Any:
        raise AssertionError("a file was read")

    monkeypatch.setattr("fae.ingest.shards.shard_reading.read_span", read)
    fault(copy_case("unlabelled-test", tmp_path).fae("ingest"), "test.csv", "'y'")


def test_a_folder_of_the_run_leads_to_the_run(case: Case, tmp_path: Path) -> None:
    """To train into it, as for a folder without a model, would be wrong advice."""
    for name in ("log", "packed"):
        line = fault(
            fae("predict", case.folder / "out" / name, case.folder / "test.csv", "--out", tmp_path / "s.csv"),
            "one of its folders", f"name the run, {case.folder / 'out'}",
        )  # fmt: skip
        assert "fae run" not in line


def test_kept_columns_are_a_list_and_need_a_file(case: Case, tmp_path: Path) -> None:
    run, test = case.folder / "out", case.folder / "test.csv"
    with pytest.raises(RecipeError, match=r"keep = 'user' must be a list of names, \['user'\]"):
        predict(run, [test], tmp_path / "s.csv", keep="user")
    with pytest.raises(RecipeError, match="needs out"):
        predict(run, [test], keep=["user"])


@pytest.mark.parametrize("kind", ["nested", "pipe", "list"])
def test_a_record_that_cannot_be_read_is_not_needed(kind: str, case: Case, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(case.folder / "out", run)
    (run / "run.json").unlink()
    if kind == "pipe":
        os.mkfifo(run / "run.json")
    else:
        (run / "run.json").write_text("[" * 100_000 + "]" * 100_000 if kind == "nested" else "[]")
    succeed("predict", run, case.folder / "test.csv", "--out", tmp_path / "s.csv")
