"""Inputs a second through pack, everything included: classify, shuffle, translate, sort, write, checksum.

    python benchmarks/pack.py [--inputs 4000000] [--repeats 3] [--folder DIR] [--quick]

What does pack cost, and what do another storage order and little memory add? Writes benchmarks/results/pack.json.
Work: Criteo Kaggle's shape (26 tables, 33.8 M rows, 13 dense features), independent Zipf columns, 5 % of the rows hot,
batches of 8,192. Three ways, taking turns: rows stored in vocabulary order; in another order, which sends every lookup
through a table of ranks; and with a fifth of the memory the log takes, which sends the log through the spill. The log
is read from the page cache; a compiling run comes first and is not counted. Everything made is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fae.pack.log_reader import input_bytes
from fae.pack.pack import pack

from common import KAGGLE_DENSE, capped_rows, hot_set, make_log, record, save_record

BATCH_SIZE, HOT_SHARE, DIM = 8192, 0.05, 16


def measure(folder: Path, num_inputs: int, repeats: int, cardinalities: list[int], batch_size: int) -> list[dict]:
    """Pack the same log in every way, in turns."""
    log = make_log(folder / "log", num_inputs, rows=cardinalities)
    kind: dict[str, Any] = {"dim": DIM, "batch_size": batch_size, "mixed": False, "depth": 4}
    plain = hot_set(log, HOT_SHARE, order="vocabulary", **kind)
    permuted = hot_set(log, HOT_SHARE, order="neighbours", **kind)
    log_bytes = num_inputs * input_bytes(len(cardinalities), KAGGLE_DENSE)
    ways: dict[str, tuple[Any, int]] = {
        "vocabulary_order": (plain, 2 * log_bytes),
        "permuted_order": (permuted, 2 * log_bytes),
        "spilled": (plain, log_bytes // 5),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # Of all threads; the difference to cores times elapsed seconds is the share of other programs.
    cpu_seconds: dict[str, list[float]] = {name: [] for name in ways}
    summaries: dict[str, dict[str, Any]] = {}
    for repeat in range(repeats + 1):
        for name, (hot, memory_bytes) in ways.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            packed = pack(log, hot, folder / "packed", seed=1, memory_bytes=memory_bytes)
            elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            if repeat:
                seconds[name].append(elapsed)
                cpu_seconds[name].append(cpu)
                print(f"{name}: {num_inputs / elapsed / 1e6:.2f} M inputs/s, {cpu:.1f} CPU seconds", file=sys.stderr)
            summaries[name] = packed.summary
    kept = ("input_share", "coverage", "num_batches", "closed_early", "cold_rows_per_batch", "padding_share", "bytes")
    facts = {"num_inputs": num_inputs, "num_slots": len(cardinalities), "num_dense": KAGGLE_DENSE}
    return [
        {
            "way": name, **facts, "batch_size": batch_size, "samples_seconds": seconds[name],
            "samples_cpu_seconds": cpu_seconds[name],
            "median_inputs_per_second": num_inputs / statistics.median(seconds[name]),
            "summary": {key: summaries[name][key] for key in kept},
        }
        for name in ways
    ]  # fmt: skip


def main() -> None:
    """Read the command line, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where to put 5 GB for a while")
    parser.add_argument("--quick", action="store_true", help="small log, one repeat: shows that it runs")
    options = parser.parse_args()
    num_inputs, repeats, batch_size = options.inputs, options.repeats, BATCH_SIZE
    cardinalities = capped_rows(2**31)
    if options.quick:
        num_inputs, repeats, batch_size, cardinalities = 20_000, 1, 512, capped_rows(2000)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(Path(folder), num_inputs, repeats, cardinalities, batch_size)
    result = record(rows=rows)
    if options.quick:
        print(json.dumps(result, indent=1))
    else:
        save_record("pack", result)


if __name__ == "__main__":
    main()
