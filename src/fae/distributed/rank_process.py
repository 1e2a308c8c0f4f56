"""The process of one rank: it ends with the one that started it, is silent where another rank speaks, and says how it
ended.

Rank 0 talks. Another rank does only where it has failed by itself: its line or traceback is the one that people see. A
rank that suffers from another one's end leaves without a word and with a status that its launcher knows; under torchrun
there is no launcher of ours, so the first rank of a host says which of its neighbours is gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any

from fae.core.errors import FaeError
from fae.core.interrupts import Interrupted, is_interrupted, put_off
from fae.core.printable import mute, open_log_file, tell
from fae.distributed.ends import LOST_STATUS, CommonFault, LostRank
from fae.distributed.group import Group
from fae.distributed.meeting import RankMeeting
from fae.distributed.places import RankPlace
from fae.engine.code_version import versions
from fae.engine.processes import end_with_parent

JOIN_SECONDS = 300.0
"""How long ranks wait for one another when they begin."""
GROUP_SECONDS = 600.0
"""How long a rank waits for the others in one collective."""
_SAME_LINE_SECONDS = 15.0
"""Under torchrun, how long a rank that fails before the ranks have met waits: rank 0 may be about to say the same."""
_BEGIN = "begin"
_DEATH_SECONDS = 2.0
"""How long after its connections a killed process may still be seen."""


class RankProcess:
    """How this process is one rank, while a ``with`` block runs; for the only rank of one it does nothing.

    Parameters
    ----------
    place
        `fae.distributed.places.place_of_process`.
    join_seconds, group_seconds
        As `JOIN_SECONDS` and `GROUP_SECONDS`.
    """

    def __init__(
        self, place: RankPlace, *, join_seconds: float = JOIN_SECONDS, group_seconds: float = GROUP_SECONDS
    ) -> None:
        self.place = place
        self._join_seconds, self._group_seconds = join_seconds, group_seconds
        self._meeting: RankMeeting | None = None
        self._facts: list[dict[str, Any]] = []
        self._stderr: int | None = None
        self._has_begun = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> RankProcess:
        place = self.place
        if place.world == 1:
            return self
        end_with_parent(place.launcher or os.getppid(), by_system=place.launcher is not None)
        # Its warnings of connections that end come where a line of ours says it; read when torch is loaded.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if place.start is not None:
            os.set_inheritable(place.start, False)
        if place.launcher is not None and sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if place.rank > 0:
            self._be_silent()
        elif place.launcher is None:
            self._beating = threading.Thread(target=self._beat, daemon=True, name="fae-beat")
            self._beating.start()
        return self

    def join(self, device: str = "cpu") -> Group:
        """Meet the other ranks and become a group with them, which closes with its own ``with`` block.

        Rank 0 calls it when all stages before training are done. Its launcher starts the other ranks then; under
        torchrun they wait in this call, for as long as rank 0 is there.

        Parameters
        ----------
        device
            ``"cpu"`` or ``"cuda"``: then each rank of a host takes a GPU of its own.

        Raises
        ------
        RankError
            If ranks do not come, or run other versions.
        DeviceError
            If a host has fewer GPUs than ranks.
        """
        place = self.place
        if place.world == 1:
            return Group(device=device)
        self._has_begun.set()
        meeting = self._open_meeting()
        if place.rank == 0:
            meeting.say(_BEGIN)
        elif place.launcher is None:
            meeting.await_first(_BEGIN)
        self._facts = meeting.exchange_facts()
        from fae.distributed.devices import take_device
        from fae.distributed.link import Link
        from fae.distributed.peers.shared_memory import with_host_meeting
        from fae.distributed.peers.wires import with_best_wire

        chosen = take_device(place, device)
        group = Group(
            rank=place.rank, world=place.world, local_rank=place.local_rank,
            hosts=tuple(facts["host"] for facts in self._facts), device=str(chosen),
            link=Link(meeting, chosen, self._group_seconds, self._end_lost if place.has_other_hosts else None),
        )  # fmt: skip
        try:
            group.agree(versions("torch"), "versions")
            return with_host_meeting(with_best_wire(group, chosen))
        except BaseException:
            group.close(now=True)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.place.world == 1 or error is None or isinstance(error, SystemExit):
            return
        status: int | None = None
        try:
            with put_off():  # torchrun ends ranks by signals when one has ended
                status = self._status_of(error)
        except Interrupted:
            if isinstance(error, LostRank) and not self._gone() and not self._has_failure():
                raise  # the others have heard of the same signal first
        if status is not None:
            raise SystemExit(status) from error

    def _end_lost(self, line: str) -> None:
        """End this process from another thread: its own one waits for a GPU, which waits for a rank that is gone."""
        os._exit(self._status_of(LostRank(line)) or LOST_STATUS)

    def _status_of(self, error: BaseException) -> int | None:
        """How this rank ends without a word of its own; None where what it raises is to be said."""
        place, has_launcher = self.place, self.place.launcher is not None
        if isinstance(error, KeyboardInterrupt):
            if self._meeting is not None:
                self._meeting.report_interrupt()
            if has_launcher or not self._gone():
                return None
        if isinstance(error, (LostRank, KeyboardInterrupt)):
            if not has_launcher:
                self._tell_loss(error)
            return LOST_STATUS
        if isinstance(error, CommonFault) and place.rank > 0:
            return LOST_STATUS if has_launcher else 2
        if not has_launcher:
            if self._meeting is not None and not self._meeting.report_failure():
                return 2
            if self._meeting is None and place.rank > 0 and isinstance(error, FaeError):
                end = time.monotonic() + _SAME_LINE_SECONDS
                while time.monotonic() < end:
                    if is_interrupted():  # by torchrun, since another rank has ended
                        return 2
                    time.sleep(0.05)
        self._speak()
        return None

    def _open_meeting(self) -> RankMeeting:
        if self._beating is not None:
            self._beating.join()
        if self._meeting is None:
            self._meeting = RankMeeting(self.place, self._join_seconds)
        return self._meeting

    def _beat(self) -> None:
        """Let the ranks that wait know that rank 0 is at work."""
        with contextlib.suppress(Exception):  # raised again in `join`, or nobody waits for this rank any longer
            self._meeting = RankMeeting(self.place, self._join_seconds)
            self._meeting.beat(self._has_begun)

    def _be_silent(self) -> None:
        """Let nothing be heard of this process, of libraries neither, until `_speak`."""
        open_log_file(None)
        mute(True)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
        null = os.open(os.devnull, os.O_WRONLY)
        self._stderr = os.dup(2)
        for number in (1, 2):
            os.dup2(null, number)
        os.close(null)

    def _speak(self) -> None:
        if self._stderr is not None:
            os.dup2(self._stderr, 2)

    def _neighbours(self) -> dict[int, bool]:
        """Other ranks that are processes of this machine, and whether they are there, or have left by a signal."""
        if self._meeting is None:
            return {}
        found = self._meeting.neighbours()
        if not all(found.values()):
            found |= {rank: True for rank, runs in found.items() if not runs and self._meeting.has_left(rank)}
        return found

    def _gone(self) -> list[int]:
        return [rank for rank, runs in self._neighbours().items() if not runs]

    def _has_failure(self) -> bool:
        return self._meeting is not None and self._meeting.has_failure()

    def _tell_loss(self, error: BaseException) -> None:
        """Say which rank of this host is gone, where none has said why and this is the first one that is left."""
        end = time.monotonic() + _DEATH_SECONDS
        while time.monotonic() < end and not self._gone() and not is_interrupted():
            time.sleep(0.05)
        if self._has_failure():
            return
        neighbours = self._neighbours()
        gone = [rank for rank, runs in neighbours.items() if not runs]
        left = [rank for rank, runs in neighbours.items() if runs]
        if not gone and neighbours:
            return  # a rank of another host, where its neighbours say it, or a signal
        if not left or min(left) > self.place.rank:
            self._speak()
            tell(f"fae: {lost_line(gone, self._facts) if gone else error}")


def lost_line(ranks: list[int], facts: list[dict[str, Any]]) -> str:
    """The line for ranks that are gone without a word.

    >>> lost_line([2], [{}, {}, {"pid": 7, "host": "a"}])[:44]
    'rank 2 (process 7 on a) is gone, perhaps kil'
    """
    names = ", ".join(f"{rank} (process {facts[rank]['pid']} on {facts[rank]['host']})" for rank in ranks)
    return (
        f"rank{'s' * (len(ranks) > 1)} {names} {'are' if len(ranks) > 1 else 'is'} gone, perhaps killed because memory "
        "ran out; all ranks end, and the same command continues from the last checkpoint"
    )
