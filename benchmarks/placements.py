"""Inputs a second of every placement and of a user's other choices, on one log, model, optimizer and precision.

    python benchmarks/placements.py [--only GROUP ...] [--out FILE] [--folder DIR] [--prepare] [--quick]

How fast is each place for the rows, beside plain PyTorch and FBGEMM? DLRM 13-512-256-64-D / 512-256-1 over Criteo
Kaggle's tables (33.8 M rows); bf16 dense part on a GPU (on a CPU where the name says so: it needs AMX to be fast),
float32 rows. Logs: ``zipf`` (independent columns, exponent 1.05; the hard case) and ``criteo`` (columns from latent
users and items). Ours read packed batches from the file system; the others find theirs on the device. Contenders of a
group run in turns, one warm-up and then several samples each. `budget_fraction` counts hot rows; `staging_bytes` come
on top, and FBGEMM's caches get the sum of both.

Writes benchmarks/results/placements_<gpu>_<date>.json. Groups that are in the output file already are skipped, so the
same command continues after a kill. With ``--folder`` logs and packed batches stay for the next start; ``--prepare``
makes them and measures nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fae.core.optimizers import row_bytes

from common import KAGGLE_ROWS, RESULTS, capped_rows, hot_set, open_log, packed_log, record, save_record, working_folder
from contenders import Fbgemm, OurPlacement, PaperPlacement, PlainPyTorch, interleaved_runs, staging_bytes

Group = dict[str, Any]


def groups() -> Iterator[Group]:
    """What is measured together. `slow` groups add what runs on the CPU."""

    def group(log: str, batch_size: int, optimizer: str, dim: int = 16, **more: Any) -> Group:
        shares = (0.05,) if dim > 16 else (0.05, 0.01)
        return {"log": log, "batch_size": batch_size, "dim": dim, "optimizer": optimizer, "shares": shares, **more}

    for log in ("zipf", "criteo"):
        yield group(log, 32768, "sgd", slow=True)
    for log in ("zipf", "criteo"):
        yield group(log, 32768, "rowwise_adagrad")
    for optimizer in ("sgd", "rowwise_adagrad"):
        for log in ("zipf", "criteo"):
            for batch_size in (2048, 8192):
                yield group(log, batch_size, optimizer)
    for optimizer in ("sgd", "rowwise_adagrad"):
        yield group("zipf", 32768, optimizer, dim=64)


def key(group: Group) -> str:
    """Name of a group: log, batch size, dim, optimizer."""
    return f"{group['log']} {group['batch_size']} {group['dim']} {group['optimizer']}"


def packed_for(group: Group, log: Any, folder: Path, share: float, *, mixed: bool = True) -> tuple[Any, Any]:
    """Hot set and packed batches of one contender."""
    kind = {name: group[name] for name in ("dim", "batch_size", "optimizer")}
    hot = hot_set(log, share, mixed=mixed, **kind)
    return hot, packed_log(log, hot, folder)


def contender_makers(
    group: Group, options: argparse.Namespace, folder: Path, has_fbgemm: bool
) -> dict[str, tuple[float, int, Callable[[], Any]]]:
    """Budget fraction, steps of a sample and constructor of every contender of a group; packs what they read."""
    batch_size, dim, optimizer = group["batch_size"], group["dim"], group["optimizer"]
    log = open_log(group["log"], folder, options.inputs, capped_rows(options.cap))
    common = {"dim": dim, "optimizer": optimizer, "device": options.device}
    steps = max(40, round(options.seconds * 40e6 / batch_size / (dim / 16)))
    makers: dict[str, tuple[float, int, Callable[[], Any]]] = {}

    def ours(name: str, share: float, count: int, kind: tuple[Any, Any], placement: str, **more: Any) -> None:
        hot, packed = kind
        makers[name] = (share, count, lambda: OurPlacement(packed, hot, placement, **{**common, **more}))

    first = packed_for(group, log, folder, group["shares"][0])
    hot_rows = sum(each.num_hot_rows for each in first[0].layout.groups)
    cache_bytes = row_bytes(optimizer, dim) * hot_rows + staging_bytes(first[0], dim, optimizer)
    ours("device", 1.0, steps, first, "device")
    if group.get("slow"):
        for name, more in (("hybrid", {}), ("cpu", {}), ("cpu bf16", {"precision": "bf16"})):
            ours(name, 0.0, 6, first, name.split()[0], **more)
    for share in group["shares"]:
        ours(f"tiered {share}", share, steps, packed_for(group, log, folder, share), "tiered")
    peer = {**common, "batch_size": batch_size}
    if group.get("slow"):
        hot, separate = packed_for(group, log, folder, 0.05, mixed=False)
        ours("tiered 0.05 interleaved", 0.05, steps, (hot, separate), "tiered")
        makers["paper"] = (0.05, 8, lambda: PaperPlacement(separate, hot, **common))
        makers["plain PyTorch hybrid"] = (0.0, 3, lambda: PlainPyTorch(log, **peer))
        makers["plain PyTorch cpu"] = (0.0, 3, lambda: PlainPyTorch(log, **{**peer, "device": "cpu"}))
        makers["plain PyTorch cpu bf16"] = (
            0.0, 3, lambda: PlainPyTorch(log, **{**peer, "device": "cpu", "bf16": True}),
        )  # fmt: skip
    if has_fbgemm:
        many = max(20, round(options.seconds / 3.5e-3))
        for mode in ("device", "device graph"):
            makers[f"fbgemm {mode}"] = (1.0, many, lambda m=mode: Fbgemm(log, mode=m, **peer))
        for mode in ("lru", "lfu", "lru prefetch"):
            makers[f"fbgemm {mode}"] = (
                group["shares"][0], many, lambda m=mode: Fbgemm(log, mode=m, cache_bytes=cache_bytes, **peer),
            )  # fmt: skip
    # What computes on the CPU comes last: the GPU's clocks fall meanwhile, and the next contender would pay for it.
    return dict(sorted(makers.items(), key=lambda item: uses_cpu(item[0])))


def measure(group: Group, options: argparse.Namespace, folder: Path, has_fbgemm: bool) -> list[dict[str, Any]]:
    """All contenders of a group, in turns."""
    makers = contender_makers(group, options, folder, has_fbgemm)
    contenders: dict[str, Any] = {}
    for name, (_, _, make) in makers.items():
        try:
            contenders[name] = make()
        except Exception as error:
            print(f"{name}: cannot be made: {type(error).__name__}: {str(error)[:300]}", flush=True)
    counts = {name: makers[name][1] for name in contenders}
    samples = interleaved_runs(contenders, counts, options.rounds)
    rows = []
    for name, seconds in samples.items():
        rates = [group["batch_size"] / each for each in seconds]
        contender = contenders[name]
        memory = contender.device_bytes if hasattr(contender, "device_bytes") else contender.gpu_row_bytes
        print(f"{key(group)} {name:26} {statistics.median(rates) / 1e6:8.3f} M inputs/s", flush=True)
        rows.append(
            {
                "log": group["log"], "placement": name, "dim": group["dim"], "batch_size": group["batch_size"],
                "optimizer": group["optimizer"], "budget_fraction": makers[name][0],
                "samples_per_second": statistics.median(rates), "samples": rates, "gpu_row_bytes": memory,
                "staging_bytes": getattr(contender, "staging_bytes", 0),
            }
        )  # fmt: skip
    contenders.clear()
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
    return rows


def uses_cpu(contender: str) -> bool:
    """Whether rows, or more, are computed on the CPU."""
    return contender in ("hybrid", "cpu", "cpu bf16", "paper") or contender.startswith("plain PyTorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="GROUP", help='groups such as "criteo 32768 16 sgd"')
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.6, help="of a sample, about")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--until", type=float, default=float("inf"), help="start no group after that many seconds")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="for logs and packed batches, which stay there")
    parser.add_argument("--prepare", action="store_true", help="make logs and packed batches, measure nothing")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.device, options.inputs, options.cap, options.rounds, options.seconds = "cpu", 40_000, 1000, 1, 1e-5
    has_fbgemm = options.device == "cuda" and find_spec("fbgemm_gpu") is not None
    gpu = torch.cuda.get_device_name().split()[-1].lower() if options.device == "cuda" else "cpu"
    out = options.out or RESULTS / f"placements_{gpu}_{time.strftime('%Y%m%d')}.json"
    done = json.loads(out.read_text()) if out.exists() else {"rows": [], "groups": []}
    started = time.monotonic()
    with working_folder(options.folder) as folder:
        for group in groups():
            if options.only and key(group) not in options.only:
                continue
            if key(group) in done["groups"] or time.monotonic() - started > options.until:
                continue
            if options.quick:
                group["batch_size"] = min(256, group["batch_size"])
            if options.prepare:
                contender_makers(group, options, folder, has_fbgemm)
                continue
            rows = measure(group, options, folder, has_fbgemm)
            if not options.folder:
                for packed in folder.glob("packed_*"):  # disks are small
                    shutil.rmtree(packed)
            done = {
                **record(torch_version=torch.__version__, load_average=os.getloadavg(), fbgemm=has_fbgemm),
                "rows": done["rows"] + rows, "groups": [*done["groups"], key(group)],
            }  # fmt: skip
            save_record(out, done)


if __name__ == "__main__":
    main()
