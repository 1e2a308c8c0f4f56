"""Command lines with an engine as processes of their own: forked ones, fresh ones; and a Dask cluster for them."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from campaign import ROOT, Ended, Forked

STALE_SECONDS = 1.5
"""In place of the 30 seconds after which a worker of another machine is taken for gone."""
_TOKEN = "FAE_CAMPAIGN_CASE"
_HERE = Path(__file__).parent


def prepare_campaign() -> None:
    """Let every process that this one starts find the campaign's changes; import what commands need."""
    import worker_kill_faults

    import engine_cases

    os.environ["PYTHONPATH"] = os.pathsep.join(
        map(str, (_HERE / "in_children", _HERE, ROOT / "tests" / "support", ROOT / "src"))
    )
    os.environ.setdefault(worker_kill_faults.PAUSE, "0.05")
    os.environ.update(FAE_CODE_VERSION="tested", FAE_NUM_THREADS="2")
    engine_cases.ENVIRONMENT["PYTHONPATH"] = os.environ["PYTHONPATH"]
    import distributed  # noqa: F401

    import fae.engine.choose as choose
    import fae.engine.dask_cluster
    import fae.engine.local
    import fae.engine.shared_folder  # noqa: F401
    import fae.ingest.shards.helping as helping
    import fae.ingest.shards.shard_cuts as shard_cuts

    for function in (choose.open_engine, helping.help_ingest):
        (function.__kwdefaults__ or {})["stale_seconds"] = STALE_SECONDS
    shard_cuts.SHARD_BYTES = 8_000
    worker_kill_faults.change_process()


class Command:
    """One command line in one process.

    Parameters
    ----------
    is_real
        Whether it is a fresh Python process, and no fork of this one.
    host
        Name of the machine that it says it runs on; None is this one.
    prepare
        Called in a forked child before the command.

    Attributes
    ----------
    signals
        Names of the signals that were sent to it, in order.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        folder: Path,
        *,
        is_real: bool = False,
        host: str | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.arguments, self.signals = arguments, list[str]()
        self._real: subprocess.Popen[bytes] | None = None
        if is_real:
            self._files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            self._real = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "fae.cli.main", *arguments], cwd=folder,
                stdout=self._files[0], stderr=self._files[1],
                env=os.environ | {_TOKEN: str(folder)},
            )  # fmt: skip
            signal.signal(signal.SIGINT, before)
            self.started, self.pid = time.monotonic(), self._real.pid
            return

        def prepare_child() -> None:
            os.environ[_TOKEN] = str(folder)
            faulthandler.register(signal.SIGUSR1, file=2)
            if host is not None:
                _move_to(host)
            if prepare is not None:
                prepare()

        self._forked = Forked(arguments, folder, prepare=prepare_child, memory_bytes=None)
        self.started, self.pid = self._forked.started, self._forked.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False

    def is_ready(self) -> bool:
        """Whether signals end it as the command line says: Python itself has begun, and it has said something."""
        return self._real is None or os.fstat(self._files[1].fileno()).st_size > 0

    def send(self, name: str) -> bool:
        """Send it a signal, where it still runs; returns whether it does."""
        if not self.is_running():
            return False
        self.signals.append(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.Signals[f"SIG{name}"])
        return True

    def end(self, stop: float) -> Ended:
        """Wait for its end; at the time `stop` it says where it is, and is killed."""
        while self.is_running() and time.monotonic() < stop:
            time.sleep(0.01)
        if self.is_running():
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(5)  # to say where it is, on a busy machine
        if self._real is None:
            return self._forked.end(max(stop, time.monotonic() + 0.1))
        try:
            status = self._real.wait(max(0.1, stop - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._real.kill()
            self._real.wait()
            status = -1000
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
            file.close()
        return Ended(status, texts[0], texts[1], time.monotonic() - self.started)


def _move_to(host: str) -> None:
    import fae.engine.presence as presence

    original = presence._machine_facts
    presence._machine_facts = lambda: original() | {"host": host, "boot": host, "processes": host}


def started_by(folder: Path) -> list[int]:
    """Processes that commands of a case have started and that still run."""
    token = f"{_TOKEN}={folder}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ended = (path / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            if token in (path / "environ").read_bytes() + b"\0" and not ended:
                found.append(int(path.name))
    return found


def pool_processes(folder: Path, of: int) -> list[int]:
    """Processes of the pool of a command that run tasks, or will; behind them the server that they are forked from."""
    parents = {pid: parent for pid in started_by(folder) if (parent := _server_or_parent(pid)) is not None}
    servers = [pid for pid, parent in parents.items() if parent == of]
    return [*sorted(pid for pid, parent in parents.items() if parent in servers), *servers]


def _server_or_parent(pid: int) -> int | None:
    """The parent of a process of the pool or of its server; None where it is another process."""
    with contextlib.suppress(OSError):
        if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


_cluster: list[tuple[contextlib.ExitStack, object]] = []


def cluster() -> object:
    """The Dask cluster of the campaign, with a scheduler that answers and three workers that run."""
    import engine_cases

    if _cluster:
        found = _cluster[0][1]
        assert isinstance(found, engine_cases.Cluster)
        if found.scheduler.poll() is None and found.answers():
            found.fill()
            return found
        close_cluster()
    stack = contextlib.ExitStack()
    _cluster.append((stack, stack.enter_context(engine_cases.dask_cluster())))
    return _cluster[0][1]


def close_cluster() -> None:
    """End the Dask cluster."""
    while _cluster:
        _cluster.pop()[0].close()


atexit.register(close_cluster)
