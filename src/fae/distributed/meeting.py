"""Where ranks meet before they are a group: torch's key-value store, which rank 0 or torchrun has.

There they also wait for rank 0 while it works alone. A wait is cut into short ones, in threads of their own: signals
are heard, and every wait has a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fae.core.errors import RankError
from fae.core.progress import say
from fae.distributed.ends import LostRank
from fae.distributed.places import RankPlace
from fae.distributed.timed_store import CALL_SECONDS, TimedStore
from fae.engine.processes import machine_facts, process_start

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

_POLL_SECONDS = 0.05
_BEAT_SECONDS = 2.0
_LOOK_SECONDS = 1.0
"""How often a rank that waits for rank 0 looks around; its wait is over at once when rank 0 says so."""
_SILENT_SECONDS = 60.0
"""After how long without a beat of rank 0 the others stop waiting for it."""
_SAY_SECONDS = 15.0
"""After how long rank 0 says that it waits for others to come."""
_WATCH_SECONDS = 5.0
_GRACE_SECONDS = 30.0
_LOCAL = ("127.0.0.1", "localhost")


class RankMeeting:
    """The store of the ranks, and what they say in it.

    Parameters
    ----------
    place
        Which rank this is.
    seconds
        How long a rank waits for another one that should come now.

    Attributes
    ----------
    store
        Keys of this start of the ranks alone.
    facts
        Host and process of every rank, once all have come.

    Raises
    ------
    RankError
        If rank 0 cannot be reached, or its port is taken.
    """

    def __init__(self, place: RankPlace, seconds: float) -> None:
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        self.place, self.seconds = place, seconds
        self.facts: list[dict[str, Any]] = []
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        torchrun_has_it = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        with _errors_of_store(f"rank 0 at {place.address}:{place.port} does not answer as one"):
            store = self._host() if place.rank == 0 and not torchrun_has_it else self._connect()
            self.store = TimedStore(PrefixStore(f"fae/{attempt}", store))

    def _host(self) -> Store:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        place = self.place
        try:
            # A store of torch's own listens on every network of the host.
            family = socket.AF_INET if place.address in _LOCAL or not socket.has_dualstack_ipv6() else socket.AF_INET6
            bind = ("127.0.0.1" if place.address in _LOCAL else "", place.port)
            server = socket.create_server(bind, family=family, backlog=1024, dualstack_ipv6=family == socket.AF_INET6)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise RankError(
                f"rank 0 cannot listen on port {place.port}: {reason}; set MASTER_PORT to a free one"
            ) from error
        port = server.getsockname()[1]
        store = TCPStore(
            "127.0.0.1", port, is_master=True, master_listen_fd=server.detach(), wait_for_workers=False,
            timeout=timedelta(seconds=CALL_SECONDS),
        )  # fmt: skip
        if place.start is not None:
            os.write(place.start, b"%d\n" % port)
            os.close(place.start)
        return store

    def _connect(self) -> Store:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        place, end = self.place, time.monotonic() + self.seconds
        while True:
            try:
                socket.create_connection((place.address, place.port), timeout=2.0).close()
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise RankError(
                        f"rank {place.rank} does not reach rank 0 at {place.address}:{place.port} within "
                        f"{self.seconds:.0f} s ({error.strerror or error}); check MASTER_ADDR and MASTER_PORT"
                    ) from error
            time.sleep(_POLL_SECONDS)
        return TCPStore(
            place.address, place.port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=CALL_SECONDS)
        )

    def beat(self, ended: threading.Event) -> None:
        """Let the others know that rank 0 is still at work, until `ended` is set."""
        with contextlib.suppress(RuntimeError):  # the others find out
            while not ended.wait(_BEAT_SECONDS):
                self.store.add("beats", 1)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Let the others know that rank 0 is at work, from a thread, while the block runs."""
        ended = threading.Event()
        thread = threading.Thread(target=self.beat, args=(ended,), daemon=True, name="fae-beat")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def say(self, key: str) -> None:
        """As rank 0, end the wait of the others for a key.

        Raises
        ------
        LostRank
            If there is no store any longer.
        """
        with _errors_of_store("the others are gone", LostRank):
            self.store.put(key, "1")

    def await_first(self, key: str, look: Callable[[], None] | None = None) -> None:
        """Wait until rank 0 says this key, for as long as rank 0 is there.

        Parameters
        ----------
        look
            Called once a second, to raise what else ends the wait.

        Raises
        ------
        LostRank
            If rank 0 is no longer heard of.
        """
        beats, heard = -1, time.monotonic()
        with _errors_of_store("rank 0 is gone", LostRank):
            while not self.store.wait(key, _LOOK_SECONDS):
                now = self.store.add("beats", 0)
                if now != beats:
                    beats, heard = now, time.monotonic()
                if time.monotonic() - heard > _SILENT_SECONDS:
                    raise LostRank(f"rank 0 has not been heard of for {_SILENT_SECONDS:.0f} s")
                if look is not None:
                    look()

    def exchange_facts(self) -> list[dict[str, Any]]:
        """Host and process of every rank, once all have come.

        Raises
        ------
        RankError
            If some have not come in time.
        """
        place, end = self.place, time.monotonic() + self.seconds
        silent_until: float | None = time.monotonic() + _SAY_SECONDS
        mine = {"pid": os.getpid(), "started": process_start(os.getpid()), **machine_facts()}
        keys = [f"facts/{rank}" for rank in range(place.world)]
        with _errors_of_store("rank 0 is gone", LostRank):
            self.store.put(keys[place.rank], json.dumps(mine))
            while not self.store.check(keys):
                if time.monotonic() > end:
                    missing = [str(rank) for rank, key in enumerate(keys) if not self.store.check([key])]
                    raise RankError(
                        f"rank{'s' * (len(missing) > 1)} {', '.join(missing)} did not come within {self.seconds:.0f} "
                        "s; look at what is printed on their hosts, and start all ranks again"
                    )
                if silent_until is not None and time.monotonic() > silent_until:
                    silent_until = None
                    here, left = sum(self.store.check([key]) for key in keys), end - time.monotonic()
                    say(f"{here} of {place.world} ranks (WORLD_SIZE) are here; the others have {left:.0f} s")
                time.sleep(_POLL_SECONDS)
            self.facts = [json.loads(self.store.text(key)) for key in keys]
        return self.facts

    def neighbours(self) -> dict[int, bool]:
        """Other ranks that are processes of this machine, and whether they are there."""
        here = machine_facts()
        return {
            rank: process_start(facts["pid"]) == facts["started"]
            for rank, facts in enumerate(self.facts)
            if rank != self.place.rank and all(facts.get(name) == value for name, value in here.items())
        }

    def report_failure(self) -> bool:
        """Let the others know that this rank has failed by itself; whether it is the first one."""
        try:
            return self.store.add("failures", 1) == 1
        except RuntimeError:
            return True

    def report_interrupt(self) -> None:
        """Let the others know that this rank leaves by a signal."""
        with contextlib.suppress(RuntimeError):
            self.store.put(f"interrupted/{self.place.rank}", "1")

    def has_left(self, rank: int) -> bool:
        """Whether a rank has left by a signal."""
        try:
            return self.store.check([f"interrupted/{rank}"])
        except RuntimeError:
            return False

    def has_failure(self) -> bool:
        """Whether a rank has failed by itself, and has said why."""
        try:
            return self.store.add("failures", 0) > 0
        except RuntimeError:
            return False


class RankWatch:
    """Watch over ranks of other hosts while GPUs train: a thread that beats, and hears the others, until `stop`.

    A GPU waits without end for a rank that is gone, and the host with it: a collective that NCCL runs in a captured
    graph has no limit of time. On one host the launcher, or torchrun, ends all ranks when one has ended; another host
    does not hear of it.

    Parameters
    ----------
    on_loss
        Called in the thread with a line, once, where a rank is gone and this one does not end.
    beat_seconds, silent_seconds, grace_seconds
        Between beats; without a beat until a rank is taken to be gone, as rank 0 is where others wait for it; and until
        this process, which may find out by itself where it waits in a collective of the host, is ended.
    """

    def __init__(
        self,
        meeting: RankMeeting,
        on_loss: Callable[[str], None],
        *,
        beat_seconds: float = _WATCH_SECONDS,
        silent_seconds: float = _SILENT_SECONDS,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self._meeting, self._on_loss = meeting, on_loss
        self._beat, self._silent, self._grace = beat_seconds, silent_seconds, grace_seconds
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="fae-watch").start()

    def stop(self) -> None:
        """This rank leaves the others, or has found out."""
        self._ended.set()

    def _run(self) -> None:
        line = self._await_loss()
        if line and not self._ended.wait(self._grace):
            self._on_loss(line)

    def _await_loss(self) -> str:
        """Wait until a rank is gone, and say which; empty where this one has left."""
        place = self._meeting.place
        others = [rank for rank in range(place.world) if rank != place.rank]
        counts, heard = dict.fromkeys(others, -1), dict.fromkeys(others, time.monotonic())
        while not self._ended.wait(self._beat):
            self._listen(others, counts, heard)
            silent = [rank for rank in others if time.monotonic() - heard[rank] > self._silent]
            if silent:
                rank, host = silent[0], self._meeting.facts[silent[0]]["host"]
                return (
                    f"rank {rank} on {host} has not been heard of for {self._silent:.0f} s; all ranks end, and the "
                    "same command continues from the last checkpoint"
                )
            if self._meeting.has_failure():
                return "another rank has failed"
        return ""

    def _listen(self, others: Sequence[int], counts: dict[int, int], heard: dict[int, float]) -> None:
        store = self._meeting.store
        with contextlib.suppress(RuntimeError):  # without a store none is heard of
            store.add(f"alive/{self._meeting.place.rank}", 1)
            for rank in others:
                count = store.add(f"alive/{rank}", 0)
                if count != counts[rank]:
                    counts[rank], heard[rank] = count, time.monotonic()


@contextlib.contextmanager
def _errors_of_store(line: str, kind: type[RankError] = RankError) -> Iterator[None]:
    """torch's errors of a store, which are RuntimeErrors, as an error of ranks."""
    try:
        yield
    except RuntimeError as error:
        raise kind(f"{line} ({str(error).splitlines()[0][:200]})") from error
