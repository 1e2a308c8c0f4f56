"""Three processes that ingest one log after the other, each as ``fae ingest --worker i/3`` does.

As a script this is one of the processes: it reads a line of JSON for each log, and answers with one. So a test of many
small logs starts its processes once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import engine_cases

NUM_WORKERS = 3


class LogWorkers:
    """The processes."""

    def __init__(self) -> None:
        script = Path(__file__)
        self._processes = [
            engine_cases.start(script, f"{number}/{NUM_WORKERS}", stdin=subprocess.PIPE)
            for number in range(1, NUM_WORKERS + 1)
        ]

    def ingest(self, recipe: Path, run: Path, shard_bytes: int) -> list[str]:
        """Ingest a log; returns what went wrong in each process, empty where nothing did."""
        for process in reversed(self._processes):  # worker 1 has the most to do, so the others are ready first
            assert process.stdin is not None
            process.stdin.write(json.dumps([str(recipe), str(run), shard_bytes]) + "\n")
            process.stdin.flush()
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            answers.append(json.loads(process.stdout.readline()))
        return answers

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def log_workers() -> Iterator[LogWorkers]:
    """Start the processes, and end them behind the block."""
    workers = LogWorkers()
    try:
        yield workers
    finally:
        workers.close()


def main(worker: str) -> None:
    from fae.cli.main import main as fae
    from fae.ingest.shards import helping, shard_cuts

    # A small log may be there before a worker has looked for it: none waits half a minute for another one.
    helping.help_ingest = functools.partial(helping.help_ingest, stale_seconds=0.5)
    helping._PAUSE_SECONDS = 0.002
    answers = sys.stdout
    for line in sys.stdin:
        recipe, run, shard_cuts.SHARD_BYTES = json.loads(line)
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = fae(["ingest", recipe, "--out", run, "--worker", worker])
        print(json.dumps(said.getvalue() if status else ""), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
