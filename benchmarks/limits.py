"""Two limits of `tiered`: few CPU threads for the host's side, and tables ten times as long.

    python benchmarks/limits.py threads [--threads 2] [--logs zipf criteo] [--shares 0.05 0.01]
    python benchmarks/limits.py rows [--times 10] [--shares 0.05]

What does packing buy where the host has few cores, and does the length of the tables matter? DLRM 13-512-256-64-16 /
512-256-1, SGD, bf16 on a GPU. ``threads``: `device` and `tiered` with mixed batches (order = "shuffled") and with hot
and cold ones (order = "interleaved"), under all CPU threads and under few. ``rows``: the same accesses to the same hot
rows, every cold row now one of `times`; the time of a step should not change.

Writes benchmarks/results/limits_<threads or rows>.json. Parts that the output file has already are skipped; with
``--folder`` logs and packed batches stay, and those of placements.py are taken. ``--quick``: tiny, on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import Manifest
from fae.artifacts.row_layout import RowLayout

from common import (
    RESULTS,
    capped_rows,
    hot_set,
    made_once,
    open_log,
    packed_log,
    record,
    save_record,
    working_folder,
    write_log,
)
from contenders import OurPlacement, interleaved_runs

DIM = 16


def rates(contenders: dict[str, Any], steps: int, rounds: int, batch_size: int) -> dict[str, dict[str, Any]]:
    """Inputs a second of every contender: median and all samples."""
    samples = interleaved_runs(contenders, dict.fromkeys(contenders, steps), rounds)
    return {
        name: {
            "samples_per_second": batch_size / statistics.median(seconds),
            "samples": [batch_size / each for each in seconds],
        }
        for name, seconds in samples.items()
    }


def few_threads(options: argparse.Namespace, folder: Path, done: Callable[[dict[str, Any]], bool]) -> Any:
    """Yield one part a log and number of threads."""
    kind: dict[str, Any] = {"dim": DIM, "optimizer": "sgd", "device": options.device}
    everything, rows = sorted(os.sched_getaffinity(0)), capped_rows(options.cap)
    for log_name in options.logs:
        parts = [{"log": log_name, "threads": count} for count in (len(everything), options.threads)]
        if all(done(part) for part in parts):
            continue
        log = open_log(log_name, folder, options.inputs, rows)
        makers: dict[str, Callable[[], Any]] = {}
        for share in options.shares:
            for mixed in (True, False):
                hot = hot_set(log, share, dim=DIM, batch_size=options.batch_size, mixed=mixed)
                packed = packed_log(log, hot, folder)
                order = "shuffled" if mixed else "interleaved"
                if not makers:
                    makers["device"] = lambda p=packed, h=hot: OurPlacement(p, h, "device", **kind)
                makers[f"tiered {share} {order}"] = lambda p=packed, h=hot: OurPlacement(p, h, "tiered", **kind)
        for part in parts:
            if done(part):
                continue
            os.environ["FAE_NUM_THREADS"] = str(part["threads"])
            os.sched_setaffinity(0, everything[: part["threads"]])
            torch.set_num_threads(int(part["threads"]))
            contenders = {name: make() for name, make in makers.items()}
            yield {**part, "rates": rates(contenders, options.steps, options.rounds, options.batch_size)}
            contenders.clear()
            os.sched_setaffinity(0, everything)
            del os.environ["FAE_NUM_THREADS"]


def longer(log: ColumnarLog, hot: Any, times: int, path: Path) -> ColumnarLog:
    """The log in storage order, every cold row now the first of `times`; made where it is missing."""
    made_of = {"log": log.manifest.fingerprint, "times": times, "hot rows": [*map(int, hot.layout.num_hot)]}
    return ColumnarLog(made_once(path, made_of, lambda: write_longer(log, hot, times, path)))


def write_longer(log: ColumnarLog, hot: Any, times: int, path: Path) -> ColumnarLog:
    """Write that log."""
    ids, rows = np.empty(log.ids.shape, np.int32), []
    for table, (hot_rows, feature) in enumerate(zip(map(int, hot.layout.num_hot), log.features, strict=True)):
        rows.append(hot_rows + (feature.num_embeddings - hot_rows) * times)
        column, ranks = np.asarray(log.ids[:, table]), hot.layout.ranks[table]
        rank = column if ranks is None else ranks[column]
        ids[:, table] = np.where(rank < hot_rows, rank, hot_rows + (rank.astype(np.int64) - hot_rows) * times)
    parameters = {"of": log.manifest.fingerprint, "times": times, "rows": rows}
    return write_log(path, rows, ids, np.asarray(log.dense), np.asarray(log.labels), parameters)


def long_tables(options: argparse.Namespace, folder: Path, done: Callable[[dict[str, Any]], bool]) -> Any:
    """Yield one part a share."""
    for share in options.shares:
        part = {"share": share, "times": options.times}
        if done(part):
            continue
        log = open_log("zipf", folder, options.inputs, capped_rows(options.cap))
        hot = hot_set(log, share, dim=DIM, batch_size=options.batch_size, mixed=True)
        contenders, rows = {}, {}
        for times in (1, options.times):
            stretched = longer(log, hot, times, folder / f"zipf_{share}_{times}")
            parameters = {**hot.manifest.parameters, "share": f"{share}x{times}"}
            chosen = SimpleNamespace(
                **{
                    **vars(hot),
                    "layout": RowLayout(stretched.features, [DIM] * len(stretched.features), hot.layout.num_hot),
                    "manifest": Manifest(
                        kind="hot_set", format_version=1, fingerprint=f"{times:032d}", parameters=parameters
                    ),
                }
            )
            packed = packed_log(stretched, chosen, folder)
            kind = {"dim": DIM, "optimizer": "sgd", "device": options.device}
            contenders[f"tiered, {times} times the rows"] = OurPlacement(packed, chosen, "tiered", **kind)
            rows[str(times)] = sum(feature.num_embeddings for feature in stretched.features)
        found = rates(contenders, options.steps, options.rounds, options.batch_size)
        yield {**part, "rows": rows, "rates": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("threads", "rows"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--logs", nargs="+", default=["zipf", "criteo"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05])
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap", type=int, default=2**31, help="rows of a table at most")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.device, options.inputs, options.cap, options.batch_size = "cpu", 20_000, 2000, 256
        options.steps, options.rounds, options.threads = 3, 1, 1
    out = options.out or RESULTS / f"limits_{options.what}.json"
    found = json.loads(out.read_text())["parts"] if out.exists() else []

    def done(part: dict[str, Any]) -> bool:
        return any(all(each.get(key) == value for key, value in part.items()) for each in found)

    work = few_threads if options.what == "threads" else long_tables
    with working_folder(options.folder) as folder:
        for part in work(options, folder, done):
            found.append(part)
            settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
            save_record(out, record(settings=settings, parts=found))
            for contender, rate in part["rates"].items():
                print(f"{contender:28} {rate['samples_per_second'] / 1e6:8.3f} M inputs/s", flush=True)


if __name__ == "__main__":
    main()
