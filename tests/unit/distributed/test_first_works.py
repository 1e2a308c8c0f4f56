"""Rank 0 works alone for longer than a collective may take, and the others wait for as long as it is heard of."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fae.core.errors import RankError
from fae.distributed import meeting, rank_process
from fae.distributed.ends import LostRank
from fae.distributed.group import Group
from fae.distributed.meeting import RankMeeting
from fae.distributed.places import RankPlace
from fae.distributed.rank_process import RankProcess
from ranks_started import INTERRUPTED, TORCHRUN, Ranks, ended

LAUNCHER = ("-m",)


def faults(lines: list[str]) -> list[str]:
    """Our lines: torchrun has some of its own."""
    return [line for line in lines if line.startswith("fae: ")]


@pytest.mark.slow
@pytest.mark.parametrize("starter", [LAUNCHER, TORCHRUN], ids=["launcher", "torchrun"])
def test_the_others_wait_longer_than_a_collective(starter: tuple[str, ...], tmp_path: Path) -> None:
    done = Ranks(tmp_path, starter=starter, ranks=2, works={"5": 1}, acts={"0 work 5": 9.0}, group_seconds=3).end()
    assert (done.status, faults(done.lines)) == (0, [])
    assert json.loads(done.stdout)["total"] == [sum(2 * step + 1 for step in range(40))] * 3
    assert done.seconds > 9


def test_uses_are_in_step(tmp_path: Path) -> None:
    """No wait is over before rank 0 has worked as often as it has itself, and each use ends at once."""
    done = ended(tmp_path, ranks=3, works={"2": 3, "3": 1, "7": 200}, group_seconds=10)
    assert done.status == 0
    assert (tmp_path / "works").read_text() == "x" * 204
    for rank in (1, 2):
        counts = [int(count) for count in (tmp_path / f"worked{rank}").read_text().split()]
        assert all(count >= number for number, count in enumerate(counts, 1))
        assert (len(counts), counts[-1]) == (204, 204)
    assert done.seconds < 30, "204 uses take no time"


def test_a_use_that_rank_0_does_not_come_to(tmp_path: Path) -> None:
    """A rank that waits for it answers the question where it is."""
    done = ended(tmp_path, ranks=2, works={"5": 1}, left_out=[0], group_seconds=3)
    assert done.status == 2
    assert done.fault.startswith("ranks are out of step: rank 0 at the end of step 5, rank 1 at the work of step 5")


def test_a_use_that_another_rank_does_not_come_to(tmp_path: Path) -> None:
    done = ended(tmp_path, ranks=2, works={"5": 1}, left_out=[1], group_seconds=10)
    assert done.status == 0, "rank 0 waits for nobody"


@pytest.mark.parametrize(
    ("rank", "starter", "seconds"),
    [(0, LAUNCHER, 30.0), (2, LAUNCHER, 30.0), (0, TORCHRUN, 30.0), (1, TORCHRUN, 6.0)],
    ids=["rank 0", "rank 2", "rank 0 of torchrun's", "rank 1 of torchrun's"],
)
def test_a_rank_killed_meanwhile(rank: int, starter: tuple[str, ...], seconds: float, tmp_path: Path) -> None:
    """The launcher ends rank 0 as well; under torchrun it ends its work first, for which there are 30 s."""
    num_ranks = 3 if starter == LAUNCHER else 2
    ranks = Ranks(tmp_path, starter=starter, ranks=num_ranks, works={"5": 1}, acts={"0 work 5": seconds})
    ranks.await_file("works")
    time.sleep(1.0)
    pid = int((tmp_path / f"pid{rank}").read_text())
    os.kill(pid, signal.SIGKILL)
    done = ranks.end(25)
    assert done.status == (2 if starter == LAUNCHER else 1)
    (line,) = faults(done.lines)
    assert line.startswith(f"fae: rank {rank}{' of 3' if starter == LAUNCHER else ''} (process {pid}")
    assert done.seconds < 15


@pytest.mark.parametrize(("deed", "starter"), [("raise", LAUNCHER), ("raise", TORCHRUN), ("defect", LAUNCHER)])
def test_rank_0_raises_meanwhile(deed: str, starter: tuple[str, ...], tmp_path: Path) -> None:
    done = Ranks(tmp_path, starter=starter, ranks=2, works={"5": 1}, acts={"0 work 5": deed}).end()
    assert done.status == (1 if starter == TORCHRUN or deed == "defect" else 2)
    assert faults(done.lines) == ["fae: the loss is not finite; lower learning_rate"] * (deed == "raise")
    assert done.lines.count("ZeroDivisionError: a defect") == (deed == "defect")
    assert done.seconds < 25


def test_a_signal_meanwhile(tmp_path: Path) -> None:
    """All end behind the work, after the same step."""
    ranks = Ranks(tmp_path, ranks=3, works={"5": 1}, acts={"0 work 5": 4.0})
    ranks.await_file("works")
    ranks.process.send_signal(signal.SIGTERM)
    done = ranks.end()
    assert (done.status, done.fault) == (143, INTERRUPTED.removeprefix("fae: "))
    assert [(tmp_path / f"saved{rank}").read_text() for rank in range(3)] == ["5"] * 3
    assert (tmp_path / "worked1").read_text() == "1\n"


@pytest.mark.slow
def test_rank_0_is_not_heard_of(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"works": {"5": 1}, "acts": {"0 work 5": 60.0}, "beat_seconds": 100, "silent_seconds": 2}
    done = ended(tmp_path, ranks=2, **plan)
    assert (done.status, done.seconds < 40) == (2, True)
    assert done.fault.startswith("rank 0 no longer answered")


@pytest.fixture
def meetings() -> list[RankMeeting]:
    """Rank 0 and rank 1 of this process, before they are a group."""
    first = RankMeeting(RankPlace(world=2, port=0), 10)
    port = first.store.inner.underlying_store.port  # type: ignore[attr-defined]
    return [first, RankMeeting(RankPlace(rank=1, world=2, port=port), 10)]


def test_a_wait_lasts_as_long_as_beats(meetings: list[RankMeeting], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_BEAT_SECONDS", 0.2), ("_SILENT_SECONDS", 1.0), ("_LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(meeting, name, seconds)
    first, second = meetings
    looks: list[int] = []
    with first.beating():
        timer = threading.Timer(3.0, first.say, ("done",))
        timer.start()
        began = time.monotonic()
        second.await_first("done", lambda: looks.append(1))
        assert 2.9 < time.monotonic() - began < 3.5, "longer than the patience, and no longer than the work"
    assert len(looks) <= 31
    began = time.monotonic()
    with pytest.raises(LostRank, match="rank 0 has not been heard of for 1 s"):
        second.await_first("more")
    assert time.monotonic() - began < 3


def test_it_says_that_it_waits_for_others(
    meetings: list[RankMeeting], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(meeting, "_SAY_SECONDS", 0.1)
    meetings[0].seconds = 0.5
    with pytest.raises(RankError, match="rank 1 did not come within 0 s"):
        meetings[0].exchange_facts()
    assert capsys.readouterr().err == "1 of 2 ranks (WORLD_SIZE) are here; the others have 0 s\n"


def test_a_beat_that_fails_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 may leave meanwhile; if it joins, the same is raised there."""
    said: list[object] = []
    monkeypatch.setattr(threading, "excepthook", said.append)

    def fail(*_: object) -> None:
        raise ImportError("torch is half loaded")

    monkeypatch.setattr(rank_process, "RankMeeting", fail)
    process = RankProcess(RankPlace(world=2, local_world=2))
    thread = threading.Thread(target=process._beat)
    thread.start()
    thread.join()
    assert said == []
    with pytest.raises(ImportError, match="half loaded"):
        process.join()


def test_a_key_is_seen_at_once(meetings: list[RankMeeting]) -> None:
    first, second = meetings
    timer = threading.Timer(0.3, first.say, ("done",))
    began = time.monotonic()
    timer.start()
    second.await_first("done")
    assert 0.3 <= time.monotonic() - began < 0.6
    second.await_first("done")
    assert time.monotonic() - began < 0.8


def test_one_rank_waits_for_nothing() -> None:
    with Group().first_works("the checkpoint"):
        assert "fae-beat" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ValueError, match="as it is"), Group().first_works("the checkpoint"):
        raise ValueError("as it is")
