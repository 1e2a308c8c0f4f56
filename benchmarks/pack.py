"""Inputs a second through pack, everything included: classify, shuffle, translate, sort, write, checksum, disk.

    python benchmarks/pack.py [--inputs 4000000] [--repeats 3] [--threads 1,2] [--batch-size 8192]
                              [--folder DIR] [--name pack] [--quick]

What does pack cost on 1, 2, ... threads, and what do another storage order and little memory add? Writes
benchmarks/results/NAME.json. Work: Criteo Kaggle's shape (26 tables, 33.8 M rows, 13 dense features), independent Zipf
columns, 5 % of the rows hot, batches of 8,192. Four ways, taking turns: rows stored in vocabulary order; the same with
hot and cold inputs in the same batches; rows in another order, which sends every lookup through a table of ranks; and
with a fifth of the memory the log takes, which sends the log through the spill. In each turn every number of threads
(FAE_NUM_THREADS) has its turn. Waiting for the disk at the end is timed by itself beside the whole; so is the CPU time
of the calling thread, which no other thread can shorten. How often a thread gave up its core to wait for another is
counted too. The log is read from the page cache and has been checked; a compiling run comes first and is not counted.
Everything made is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fae.artifacts import manifest
from fae.core.threads import num_threads
from fae.pack.log_reader import input_bytes
from fae.pack.pack import pack

from common import KAGGLE_DENSE, capped_rows, hot_set, make_log, record, save_record

BATCH_SIZE, HOT_SHARE, DIM = 8192, 0.05, 16


class DiskClock:
    """Seconds of the last artifact's replacement: its files are waited for, and the folder that it replaces goes."""

    def __init__(self) -> None:
        self.seconds, self._replace = 0.0, manifest.replace_folder
        manifest.replace_folder = self

    def __call__(self, new: Path, path: Path) -> None:
        start = time.perf_counter()
        self._replace(new, path)
        self.seconds = time.perf_counter() - start


def waits() -> float:
    """How often threads of this process gave up their cores until something happened."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw)


def measure(
    folder: Path, num_inputs: int, repeats: int, cardinalities: list[int], batch_size: int, threads: list[int]
) -> list[dict]:
    """Pack the same log in every way with every number of threads, in turns."""
    log, disk = make_log(folder / "log", num_inputs, rows=cardinalities), DiskClock()
    kind: dict[str, Any] = {"dim": DIM, "batch_size": batch_size, "mixed": False, "depth": 4}
    plain = hot_set(log, HOT_SHARE, order="vocabulary", **kind)
    mixed = hot_set(log, HOT_SHARE, order="vocabulary", **{**kind, "mixed": True})
    permuted = hot_set(log, HOT_SHARE, order="neighbours", **kind)
    log_bytes = num_inputs * input_bytes(len(cardinalities), KAGGLE_DENSE)
    ways: dict[str, tuple[Any, int]] = {
        "vocabulary_order": (plain, 2 * log_bytes),
        "mixed": (mixed, 2 * log_bytes),
        "permuted_order": (permuted, 2 * log_bytes),
        "spilled": (plain, log_bytes // 5),
    }
    kept = ("input_share", "coverage", "num_batches", "closed_early", "cold_rows_per_batch", "padding_share", "bytes")
    facts = {"num_inputs": num_inputs, "num_slots": len(cardinalities), "num_dense": KAGGLE_DENSE}
    # CPU seconds of all threads: the difference to cores times elapsed seconds is the share of other programs.
    measured = (
        "samples_seconds", "samples_cpu_seconds", "samples_calling_thread_seconds", "samples_waits",
        "samples_disk_seconds",
    )  # fmt: skip
    rows: dict[tuple[str, int], dict[str, Any]] = {
        (name, count): {
            "way": name, "threads": count, **facts, "batch_size": batch_size, **{key: [] for key in measured},
        }
        for name in ways for count in threads
    }  # fmt: skip
    for repeat in range(repeats + 1):
        for name, (hot, memory_bytes) in ways.items():
            for count in threads:
                os.environ["FAE_NUM_THREADS"] = str(count)
                row, clocks = rows[name, count], (time.perf_counter, time.process_time, time.thread_time, waits)
                starts = [clock() for clock in clocks]
                packed = pack(log, hot, folder / "packed", seed=1, memory_bytes=memory_bytes)
                samples = [*(clock() - start for clock, start in zip(clocks, starts, strict=True)), disk.seconds]
                row["summary"] = {key: packed.summary[key] for key in kept}
                if repeat == 0:
                    continue
                for key, seconds in zip(measured, samples, strict=True):
                    row[key].append(seconds)
                print(
                    f"{name}, {count} threads: {num_inputs / samples[0] / 1e6:.2f} M inputs/s, {samples[1]:.1f} CPU "
                    f"seconds, {samples[2]:.2f} of the calling thread, {samples[3]:.0f} waits; "
                    f"{disk.seconds:.2f} s for the disk",
                    file=sys.stderr,
                )
    for row in rows.values():
        row["median_inputs_per_second"] = num_inputs / statistics.median(row["samples_seconds"])
        row["least_cpu_seconds"] = min(row["samples_cpu_seconds"])
    return list(rows.values())


def main() -> None:
    """Read the command line, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", default="", help="numbers of threads, by commas; by default that of the cores")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--name", default="pack", help="of the result")
    parser.add_argument("--folder", type=Path, default=None, help="where to put 5 GB for a while")
    parser.add_argument("--quick", action="store_true", help="small log, one repeat: shows that it runs")
    options = parser.parse_args()
    num_inputs, repeats, batch_size = options.inputs, options.repeats, options.batch_size
    cardinalities = capped_rows(2**31)
    if options.quick:
        num_inputs, repeats, batch_size, cardinalities = 20_000, 1, 512, capped_rows(2000)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        threads = [int(count) for count in options.threads.split(",") if count] or [num_threads()]
        rows = measure(Path(folder), num_inputs, repeats, cardinalities, batch_size, threads)
    os.environ.pop("FAE_NUM_THREADS", None)
    # With the memory that making the log took, and pages of the log's files.
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = record(peak_memory_bytes=peak, load_average=os.getloadavg(), rows=rows)
    if options.quick:
        print(json.dumps(result, indent=1))
    else:
        save_record(options.name, result)


if __name__ == "__main__":
    main()
