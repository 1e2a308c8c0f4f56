"""What a run tells: quality in run.json and evaluate, metrics.jsonl over kills, groups added later, quiet, log file."""

from __future__ import annotations

import datetime
import json
import re

import pytest

from commands import fae, succeed, write_log, write_recipe

POINTS = ("window", "validation", "epoch")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watching")
    write_log(folder)
    recipe = write_recipe(folder, train={"epochs": 2})
    done = succeed("run", recipe, "--out", folder / "run", "--json")
    return folder, recipe, done


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_say_what_they_mean(made):
    _, _, done = made
    record = done.result
    for split in ("validation", "test"):
        found = record[split]
        assert sum(each["num_inputs"] for each in found["calibration"]["bins"]) == found["num_inputs"]
        assert found["calibration"]["label_rate"] == pytest.approx(found["label_rate"])
        parts = found["unknown_ids"]
        assert parts["with"]["num_inputs"] + parts["without"]["num_inputs"] == found["num_inputs"]
        base = found["context"]["base_rate_log_loss"]
        assert base * found["normalized_entropy"] == pytest.approx(found["log_loss"])
        assert {each["column"] for each in found["context"]["columns"]} == {"user", "item", "site"}
        assert found["group_auc"] is None
    assert [each["epoch"] for each in record["train"]["epoch_curve"]] == [1, 2]
    best = record["test"]["context"]["best_column"]["column"]
    assert re.search(
        rf"AUC \S+ is (better|no better|worse) than the best single column, {best}, 0\.\d{{4}}", done.stderr
    )
    assert re.search(
        r"^epoch 1 of 2: training loss \S+, validation log loss \S+, AUC \S+; about \d+ s left$", done.stderr, re.M
    )
    assert re.search(r"^epoch 2 of 2: training loss \S+, validation log loss \S+, AUC \S+$", done.stderr, re.M)


def test_groups_are_added_to_a_finished_run(made):
    folder, recipe, done = made
    before = {path.name: path.read_bytes() for path in (folder / "run/checkpoint/tables").iterdir()}
    again = succeed("run", recipe, "--out", folder / "run", "--set", "train.group_by=user", "--json")
    assert "finished; AUC within user is added" in again.stderr
    assert {path.name: path.read_bytes() for path in (folder / "run/checkpoint/tables").iterdir()} == before
    found, old = again.result, done.result
    assert found["test"]["group_auc"]["column"] == "user"
    assert {**found["test"], "group_auc": None} == old["test"]
    assert found["train"]["loss_curve"] == old["train"]["loss_curve"]
    assert (
        "AUC within user" not in succeed("run", recipe, "--out", folder / "run", "--set", "train.group_by=user").stderr
    )

    log = (folder / "log.csv").read_text().splitlines()
    (folder / "test.csv").write_text("\n".join([log[0], *log[-found["test"]["num_inputs"] :]]) + "\n")
    evaluated = succeed("evaluate", folder / "run", folder / "test.csv", "--json").result
    for key in ("calibration", "unknown_ids", "group_auc", "context"):
        assert evaluated[key] is not None
    assert evaluated["group_auc"]["auc"] == pytest.approx(found["test"]["group_auc"]["auc"], abs=1e-6)
    assert evaluated["context"]["columns"] == found["test"]["context"]["columns"]
    assert evaluated["calibration"]["ratio"] == pytest.approx(found["test"]["calibration"]["ratio"], abs=1e-6)
    by_item = succeed("evaluate", folder / "run", folder / "test.csv", "--group-by", "item", "--json").result
    assert by_item["group_auc"]["column"] == "item"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ["train.group_by=price"],
            r"group_by = 'price' is no categorical column of the log, which has user, item,",
        ),
        (["train.min_gain=0.1"], r"min_gain = 0.1 is read by early_stopping, which is 0; set both, or none"),
        (["train.validate_batches=5", "log.validation_fraction=0"], r"validate_batches = 5 needs a validation loss"),
    ],
)
def test_settings_that_fit_nothing(made, settings, line):
    folder, recipe, _ = made
    sets = [word for setting in settings for word in ("--set", setting)]
    done = fae("run", recipe, "--out", folder / "none", *sets)
    assert done.status == 2
    assert re.search(line, done.stderr)
    assert not (folder / "none/log").exists()


def test_metrics_file_follows_the_training(made, monkeypatch):
    import fae.training.runner as runner_module

    folder, recipe, done = made
    expected = lines_of(folder / "run/metrics.jsonl")
    record = done.result["train"]
    of = lambda lines, event: [line for line in lines if line["event"] == event]  # noqa: E731
    assert [[each["inputs"], each["loss"]] for each in of(expected, "window")] == record["loss_curve"]
    assert [each["log_loss"] for each in of(expected, "validation")] == [
        each["log_loss"] for each in record["validation_curve"]
    ]
    assert [each["loss"] for each in of(expected, "epoch")] == [each["loss"] for each in record["epoch_curve"]]
    assert [each["event"] for each in (expected[0], expected[-1])] == ["start", "end"]
    times = [datetime.datetime.fromisoformat(each["time"]) for each in expected]
    assert times == sorted(times)
    assert all({"inputs", "batches", "epoch", "seconds", "time"} <= each.keys() for each in expected)

    class Killed(BaseException):
        pass

    real_step, calls = runner_module.train_step, []

    def killing_step(*arguments, **options):
        calls.append(1)
        if len(calls) in (9, 19):
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    target = folder / "killed"
    command = ("run", recipe, "--out", target, "--set", "train.checkpoint_batches=4")
    for damage in (False, True):
        with pytest.raises(Killed):
            fae(*command)
        assert len(lines_of(target / "metrics.jsonl")) > 8
        if damage:  # a line that was cut off, and a line that was lost
            lines = (target / "metrics.jsonl").read_text().splitlines()
            del lines[3]
            (target / "metrics.jsonl").write_text("\n".join(lines) + '\n{"event": "wind')
    succeed(*command)
    found = lines_of(target / "metrics.jsonl")
    keys = ("event", "inputs", "loss", "log_loss", "auc", "validation_auc")
    points = [{key: each.get(key) for key in keys} for each in found if each["event"] in POINTS]
    wanted = [{key: each.get(key) for key in keys} for each in expected if each["event"] in POINTS]
    assert points == wanted
    assert sum(each["time"] is None for each in found) == 1
    assert [each["resumed"] for each in of(found, "start")] == [False, True, True]

    succeed(*command, "--set", "train.epochs=3")  # goes further
    longer = lines_of(target / "metrics.jsonl")
    assert longer[: len(found)] == found
    assert [each["epoch"] for each in of(longer, "epoch")] == [1, 2, 3]
    succeed(*command, "--set", "train.learning_rate=0.2", "--replace")
    assert of(lines_of(target / "metrics.jsonl"), "start")[0]["resumed"] is False
    assert len(of(lines_of(target / "metrics.jsonl"), "start")) == 1


def test_a_metrics_file_that_cannot_be_written_costs_its_lines(made):
    folder, recipe, _ = made
    (folder / "odd/metrics.jsonl").mkdir(parents=True)
    done = succeed("run", recipe, "--out", folder / "odd")
    assert re.search(r"odd/metrics.jsonl cannot be written \(.*\); training continues without it", done.stderr)
    assert (folder / "odd/run.json").exists()


def test_quiet_and_log_file(made):
    folder, recipe, _ = made
    log = folder / "lines.log"
    done = succeed("run", recipe, "--out", folder / "quiet", "--quiet", "--log-file", log, "--json")
    assert done.stderr == ""
    assert done.result["test"]["auc"] is not None
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \S", line) for line in lines)
    assert lines[0].endswith("--json")
    assert any("epoch 2 of 2: training loss" in line for line in lines)
    failed = fae("run", folder / "none.toml", "--quiet", "--log-file", log)
    assert failed.status == 2
    assert failed.stderr.startswith("fae: there is no recipe")
    added = log.read_text().splitlines()
    assert added[: len(lines)] == lines
    assert added[-1].endswith(failed.stderr.strip())
    loud = succeed("evaluate", folder / "quiet", folder / "log.csv", "--log-file", log)
    said = [line.split(" ", 1)[1] for line in log.read_text().splitlines()[len(added) + 1 :]]
    assert said == loud.stderr.splitlines(), "as on the terminal, and the next command is not quiet"
    assert fae("evaluate", folder / "quiet", folder / "log.csv", "--log-file", folder).status == 2


def test_extras_from_the_command_line(made, monkeypatch):
    folder, recipe, _ = made
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for option, module in (("--tensorboard", "tensorboard"), ("--wandb", "wandb")):
        done = fae("run", recipe, "--out", folder / "none", option, "x")
        assert done.status == 2
        assert f"`pip install {module}`" in done.stderr
    assert not (folder / "none/log").exists()
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    succeed("train", recipe, "--out", folder / "run", "--tensorboard", folder / "tb", "--set", "train.epochs=3")
    assert list((folder / "tb/run").glob("events.out.tfevents.*"))
