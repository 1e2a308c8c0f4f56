"""A rank of GPUs that hears nothing of another one ends, unless it has found out by itself."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

from fae.distributed.meeting import RankWatch
from fae.distributed.places import RankPlace

SECONDS = {"beat_seconds": 0.01, "silent_seconds": 0.5, "grace_seconds": 0.05}


class Store:
    """Counts, from which a rank may be cut off."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.is_gone = False
        self._lock = threading.Lock()

    def add(self, key: str, number: int) -> int:
        if self.is_gone:
            raise RuntimeError("no store")
        with self._lock:
            self.counts[key] += number
            return self.counts[key]


class Watched:
    """Two ranks that watch each other, and the lines of those that have found a loss."""

    def __init__(self, **seconds: float) -> None:
        self.store, self.lines, self.has_failed = Store(), list[str](), False
        self.found = threading.Event()
        self.watches = [self._watch(rank, **{**SECONDS, **seconds}) for rank in (0, 1)]

    def _watch(self, rank: int, **seconds: float) -> RankWatch:
        meeting: Any = SimpleNamespace(
            place=RankPlace(rank=rank, world=2),
            store=self.store,
            has_failure=lambda: self.has_failed,
            facts=[{"host": "a"}, {"host": "b"}],
        )
        return RankWatch(meeting, self._lost, **seconds)

    def _lost(self, line: str) -> None:
        self.lines.append(line)
        self.found.set()

    def stop(self) -> None:
        for watch in self.watches:
            watch.stop()


def test_ranks_that_are_there_are_left_alone() -> None:
    ranks = Watched(silent_seconds=2.0)
    assert not ranks.found.wait(4.0)
    ranks.stop()
    assert min(ranks.store.counts.values()) > 1


def test_a_rank_that_is_gone() -> None:
    ranks = Watched()
    ranks.watches[1].stop()  # beats no more
    assert ranks.found.wait(10)
    assert ranks.lines[0].startswith("rank 1 on b has not been heard of for 0 s; all ranks end")


def test_a_store_that_is_gone() -> None:
    ranks = Watched()
    ranks.store.is_gone = True
    assert ranks.found.wait(10)
    ranks.stop()


def test_a_rank_that_has_failed() -> None:
    ranks = Watched(silent_seconds=1000)
    ranks.has_failed = True
    assert ranks.found.wait(10)
    assert ranks.lines[0] == "another rank has failed"


def test_a_rank_that_has_found_out_by_itself() -> None:
    ranks = Watched(grace_seconds=1.0)
    ranks.has_failed = True
    time.sleep(0.3)
    ranks.stop()
    assert not ranks.found.wait(1.5)
