"""The list of GPU measurements: its commands exist, a step is run once, cut off in time, and keeps its figures."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_session  # noqa: E402
from gpu_session import STEPS, Step, run, words  # noqa: E402


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.setattr(gpu_session, "_LEAST_SECONDS", 0.2)
    folder, results = tmp_path / "data", tmp_path / "results"
    (folder / "done").mkdir(parents=True)
    results.mkdir()
    return Namespace(folder=folder, results=results, gpu="h200", gpus=1)


def test_every_step_is_a_command_that_is_there(options: Namespace) -> None:
    assert len({step.name for step in STEPS}) == len(STEPS)
    for step in STEPS:
        command = words(step, 100.0, options)
        assert not [word for word in command if "{" in word], command
        assert command[1] == "-m" or (ROOT / command[1]).is_file(), command
        writes = step.keep or any("h200" in word for word in command)
        assert writes or "pytest" in command


def test_a_step_runs_once_and_a_late_one_is_cut_off(tmp_path: Path, options: Namespace) -> None:
    good, slow = tmp_path / "good.py", tmp_path / "slow.py"
    good.write_text("import sys; open(sys.argv[1], 'a').write('x')")
    slow.write_text("import sys, time; open(sys.argv[1], 'w').write('{}'); time.sleep(60)")
    one = Step("good", 60, f"{good} {{data}}/x")
    late = Step(
        name="slow", command=f"{slow} {{data}}/part.json", limit=4, keep=("part.json", "slow_{gpu}.json")
    )  # fmt: skip
    said = [run(step, time.monotonic() + 90, options) for step in (one, late, one)]
    assert said[0].startswith("status 0")
    assert said[1].startswith("cut off")
    assert said[2] == "done before"
    assert (options.folder / "x").read_text() == "x"
    assert (options.results / "slow_h200.json").read_text() == "{}", "its figures are kept"


def test_steps_of_several_gpus_are_left_to_machines_that_have_them(options: Namespace) -> None:
    several = [step for step in STEPS if step.is_of_several]
    assert {step.name for step in several} == {
        "ranks_device", "ranks_tiered", "ranks_others", "rank_timeline", "auc_of_ranks",
    }  # fmt: skip
    for step in several:
        assert run(step, time.monotonic() + 90, options) == "needs several GPUs"
        options.gpus = 4
        command = words(step, 90, options)
        options.gpus = 1
        first = command.index("--ranks") + 1
        assert command[first + (step.name == "auc_of_ranks")] == "4"
        assert command[-1] == str(options.results / f"{step.name}_4xh200.json")


def test_nothing_begins_after_the_end(options: Namespace) -> None:
    assert run(Step("late", 100, "-m this"), time.monotonic() - 1, options) == "no time"


@pytest.mark.parametrize(("gpus", "left"), [("1", 5), ("2", 0)])
def test_it_prints_its_commands(
    gpus: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["gpu_session.py", "--list", "--folder", str(tmp_path), "--gpu", "h200", "--gpus", gpus]
    )
    gpu_session.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [step.name for step in STEPS]
    assert sum(line.endswith("needs several GPUs") for line in lines) == left
