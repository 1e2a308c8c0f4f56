"""Runs of the command line that are started as processes, by our launcher or by torchrun, and what they end with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fae.artifacts.checkpoint import read_progress


def torchrun_of(ranks: int) -> tuple[str, ...]:
    """torchrun with that many ranks on this machine."""
    return ("-m", "torch.distributed.run", "--nproc-per-node", str(ranks))


def nodes_of_torchrun(ranks: int) -> list[tuple[str, ...]]:
    """Two nodes of torchrun with that many ranks each, both on this machine; the second one comes first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port)
    return [(*torchrun_of(ranks), *meeting, "--node-rank", node) for node in ("1", "0")]


class Started:
    """A command that is running."""

    def __init__(self, out: Path, process: subprocess.Popen[str]) -> None:
        self.out, self.process = out, process

    def ranks(self) -> list[int]:
        """Processes that this one has started, in their order."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def await_batches(self, count: int) -> list[int]:
        """Wait for a checkpoint of at least `count` batches; the ranks."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.communicate()
            with contextlib.suppress(Exception):
                if read_progress(self.out / "checkpoint")["batches"] >= count:
                    return self.ranks()
            time.sleep(0.005)
        raise AssertionError("no checkpoint")

    def end(self, status: int = 0) -> list[str]:
        """Wait for its end; the lines that it said."""
        out, err = self.process.communicate(timeout=180)
        assert (self.process.returncode, out) == (status, ""), err
        return err.splitlines()


def started(
    folder: Path,
    out: str,
    *words: str,
    starter: tuple[str, ...] = (),
    device: str = "cpu",
    environ: Mapping[str, str] | None = None,
    program: tuple[str, ...] = ("-m", "fae"),
) -> Started:
    """Start the run of a folder, with the data stages of its run `alone`.

    Parameters
    ----------
    starter
        What starts the ranks: empty for our launcher, else words of `torchrun_of` or `nodes_of_torchrun`.
    environ
        Variables beside those of this process.
    program
        What is run in place of the command line itself, as words of Python.
    """
    target = folder / out
    if not target.exists():
        target.mkdir()
        for name in ("log", "profile", "hot_set", "packed"):
            shutil.copytree(folder / "alone" / name, target / name)
    command = [sys.executable, *starter, *program, "run", str(folder / "recipe.toml"), "--out", str(target)]
    process = subprocess.Popen(
        [*command, "--device", device, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(environ or {})},
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)],
    )  # fmt: skip
    return Started(target, process)


def tensors(out: Path) -> Iterator[tuple[str, np.ndarray]]:
    """All that a checkpoint holds, but for the state of random streams."""
    for path in sorted((out / "checkpoint").rglob("*.safetensors")):
        yield from ((f"{path.name} {name}", each) for name, each in load_file(path).items() if "random" not in name)


def assert_same(one: Path, other: Path) -> None:
    """Two checkpoints with the same bytes."""
    for (name, first), (_, second) in zip(tensors(one), tensors(other), strict=True):
        assert first.tobytes() == second.tobytes(), name
