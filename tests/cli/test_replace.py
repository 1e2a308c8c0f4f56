"""Nothing finished is lost: what is refused without --replace, what differs, what goes with the old training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_skipping import TIMED, without_times

from commands import contents, fae, fault, strict_json, succeed, write_log, write_recipe

CHANGED: dict[str, tuple[list[str], list[str]]] = {
    "a rate": (["train.learning_rate=0.05"], ["[train] learning_rate = 0.05 (there 0.1)"]),
    "the budget": (["hot.budget=3KiB"], ["[hot] budget = '3KiB' (there '4KiB')"]),
    "the model": (["model.top_mlp=[4]"], ["[model] top_mlp = [4] (there [8])"]),
    "a column": (["log.min_frequency=2"], ["[log] min_frequency = 2 (there 1)"]),
    "columns": (
        ['log.categorical=["user", {name = "item", min_frequency = 3}, "views"]', 'log.dense=["price"]'],
        [
            "[log] categorical (without ['site'], with ['views'], with other settings of ['item'])",
            "[log] dense = ['price'] (there ['price', 'views'])",
        ],
    ),
    "the order of columns": (
        ['log.categorical=["item", "user", "site"]'],
        ["[log] categorical (in another order); keep"],
    ),
    "a sample that comes to the same": (
        ["hot.sample=0.7", "hot.small_table=1KiB"],
        ["differs from it in [hot] small_table = '1KiB' (there '256B'); keep"],
    ),
    "several": (
        ["train.batch_size=16", "train.seed=3", "model.embedding_dim=8", "hot.budget=9KiB", "train.optimizer=sgd"],
        ["[model] embedding_dim = 8 (there 4)", "[train] batch_size = 16 (there 32)", "and 1 more"],
    ),
}


def settings(overrides: list[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


@pytest.mark.parametrize("case", CHANGED)
def test_a_finished_training_is_kept(finished_run: Path, case: str) -> None:
    """The check comes before any stage, so the shared run is not touched."""
    overrides, expected = CHANGED[case]
    run = finished_run / "run"
    before = contents(run)
    done = fae("run", finished_run / "recipe.toml", "--out", run, *settings(overrides))
    fault(done, f"{run} has a finished training", *expected, "another folder with --out", "--replace")
    assert len(done.stderr.splitlines()) == 1
    assert contents(run) == before


def test_the_content_of_the_log(finished: Path) -> None:
    (finished / "log.csv").write_text((finished / "log.csv").read_text() + "1,u1,i1,s1,2.0,3\n")
    for verb in ("run", "ingest"):
        done = fae(verb, finished / "recipe.toml", "--out", finished / "run")
        fault(done, "differs from it in the content of log.csv; keep it", "--replace")


def test_train_alone_says_the_same(finished: Path) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    fault(fae("train", recipe, "--out", run, "--set", "train.seed=7", "--set", "train.learning_rate=0.2"), "--replace")
    succeed("calibrate", recipe, "--out", run, "--budget", "3KiB")
    succeed("pack", recipe, "--out", run, "--budget", "3KiB")
    fault(fae("train", recipe, "--out", run, "--budget", "3KiB"), "[hot] budget = '3KiB' (there '4KiB')", "--replace")
    assert "train: already there" in succeed("run", recipe, "--out", run).stderr


def test_what_described_the_old_training_goes_with_it(finished: Path) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    succeed("report", run)
    for name in ("scores.parquet", "scores.csv"):
        succeed("predict", run, finished / "log.csv", "--out", run / name)
    (run / "notes.csv").write_text("mine\n1\n")
    done = succeed("run", recipe, "--out", run, "--set", "train.learning_rate=0.2", "--replace")
    assert "the finished training in" in done.stderr
    assert "run.json, report.html, metrics.jsonl, scores.csv (now scores.csv.earlier), scores.parquet" in done.stderr
    assert not (run / "report.html").exists()
    assert not (run / "scores.parquet").exists()
    assert (run / "notes.csv").is_file()
    record = strict_json((run / "run.json").read_text())
    assert record["recipe"]["train"]["learning_rate"] == 0.2


FORMER = ["train.order=interleaved", "hot.ring_depth=8"]
"""Defaults of earlier versions."""
NO_ORDER_NO_RING: dict[str, dict[str, object]] = {"hot": {"ring_depth": None, "budget": "24KiB"}}


def test_a_training_made_under_earlier_defaults_is_kept(tmp_path: Path) -> None:
    """A newer version does not make its users train again: one line says how the recipe keeps what is there."""
    write_log(tmp_path)
    recipe, run = write_recipe(tmp_path, **NO_ORDER_NO_RING), tmp_path / "run"
    succeed("run", recipe, "--out", run, *settings(FORMER))
    before = contents(run)
    keeps = "which `--set train.order=interleaved --set hot.ring_depth=8` keeps"
    fault(fae("run", recipe, "--out", run), "[train] order = 'shuffled' (there 'interleaved')", keeps, "--replace")
    assert "keeps" not in fault(fae("run", recipe, "--out", run, "--set", "train.seed=9"), "--replace")
    assert contents(run) == before
    assert "train: already there" in succeed("run", recipe, "--out", run, *settings(FORMER)).stderr


def test_a_training_begun_under_earlier_defaults_is_not_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fae.training.runner import StepRunner

    write_log(tmp_path)
    recipe, run = write_recipe(tmp_path, train={"checkpoint_batches": 4}, **NO_ORDER_NO_RING), tmp_path / "run"
    step, steps = StepRunner.__call__, iter(range(9))

    def nine_steps(runner: StepRunner, batch: object) -> None:
        if next(steps, None) is None:
            raise MemoryError
        step(runner, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(StepRunner, "__call__", nine_steps)
        fault(fae("run", recipe, "--out", run, *settings(FORMER)), "memory")
    before = contents(run)
    fault(
        fae("run", recipe, "--out", run),
        "an unfinished training of 8 batches, begun under the defaults of an earlier version",
        "continue it with `--set train.order=interleaved --set hot.ring_depth=8`",
        "--replace",
    )
    assert contents(run) == before
    assert "continues after batch 8" in succeed("run", recipe, "--out", run, *settings(FORMER)).stderr


FAILURES: dict[str, tuple[list[str], str]] = {
    "its loss diverges": (["train.learning_rate=1e30", "train.optimizer=sgd"], "training diverged"),
    "its parent is gone": (["train.from=nowhere"], "no trained run"),
}


def training_files(run: Path) -> dict[str, bytes]:
    """What belongs to the training in a run folder; `.lock` and what the data stages write is left out."""
    places = ("run.json", "report.html", "metrics.jsonl", "scores.csv", "scores.parquet", "checkpoint", "last")
    files = [file for place in places for file in (run / place, *sorted((run / place).rglob("*"))) if file.is_file()]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.mark.parametrize("case", FAILURES)
def test_a_replacement_that_fails_leaves_the_earlier_training_whole(finished: Path, case: str) -> None:
    """Until its first checkpoint there is nothing to replace the record, the page, the metrics and the scores with."""
    recipe, run = finished / "recipe.toml", finished / "run"
    succeed("report", run)
    for name in ("scores.parquet", "scores.csv"):
        succeed("predict", run, finished / "log.csv", "--out", run / name)
    before = training_files(run)
    overrides, expected = FAILURES[case]
    fault(fae("run", recipe, "--out", run, *settings(overrides), "--replace"), expected)
    assert training_files(run) == before
    assert not list(run.glob(".*.old"))
    succeed("predict", run, finished / "log.csv", "--out", finished / "again.csv")
    assert (finished / "again.csv").read_bytes() == before["scores.csv"]
    assert "train: already there" in succeed("run", recipe, "--out", run).stderr


def test_a_replacement_without_memory(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in the middle of the first epoch, as the step itself meets it."""
    from fae.training.runner import StepRunner

    recipe, run = finished / "recipe.toml", finished / "run"
    before = training_files(run)

    def no_memory(*_: object) -> None:
        assert (run / ".metrics.jsonl.old").is_file(), "the new training writes its own"
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(StepRunner, "__call__", no_memory)
        fault(fae("run", recipe, "--out", run, "--set", "train.seed=8", "--replace"), "memory")
    assert training_files(run) == before


def test_an_unfinished_training_of_another_recipe_is_replaced_with_a_line(finished: Path) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    progress = strict_json((run / "checkpoint" / "progress.json").read_text())
    assert progress["complete"]
    golden = Path(__file__).parents[1] / "equivalence" / "golden"
    shutil.rmtree(run / "checkpoint")
    shutil.copytree(golden / "run" / "checkpoint", run / "checkpoint")
    done = succeed("run", recipe, "--out", run)
    assert "an unfinished training of another recipe, of 5 batches so far, in" in done.stderr


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs, to be copied, and the same recipe with four of them, run at once."""
    folder = tmp_path_factory.mktemp("epochs")
    write_log(folder)
    recipe = write_recipe(folder, train={"epochs": 2})
    succeed("run", recipe, "--out", folder / "runs" / "two")
    succeed("run", recipe, "--out", folder / "whole" / "four", "--set", "train.epochs=4")
    return folder


def test_two_epochs_and_two_more_are_four(two_epochs: Path, tmp_path: Path) -> None:
    """The same bytes and figures, and the record and the page of two epochs do not stay."""
    run = tmp_path / "run"
    shutil.copytree(two_epochs / "runs" / "two", run)
    succeed("report", run)
    done = succeed("run", two_epochs / "recipe.toml", "--out", run, "--set", "train.epochs=4")
    assert "train: 2 epochs are trained, 4 are wanted" in done.stderr
    assert "report.html described the earlier training" in done.stderr or "report.html" in done.stderr
    assert not (run / "report.html").exists()
    whole = two_epochs / "whole" / "four"
    ours, theirs = ({k: v for k, v in contents(each).items() if k != "metrics.jsonl"} for each in (run, whole))
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= TIMED
    records = [without_times(strict_json((each / "run.json").read_text())) for each in (run, whole)]
    assert all(record.pop("commit") for record in records)
    assert records[0] == records[1]
    assert (
        "train: already there"
        in succeed("run", two_epochs / "recipe.toml", "--out", run, "--set", "train.epochs=4").stderr
    )


def test_fewer_epochs_than_trained_are_refused(two_epochs: Path) -> None:
    done = fae("run", two_epochs / "recipe.toml", "--out", two_epochs / "runs" / "two", "--set", "train.epochs=1")
    fault(done, "[train] epochs = 1 (there 2)", "--replace")


def test_more_epochs_under_rates_over_all_of_them(two_epochs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(two_epochs / "runs" / "two", run)
    linear = ("--set", "train.rate_schedule=linear")
    succeed("run", two_epochs / "recipe.toml", "--out", run, *linear, "--replace")
    done = fae("run", two_epochs / "recipe.toml", "--out", run, *linear, "--set", "train.epochs=3")
    fault(done, "[train] epochs = 3 (there 2)", "--replace")


def test_the_record_says_when_and_how(finished: Path) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    first = strict_json((run / "run.json").read_text())
    assert first["started"] <= first["ended"]
    assert first["command"].startswith("fae run ")
    succeed("run", recipe, "--out", run, "--json")
    again = strict_json((run / "run.json").read_text())
    assert [again[key] for key in ("started", "ended", "command")] == [
        first[key] for key in ("started", "ended", "command")
    ]


def test_replacing_a_log_whose_raw_file_is_gone(finished: Path) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    shutil.rmtree(run / "checkpoint")
    (run / "log.sources.json").write_text('{"' + str(finished / "gone.csv") + '": {"bytes": 1}}')
    arguments = ("ingest", recipe, "--out", run, "--set", "log.min_frequency=2")
    fault(fae(*arguments), "is another log than the recipe's", "gone.csv is not there any more", "--replace")
    succeed(*arguments, "--replace")
