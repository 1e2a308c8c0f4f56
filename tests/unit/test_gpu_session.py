"""The list of GPU measurements: what it names exists; it is cut off in time, goes on, and keeps what was measured."""

from __future__ import annotations

import sys
import time
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu_session  # noqa: E402
from gpu_session import STEPS, Session, Step  # noqa: E402


def test_every_step_is_a_command_that_is_there(tmp_path):
    assert len({step.name for step in STEPS}) == len(STEPS)
    session = Session(tmp_path / "data", tmp_path / "results", "h200", time.monotonic())
    for step in STEPS:
        words = session.words(step, 100.0)
        assert not [word for word in words if "{" in word], words
        assert words[1] == "-m" or Path(words[1]).is_file(), words
        writes = any("h200" in word for word in words) or step.keep or "accuracy" in step.name
        assert writes or step.aside or "pytest" in words


def test_done_is_done_and_late_is_cut_off(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_session, "_LEAST", 0.2)
    good, slow = tmp_path / "good.py", tmp_path / "slow.py"
    good.write_text("import sys; open(sys.argv[1], 'a').write('x'); print('measured')")
    slow.write_text("import sys, time; open(sys.argv[1], 'w').write('{}'); time.sleep(60)")
    data, results = tmp_path / "data", tmp_path / "results"
    steps = [
        Step(name="good", command=f"{good} {{data}}/x", limit=30),
        Step(name="slow", command=f"{slow} {{data}}/part.json", limit=3, keep=("part.json", "slow_{gpu}.json")),
        Step(name="never", command=f"{good} {{data}}/never", limit=0.1),
    ]
    for _ in range(2):
        session = Session(data, results, "cpu", time.monotonic() + 60)
        session.run_aside(steps[:1])
        for step in steps[1:]:
            session.run(step)
    said = capsys.readouterr().out
    assert (data / "x").read_text() == "x", "it ran once"
    assert said.count("good: status 0") == said.count("good: done before") == 1
    assert said.count("slow: cut off") == 2
    assert (results / "slow_cpu.json").read_text() == "{}", "what it had is kept"
    assert said.count("never: no time") == 2
    assert not (data / "never").exists()


def test_who_started_nothing_more_goes_on_next_time(tmp_path, monkeypatch, capsys):
    """Commands with ``--until`` end with status 0 also where they left cells out."""
    monkeypatch.setattr(gpu_session, "_LEAST", 0.2)
    partly = tmp_path / "partly.py"
    partly.write_text(
        "import pathlib, sys, time\n"
        "cells = pathlib.Path(sys.argv[2])\n"
        "had = cells.read_text() if cells.exists() else ''\n"
        "cells.write_text(had + 'x')\n"
        "time.sleep(0 if had else float(sys.argv[1]))\n"
    )
    step = Step(name="partly", command=f"{partly} {{left}} {{data}}/cells", limit=3)
    for _ in range(3):
        Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() + 60).run(step)
    assert capsys.readouterr().out.count("partly: status 0") == 2
    assert (tmp_path / "data" / "cells").read_text() == "xx"


def test_nothing_begins_behind_the_end(tmp_path, capsys):
    session = Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() - 1)
    session.run(Step(name="late", command="-m this", limit=100))
    assert "late: no time" in capsys.readouterr().out


def test_it_says_what_it_would_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", "--list", "--folder", str(tmp_path), "--gpu", "h200"])
    gpu_session.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [step.name for step in STEPS]
