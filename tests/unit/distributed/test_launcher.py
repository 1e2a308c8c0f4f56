"""How ranks end, whatever happens to one of them: one line, one status, within seconds, and no process is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fae.core.interrupts import Interrupted
from fae.distributed.launcher import launch
from ranks_started import INTERRUPTED, TORCHRUN, Ranks, ended
from sent_signals import send_one_by_one

CONTINUES = "the same command continues from the last checkpoint"
LATE = """
import os
if os.environ.get("RANK") == "1":
    import json, time
    real = json.loads
    def slow(*arguments, **options):  # of the plan, which is read before the process becomes a rank
        json.loads = real
        time.sleep(8.0)
        return real(*arguments, **options)
    json.loads = slow
"""


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_end_well(ranks: int, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=ranks)
    assert done.status == 0
    assert done.lines == ["stages: done", "train: done"], "rank 0 alone talks"
    expected = sum(rank + step for rank in range(ranks) for step in range(40))
    assert json.loads(done.stdout) == {"hosts": ranks, "meets": True, "total": [expected] * 3}
    assert (tmp_path / "stages").read_text() == "x", "stages before training run once"
    log = [line.split(" ", 1)[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.split()[0] for line in log] == ["fae", "stages:", "train:"]


@pytest.mark.parametrize("act", ["1 5", "0 7", "0 stages", "1 joined"])
def test_a_rank_that_raises_ends_all_with_its_line(act: str, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, acts={act: "raise"})
    assert done.status == 2
    assert done.fault == "the loss is not finite; lower learning_rate"
    assert (tmp_path / "log").read_text().count("the loss is not finite") == 1


def test_all_that_raise_the_same_say_it_once(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=2, acts={"0 5": "raise", "1 5": "raise"})
    assert (done.status, done.fault) == (2, "the loss is not finite; lower learning_rate")


def test_a_defect_shows_the_traceback_of_its_rank_alone(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, acts={"2 5": "defect"})
    assert done.status == 1
    assert [line for line in done.lines if line[0] != " "] == [
        "stages: done", "Traceback (most recent call last):", "ZeroDivisionError: a defect",
    ]  # fmt: skip


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_that_is_killed(rank: int, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, acts={f"{rank} 9": "kill"})
    pid = (tmp_path / f"pid{rank}").read_text()
    assert done.status == 2
    assert done.fault.startswith(f"rank {rank} of 3 (process {pid}) was ended by SIGKILL, perhaps because memory ran")
    assert done.fault.endswith(CONTINUES)
    assert done.seconds < 30


def test_rank_0_killed_in_an_earlier_stage(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, acts={"0 stages": "kill"})
    assert done.fault.startswith("rank 0 of 3 (process ")
    assert len(list(tmp_path.glob("pid*"))) == 1, "the others wait for nothing: they are not started"


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "deed"), [(0, "hang"), (1, "stop")])
def test_a_rank_that_hangs(rank: int, deed: str, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, acts={f"{rank} 5": deed}, group_seconds=2)
    assert done.status == 2
    assert done.fault.startswith(f"rank {rank} did not come to step 5 within 2 s, in which rank ")
    assert done.seconds < 30


def test_a_rank_that_does_not_come(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=2, acts={"1 stages": "hang"}, join_seconds=3)
    assert done.status == 2
    assert done.fault.startswith("rank 1 did not come within 3 s")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_ends_before_the_others(rank: int, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=2, acts={f"{rank} 5": "leave"})
    assert done.status == 2
    assert done.fault.startswith(f"rank {rank} ended while others were still at work; this is a defect")


def test_ranks_that_are_out_of_step(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=2, uneven={"1": 5}, group_seconds=2)
    assert done.status == 2
    assert done.fault.startswith("ranks are out of step: rank ")
    assert "rank 1 at the end" in done.fault
    assert "rank 0 at step 5" in done.fault


def test_different_recipes(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, recipes={"2": {"train": {"seed": 7}}})
    assert done.status == 2
    assert done.fault.startswith("ranks do not have the same recipe: they differ in train.seed, which is 1 on rank 0 (")
    assert " and 7 on rank 2 (" in done.fault


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_after_the_same_step(number: int, tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, ranks=3, steps=10**6, pause=0.01)
    ranks.await_file("at2")
    ranks.process.send_signal(number)
    done = ranks.end()
    assert done.status == 128 + number
    assert done.fault == INTERRUPTED.removeprefix("fae: ")
    assert len({(tmp_path / f"saved{rank}").read_text() for rank in range(3)}) == 1
    assert done.seconds < 20


def test_a_signal_to_all_processes_lets_them_save(tmp_path: Path) -> None:
    """Also where they take longer than ranks may take behind the first one's end. systemd and Slurm signal so."""
    ranks = Ranks(tmp_path, ranks=2, steps=10**6, pause=0.01, save=2.0, interrupted_seconds=0.5)
    ranks.await_file("at1")
    for pid in (ranks.process.pid, *(int((tmp_path / f"pid{rank}").read_text()) for rank in range(2))):
        os.kill(pid, signal.SIGTERM)
    done = ranks.end()
    assert (done.status, done.fault) == (143, INTERRUPTED.removeprefix("fae: "))
    assert len({(tmp_path / f"saved{rank}").read_text() for rank in range(2)}) == 1


def test_a_signal_before_the_others_are_started(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, ranks=2, acts={"0 stages": 60.0})
    ranks.await_file("pid0")
    ranks.process.send_signal(signal.SIGTERM)
    done = ranks.end()
    assert (done.status, done.lines) == (143, [INTERRUPTED])


@pytest.mark.parametrize(
    ("waits", "number"), [("1 stages", signal.SIGTERM), ("2 stages", signal.SIGINT), ("1 joined", signal.SIGTERM)]
)
def test_a_signal_to_one_rank_before_training(waits: str, number: int, tmp_path: Path) -> None:
    """Before it joins, while it waits for another one, or before training: rank 0 has not heard it."""
    ranks = Ranks(tmp_path, ranks=3, acts={waits: 60.0})
    ranks.await_file("pid1")
    time.sleep(0.5 if waits == "1 stages" else 3.0)  # it has loaded torch, and is where it waits
    os.kill(int((tmp_path / "pid1").read_text()), number)
    done = ranks.end()
    assert (done.status, done.fault) == (128 + number, INTERRUPTED.removeprefix("fae: "))
    assert done.seconds < 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun(number: int, tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, starter=TORCHRUN, ranks=2, steps=10**6, pause=0.01)
    ranks.await_file("at1")
    ranks.process.send_signal(number)
    done = ranks.end()
    assert done.status != 0
    assert [line for line in done.lines if line.startswith("fae: ")] == [INTERRUPTED]
    assert len({(tmp_path / f"saved{rank}").read_text() for rank in range(2)}) == 1


def test_ranks_do_not_outlive_torchrun(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, starter=TORCHRUN, ranks=2, acts={"1 5": "hang"})
    ranks.await_file("hangs")
    ranks.process.kill()
    assert ranks.end(20).status == -signal.SIGKILL


@pytest.mark.parametrize("times", [1, 2], ids=["killed", "interrupted twice"])
def test_ranks_do_not_outlive_the_launcher(times: int, tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, ranks=3, acts={"1 5": "hang", "2 5": "hang"})
    ranks.await_file("hangs")
    send_one_by_one(ranks.process.pid, signal.SIGKILL if times == 1 else signal.SIGTERM, times)
    assert ranks.end(20).status == (-signal.SIGKILL if times == 1 else -signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_a_rank_handles_it(number: int) -> None:
    """The system ends it then, and that is no want of memory."""
    code = f"import os, signal; signal.signal({number}, signal.SIG_DFL); os.kill(os.getpid(), {number})"
    with pytest.raises(Interrupted, match=f"signal {number}"):
        launch([sys.executable, "-c", code], 2)


def test_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        places = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in places.items():
            monkeypatch.setenv(name, str(value))
        done = ended(tmp_path, ranks=2)
    assert done.status == 2
    assert done.fault == f"rank 0 cannot listen on port {port}: Address already in use; set MASTER_PORT to a free one"


@pytest.mark.parametrize(
    ("acts", "words"),
    [
        ({"0 stages": 1.0}, None),
        ({"1 5": "raise"}, "the loss is not finite; lower learning_rate"),
        ({"0 stages": "raise", "1 stages": "raise"}, "the loss is not finite; lower learning_rate"),
        ({"1 5": "kill"}, "rank 1 (process "),
    ],
    ids=["well", "raises", "all raise early", "killed"],
)
def test_under_torchrun(acts: dict[str, Any], words: str | None, tmp_path: Path) -> None:
    """It has lines of its own; ours are the same, once."""
    done = Ranks(tmp_path, starter=TORCHRUN, ranks=2, acts=acts).end()
    assert (done.status == 0) == (words is None)
    lines = [line for line in done.lines if line.startswith("fae: ")]
    assert len(lines) == (words is not None), done.lines
    if words is not None:
        assert lines[0].startswith(f"fae: {words}")
    else:
        assert json.loads(done.stdout)["hosts"] == 2
        assert (tmp_path / "stages").read_text() == "x"


def test_a_rank_of_torchrun_that_comes_late_to_an_error_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is signalled before it has begun, and rank 0 has said what there is to say."""
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "sitecustomize.py").write_text(LATE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path / "late"), os.environ.get("PYTHONPATH", ""))))
    done = Ranks(tmp_path, starter=TORCHRUN, ranks=2, acts={"0 stages": "raise", "1 stages": "raise"}).end()
    assert done.status != 0
    assert [line for line in done.lines if line.startswith("fae: ")] == [
        "fae: the loss is not finite; lower learning_rate"
    ]


@pytest.mark.parametrize("acts", [{"0 stages": 60.0}, {"0 stages": 60.0, "1 stages": 60.0}], ids=["waits", "begins"])
def test_a_signal_to_one_rank_of_torchrun_before_training(acts: dict[str, Any], tmp_path: Path) -> None:
    """It signals the others, of which rank 0 says so."""
    ranks = Ranks(tmp_path, starter=TORCHRUN, ranks=2, acts=acts)
    ranks.await_file("pid1")
    time.sleep(4.0)  # it has loaded torch, and is where it waits
    os.kill(int((tmp_path / "pid1").read_text()), signal.SIGTERM)
    done = ranks.end()
    assert done.status != 0
    assert [line for line in done.lines if line.startswith("fae: ")] == [INTERRUPTED]
    assert done.seconds < 20
