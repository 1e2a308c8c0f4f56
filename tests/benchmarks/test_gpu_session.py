"""The list of GPU measurements: what it names exists; it is cut off in time, goes on, and keeps what was measured."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu_session  # noqa: E402
from gpu_session import STEPS, Session, Share, Step, phases  # noqa: E402

HERE = Share(tuple(sorted(os.sched_getaffinity(0))))


@pytest.fixture(autouse=True)
def _same_cores_afterwards():
    yield
    os.sched_setaffinity(0, HERE.cores)


def test_every_step_is_a_command_that_is_there(tmp_path):
    assert len({step.name for step in STEPS}) == len(STEPS)
    session = Session(tmp_path / "data", tmp_path / "results", "h200", time.monotonic())
    for step in STEPS:
        words = session.words(step, 100.0)
        assert not [word for word in words if "{" in word], words
        script = words[len(step.under) + 1]
        assert script == "-m" or Path(script).is_file(), words
        writes = any("h200" in word for word in words) or step.keep or "accuracy" in step.name
        assert writes or step.when == "before" or "pytest" in words


def test_done_is_done_and_late_is_cut_off(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_session, "_LEAST", 0.2)
    good, slow = tmp_path / "good.py", tmp_path / "slow.py"
    good.write_text("import sys; open(sys.argv[1], 'a').write('x'); print('measured')")
    slow.write_text("import sys, time; open(sys.argv[1], 'w').write('{}'); time.sleep(60)")
    data, results = tmp_path / "data", tmp_path / "results"
    steps = [
        Step(name="good", command=f"{good} {{data}}/x", limit=20, when="before"),
        Step(
            name="slow",
            command=f"{slow} {{data}}/part.json",
            limit=3,
            when="alone",
            keep=("part.json", "slow_{gpu}.json"),
        ),
        Step(name="never", command=f"{good} {{data}}/never", limit=0.1, when="alone"),
    ]
    archive = tmp_path / "all.tgz"
    for _ in range(2):
        session = Session(data, results, "cpu", time.monotonic() + 60, archive)
        session.run_together(steps[:1], [HERE])
        for step in steps[1:]:
            session.run(step, HERE)
    said = capsys.readouterr().out
    assert (data / "x").read_text() == "x", "it ran once"
    assert said.count("good: status 0") == said.count("good: done before") == 1
    assert said.count("slow: cut off") == 2
    assert (results / "slow_cpu.json").read_text() == "{}", "what it had is kept"
    assert said.count("never: no time") == 2
    assert not (data / "never").exists()
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["logs/good.log", "logs/slow.log", "results/slow_cpu.json"]
        assert tar.extractfile("logs/good.log").read() == b"measured\n"


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
    step = Step(name="partly", command=f"{partly} {{left}} {{data}}/cells", limit=3, when="alone")
    for _ in range(3):
        Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() + 60).run(step, HERE)
    assert capsys.readouterr().out.count("partly: status 0") == 2
    assert (tmp_path / "data" / "cells").read_text() == "xx"


def test_an_archive_that_cannot_be_written_ends_nothing(tmp_path, capsys):
    """What a bench has measured of a step that is cut off lies with the data; so does all else that is wanted."""
    archive = tmp_path / "not" / "there" / "all.tgz"
    session = Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() + 60, archive)
    (tmp_path / "data" / "rmc1").mkdir()
    (tmp_path / "data" / "rmc1" / "paper.json").write_text("{}")
    step = Step(name="quick", command="-c pass", limit=50, when="alone")
    session.run(step, HERE)
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["logs/quick.log", "unfinished/rmc1_paper.json"]
    archive.unlink()
    archive.mkdir()
    session.run(step, HERE)
    assert "the archive was not written" in capsys.readouterr().out


def test_nothing_begins_behind_the_end(tmp_path, capsys):
    session = Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() - 1)
    session.run(Step(name="late", command="-m this", limit=100, when="apart"), HERE)
    assert "late: no time" in capsys.readouterr().out


def test_it_says_what_it_would_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", "--list", "--folder", str(tmp_path), "--gpu", "h200"])
    gpu_session.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [step.name for step in STEPS]


def test_phases_follow_the_list():
    found = list(phases(list(STEPS)))
    assert [when for when, _ in found] == ["before", "alone", "apart", "alone"]
    assert [step for _, together in found for step in together] == list(STEPS)
    assert {step.when for step in found[2][1]} == {"apart", "beside"}


@pytest.mark.parametrize("num_gpus", [1, 2])
def test_what_is_made_ready_shares_the_cores_and_takes_the_gpus_by_turns(tmp_path, monkeypatch, num_gpus):
    script = tmp_path / "says.py"
    script.write_text(
        "import json, os, sys\n"
        "facts = [os.environ[name] for name in ('CUDA_VISIBLE_DEVICES', 'FAE_NUM_THREADS', 'OMP_NUM_THREADS')]\n"
        "open(sys.argv[1], 'w').write(json.dumps(facts))\n"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")
    steps = [Step(name=f"s{n}", command=f"{script} {{data}}/s{n}.json", limit=20, when="before") for n in range(3)]
    session, started = Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() + 60), []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: started.append(cores))
    session.run_all(steps, Share(tuple(range(12))), num_gpus)
    found = [json.loads((tmp_path / "data" / f"s{n}.json").read_text()) for n in range(3)]
    gpus = ["4", "GPU-5", "4"] if num_gpus == 2 else ["4,GPU-5"] * 3
    assert found == [[gpu, "4", "4"] for gpu in gpus], "three at once on 12 cores"
    assert started == [tuple(range(12))] * 3


@pytest.mark.parametrize("num_gpus", [1, 2])
def test_untimed_steps_take_the_other_gpu_or_wait(tmp_path, monkeypatch, num_gpus):
    """Each step writes when it ran, on which GPU and cores; what is alone overlaps with nothing."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if len(HERE.cores) < 2:
        pytest.skip("one core")
    script = tmp_path / "says.py"
    script.write_text(
        "import json, os, sys, time\n"
        "begin = time.monotonic()\n"
        "time.sleep(0.5)\n"
        "facts = [begin, time.monotonic(), os.environ.get('CUDA_VISIBLE_DEVICES'), sorted(os.sched_getaffinity(0))]\n"
        "open(sys.argv[1], 'w').write(json.dumps(facts))\n"
    )
    kinds = {
        "early": "alone",
        "timed": "apart",
        "timed_too": "apart",
        "tests": "beside",
        "study": "beside",
        "late": "alone",
    }
    steps = [
        Step(name=name, command=f"{script} {{data}}/{name}.json", limit=20, when=when) for name, when in kinds.items()
    ]
    session = Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() + 60)
    session.run_all(steps, Share(HERE.cores[:2]), num_gpus)
    ran = {name: json.loads((tmp_path / "data" / f"{name}.json").read_text()) for name in kinds}

    def overlap(one, two):
        return ran[one][0] < ran[two][1] and ran[two][0] < ran[one][1]

    for one in ("early", "late"):
        assert not [other for other in kinds if other != one and overlap(one, other)]
    assert overlap("tests", "study")
    assert not overlap("timed", "timed_too")
    timed_with_tests = overlap("timed", "tests") or overlap("timed_too", "tests")
    if num_gpus == 2:
        assert timed_with_tests
        assert ran["early"][2:] == ran["timed"][2:] == ["0", [HERE.cores[0]]]
        assert ran["tests"][2:] == ["1", [HERE.cores[1]]]
    else:
        assert not timed_with_tests
        assert ran["timed"][2:] == ran["tests"][2:] == [None, list(HERE.cores[:2])]


def test_a_program_that_is_not_there_is_said(tmp_path, capsys):
    session = Session(tmp_path / "data", tmp_path / "results", "cpu", time.monotonic() + 60)
    session.run(Step(name="checked", command="-m this", limit=20, when="beside", under=("no-such-checker",)), HERE)
    assert "checked: cannot be started" in capsys.readouterr().out
