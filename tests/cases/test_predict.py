"""Scoring files without labels from a finished run: the values that must come out, one line where none can."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from case_folders import Case, copy_case

from commands import csv_text, fae, fault, strict_json, succeed, unfinished, write_recipe, zipf_inputs


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
    keep = ["--keep", "id,price,item,user"]
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
    import shutil

    for name in ("checkpoint/tables/0.safetensors", "checkpoint/dense.safetensors", "log/vocabulary/1.parquet"):
        run = tmp_path / name.replace("/", "_")
        shutil.copytree(case.folder / "out", run)
        data = bytearray((run / name).read_bytes())
        data[-3] ^= 1
        (run / name).write_bytes(data)
        done = fae("predict", run, case.folder / "test.csv", "--out", tmp_path / "s.csv")
        fault(done, name.split("/")[-1], "damaged", "fae run")
    assert not (tmp_path / "s.csv").exists()


def test_evaluate_gives_the_metrics_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(csv_text(zipf_inputs(400)))
    (tmp_path / "later.csv").write_text(csv_text(zipf_inputs(200, seed=8)))
    recipe = write_recipe(tmp_path, log={"test": "later.csv", "test_fraction": None})
    succeed("run", recipe, "--out", tmp_path / "run")
    expected: dict[str, Any] = json.loads((tmp_path / "run" / "run.json").read_text())["test"]
    done = succeed("evaluate", tmp_path / "run", tmp_path / "later.csv", "--json")
    for name, value in expected.items():
        assert done.result[name] == pytest.approx(value, abs=1e-6), name
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
