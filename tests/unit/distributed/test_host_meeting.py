"""Ranks of one host meet in its memory: they see what the others wrote, and no wait outlives a rank that is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ranks_started import INTERRUPTED, SUPPORT, Ranks, ended


@pytest.mark.parametrize("ranks", [2, 4])
def test_all_see_what_the_others_wrote(ranks: int, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=ranks, meets=True, steps=3000)
    assert done.status == 0
    expected = sum(rank + step for rank in range(ranks) for step in range(3000))
    assert json.loads(done.stdout) == {"hosts": ranks, "meets": True, "total": [expected] * 3}


def test_without_shared_memory_there_is_no_meeting(tmp_path: Path) -> None:
    """All find the same where one of them cannot share."""
    done = ended(tmp_path, ranks=3, no_shared_memory=[1])
    assert (done.status, json.loads(done.stdout)["meets"]) == (0, False)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_that_is_killed(rank: int, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, meets=True, acts={f"{rank} 9": "kill"})
    assert done.status == 2
    assert done.fault.startswith(f"rank {rank} of 3 (process ")
    assert done.seconds < 30


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_where_nobody_ends_the_others(killed: int, tmp_path: Path) -> None:
    """Neither a launcher nor torchrun: the one that is left finds out in its wait, and says so."""
    ranks = started_alone(tmp_path, 2, acts={f"{killed} 9": "kill"})
    assert ranks[killed].wait(60) == -signal.SIGKILL
    began = time.monotonic()
    _, err = ranks[1 - killed].communicate(timeout=60)
    assert time.monotonic() - began < 8
    assert f"rank {killed} (process {ranks[killed].pid} on " in err
    assert ranks[1 - killed].returncode not in (0, None)


def started_alone(folder: Path, world: int, **plan: Any) -> list[subprocess.Popen[str]]:
    """Ranks that meet, each started by itself."""
    plan = {"join_seconds": 30, "group_seconds": 60, "meets": True, "ranks": world, **plan}
    (folder / "plan.json").write_text(json.dumps(plan))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = []
    for rank in range(world):
        environ = {
            **os.environ, "PYTHONPATH": f"{SUPPORT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "RANK": str(rank),
            "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        command = [sys.executable, "-m", "rank_program", "run", "plan.json", "--out", ".", "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        found.append(subprocess.Popen(command, cwd=folder, env=environ, text=True, **pipes))
    return found


def test_a_rank_that_raises(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, meets=True, acts={"1 5": "raise"})
    assert (done.status, done.fault) == (2, "the loss is not finite; lower learning_rate")
    assert done.seconds < 30


def test_ranks_at_different_places(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=2, meets=True, elsewhere={"1": 5}, group_seconds=10)
    assert done.status == 2
    assert done.fault.startswith("ranks are out of step: rank 0 at step 5, rank 1 at somewhere else; this is a defect")


@pytest.mark.parametrize("deed", ["hang", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_rank_that_does_not_come(deed: str, tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=3, meets=True, acts={"1 5": deed}, group_seconds=2)
    assert done.status == 2
    assert done.fault.startswith("rank 1 did not come to step 5 within 2 s, in which rank ")
    assert done.seconds < 30


def test_a_signal_ends_all_after_the_same_step(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, ranks=3, meets=True, steps=10**6, pause=0.01)
    ranks.await_file("at2")
    ranks.process.send_signal(signal.SIGTERM)
    done = ranks.end()
    assert (done.status, done.fault) == (143, INTERRUPTED.removeprefix("fae: "))
    assert len({(tmp_path / f"saved{rank}").read_text() for rank in range(3)}) == 1
