"""Start the ranks of one host, watch over them, and end all as soon as one has ended badly.

Rank 0 is started first and does what a single process does. When it says where it can be reached, the others are
started: none of them waits while stages before training run. They are in sessions of their own, so Ctrl-C of a terminal
reaches this process alone, which hands it to all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO

from fae.core.errors import RankError
from fae.core.interrupts import Interrupted, is_interrupted, put_off, raise_interrupt
from fae.core.printable import tell
from fae.core.signal_watch import status_of
from fae.core.waits import await_ready
from fae.distributed.ends import LOST_STATUS
from fae.distributed.places import RankPlace

_POLL_SECONDS = 0.05
END_SECONDS = 3.0
"""How long the others may take to end by themselves after one has ended badly."""
LOST_SECONDS = 10.0
"""The same where the first one suffers from another one's end, which is still to come."""
INTERRUPTED_SECONDS = 60.0
"""The same after a signal, when the first one has ended: another may still save what is trained."""
_SAME_CAUSE_SECONDS = 0.5
_INTERRUPTS = {
    status: int(number)
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
    for status in (status_of(number), -number)
}
"""The signal by the status of a rank that has left by it, or was ended by it before it could."""
_MOST_BYTES = 65536
"""How much of what a rank has said is shown: its end."""


def launch(command: Sequence[str], num_ranks: int, *, environ: Mapping[str, str] | None = None) -> int:
    """Run a command as `num_ranks` processes of this host, each of which finds its place in its environment.

    Parameters
    ----------
    command
        Program and arguments: the same for all.
    environ
        Their environment; None takes that of this process.

    Returns
    -------
    int
        Exit status of all: that of the rank that has failed, after its own line; 0 where all have ended well.

    Raises
    ------
    RankError
        If a rank was killed, or ended where others wait for it.
    Interrupted
        If a signal has ended the ranks, or one of them, before rank 0 could say so.
    """
    with _Launch(command, num_ranks, os.environ if environ is None else environ) as ranks, put_off():
        return ranks.watch()


class _Launch:
    def __init__(self, command: Sequence[str], num_ranks: int, environ: Mapping[str, str]) -> None:
        self._command, self._num_ranks, self._environ = list(command), num_ranks, environ
        self._ranks: list[subprocess.Popen[bytes]] = []
        self._said: list[IO[bytes] | None] = []
        self._status: dict[int, int] = {}
        self._ended: dict[int, float] = {}
        self._killed: set[int] = set()
        self._signal: int | None = None
        self._deadline: float | None = None
        self._start: int | None = None

    def __enter__(self) -> _Launch:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._ranks:
            with contextlib.suppress(OSError):
                process.kill()
        for process in self._ranks:
            process.wait()
        for file in self._said:
            if file is not None:
                file.close()
        if self._start is not None:
            os.close(self._start)

    def watch(self) -> int:
        """Start the ranks and wait for their ends; the status of all, once what there is to say has been said."""
        self._start, writer = os.pipe()
        try:
            self._begin(start=writer)
        finally:
            os.close(writer)
        while len(self._status) < len(self._ranks):
            self._wait()
            self._hand_on_signal()
            self._poll()
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._kill_all()
        return self._verdict()

    def _begin(self, rank: int = 0, port: int = 0, start: int | None = None) -> None:
        place = RankPlace(
            rank=rank, local_rank=rank, world=self._num_ranks, local_world=self._num_ranks, port=port,
            launcher=os.getpid(), start=start,
        )  # fmt: skip
        said = tempfile.TemporaryFile() if rank else None  # noqa: SIM115  it is read when the rank has ended
        self._said.append(said)
        self._ranks.append(
            subprocess.Popen(
                self._command, env={**self._environ, **place.environment()}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if rank else None, stderr=said, start_new_session=True,
                pass_fds=() if start is None else (start,),
            )
        )  # fmt: skip

    def _wait(self) -> None:
        """Wait a moment, or until rank 0 says that the others are needed; then start them."""
        if self._start is None:
            time.sleep(_POLL_SECONDS)
            return
        if not await_ready(self._start, _POLL_SECONDS):
            return
        text = os.read(self._start, 64)  # less than a pipe splits
        os.close(self._start)
        self._start = None
        if not text or self._deadline is not None or self._signal is not None:
            return
        for rank in range(1, self._num_ranks):
            self._begin(rank, port=int(text))

    def _hand_on_signal(self) -> None:
        if not is_interrupted():
            return
        try:
            raise_interrupt()
        except Interrupted as interrupt:
            self._signal = interrupt.number
            for rank, process in enumerate(self._ranks):
                if rank not in self._status:
                    with contextlib.suppress(OSError):
                        process.send_signal(interrupt.number)

    def _poll(self) -> None:
        for rank, process in enumerate(self._ranks):
            if rank in self._status or (status := process.poll()) is None:
                continue
            self._status[rank], self._ended[rank] = status, time.monotonic()
            if self._signal is not None:
                self._deadline = self._deadline or time.monotonic() + INTERRUPTED_SECONDS
            elif status != 0:
                limit = time.monotonic() + (LOST_SECONDS if status == LOST_STATUS else END_SECONDS)
                self._deadline = limit if self._deadline is None else min(self._deadline, limit)

    def _kill_all(self) -> None:
        for rank, process in enumerate(self._ranks):
            if rank not in self._status:
                self._killed.add(rank)
                with contextlib.suppress(OSError):
                    process.kill()

    def _verdict(self) -> int:
        """The status of all; says what the rank has said that is to blame."""
        found = {rank: status for rank, status in self._status.items() if rank not in self._killed}
        if self._signal is not None and (found.get(0) == status_of(self._signal) or not any(self._status.values())):
            return self._status[0]  # rank 0 has said so, or all were at their ends
        blamed = [rank for rank, status in found.items() if status not in (0, LOST_STATUS)]
        if self._signal is not None and not [rank for rank in blamed if found[rank] in (1, 2)]:
            raise Interrupted(self._signal)
        if not blamed:
            return self._without_blame()
        first = blamed[0]
        if found[first] in _INTERRUPTS and (first > 0 or found[first] < 0):
            raise Interrupted(_INTERRUPTS[found[first]])  # one rank alone has heard it, and only rank 0 says so
        if found[first] < 0:
            raise RankError(
                f"rank {first} of {self._num_ranks} (process {self._ranks[first].pid}) was ended by "
                f"{_signal_name(-found[first])}, perhaps because memory ran out; all ranks have ended, and the same "
                "command continues from the last checkpoint"
            )
        # Rank 0 speaks for itself, and what several find at the same moment has one cause.
        if found.get(0) not in (1, 2) or self._ended[0] > self._ended[first] + _SAME_CAUSE_SECONDS:
            self._repeat(first)
        return found[first]

    def _without_blame(self) -> int:
        if not any(self._status.values()):
            return 0
        ended = [str(rank) for rank, status in self._status.items() if status == 0]
        if ended:
            raise RankError(
                f"rank{'s' * (len(ended) > 1)} {', '.join(ended)} ended while others were still at work; this is a "
                "defect, please report it; the same command continues from the last checkpoint"
            )
        if self._killed:
            names = ", ".join(map(str, sorted(self._killed)))
            raise RankError(
                f"rank{'s' * (len(self._killed) > 1)} {names} no longer answered; all ranks were ended, and the same "
                "command continues from the last checkpoint"
            )
        raise RankError(
            "ranks have lost their connections to one another, though none was ended; the same command continues from "
            "the last checkpoint"
        )

    def _repeat(self, rank: int) -> None:
        """Say what a rank has said."""
        file = self._said[rank]
        if file is None:
            return
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST_BYTES))
        for line in file.read().decode("utf-8", "replace").splitlines():
            tell(line)


def _signal_name(number: int) -> str:
    """
    >>> _signal_name(9), _signal_name(250)
    ('SIGKILL', 'signal 250')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
