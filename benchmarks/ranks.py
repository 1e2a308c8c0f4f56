"""Inputs a second of several GPUs of one host beside one, and beside model parallelism.

    python benchmarks/ranks.py [CASE ...] [--ranks 2] [--out FILE-OR-DIR] [--folder DIR] [--prepare] [--quick]

How much faster do W GPUs train than one? DLRM 13-512-256-64-D / 512-256-1 over Criteo Kaggle's tables (33.8 M rows),
``zipf`` log (``criteo`` in cases of that name), bf16 dense part on GPUs. In a case these contenders take turns, each
ready before the first turn:

* ``one``: rank 0 alone, batches of 32,768; the others wait at a barrier;
* ``ranks``: all ranks, 32,768 inputs each (32,768 together in case ``strong``), under the placement of the case;
* ``one, reproducible`` and ``ranks, reproducible``: both in 8 slices a batch, in case ``reproducible``;
* ``tiered ranks``: the same batches under `tiered`, in case ``rmc3_spread``;
* ``model parallel``: the same batches by table-wise model parallelism (`model_parallel`), where all rows are on GPUs;
* ``FBGEMM parallel``: the same with FBGEMM's tables (`fbgemm_parallel`), where that is installed; ``FBGEMM eager``
  launches each operation from Python. The record says of a contender that cannot be made, why.

Where ranks are under `spread`, one GPU is under `device`: it has nothing to spread over. ``rmc2``, ``rmc3`` and
``rmc3_spread`` are the paper's workloads with their batch sizes (1,024 and 2,048 a GPU unless --batch-size says more),
hot rows for their budgets, and ``zipf`` logs of 300,000 inputs. RMC3 has 45 GiB of rows, which each contender under
`tiered` has in host memory once: 90 GiB with all ranks and one GPU, 45 in ``rmc3_spread``, where rank 0 has 68 GiB on
its GPU.

A turn is some hundred captured steps between two barriers, with all devices waited for; the slowest rank counts. Before
the first case every other system and our ranks train the same few batches from the same weights, with a high rate, and
losses and rows are compared. Bytes over the wire are computed from the batches: what a rank receives, divided by the
inputs of its slice.

The parent makes the data and starts the ranks; when one fails, all end, and cases that were measured are kept. Writes
benchmarks/results/ranks_<gpu>_<date>.json. ``--device cpu`` runs over Gloo, where no figure means anything.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

import numpy as np
import torch
import torch.distributed as dist

from fae.bench.contenders import OurContender
from fae.core.units import format_bytes
from fae.distributed.group import Group
from fae.distributed.launcher import launch
from fae.distributed.places import RankPlace, place_of_process
from fae.distributed.rank_process import RankProcess
from fae.models.registry import build_model

from common import RESULTS, record, save_record, working_folder
from fbgemm_parallel import FbgemmParallel, has_fbgemm
from model_parallel import ModelParallel
from rank_data import CASES, QUICK, REPRODUCIBLE, Case, Data, is_alone
from rank_wire import wire_bytes

FOLDER = "FAE_RANKS_FOLDER"
"""Tells ranks where the parent has made the data."""
CHECK = {"steps": 6, "more": 16, "rate": 0.5}
"""Steps by themselves, steps in one go, learning rate."""
SYSTEMS = {
    "model parallel": (ModelParallel, False), "FBGEMM parallel": (FbgemmParallel, False),
    "FBGEMM eager": (FbgemmParallel, True),
}  # fmt: skip
"""Other systems, and whether each of their operations is launched from Python."""
TOLERANCES = {"fp32": (1e-5, 1e-3), "bf16": (1e-3, 0.1)}
"""By precision: of losses, relative; of rows, the norm of the difference relative to that of what training changed."""


class InTurns:
    """A contender of all ranks, or of rank 0 alone; `run` gives the seconds of the slowest rank."""

    def __init__(self, name: str, contender: Any, group: Group) -> None:
        self.name, self.contender, self._group = name, contender, group

    def run(self, num_steps: int) -> float:
        """Seconds of that many steps, begun together."""
        self._group.barrier(f"the start of {self.name}")
        seconds = 0.0 if self.contender is None else float(self.contender.run(num_steps))
        return max(self._group.gather_json(seconds, f"the end of {self.name}"))


def make_contenders(case: Case, data: Data, group: Group, links: Any) -> tuple[dict[str, InTurns], dict[str, str]]:
    """Every contender of a case, by name; beside them why others cannot be made on some rank, by name."""
    options = case.options(group.device)

    def make(name: str) -> OurContender | ModelParallel | None:
        size = data.batch_size(case, name)
        if name in SYSTEMS:
            if name not in installed_systems():
                raise ModuleNotFoundError("No module named 'fbgemm_gpu'")
            return model_parallel(name, case, data, size, group, links, options["learning_rate"])
        if is_alone(name) and not group.is_first:
            return None
        hot, packed = data.ours(case, size)
        who = Group() if is_alone(name) else group
        if name.endswith(REPRODUCIBLE):
            who = replace(who, reproducible=True)
        return OurContender(packed, hot, case.placements[name], group=who, **options)

    made, why_not = {}, {}
    for name in (*case.placements, *(SYSTEMS if case.model_parallel else [])):
        contender, fault = None, ""
        torch.manual_seed(1)  # replicas of rows are the same
        try:
            contender = make(name)
        except Exception as error:
            fault = f"{type(error).__name__}: {str(error)[:300]}"
        faults = [each for each in group.gather_json(fault, f"{name} is made") if each]
        if faults:
            why_not[name] = faults[0]
            print(f"{name}: cannot be made: {faults[0]}", flush=True)
        else:
            made[name] = InTurns(name, contender, group)
    return made, why_not


def installed_systems() -> list[str]:
    """Names of `SYSTEMS` that can be compared here."""
    return [name for name, (system, _) in SYSTEMS.items() if system is not FbgemmParallel or has_fbgemm()]


def model_parallel(
    name: str, case: Case, data: Data, size: int, group: Group, links: Any, rate: float
) -> ModelParallel:
    """The contender of that name."""
    hot, whole = data.ours(case, size)
    own_hot, own = data.owned(case, size, group.rank)
    system, is_eager = SYSTEMS[name]
    return system(
        whole, own, own_hot.layout, hot.layout.features, data.sharding, group, links,
        model=case.options(group.device)["model"], optimizer=case.optimizer, learning_rate=rate, is_eager=is_eager,
    )  # fmt: skip


def compare(other_name: str, data: Data, group: Group, links: Any) -> dict[str, Any]:
    """Train the same batches by our ranks and by another system, from the same weights; what differs."""
    case = Case(placement="device")
    size = data.batch_size(case, "ranks")
    hot, packed = data.ours(case, size)
    options = case.options(group.device) | {"learning_rate": CHECK["rate"]}
    ours = OurContender(packed, hot, case.placement, group=group, **options)
    other = model_parallel(other_name, case, data, size, group, links, CHECK["rate"])
    for each in (ours, other):
        each.embeddings.initialise(1)
    tables = list(enumerate(range(len(data.sharding.rows))[data.sharding.tables(group.rank)]))
    before = [ours.embeddings.export_table(table)[0] for _, table in tables]
    steps = np.arange(CHECK["steps"] + CHECK["more"]) % len(other.order)
    parts = [*([step] for step in steps[: CHECK["steps"]]), steps[CHECK["steps"] :]]
    losses: dict[str, list[float]] = {"ranks": [], other_name: []}
    for part in parts:
        for name, contender, taken in (("ranks", ours, ours.runner), (other_name, other, other)):
            contender.train(other.order[np.asarray(part)])
            losses[name].append(taken.take_loss() / size / len(part))
    found = []
    for (own, table), first in zip(tables, before, strict=True):
        one, two = ours.embeddings.export_table(table)[0], other.embeddings.export_table(own)[0]
        found.append([float((one - two).square().sum()), float((one - first).square().sum())])
    every = [each for part in group.gather_json(found, "rows are compared") for each in part]
    loss = max(abs(one - two) / one for one, two in zip(*losses.values(), strict=True))
    differs, changed = np.sqrt(np.sum(every, axis=0)).tolist()
    rows = differs / changed
    precision = "bf16" if "bf16" in (ours.precision, other.precision) else "fp32"
    agree = bool(loss <= TOLERANCES[precision][0] and rows <= TOLERANCES[precision][1])
    print(f"the same batches by ours and {other_name}: losses differ by {loss:.1e}, rows by {rows:.1e} of their change,"
          f" in {precision}: {'they agree' if agree else 'THEY DO NOT AGREE'}", flush=True)  # fmt: skip
    return {"losses": losses, "loss_difference": loss, "row_difference": rows, "precision": precision, "agree": agree}


def measure(name: str, data: Data, group: Group, links: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All contenders of a case, in turns; behind them those that cannot be made."""
    case = CASES[name]
    contenders, why_not = make_contenders(case, data, group, links)
    samples: dict[str, list[float]] = {each: [] for each in contenders}
    few = min(options.steps, max(24, options.steps // 4))
    for turn in range(options.rounds + 1):
        for each, contender in contenders.items():
            contender.run(few)  # the contender before it has left its marks on caches and clocks
            if turn:
                samples[each].append(contender.run(options.steps) / options.steps)
    rows = []
    for each, seconds in samples.items():
        size = data.batch_size(case, each)
        rates = [size / second for second in seconds]
        ratios = {}
        for other in samples.keys() - {each}:
            other_size = data.batch_size(case, other)
            beside = [rate * second / other_size for rate, second in zip(rates, samples[other], strict=True)]
            ratios[other] = {"median": statistics.median(beside), "samples": beside}
        packs, num_weights = data.ours(case, size), dense_weights(case, data)
        wire = wire_bytes(each, case, packs, group.world, num_weights) if group.is_first else {}
        rows.append(
            {"case": name, "contender": each, "placement": case.placements.get(each, ""),
             "workload": case.workload, "log": case.log, "optimizer": case.optimizer, "dim": case.dim,
             "hot_share": case.share, "mixed": case.mixed, "ranks": 1 if is_alone(each) else group.world,
             "global_batch": size, "samples_per_second": statistics.median(rates), "samples": rates,
             "spread": [min(rates), max(rates)], "milliseconds_a_step": 1e3 * statistics.median(seconds),
             "ratios": ratios, "wire_bytes_an_input": wire}
        )  # fmt: skip
        print(line(rows[-1]), flush=True)
    return rows + [{"case": name, "contender": each, "cannot_be_made": why} for each, why in why_not.items()]


def dense_weights(case: Case, data: Data) -> int:
    """Number of dense weights of a case's model."""
    hot, packed = data.ours(case, data.batch_size(case))
    model = build_model(case.options("cpu")["model"], hot.layout.features, packed.num_dense, seed=1)
    return sum(each.numel() for each in model.parameters())


HEADER = (
    f"{'case':12} {'contender':19} {'M inputs/s':>11} {'lowest, highest':>17} {'ms a step':>10} {'x one':>6} "
    f"{'bytes an input':>15}"
)


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    if "cannot_be_made" in row:
        return f"{row['case']:12} {row['contender']:19} cannot be made: {row['cannot_be_made']}"
    (low, high), ratio = (each / 1e6 for each in row["spread"]), row["ratios"].get("one")
    total, beside = sum(row["wire_bytes_an_input"].values()), "" if ratio is None else f"{ratio['median']:.2f}"
    return (
        f"{row['case']:12} {row['contender']:19} {row['samples_per_second'] / 1e6:11.3f} "
        f"{low:8.3f} {high:8.3f} {row['milliseconds_a_step']:10.3f} "
        f"{beside:>6} {format_bytes(round(total)) if total else '':>15}"
    )


def be_rank(options: argparse.Namespace, place: RankPlace) -> None:
    """As one rank: compare, then measure every case; rank 0 writes what it has after each."""
    folder = Path(os.environ.get(FOLDER) or options.folder)
    with RankProcess(place) as process, process.join(options.device) as group:
        backend = "nccl" if options.device == "cuda" else "gloo"
        links = dist.new_group(backend=backend, timeout=timedelta(seconds=300))
        done: dict[str, Any] = {"check": {}, "rows": []}
        for name in [] if options.no_check else installed_systems():
            done["check"][name] = compare(name, Data(folder, options, check=True), group, links)
        data = Data(folder, options)
        for name in options.cases:
            gc.collect()  # graphs and rows of the contenders before
            if options.device == "cuda":
                torch.cuda.empty_cache()
            done["rows"] += measure(name, data, group, links, options)
            if group.is_first:
                save(done, options)
        if group.is_first:
            print("\n".join([HEADER, *map(line, done["rows"])]))
        gc.collect()  # graphs end before the connections that they use


def save(done: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the record of what was measured so far, which no end of the ranks takes away."""
    gpu = torch.cuda.get_device_name().split()[-1].lower() if options.device == "cuda" else "cpu"
    out = options.out or RESULTS
    path = out if out.suffix == ".json" else out / f"ranks_{gpu}_{time.strftime('%Y%m%d')}.json"
    facts = record(torch_version=torch.__version__, load_average=os.getloadavg(), ranks=options.ranks)
    save_record(path, {**facts, "nccl": nccl_version(), **done})


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch-size", type=int, default=0, help="inputs a GPU; default: 32,768, or the workload's")
    parser.add_argument("--inputs", type=int, default=0, help="default: 1 M a rank; 300,000 of a workload")
    parser.add_argument("--cap", type=int, default=2**31 - 1, help="rows of a table at most")
    parser.add_argument("--steps", type=int, default=400, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-check", action="store_true", help="do not compare the two systems first")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="for logs and packed batches, which stay there")
    parser.add_argument("--prepare", action="store_true", help="make logs and packed batches, measure nothing")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.device, options.inputs, options.cap, options.rounds, options.steps = "cpu", 2000, 500, 1, 3
        options.batch_size = 128
    options.cases = options.cases or list(QUICK if options.quick else CASES)
    if not set(options.cases) <= CASES.keys() or options.ranks < 2:
        parser.error(f"cases are {', '.join(CASES)}, and ranks 2 or more")
    return options


def main() -> None:
    options, place = parse(), place_of_process()
    if place.world > 1:
        be_rank(options, place)
        return
    with working_folder(options.folder) as folder:
        if not options.no_check:
            Data(folder, options, check=True).prepare([Case(placement="device")])
        Data(folder, options).prepare([CASES[name] for name in options.cases])
        if options.prepare:
            return
        status = launch([sys.executable, *sys.argv], options.ranks, environ={**os.environ, FOLDER: str(folder)})
    raise SystemExit(status)


def nccl_version() -> str:
    """Version of NCCL that torch brings; empty where there is none."""
    return ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else ""


if __name__ == "__main__":
    main()
