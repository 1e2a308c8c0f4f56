"""Run a program of `engine_drivers` on every engine: its processes, a real Dask cluster, what they print."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent
WORKERS = 3
PATIENCE_SECONDS = 120.0
ENVIRONMENT = {
    "PYTHONPATH": str(SUPPORT),
    "FAE_NUM_THREADS": "2",
    "FAE_CODE_VERSION": "tested",  # the checkout may be edited while its tests run
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process of this machine is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def start(*command: object, **options: Any) -> subprocess.Popen[str]:
    """Start a Python process that finds the modules beside this one, and that SIGINT interrupts."""
    # What a shell runs in the background, and all its children, ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, *map(str, command)], env=os.environ | ENVIRONMENT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, **options,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class Cluster:
    """A Dask scheduler and its workers on this machine."""

    port: int
    scheduler: subprocess.Popen[str]
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def fill(self) -> None:
        """Start workers in the place of those that have ended."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < WORKERS:
            self.workers.append(_dask("worker", self.address, "--nthreads", "1", "--no-nanny"))

    def answers(self) -> bool:
        """Whether the scheduler takes connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _dask(kind: str, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        f"distributed.cli.dask_{kind}",
        *arguments,
        "--host",
        "127.0.0.1",
        "--no-dashboard",
    ]
    return subprocess.Popen(
        command, env=os.environ | ENVIRONMENT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextlib.contextmanager
def dask_cluster() -> Iterator[Cluster]:
    """A scheduler that answers, and three workers that may still be on their way."""
    port = free_port()
    cluster = Cluster(port, _dask("scheduler", "--port", str(port)))
    try:
        cluster.fill()
        wait_until(cluster.answers, "the scheduler")
        yield cluster
    finally:
        cluster.close()


@dataclass(frozen=True)
class Case:
    """An engine, by the arguments of the processes that use it.

    Attributes
    ----------
    engine
        Text of ``--engine``.
    workers
        Texts of ``--worker``, one a process.
    at_once
        Tasks that run at once.
    """

    engine: str
    workers: tuple[str | None, ...] = (None,)
    at_once: int = 2

    def begin(self, program: str, folder: Path) -> list[subprocess.Popen[str]]:
        """Start a program in all its processes."""
        driver = SUPPORT / "engine_drivers.py"
        return [start(driver, program, folder, self.engine, *([worker] if worker else [])) for worker in self.workers]

    def run(self, program: str, folder: Path) -> Any:
        """What a program returns, which must be the same in all its processes."""
        results = [finish(process) for process in self.begin(program, folder)]
        assert all(result == results[0] for result in results), results
        return results[0]


def finish(process: subprocess.Popen[str]) -> Any:
    """What a process printed, which must have ended well and said nothing else."""
    stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr, stderr
    return json.loads(stdout)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process, which must find it alive."""
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
