"""Where the streaming pipeline waits: steps, transfers and rows on the host, each alone and together.

    python benchmarks/pipeline.py gpu [--shares 0.05 0.01] [--settings "depth 8"] [--folder DIR] [--out FILE]
    python benchmarks/pipeline.py host [--shares 0.05 0.01] [--dims 16 64] [--folder DIR] [--quick]

``gpu``: which of the step, the transfers and the host bounds `tiered`? `device` (every row on the GPU) and `tiered`
take turns; a setting is the depth of the ring and how long a waiting worker yields and sleeps (us). Microseconds a
step: of whole runs, of transfers without steps, of a replayed step alone, of a step and of the gap behind it on the
device; ``cpu`` is of all threads. Writes benchmarks/results/gpu_pipeline.json.

``host``: what do a batch's cold rows cost the host? Gathering (with finding which tier holds a row) and scattering, on
one core. Criteo Kaggle's tables, independent Zipf 1.05 columns, mixed batches of 32,768. Each loop runs alone over all
batches with everything that it waits for there already, so the time is its work. Writes
benchmarks/results/streaming_rows.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fae.streaming import workers
from fae.streaming.counters import new_counters
from fae.streaming.huge_pages import host_zeros
from fae.streaming.row_loops import gather_loop, scatter_loop

from common import KAGGLE_ROWS, RESULTS, capped_rows, hot_set, open_log, packed_log, record, save_record, working_folder
from contenders import OurPlacement

SETTINGS: dict[str, dict[str, Any]] = {
    "depth 4": {},
    "depth 6": {"depth": 6},
    "depth 8": {"depth": 8},
    "depth 16": {"depth": 16},
    "depth 8, sleep": {"depth": 8, "patience": (0, 32)},
    "depth 8, awake": {"depth": 8, "patience": (400, 8)},
}
_ALL = 2**62
_THERE = 10**9


def measure_gpu(log: Any, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Every share under every setting."""
    kind = {"dim": options.dims[0], "optimizer": options.optimizer, "device": options.device}
    results, device = [], None
    for share in options.shares:
        by_depth: dict[int, OurPlacement] = {}
        for depth in sorted({SETTINGS[setting].get("depth", 4) for setting in options.settings}):
            hot = hot_set(log, share, dim=kind["dim"], batch_size=options.batch_size, mixed=True, depth=depth)
            packed = packed_log(log, hot, folder)
            by_depth[depth] = OurPlacement(packed, hot, "tiered", **kind)
            by_depth[depth].run(20)
            if device is None:
                device = OurPlacement(packed, hot, "device" if options.device == "cuda" else "cpu", **kind)
                device.run(20)
        for setting in options.settings:
            ours = by_depth[SETTINGS[setting].get("depth", 4)]
            results.append({"share": share, "setting": setting, **facts_of(ours, device, setting, options)})
            print(results[-1], flush=True)
    return results


def facts_of(ours: OurPlacement, device: Any, setting: str, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds a step under one setting."""
    facts: dict[str, Any] = {}
    patience, steps = workers.PATIENCE, options.steps
    workers.PATIENCE = SETTINGS[setting].get("patience", patience)
    try:
        ours.run(8)
        for part in ("run_without_steps", "run"):
            used = time.process_time()
            seconds = [getattr(ours, part)(steps) / steps for _ in range(2)]
            facts[part] = round(1e6 * statistics.median(seconds))
            facts[f"cpu of {part}"] = round(1e6 * (time.process_time() - used) / (2 * steps))
        if options.device == "cuda":
            for part in ("run_without_steps", "run", "run_graph"):
                facts[f"device {part}"] = round(1e6 * getattr(device, part)(steps) / steps)
            for each, contender in (("tiered", ours), ("device", device)):
                times = contender.run_timed(steps)
                facts[f"{each} on the device"] = {name: round(1e6 * value) for name, value in times.items()}
    finally:
        workers.PATIENCE = patience
    return facts


def measure_host(packed: Any, hot: Any, dim: int, depth: int, rounds: int) -> dict[str, Any]:
    """Microseconds a batch of each loop, all samples."""
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
        else:  # evaluation takes no row from an earlier slot: nothing is updated
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
    return {"rows_a_batch": float(np.mean(lists.ends - lists.begins)), "microseconds_a_batch": samples}


def measure_host_parts(log: Any, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Every share at every dim."""
    parts = []
    for share in options.shares:
        for dim in options.dims:
            hot = hot_set(log, share, dim=dim, batch_size=options.batch_size, mixed=True)
            found = measure_host(packed_log(log, hot, folder), hot, dim, options.depth, options.rounds)
            parts.append({"share": share, "dim": dim, "depth": options.depth, **found})
            for what, samples in found["microseconds_a_batch"].items():
                one = statistics.median(samples)
                each = 1e3 * one / max(1.0, found["rows_a_batch"])
                print(f"{share:5} dim {dim:3} {what:20} {one:8.0f} us a batch, {each:5.1f} ns a row", flush=True)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gpu", "host"))
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--dims", type=int, nargs="+", default=[16], help="`gpu` takes the first")
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--log", default="zipf")
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--depth", type=int, default=8, help="slots of the ring of `host`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=None, help="for the log and packed batches, which stay there")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.inputs, options.batch_size, options.cap, options.rounds = 20_000, 512, 2000, 1
        options.steps, options.device = 4, "cpu"
    name = {"gpu": "gpu_pipeline", "host": "streaming_rows"}[options.what]
    with working_folder(options.folder) as folder:
        log = open_log(options.log, folder, options.inputs, capped_rows(options.cap))
        if options.what == "gpu":
            facts = {"rows": measure_gpu(log, options, folder)}
        else:
            facts = {"parts": measure_host_parts(log, options, folder)}
    save_record(options.out or RESULTS / f"{name}.json", record(torch_version=torch.__version__, **facts))


if __name__ == "__main__":
    main()
