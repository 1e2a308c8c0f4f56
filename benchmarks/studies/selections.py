"""Peeling beside the threshold and the bound, over budgets; and what peeling costs as the log grows.

    python benchmarks/studies/selections.py budgets [--only frappe criteo zipf] [--inputs 24000000]
    python benchmarks/studies/selections.py cost [--sizes 5000000 10000000 20000000 45000000]
    python benchmarks/studies/selections.py skew

*budgets*: five budgets on Frappe, on a Criteo-shaped synthetic log and on independent Zipf 1.05 columns with Criteo
Kaggle's tables (both `fae synthetic --columnar` at scale 1, 24 M inputs, of which 20.5 M are for training). Both
selections read every training input. Of each: hot-input share on the inputs that the peeling chose from, on the
packed log (all training inputs) and on later inputs (the test split, never seen), beside the bound that no set of
rows of those bytes can pass on the inputs chosen from. A cell in which ``selection = "peeling"`` takes the
threshold's rows has the figures of the order alone too (`peeling_alone`). Exits with 1 if peeling is anywhere below
the threshold on the inputs that it chose from.

*cost*: `fae calibrate` (128 MiB for 5 and 10 M inputs, 512 MiB above) on Criteo-shaped logs, all inputs for
training: by default (5 % sample, auto), and with all inputs read by ``threshold`` and by ``peeling``: seconds, peak
of the memory that is not mapped files, inputs that were peeled, hot inputs of the packed log.
*skew*: what the same share of the rows serves, over 26 independent columns from flat to steep; two minutes.
Writes benchmarks/results/selections.json, selections_cost.json or selections_skew.json; cells that they have are not
measured again. `studies/tables.py selections` prints.
*budgets* takes about 10 minutes on 2 quiet cores and 4 GB of disk, *cost* about 15 minutes and 7 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.columnar_log import ColumnarLog
from fae.calibrate.calibrate import calibrate
from fae.calibrate.candidates import Candidate, CandidateBuilder
from fae.calibrate.peeled_sets import PeeledSets
from fae.calibrate.selection import prefer_peeling
from fae.calibrate.staging_rows import StagingProbe
from fae.calibrate.table_facts import Tables
from fae.core.progress import say
from fae.core.units import parse_bytes
from fae.profile.config import HotConfig
from fae.profile.profile import profile

from study import KAGGLE_ROWS, PeakMemory, frappe_log, inputs_of, make_log, measured, open_cells, shares, synthetic_log

NAME, COST_NAME, SKEW_NAME = "selections", "selections_cost", "selections_skew"
LOGS: dict[str, dict[str, Any]] = {
    "frappe": {"budgets": ["48KiB", "64KiB", "128KiB", "192KiB", "256KiB"], "batch_size": 128,
               "hot": {"small_table": "1KB", "ring_depth": 2}},
    "criteo": {"budgets": ["32MiB", "64MiB", "128MiB", "256MiB", "512MiB"], "batch_size": 2048,
               "hot": {"ring_depth": 4}},
    "zipf": {"budgets": ["32MiB", "64MiB", "128MiB", "256MiB", "512MiB"], "batch_size": 2048, "hot": {"ring_depth": 4}},
}  # fmt: skip
OPTIMIZER, DIM = "rowwise_adagrad", 16
INPUTS, SIZES = 24_000_000, (5_000_000, 10_000_000, 20_000_000, 45_000_000)
COST_BUDGETS = {5_000_000: "128MiB", 10_000_000: "128MiB", 20_000_000: "512MiB", 45_000_000: "512MiB"}
"""By inputs: a budget that does not hold every row, of which shorter logs show fewer. Peeling does not depend on it."""
EXPONENTS, BUDGET_SHARES = (0.0, 0.5, 0.8, 1.05, 1.3), (0.02, 0.05, 0.1, 0.2, 0.5)
MODES: dict[str, dict[str, Any]] = {
    "default": {"sample": 0.05, "selection": "auto"},
    "threshold": {"sample": 1.0, "selection": "threshold"},
    "peeling": {"sample": 1.0, "selection": "peeling"},
}


class LogStudy:
    """One log: fits each selection once for all budgets, because nested hot sets do not depend on the budget."""

    def __init__(self, label: str, log: ColumnarLog) -> None:
        self.settings = LOGS[label]
        self.tables = Tables(log.features, log.counts, [DIM] * len(log.features), OPTIMIZER)
        self.packed, self.later = inputs_of(log, "train"), inputs_of(log, "test")
        self.counts = np.asarray(log.counts)
        self.probe = StagingProbe(
            self.tables, self.packed, len(self.packed), batch_size=self.settings["batch_size"], mixed=False, seed=1
        )
        self._peeled: dict[tuple[int, ...], tuple[Candidate, dict[str, Any]]] = {}

    def peeling(self, builder: CandidateBuilder, small: tuple[int, ...]) -> tuple[Candidate, dict[str, Any]]:
        """The peeling beside these small tables, and what it cost; made once."""
        if small not in self._peeled:
            with PeakMemory() as memory:
                began, cpu = time.perf_counter(), time.process_time()
                candidate = builder.peeling(self.packed, self.counts, small)
                seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            assert isinstance(candidate.sets, PeeledSets)
            self._peeled[small] = candidate, {
                "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": memory.bytes,
                "num_peeled_inputs": candidate.num_fitted,
                "num_peeled_rows": int(candidate.sets.peeled.rows.size), "num_small_tables": len(small),
            }  # fmt: skip
        return self._peeled[small]

    def at(self, budget: str) -> dict[str, Any]:
        """Both selections at one budget."""
        config = HotConfig(budget=budget, **self.settings["hot"])
        builder = CandidateBuilder(tables=self.tables, config=config, probe=self.probe)
        with PeakMemory() as memory:
            began = time.perf_counter()
            threshold = builder.threshold(self.packed, self.counts)
            seconds = time.perf_counter() - began
        peeling, cost = self.peeling(builder, threshold.small)
        fits = {"threshold": threshold.fit, "peeling": peeling.search.largest(config.budget_bytes)}
        if None in fits.values():
            return {"budget_bytes": config.budget_bytes, "fits": False}
        chosen_from = self.packed.evenly(peeling.num_fitted)
        on = {"chosen_from": chosen_from, "packed": self.packed, "later": self.later}
        if len(chosen_from) == len(self.packed):
            del on["chosen_from"]
        found: dict[str, Any] = {"budget_bytes": config.budget_bytes, "fits": True}
        for candidate, fit in zip((threshold, peeling), fits.values(), strict=True):
            assert fit is not None
            figures = {
                "bytes": fit.bytes, "staging_bytes": fit.staging_bytes, "num_rows": int(fit.num_hot.sum()),
                **shares(self.tables, candidate.ranks, fit.num_hot, **on),
            }  # fmt: skip
            figures.setdefault("chosen_from", figures["packed"])
            found[candidate.method] = figures
        candidates = {"threshold": threshold, "peeling": replace(peeling, fit=fits["peeling"])}
        if prefer_peeling(candidates, self.tables, self.packed, {})[0] == "threshold":
            found["peeling_alone"], found["peeling"] = found["peeling"], dict(found["threshold"])
        found["threshold"] |= {"seconds": seconds, "peak_bytes": memory.bytes}
        found["peeling"] |= cost
        assert isinstance(peeling.sets, PeeledSets)
        num_bytes = max(fit.bytes for fit in fits.values() if fit is not None)
        found["bound"] = peeling.sets.peeled.bound(peeling.sets.row_bytes, num_bytes)
        return found


def study_budgets(labels: list[str], inputs: int, folder: Path, name: str) -> None:
    """Every log at its five budgets."""
    cells = open_cells(
        name,
        {"inputs": inputs, "scale": 1, "embedding_dim": DIM, "optimizer": OPTIMIZER, "logs": LOGS,
         "peeling_passes": HotConfig().peeling_passes},
    )  # fmt: skip
    for label in labels:
        budgets = [budget for budget in LOGS[label]["budgets"] if f"{label}/{budget}" not in cells]
        if not budgets:
            continue
        made = contextlib.nullcontext(frappe_log(folder)) if label == "frappe" else synthetic_log(folder, label, inputs)
        with made as log:
            study = LogStudy(label, log)
            for budget in sorted(budgets, key=lambda text: -parse_bytes(text, what="budget")):
                measured(cells, f"{label}/{budget}", lambda budget=budget, study=study: study.at(budget))
            del study
    below = losses(cells)
    say(f"{len(cells)} cells; peeling below the threshold on the inputs that it chose from: {below or 'nowhere'}")
    if below:
        sys.exit(1)


def losses(cells: Mapping[str, dict[str, Any]]) -> list[str]:
    """The cells in which peeling serves fewer of the inputs that it chose from than the threshold does.

    >>> one = {"fits": True, "threshold": {"chosen_from": {"num_hot_inputs": 3}}}
    >>> losses({"a": one | {"peeling": {"chosen_from": {"num_hot_inputs": 3}}},
    ...         "b": one | {"peeling": {"chosen_from": {"num_hot_inputs": 2}}}, "c": {"fits": False}})
    ['b']
    """
    return [
        key
        for key, cell in cells.items()
        if cell["fits"]
        and cell["peeling"]["chosen_from"]["num_hot_inputs"] < cell["threshold"]["chosen_from"]["num_hot_inputs"]
    ]


def cost_of(log: ColumnarLog, mode: str, budget: str, folder: Path) -> dict[str, Any]:
    """One `fae profile` and `fae calibrate`: seconds, memory, and what the hot set serves of the packed log."""
    config = HotConfig(budget=budget, ring_depth=4, **MODES[mode])
    with PeakMemory() as memory:
        began, cpu = time.perf_counter(), time.process_time()
        accesses = profile(log, config, folder / "profile", seed=1)
        middle = time.perf_counter()
        hot_set = calibrate(
            log, accesses, config, folder / "hot_set", embedding_dims=[DIM] * len(log.features), optimizer=OPTIMIZER,
            batch_size=2048, mixed=False, seed=1,
        )  # fmt: skip
        end, cpu = time.perf_counter(), time.process_time() - cpu
    layout = hot_set.layout
    ranks = [
        np.arange(feature.num_embeddings, dtype=np.int32) if rank is None else np.asarray(rank)
        for feature, rank in zip(layout.features, layout.ranks, strict=True)
    ]
    tables = Tables(log.features, log.counts, [DIM] * len(log.features), OPTIMIZER)
    on_all = shares(tables, np.concatenate(ranks), np.array(layout.num_hot, np.int64), packed=inputs_of(log, "train"))
    return {
        "num_inputs": log.num_inputs, "profile_seconds": middle - began, "calibrate_seconds": end - middle,
        "cpu_seconds": cpu,
        "peak_bytes": memory.bytes, "num_read": accesses.num_inputs,
        "num_fitted_inputs": hot_set.summary["num_fitted_inputs"], "selection": hot_set.summary["selection"],
        "bytes": hot_set.summary["bytes"], "bound": hot_set.summary["bound"], "notes": hot_set.summary["notes"],
        **on_all,
    }  # fmt: skip


def study_cost(sizes: list[int], folder: Path, name: str) -> None:
    """Every size in every mode."""
    cells = open_cells(
        name, {"budgets": COST_BUDGETS, "scale": 1, "embedding_dim": DIM, "optimizer": OPTIMIZER, "modes": MODES}
    )
    with synthetic_log(folder, "criteo", 200_000, scale=0.02, test_fraction=0.0) as log:
        for mode in MODES:  # kernels are compiled before anything is timed
            cost_of(log, mode, "8MiB", folder)
    for size in sizes:
        modes = [mode for mode in MODES if f"{size}/{mode}" not in cells]
        if not modes:
            continue
        with synthetic_log(folder, "criteo", size, test_fraction=0.0) as log:
            for mode in modes:
                measured(
                    cells,
                    f"{size}/{mode}",
                    lambda log=log, mode=mode: cost_of(log, mode, COST_BUDGETS.get(log.num_inputs, "128MiB"), folder),
                )


def skew_at(log: ColumnarLog, budget_share: float) -> dict[str, Any]:
    """Both selections where the budget is a share of the bytes of all rows."""
    tables = Tables(log.features, log.counts, [DIM] * len(log.features), OPTIMIZER)
    inputs = inputs_of(log, "train")
    config = HotConfig(budget=int(budget_share * tables.total_bytes), small_table="16KB", ring_depth=2)
    probe = StagingProbe(tables, inputs, len(inputs), batch_size=256, mixed=False, seed=1)
    builder, counts = CandidateBuilder(tables=tables, config=config, probe=probe), np.asarray(log.counts)
    threshold = builder.threshold(inputs, counts)
    found: dict[str, Any] = {"budget_bytes": config.budget_bytes}
    for candidate in (threshold, builder.peeling(inputs, counts, threshold.small)):
        if candidate.fit is not None:
            found[candidate.method] = {
                "bytes": candidate.fit.bytes, "staging_bytes": candidate.fit.staging_bytes,
                **shares(tables, candidate.ranks, candidate.fit.num_hot, packed=inputs),
            }  # fmt: skip
    return found


def study_skew(folder: Path, name: str) -> None:
    """Every exponent at every share."""
    rows = [max(3, count // 100) for count in KAGGLE_ROWS]
    cells = open_cells(name, {"inputs": 500_000, "rows": rows, "embedding_dim": DIM, "optimizer": OPTIMIZER})
    for exponent in EXPONENTS:
        log = make_log(folder / f"zipf-{exponent}", 500_000, exponent=exponent, rows=rows, num_dense=0)
        for share in BUDGET_SHARES:
            measured(cells, f"{exponent:g}/{share:g}", lambda log=log, share=share: skew_at(log, share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["budgets", "cost", "skew"])
    parser.add_argument("--only", nargs="*", default=list(LOGS), choices=list(LOGS))
    parser.add_argument("--inputs", type=int, default=INPUTS, help="of the synthetic logs of `budgets`")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), help="inputs of the logs of `cost`")
    parser.add_argument("--folder", type=Path, default=None, help="where temporary logs go")
    parser.add_argument("--name", default=None, help="of the result file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.part == "budgets":
            study_budgets(options.only, options.inputs, Path(name), options.name or NAME)
        elif options.part == "skew":
            study_skew(Path(name), options.name or SKEW_NAME)
        else:
            study_cost(options.sizes, Path(name), options.name or COST_NAME)


if __name__ == "__main__":
    main()
