"""Seconds of profile and calibrate on a large columnar log in the page cache, by number of threads.

    python benchmarks/calibrate.py [--inputs 10000000] [--threads 1 2 16] [--before OTHER/src] [--repeats 3] [--quick]

What do the two stages cost on a log of Criteo Kaggle's size, and what would more cores bring? The log is `fae
synthetic`'s ``criteo`` shape at scale 1 (26 tables, up to 33.8 M rows, columns from latent users and items), 15 % of it
held out. It is made in a temporary folder (1.7 GB for 10 M inputs) and removed afterwards, or stays in ``--folder``.
Every sample is a process that runs both stages on a small log first, which loads the compiled loops; one process more
measures that small log with nothing compiled. Numbers of threads, and checkouts, take turns. Every sample writes both
artifacts, checksums included, and all samples must write the same bytes.

Of each sample: seconds by the clock, CPU seconds of all threads, and CPU seconds of the thread that had most of them:
no number of cores makes the stage faster than that. The last two hold on a machine that is busy, too, and with more
threads than cores. Writes benchmarks/results/profile_calibrate.json (``--name`` for another).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.errors import ArtifactError
from fae.core.progress import say
from fae.profile.config import HotConfig
from fae.run.prepare import PackOptions, make_hot_set, make_profile
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

from common import ROOT, record, save_record, working_folder

FOUND = (
    "selection", "threshold", "num_rows", "bytes", "staging_bytes", "budget_bytes", "coverage", "input_share",
    "intervals", "bound", "candidates", "measured_on", "overlap", "notes",
)  # fmt: skip


SMALL = HotConfig(budget="256KiB", sample=0.2, sample_min_inputs=0, selection="peeling")


def open_log(path: Path, num_inputs: int, scale: float) -> ColumnarLog:
    """The log at `path`, made where it is missing."""
    try:
        log = ColumnarLog(path)
    except ArtifactError:
        write_columnar(SyntheticConfig(shape="criteo", num_inputs=num_inputs, scale=scale, drift=0.0), path)
        return ColumnarLog(path)
    if log.num_inputs != num_inputs:
        raise SystemExit(f"{path} has {log.num_inputs} inputs, not {num_inputs}; remove it")
    return log


def thread_seconds() -> dict[str, float]:
    """CPU seconds of each thread of this process so far; empty where the system does not tell."""
    seconds = {}
    for folder in Path("/proc/self/task").glob("*"):
        try:
            seconds[folder.name] = int((folder / "schedstat").read_text().split()[0]) / 1e9
        except (OSError, ValueError):
            continue
    return seconds


class Clock:
    """Measures one stage: wall seconds, CPU seconds of all threads, and of the busiest of them."""

    def __init__(self) -> None:
        self._wall, self._cpu, self._threads = time.perf_counter(), time.process_time(), thread_seconds()

    def stop(self) -> dict[str, float | None]:
        wall, cpu, threads = time.perf_counter() - self._wall, time.process_time() - self._cpu, thread_seconds()
        busiest = max((spent - self._threads.get(name, 0.0) for name, spent in threads.items()), default=None)
        return {"wall": wall, "cpu": cpu, "busiest_thread": busiest}


def run_once(
    log: ColumnarLog, config: HotConfig, folder: Path, batch_size: int, mixed: bool
) -> tuple[dict[str, dict[str, float | None]], Any]:
    """Seconds of both stages, and the hot set."""
    options = PackOptions(
        hot=config, embedding_dims=(16,) * len(log.features), optimizer="rowwise_adagrad", batch_size=batch_size,
        mixed=mixed, seed=1,
    )  # fmt: skip
    clock = Clock()
    opened = make_profile(log, options, folder / "profile")
    profile = clock.stop()
    clock = Clock()
    hot_set = make_hot_set(log, opened, options, folder / "hot_set")
    return {"profile": profile, "calibrate": clock.stop()}, (opened, hot_set)


def run_apart(log: Path, small: Path, arguments: list[str], source: Path, **environment: str) -> dict[str, Any]:
    """Both stages in a process of its own, with the `fae` below `source`."""
    words = [sys.executable, __file__, *arguments, "--measure", str(log), str(small)]
    environment = {**os.environ, "PYTHONPATH": str(source), **environment}
    output = subprocess.run(words, check=True, stdout=subprocess.PIPE, env=environment, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def measure(log: Path, small: Path, config: HotConfig, batch_size: int, mixed: bool) -> dict[str, Any]:
    """What a process of its own finds: seconds of both stages behind those on a small log, and what was written."""
    with tempfile.TemporaryDirectory(dir=log.parent) as name:
        on_small, _ = run_once(ColumnarLog(small), SMALL, Path(name), 32, mixed)
        seconds, (profile, hot_set) = run_once(ColumnarLog(log), config, Path(name), batch_size, mixed)
        return {
            "seconds": seconds, "small_log": on_small, "num_sampled_inputs": profile.num_inputs,
            "written": [profile.manifest.digest, hot_set.manifest.digest],
            "found": {key: hot_set.summary[key] for key in FOUND},
        }  # fmt: skip


def medians(samples: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median of each stage's seconds."""
    return {
        stage: {
            what: statistics.median(sample["seconds"][stage][what] or 0.0 for sample in samples)
            for what in ("wall", "cpu", "busiest_thread")
        }
        for stage in ("profile", "calibrate")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--scale", type=float, default=1.0, help="rows of the large tables, 1 for Criteo Kaggle's")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 16], help="numbers of threads, in turns")
    parser.add_argument("--before", type=Path, help="src of another checkout, measured in turns with this one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sample", type=float, default=0.05, help="[hot] sample")
    parser.add_argument("--selection", default="auto")
    parser.add_argument("--budget", default="512MiB")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--order", choices=("shuffled", "interleaved"), default="shuffled", help="[train] order")
    parser.add_argument("--folder", type=Path, default=None, help="where the log is kept for the next start")
    parser.add_argument("--warm", action="store_true", help="the loops are compiled: leave out the samples without")
    parser.add_argument("--name", default="profile_calibrate", help="of the result file")
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="tiny, one repeat, no file: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.inputs, options.scale, options.repeats, options.budget = 20_000, 0.01, 1, "1MiB"
        options.batch_size, options.threads = 256, [3]
    config = HotConfig(budget=options.budget, selection=options.selection, sample=options.sample)
    if options.measure:
        print(json.dumps(measure(*options.measure, config, options.batch_size, options.order == "shuffled")))
        return
    sources = {"now": ROOT / "src"} | ({"before": options.before.resolve()} if options.before else {})
    samples: list[dict[str, Any]] = []
    with working_folder(options.folder) as folder, tempfile.TemporaryDirectory() as nothing_compiled:
        small = open_log(folder / "small", 20_000, 0.01).path
        say("opening the log")
        log = open_log(folder / f"log_{options.inputs}_{options.scale}", options.inputs, options.scale)
        if not options.quick and not options.warm:
            for which, source in sources.items():  # what is not compiled yet is compiled outside the samples
                run_apart(small, small, sys.argv[1:], source)
                fresh = Path(nothing_compiled) / which
                found = run_apart(small, small, sys.argv[1:], source, NUMBA_CACHE_DIR=str(fresh))
                samples.append({"which": f"{which}, nothing compiled", "threads": None, "seconds": found["small_log"]})
        for repeat in range(options.repeats):
            for threads in options.threads:
                for which, source in sources.items():
                    found = run_apart(log.path, small, sys.argv[1:], source, FAE_NUM_THREADS=str(threads))
                    samples.append({"which": which, "threads": threads, **found})
                    say(f"{repeat}, {threads} threads, {which}: {found['seconds']}")
        num_rows = int(log.table_offsets[-1])
    last = samples[-1]
    if any(sample["written"] != last["written"] for sample in samples if sample["threads"]):
        raise SystemExit("samples wrote different bytes")
    found_by_all = {key: last.pop(key) for key in ("found", "num_sampled_inputs")}
    groups = dict.fromkeys((sample["which"], sample["threads"]) for sample in samples)
    result = record(
        num_inputs=options.inputs,
        num_rows=num_rows,
        median_seconds=[
            {
                "which": which, "threads": threads,
                **medians([each for each in samples if (each["which"], each["threads"]) == (which, threads)]),
            }
            for which, threads in groups
        ],
        samples_seconds=[{key: each[key] for key in ("which", "threads", "seconds")} for each in samples],
        **found_by_all,
    )  # fmt: skip
    if not options.quick:
        save_record(options.name, result)


if __name__ == "__main__":
    main()
