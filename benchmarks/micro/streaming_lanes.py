"""What a batch's cold rows cost the host: gathering (with finding who holds a row) and scattering, on one core. JSON.

    python benchmarks/micro/streaming_lanes.py [--shares 0.05 0.01] [--dims 16 64] [--folder DIR] [--quick]

Criteo Kaggle's tables, independent Zipf 1.05 columns, mixed batches of 32,768; `share` of all rows is hot. Each lane
runs alone over all batches with everything it waits for there already, so the time is its work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np

from fae.streaming.counters import new_counters
from fae.streaming.huge_pages import host_zeros
from fae.streaming.row_loops import gather_loop, scatter_loop
from speed import hot_set, open_log, packed_log

from common import KAGGLE_ROWS, RESULTS, record, working_folder

_ALL = 2**62
_THERE = 10**9


def measure(packed, hot, dim: int, depth: int, rounds: int) -> dict[str, object]:
    """Microseconds a batch of each lane, all samples."""
    (lists,) = packed.train.cold_lists(np.arange(packed.train.num_batches))
    (group,), (slot_rows,) = hot.layout.groups, hot.staging_rows
    num_hot, count = group.num_hot_rows, len(lists.begins)
    weight = host_zeros(group.num_cold_rows, dim).fill_(0.01).numpy()
    state = np.zeros((group.num_cold_rows, 0), np.float32)
    marks = host_zeros(group.num_cold_rows, 1).view(-1).numpy().view(np.uint32)
    marks[:] = 0
    moved = host_zeros(depth * slot_rows, dim).fill_(0.0).numpy().reshape(depth, slot_rows, dim)
    no_state = np.zeros((depth, slot_rows, 0), np.float32)
    locations = np.zeros((depth, slot_rows), np.int64)
    counters = new_counters(2, 0, 0)
    gather, scatter = gather_loop(dim, 0), scatter_loop(dim, 0)

    def run(what: str, batches: int) -> float:
        counters[1:, 0] = _THERE
        where = (lists.rows, lists.begins[:batches], lists.ends[:batches])
        started = time.perf_counter()
        if what == "scatter":
            scatter(counters, 2, 1, 0, _ALL, *where, num_hot, weight, state, moved, no_state, 0, 1)
        else:  # evaluation looks for nobody: nothing is updated
            plan_back = depth - 1 if what == "gather" else 1
            gather(
                counters, 2, np.array([1]), 0, _ALL, *where, depth - 1, plan_back, num_hot, weight, state, marks,
                locations, moved, no_state, False, 0, 1,
            )  # fmt: skip
        return 1e6 * (time.perf_counter() - started) / batches

    samples: dict[str, list[float]] = {"gather": [], "gather, evaluation": [], "scatter": []}
    for what in samples:
        run(what, min(2, count))
    for _ in range(rounds):
        for what, found in samples.items():
            found.append(run(what, count))
    rows = float(np.mean(lists.ends - lists.begins))
    return {"rows_a_batch": rows, "microseconds_a_batch": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2_000_000)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--folder", type=Path, default=None, help="for the log and packed batches, which stay there")
    parser.add_argument("--out", type=Path, default=RESULTS / "streaming_lanes.json")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.inputs, options.batch_size, options.cap, options.rounds = 20_000, 512, 2000, 1
    parts = []
    with working_folder(options.folder) as folder:
        log = open_log("zipf", folder, options.inputs, [min(rows, options.cap) for rows in KAGGLE_ROWS])
        for share in options.shares:
            for dim in options.dims:
                hot = hot_set(log, share, dim=dim, batch_size=options.batch_size, mixed=True)
                found = measure(packed_log(log, hot, folder), hot, dim, options.depth, options.rounds)
                parts.append({"share": share, "dim": dim, "depth": options.depth, **found})
                for what, samples in found["microseconds_a_batch"].items():
                    one = statistics.median(samples)
                    each = 1e3 * one / max(1.0, found["rows_a_batch"])
                    print(f"{share:5} dim {dim:3} {what:20} {one:8.0f} us a batch, {each:5.1f} ns a row", flush=True)
    options.out.write_text(json.dumps(record(parts=parts), indent=1) + "\n")


if __name__ == "__main__":
    main()
