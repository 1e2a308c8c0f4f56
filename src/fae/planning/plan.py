"""``fae plan``: what a recipe will take and how fast it will train, before anything of the run is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import model_features
from fae.calibrate.calibrator import Calibrator
from fae.core.errors import RecipeError
from fae.core.progress import say, task
from fae.core.threads import num_threads
from fae.core.units import parse_bytes
from fae.planning.budgets.budget_figures import EXACT_INPUTS, BudgetFigures, BudgetPlanner
from fae.planning.budgets.budget_ladder import budget_ladder
from fae.planning.budgets.planned_memory import dense_part_bytes, disk_values, memory_values, table_bytes
from fae.planning.gpus_table import gpus_values
from fae.planning.machine_constants import MachineConstants
from fae.planning.order_advice import advise_order
from fae.planning.sample.log_reading import DEFAULT_READ, LogReading, read_log
from fae.planning.sample.table_growth import RangedCount
from fae.planning.sample.working_folder import working_folder
from fae.planning.stages.disk_speed import measure_disk
from fae.planning.stages.stage_plan import EVALUATION_SHARE, TrainingCost, plan_stages
from fae.planning.stages.stage_probe import SMALLEST_BYTES, probe_bytes, probe_stages
from fae.planning.step_time import predict_steps
from fae.planning.step_work import StepSettings
from fae.planning.target_gpu import TargetGPU, find_target
from fae.planning.verdict import Times, Verdict, decide, fits_gpu
from fae.profile.profile import sample_size
from fae.run.prepare import PackOptions, make_profile, require_validation
from fae.run.recipe import Recipe, load_recipe
from fae.run.train_stage import require_model_memory
from fae.training.step import honoured_precision


def plan(
    recipe: Recipe | str | Path,
    *,
    out: str | Path | None = None,
    gpu: str | None = None,
    gpu_memory: str | int | None = None,
    budgets: Sequence[str | int] = (),
    device: str | None = None,
    read: str | int = DEFAULT_READ,
    inputs: int | None = None,
    cores: int | None = None,
    machines: int = 1,
) -> dict[str, Any]:
    """Say what a recipe takes, what each of some budgets buys, and which one to give it. Writes nothing in a run.

    Parameters
    ----------
    recipe
        A recipe, or the name of its file.
    out
        Folder of the run, if there is one: a log that it has ingested already is not read again.
    gpu
        Name of a card (`fae.planning.cards`), for its memory and its speed; None takes the GPU that is here.
    gpu_memory
        Memory of the GPU, for another than the card's.
    budgets
        Budgets to look at beside the recipe's own; empty: some from the smallest that trains to what all rows take.
    device
        ``cpu`` or ``cuda``; None takes a GPU where there is one.
    read
        Most bytes of text to read; of longer logs a sample is read. ``"all"`` reads everything.
    inputs
        Inputs of the whole log, where what is here is a part of it or nothing.
    cores
        Cores of the machine that will do the data stages, and that a named card is in; None for those of this one, and
        for a card eight.
    machines
        Machines that will share the reading of the log.

    Returns
    -------
    dict
        JSON values; docs/guide/plan.md lists them.

    Raises
    ------
    FaeError
        If the recipe, the log or the machine does not allow it.
    """
    started = time.monotonic()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    for option, number in (("--inputs", inputs), ("--cores", cores), ("--machines", machines)):
        if number is not None and number < 1:
            raise RecipeError(f"{option} = {number} must be 1 or more")
    target = find_target(gpu, gpu_memory, device, cores)
    named = [parse_bytes(budget, what="--budget") for budget in budgets]
    read_bytes = 2**62 if read == "all" else parse_bytes(read, what="--read")
    if not recipe.log.is_columnar:
        recipe.check_model(None)
        require_validation(recipe, None)
        require_model_memory(recipe, None)
    with working_folder() as folder:
        place = None if out is None else Path(out)
        reading = read_log(recipe, place, folder, read_bytes=read_bytes, num_inputs=inputs)
        recipe.check_model(reading.log.features)
        if reading.is_whole:
            require_validation(recipe, reading.log)
        probed = min(probe_bytes(num_threads()), read_bytes)
        found = _Planning(recipe, reading, target, folder, named).result(cores or num_threads(), machines, probed)
    return {**found, "seconds": time.monotonic() - started}


class _Planning:
    """One plan."""

    def __init__(
        self, recipe: Recipe, reading: LogReading, target: TargetGPU, folder: Path, named: Sequence[int]
    ) -> None:
        self.recipe, self.reading, self.target, self.folder, self.named = recipe, reading, target, folder, named
        log = reading.log
        self.log, self.options = log, PackOptions.from_recipe(recipe, log.features)
        say("plan: counting the accesses of every row")
        if not reading.is_whole:  # as many inputs as the run's own profile will read
            wanted = sample_size(reading.split_sizes["train"], recipe.hot)
            start, stop = log.split("train")
            hot = replace(recipe.hot, sample=min(1.0, wanted / (stop - start)), sample_min_inputs=0)
            self.options = replace(self.options, hot=hot)
        self.profile: AccessProfile = make_profile(log, self.options, folder / "profile")
        self.calibrator = Calibrator(log, self.profile, self.options.hot, **self.options.calibration)
        num_dense = len(log.dense_names)
        self.dense = tuple(dense_part_bytes(recipe, log.features, num_dense, on_gpu=on_gpu) for on_gpu in (True, False))
        precision = honoured_precision(torch.device(target.device), recipe.train.precision)
        self.settings = StepSettings.from_recipe(recipe, log.features, num_dense, precision)

    def result(self, cores: int, machines: int, probed: int) -> dict[str, Any]:
        """All that a plan says."""
        smallest, ring = self.calibrator.smallest_budget()
        all_rows = self.calibrator.tables.total_bytes
        own = self.recipe.hot.budget_bytes
        if self.named:
            sizes = sorted({*(min(size, all_rows) for size in (*self.named, own)), all_rows})
        else:
            sizes = budget_ladder(smallest, all_rows, [own])
        figures = self._figures([size for size in sizes if size >= min(smallest, all_rows)])
        machine = self.target.constants(self.settings, [each.work for each in figures])
        times: list[Times] = [predict_steps(each.work, machine) for each in figures]
        verdict = decide(
            figures, times, gpu_memory=self.target.memory_bytes, on_gpu=self.target.on_gpu, all_rows=all_rows
        )
        shown = (verdict.budget, min(own, all_rows))
        chosen = next((each for size in shown for each in figures if each.budget == size), figures[-1])
        return {
            "recipe": {"budget_bytes": own, "optimizer": self.recipe.train.optimizer,
                       "batch_size": self.options.batch_size, "order": self.recipe.train.order,
                       "placement": self.recipe.train.placement,
                       "reproducible": self.recipe.train.reproducible},
            "read": self.reading.to_json(),
            "log": self._log_values(),
            "tables": self._table_values(),
            "smallest_budget": {"bytes": smallest, "staging_bytes": ring},
            "all_rows_bytes": all_rows,
            "all_rows": self._all_rows().to_json(),
            "gpu": {"name": self.target.name, "card": self.target.card, "memory_bytes": self.target.memory_bytes,
                    "device": self.target.device, "host_cores": self.target.host_cores},
            "machine": machine.to_json(),
            "budgets": [
                self._budget_values(each, time, verdict) for each, time in zip(figures, times, strict=True)
            ],
            "gpus": self._gpus_values(figures, chosen, machine),
            "disk": self._disk_values(chosen),
            "stages": self._stage_values(chosen, times[figures.index(chosen)], verdict, cores, machines, probed),
            "verdict": verdict.to_json(),
            "order": advise_order(chosen, machine, self.recipe.train.order).to_json(),
        }  # fmt: skip

    def _figures(self, sizes: Sequence[int]) -> list[BudgetFigures]:
        form_all = self.reading.is_whole and len(sizes) * self.log.num_inputs <= EXACT_INPUTS
        self.planner = BudgetPlanner(
            self.reading, self.calibrator, options=self.options, settings=self.settings,
            dense=(self.dense[0], self.dense[1]), folder=self.folder, form_all=form_all,
        )  # fmt: skip
        found = []
        with task("plan: budgets", total=len(sizes), unit="budgets") as progress:
            for size in sizes:
                found.append(self.planner.at(size))
                progress.advance(1)
        return found

    def _log_values(self) -> dict[str, Any]:
        return {
            "num_inputs": self.reading.num_inputs.to_json(),
            "splits": dict(self.reading.split_sizes),
            "num_dense": len(self.log.dense_names),
            "num_columns": len(model_features(self.log.features)),
        }

    def _table_values(self) -> list[dict[str, Any]]:
        return [
            {
                "name": feature.name,
                "num_rows": rows.to_json(),
                "embedding_dim": dim,
                "bytes": table_bytes(rows.value, dim),
            }
            for feature, rows, dim in zip(
                self.log.features, self.reading.rows, self.options.embedding_dims, strict=True
            )
        ]

    def _all_rows(self) -> RangedCount:
        """Bytes of all rows with their state."""
        row_bytes = self.calibrator.tables.row_bytes.tolist()
        return RangedCount(
            **{
                end: sum(size * getattr(rows, end) for size, rows in zip(row_bytes, self.reading.rows, strict=True))
                for end in ("value", "low", "high")
            }
        )

    def _budget_values(self, figures: BudgetFigures, times: Times, verdict: Verdict) -> dict[str, Any]:
        own = self.recipe.hot.budget_bytes
        return {
            "budget_bytes": figures.budget,
            "is_recipes": figures.budget == min(own, self.calibrator.tables.total_bytes),
            "is_advised": figures.budget == verdict.budget,
            "num_hot_rows": figures.num_hot,
            "hot_bytes": figures.hot_bytes,
            "staging_bytes": figures.staging_bytes,
            "ring_depth": figures.hot_set.ring_depth,
            "selection": figures.selection,
            "coverage": figures.coverage.to_json(),
            "input_share": figures.input_share.to_json(),
            "memory": {
                "on_gpu": {name: memory_values(needs, on_gpu=True) for name, needs in figures.on_gpu.items()},
                "on_cpu": {name: memory_values(needs, on_gpu=False) for name, needs in figures.on_cpu.items()},
                "is_exact": figures.is_memory_exact and self.reading.is_whole,
            },
            "fits": {name: fits_gpu(figures, name, self.target.memory_bytes) for name in figures.on_gpu},
            "steps": {
                name: {
                    "seconds": step.seconds,
                    "inputs_per_second": step.inputs_per_second,
                    "low": step.range[0],
                    "high": step.range[1],
                    "bound_by": step.bound_by,
                    "parts": dict(step.parts),
                }
                for name, step in times.items()
            },
        }

    def _gpus_values(
        self, figures: Sequence[BudgetFigures], chosen: BudgetFigures, machine: MachineConstants
    ) -> dict[str, Any] | None:
        """Several GPUs at the recipe's budget, or at that which is shown; None without a GPU."""
        if not self.target.on_gpu:
            return None
        own = min(self.recipe.hot.budget_bytes, self.calibrator.tables.total_bytes)
        with task("plan: several GPUs"):
            shown = next((each for each in figures if each.budget == own), chosen)
            return gpus_values(self.planner, shown, machine, self.target.memory_bytes)

    def _stage_values(
        self, figures: BudgetFigures, times: Times, verdict: Verdict, cores: int, machines: int, probed: int
    ) -> dict[str, Any] | None:
        """Time, memory and disk of every stage; None where the log is too small for it to matter."""
        slots = 4 * (self.log.ids.shape[1] + len(self.log.dense_names)) + 1
        text = self.reading.raw_bytes or self.reading.num_inputs.value * slots
        if text < SMALLEST_BYTES:
            return None
        probe = probe_stages(self.recipe, self.reading, self.folder / "stages", largest=probed)
        placement = verdict.placement if verdict.placement in times else next(iter(times))
        step = times[placement]
        needs = (figures.on_gpu if self.target.on_gpu else figures.on_cpu)[placement]
        memory = memory_values(needs, on_gpu=self.target.on_gpu)
        sizes, epochs = self.reading.split_sizes, self.recipe.train.epochs
        seconds = 1.0 / step.inputs_per_second
        training = TrainingCost(
            epoch_seconds=seconds * sizes["train"], num_epochs=epochs,
            evaluation_seconds=EVALUATION_SHARE * seconds * (epochs * sizes["validation"] + sizes["test"]),
            memory_bytes=memory["host_bytes"], gpu_bytes=memory["gpu_bytes"],
        )  # fmt: skip
        return plan_stages(
            self.recipe, self.reading, probe, measure_disk(self.folder), training, self._disk_values(figures),
            cores=cores, machines=machines,
        )  # fmt: skip

    def _disk_values(self, figures: BudgetFigures) -> dict[str, Any]:
        profiled = sample_size(self.reading.split_sizes["train"], self.recipe.hot)
        values = disk_values(
            figures.hot_set,
            log_bytes=self.reading.log_bytes,
            log_here=not self.recipe.log.is_columnar,
            num_profiled=None if profiled == self.reading.split_sizes["train"] else profiled,
            packed_bytes=figures.packed_bytes,
            dense=self.dense[not self.target.on_gpu],
        )
        return {**values, "budget_bytes": figures.budget}
