"""Ranks of `rank_program`, started by our launcher or by torchrun, and how they have ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fae.engine.processes import process_start

SUPPORT = Path(__file__).parent
INTERRUPTED = "fae: interrupted; the same command continues from here"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m")


@dataclass(frozen=True)
class Ended:
    """How a start of ranks has ended."""

    status: int
    stdout: str
    lines: list[str]
    seconds: float

    @property
    def fault(self) -> str:
        """The one line of its error, behind what rank 0 said before."""
        assert self.stdout == ""
        assert [line for line in self.lines if not line.startswith("stages: ")] == self.lines[-1:]
        return self.lines[-1].removeprefix("fae: ")


def _usual_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a test run in the background ignores some of them


class Ranks:
    """A start of ranks that follow a plan."""

    def __init__(self, folder: Path, *, starter: tuple[str, ...] = ("-m",), **plan: Any) -> None:
        self.folder = folder
        (folder / "plan.json").write_text(json.dumps({"join_seconds": 30, "group_seconds": 30, **plan}))
        environ = {**os.environ, "PYTHONPATH": f"{SUPPORT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        command = [sys.executable, *starter, "rank_program", "run", "plan.json", "--out", ".", "--json"]
        command += ["--log-file", "log"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=_usual_signals,
        )  # fmt: skip

    def await_file(self, name: str) -> None:
        """Wait until a rank has written a file."""
        end = time.monotonic() + 60
        while not (self.folder / name).exists():
            assert time.monotonic() < end
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def pids(self) -> list[int]:
        """Processes of all ranks that were started."""
        return [int(path.read_text() or 0) for path in self.folder.glob("pid*")]

    def end(self, seconds: float = 60) -> Ended:
        """Wait for the end of all, after which no process is left."""
        began = time.monotonic()
        try:
            out, err = self.process.communicate(timeout=seconds)
        finally:
            self.process.kill()
            left = [pid for pid in self.pids() if self.is_left(pid)]
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        assert not left
        return Ended(self.process.returncode, out, err.splitlines(), time.monotonic() - began)

    @staticmethod
    def is_left(pid: int) -> bool:
        """Whether a process still runs in a second: the system ends it, which takes a moment."""
        end = time.monotonic() + 1
        while process_start(pid) is not None:
            if time.monotonic() > end:
                return True
            time.sleep(0.01)
        return False


def ended(folder: Path, **plan: Any) -> Ended:
    """How ranks of a plan have ended, started by our launcher."""
    return Ranks(folder, **plan).end()
