"""Predicted and measured steps side by side: the cost model of `fae plan` on several logs, budgets and batch sizes.

    python benchmarks/plan.py [--device cuda] [--out FILE] [--only LOG ...] [--frappe FILE] [--until SECONDS] [--quick]
    python benchmarks/plan.py --table FILE ...

How near are the predictions? For each log and batch size the work of a step is counted in a sample of the log at two
budgets, constants are measured in seconds (`fae.planning.measured_constants`), every placement is predicted; then real
steps of every placement run in turns on packed batches, and are put beside (on a CPU, which others share, probes and
real steps run in turns). The lower quartile of the samples counts, on both sides. Logs are synthetic (``criteo``,
``avazu``, ``taobao``, ``zipf``), each with a model and an optimizer of its own, and Frappe where its file is given.
Writes benchmarks/results/plan_<gpu or cpu>.json; ``--table`` prints such files as Markdown.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

import numpy as np
import torch

from fae.artifacts.columnar_log import ColumnarLog
from fae.bench.contenders import OurContender
from fae.core.errors import BudgetError
from fae.core.optimizers import row_bytes
from fae.models.config import model_config
from fae.models.registry import embedding_dims, sketch_model
from fae.planning.cards import CARDS, card_constants
from fae.planning.machine_constants import MachineConstants
from fae.planning.measured_constants import MachineProbe
from fae.planning.step_probes import samples_in_turns, undisturbed, warm_up_steps
from fae.planning.step_time import StepTime, predict_steps
from fae.planning.step_work import StepSettings, StepWork
from fae.profile.config import HotConfig
from fae.run.folder import RunFolder
from fae.run.prepare import PackOptions, prepare_packed
from fae.run.recipe import load_recipe
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.training.dense_threads import dense_threads, torch_threads
from fae.training.step import honoured_precision

from common import RESULTS, ROOT, made_once, record, save_record, working_folder

SAMPLE_INPUTS = 200_000
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Subject:
    """A log with the training of it that is predicted.

    `inputs` and `sizes` are those of a GPU and of a CPU; budgets are `shares` of the rows that the log looks up.
    """

    shape: Literal["criteo", "avazu", "taobao", "zipf"] | None
    model: dict[str, Any]
    optimizer: str
    scale: float = 0.1
    inputs: tuple[int, int] = (1_000_000, 200_000)
    sizes: tuple[tuple[int, int], tuple[int, int]] = ((2048, 16384), (512, 2048))
    shares: tuple[float, float] = (0.1, 0.4)


SUBJECTS = {
    "criteo": Subject("criteo", {"name": "dlrm"}, "sgd"),
    "avazu": Subject("avazu", {"name": "dcnv2"}, "rowwise_adagrad"),
    "taobao": Subject("taobao", {"name": "tbsm"}, "rowwise_adagrad"),
    "zipf": Subject("zipf", {"name": "deepfm", "embedding_dim": 32}, "adagrad"),
    "frappe": Subject(
        None, {"name": "dlrm", "bottom_mlp": [], "top_mlp": [64, 32]}, "rowwise_adagrad",
        sizes=((128, 1024), (128, 1024)),
    ),
}  # fmt: skip


def open_subject(name: str, folder: Path, options: argparse.Namespace) -> ColumnarLog:
    """The log in `folder`; made where it is missing."""
    subject, on_gpu = SUBJECTS[name], options.device == "cuda"
    if subject.shape is None:
        run = RunFolder(
            load_recipe(ROOT / "recipes/frappe.toml", [f"log.train={options.frappe.resolve()}"]), folder / name
        )
        run.stage("ingest")
        return ColumnarLog(run.path("ingest"))
    path = folder / f"log_{name}"
    inputs = options.inputs or subject.inputs[0 if on_gpu else 1]
    config = SyntheticConfig(shape=subject.shape, num_inputs=inputs, scale=options.scale or subject.scale, drift=0.0)
    return ColumnarLog(made_once(path, asdict(config), lambda: write_columnar(config, path, ids="encoded")))


def settings_of(name: str, log: ColumnarLog, batch_size: int, device: str) -> StepSettings:
    """The training of a subject."""
    subject, model = SUBJECTS[name], model_config(SUBJECTS[name].model)
    return StepSettings(
        model=model, features=tuple(log.features), embedding_dims=tuple(embedding_dims(model, log.features)),
        num_dense=len(log.dense_names), optimizer=subject.optimizer, batch_size=batch_size,
        precision=honoured_precision(torch.device(device), "bf16"),
    )  # fmt: skip


def pack_at(
    log: ColumnarLog, settings: StepSettings, share: float, folder: Path, profile: Path
) -> tuple[float, Any, Any] | None:
    """Share, hot set and packed batches of a budget of this share of the bytes of all rows that the log looks up.

    It grows where it is too small for the staging ring; None where no share does.
    """
    used = np.add.reduceat(np.asarray(log.counts) > 0, log.table_offsets[:-1])
    total = sum(
        int(rows) * row_bytes(settings.optimizer, dim) for rows, dim in zip(used, settings.embedding_dims, strict=True)
    )
    while share < 3.0:
        options = PackOptions(
            hot=HotConfig(budget=int(share * total), small_table="16KB"), embedding_dims=settings.embedding_dims,
            optimizer=settings.optimizer, batch_size=settings.batch_size, mixed=settings.mixed, seed=1,
        )  # fmt: skip
        try:
            return share, *prepare_packed(
                log, options, folder / f"{settings.batch_size}_{share:.3f}", profile_path=profile
            )
        except BudgetError:
            share *= 1.5
    return None


def sampled_work(log: ColumnarLog, settings: StepSettings, hot_set: Any) -> StepWork:
    """The work of a step, from a sample of the log: what `fae plan` knows before anything is packed."""
    start, stop = log.split("train")
    random = np.random.default_rng(1)
    chosen = np.sort(random.choice(stop - start, min(SAMPLE_INPUTS, stop - start), replace=False)) + start
    ids = np.asarray(log.ids[chosen])[random.permutation(len(chosen))]
    layout = hot_set.layout
    ranks = ids.copy()
    for slot, table in enumerate(layout.table_of_slot):
        order = layout.ranks[table]
        if order is not None:
            ranks[:, slot] = np.where(ids[:, slot] >= 0, order[np.maximum(ids[:, slot], 0)], -1)
    return StepWork.from_sample(settings, ranks, layout.num_hot, ring_depth=hot_set.ring_depth)


def work_facts(work: StepWork) -> dict[str, Any]:
    """Figures of a step for the record."""
    return {
        "lookups": work.lookups, "unique_rows": sum(width.unique_rows for width in work.widths),
        "unique_cold_rows": work.cold_rows, "cold_bytes": work.cold_bytes, "pooled_bytes": work.pooled_bytes,
        "input_bytes": work.input_bytes, "ring_depth": work.ring_depth,
    }  # fmt: skip


def real_contenders(
    settings: StepSettings, packs: list[tuple[float, Any, Any]], device: str
) -> dict[str, OurContender]:
    """Every placement on packed batches: ``tiered SHARE`` and the others."""

    def contender(share: float, hot_set: Any, packed: Any, placement: str) -> OurContender:
        return OurContender(
            packed, hot_set, placement, model=settings.model, optimizer=settings.optimizer,
            learning_rate=LEARNING_RATE, device=device, precision=settings.precision,
        )  # fmt: skip

    made = {f"tiered {pack[0]:.3f}": contender(*pack, "tiered") for pack in packs}
    others = ("device", "hybrid") if device == "cuda" else ("cpu",)
    return made | {placement: contender(*packs[-1], placement) for placement in others}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What was timed of one log at one batch size.

    Attributes
    ----------
    machine
        The constants.
    probes, real
        Samples, seconds a step, of the probes and of real steps, by name.
    seconds
        Seconds that the constants took.
    """

    machine: MachineConstants
    probes: dict[str, list[float]]
    real: dict[str, list[float]]
    seconds: float


def timed(
    settings: StepSettings, works: list[StepWork], packs: list[tuple[float, Any, Any]], options: argparse.Namespace
) -> Timed:
    """Measure the constants, then real steps; on a CPU, which others share, both in turns."""
    device = torch.device(options.device)
    warm_up, started, on_cpu = warm_up_steps(device), time.monotonic(), options.device == "cpu"
    with ExitStack() as stack:
        if on_cpu:
            model = sketch_model(settings.model, settings.features, settings.num_dense)
            stack.enter_context(torch_threads(dense_threads(model, settings.batch_size)))
        probe = MachineProbe(device, works)
        length, real = min(options.seconds, probe.sample_seconds), {}
        if on_cpu:
            real = {name: each.run for name, each in real_contenders(settings, packs, "cpu").items()}
        samples = samples_in_turns({**probe.runs, **real}, length, rounds=options.rounds, warm_up=warm_up)
        probes = {name: samples.pop(name) for name in probe.runs}
        machine = probe.constants({name: undisturbed(taken) for name, taken in probes.items()})
        seconds = time.monotonic() - started
        del probe
        if not on_cpu:
            clear(options.device)
            contenders = real_contenders(settings, packs, options.device)
            runs = {name: each.run for name, each in contenders.items()}
            samples = samples_in_turns(runs, options.seconds, rounds=options.rounds, warm_up=warm_up)
    return Timed(machine=machine, probes=probes, real=samples, seconds=seconds)


def clear(device: str) -> None:
    """Give back memory of what is no longer used."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def published(settings: StepSettings, works: list[StepWork], name: str) -> list[dict[str, StepTime]] | None:
    """Predictions from the data sheet of the card that is here, None where it has no profile."""
    card = next((card for card in sorted(CARDS, key=len, reverse=True) if card in name.lower()), None)
    return card and [predict_steps(work, card_constants(card, settings)) for work in works]


def measure(name: str, batch_size: int, folder: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """One log at one batch size: predictions, then measurements."""
    started = time.monotonic()
    log = open_subject(name, folder, options)
    settings = settings_of(name, log, batch_size, options.device)
    at_shares = [
        pack_at(log, settings, share, folder / name, folder / f"profile_{name}") for share in SUBJECTS[name].shares
    ]
    packs = sorted({each[0]: each for each in at_shares if each is not None}.values(), key=lambda pack: pack[0])
    if not packs:
        print(f"{name} {batch_size}: no budget holds the staging ring", flush=True)
        return None
    works = [sampled_work(log, settings, hot_set) for _, hot_set, _ in packs]
    found = timed(settings, works, packs, options)
    machine = found.machine
    predicted = [predict_steps(work, machine) for work in works]
    of_card = published(settings, works, machine.name)
    rows = []
    for contender, taken in found.real.items():
        placement = contender.split()[0]
        index = next((i for i, (share, *_) in enumerate(packs) if contender == f"tiered {share:.3f}"), len(packs) - 1)
        step, measured = predicted[index][placement], undisturbed(taken)
        rows.append(
            {
                "placement": placement, "budget_share": packs[index][0] if placement == "tiered" else None,
                "predicted_seconds": step.seconds, "bound_by": step.bound_by, "parts": dict(step.parts),
                "measured_seconds": measured, "samples": taken, "error": step.seconds / measured - 1.0,
                "published_seconds": of_card and of_card[index][placement].seconds,
            }
        )  # fmt: skip
        print(
            f"{name} {batch_size} {contender}: predicted {1e3 * step.seconds:.3f} ms, measured {1e3 * measured:.3f}, "
            f"{100 * rows[-1]['error']:+.0f} %, {step.bound_by}",
            flush=True,
        )
    return {
        "log": name, "batch_size": batch_size, "model": settings.model.name, "optimizer": settings.optimizer,
        "precision": settings.precision, "embedding_dim": max(settings.embedding_dims),
        "machine": machine.to_json(), "probes": found.probes, "seconds_of_constants": found.seconds,
        "seconds": time.monotonic() - started,
        "works": [
            {
                "budget_share": share, **work_facts(work),
                "packed": work_facts(StepWork.from_packed(settings, packed, hot)),
            }
            for (share, hot, packed), work in zip(packs, works, strict=True)
        ],
        "rows": rows,
    }  # fmt: skip


def table_of(paths: list[Path]) -> list[str]:
    """Markdown of record files."""
    lines = []
    for path in paths:
        result = json.loads(path.read_text())
        machine = result["machine"]
        where = f"{machine.get('gpu') or machine['processor']}, {machine['threads']} threads"
        lines += [
            "", f"`{result['command']}`, {where}", "",
            "| log, model | batch | placement | budget, slots | predicted | measured | error | bound by |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        errors, of_cards = [], []
        for cell in result["cells"]:
            for row in cell["rows"]:
                share = row["budget_share"]
                slots = next((work["ring_depth"] for work in cell["works"] if work["budget_share"] == share), 0)
                budget = "" if share is None else f"{100 * share:.0f} %, {slots}"
                errors.append(abs(row["error"]))
                sheet = row.get("published_seconds")
                of_cards += [abs(sheet / row["measured_seconds"] - 1)] if sheet else []
                lines.append(
                    f"| {cell['log']}, {cell['model']} | {cell['batch_size']:,} | `{row['placement']}` | {budget} | "
                    f"{shown(row['predicted_seconds'])} | {shown(row['measured_seconds'])} | "
                    f"{100 * row['error']:+.0f} % | {row['bound_by']} |"
                )
        for what, found in (("", errors), ("; from the card's data sheet", of_cards)):
            within = sum(error <= 0.15 for error in found)
            if found:
                middle, most = 100 * statistics.median(found), 100 * max(found)
                lines += ["", f"{within} of {len(found)} within 15 %, median {middle:.0f} %, most {most:.0f} %{what}."]
    return lines


def shown(seconds: float) -> str:
    """Milliseconds with three digits that count."""
    milliseconds = 1e3 * seconds
    return (
        f"{milliseconds:.{3 if milliseconds < 1 else 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0}f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), help="logs; default: all that there are")
    parser.add_argument("--frappe", type=Path, help="frappe_86k.csv.gz (recipes/frappe.toml says what it is)")
    parser.add_argument("--inputs", type=int, default=0, help="of a synthetic log; default: 1 M, on a CPU 200,000")
    parser.add_argument("--scale", type=float, default=0.0, help="of its tables, as `fae synthetic` takes it")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: two of each log")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each")
    parser.add_argument("--seconds", type=float, default=0.0, help="of a sample; default: 0.25, on a CPU 1")
    parser.add_argument("--until", type=float, default=float("inf"), help="start nothing after that many seconds")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="for logs and packed batches, which stay there")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="print these results, measure nothing")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table_of(options.table)))
        return
    if options.quick:
        options.device, options.inputs, options.scale, options.rounds, options.seconds = "cpu", 20_000, 0.002, 1, 0.01
        options.batch_sizes, options.only = [256], options.only or ["criteo"]
    on_gpu = options.device == "cuda"
    options.seconds = options.seconds or (0.25 if on_gpu else 1.0)
    gpu = torch.cuda.get_device_name().split()[-1].lower() if on_gpu else "cpu"
    out = options.out or RESULTS / ("plan_cpu.json" if not on_gpu else f"plan_{gpu}.json")
    cells = json.loads(out.read_text())["cells"] if out.exists() else []
    done = {(cell["log"], cell["batch_size"]) for cell in cells}
    names = options.only or [name for name in SUBJECTS if name != "frappe" or options.frappe]
    started = time.monotonic()
    with working_folder(options.folder) as folder:
        sizes = {name: options.batch_sizes or list(SUBJECTS[name].sizes[0 if on_gpu else 1]) for name in names}
        # One size of every log first: a run that is cut off has seen them all.
        every = [(name, sizes[name][place]) for place in range(2) for name in names if place < len(sizes[name])]
        for name, size in every:
            if time.monotonic() - started > options.until:
                break
            if (name, size) in done:
                continue
            try:
                cell = measure(name, size, folder, options)
            except Exception as error:  # a failure is a result too
                print(f"{name} {size}: failed: {type(error).__name__}: {str(error)[:500]}", flush=True)
                cell = None
            if cell is not None:
                cells.append(cell)
                save_record(out, record(torch_version=torch.__version__, cells=cells))


if __name__ == "__main__":
    main()
