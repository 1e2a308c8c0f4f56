"""A run folder and its stages: make what is missing, skip what is there, refuse what does not belong together.

Place in the flow: between the command line (or a Python caller) and the stages. Invariant: a stage is skipped exactly
where an artifact with the fingerprint it would have is already in the folder.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import Plan, is_current, require_parent
from fae.core.config import to_table
from fae.core.errors import DeviceError, RecipeError
from fae.core.files import being_written, locked_folder, recover_folder, write_record
from fae.core.optimizers import row_bytes
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.ingest.sources import sidecar
from fae.run.recipe import Recipe

if TYPE_CHECKING:
    from fae.artifacts.access_profile import AccessProfile
    from fae.artifacts.hot_set import HotSet
    from fae.artifacts.packed import PackedDataset
    from fae.checkpoint.parent import ParentRun

STAGES = ("ingest", "profile", "calibrate", "pack", "train")
ARTIFACTS = {"ingest": "log", "profile": "profile", "calibrate": "hot_set", "pack": "packed", "train": "checkpoint"}
RUN_RECORD = "run.json"
TIMINGS = "timings.json"


class RunFolder:
    """One recipe in one folder.

    Parameters
    ----------
    recipe
        What to do.
    out
        Where artifacts go; made where it is not there.
    device
        ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.
    """

    def __init__(self, recipe: Recipe, out: str | Path, *, device: str | None = None) -> None:
        self.recipe, self.out, self._device_name = recipe, Path(out), device

    def parent(self) -> ParentRun | None:
        """The run that this one continues, ``[train] from``; None where it names none.

        Raises
        ------
        FaeError
            If it is not there, not whole, or does not fit the recipe.
        """
        recipe = self.recipe
        if recipe.train.from_ is None:
            return None
        from fae.checkpoint.parent import find_parent

        parent = find_parent(recipe.train.from_, recipe.base)
        if parent.checkpoint.resolve().parent == self.out.resolve():
            raise RecipeError(
                f"[train] from = {recipe.train.from_!r} is the folder that this run writes to; choose another --out"
            )
        if recipe.log.is_columnar:
            parent.check_continued_by(self._log())
        parent.check_fits(None if recipe.log.is_columnar else recipe.log, recipe.model, recipe.train.optimizer)
        return parent

    def path(self, stage: str) -> Path:
        """Folder of a stage's artifact; a log that is columnar already stays where it is."""
        if stage == "ingest" and self.recipe.log.is_columnar:
            from fae.ingest.existing_log import find_existing

            return find_existing(self.recipe.log, self.recipe.base)
        return self.out / ARTIFACTS[stage]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder for as long as the block runs."""
        with locked_folder(self.out):
            for name in (*ARTIFACTS.values(), "best"):
                recover_folder(self.out / name)
            for name in (RUN_RECORD, TIMINGS, sidecar(self.out / ARTIFACTS["ingest"]).name):
                with contextlib.suppress(OSError):  # what stands in the way is named by who writes there
                    being_written(self.out / name).unlink(missing_ok=True)
            yield

    def run(self) -> dict[str, Any]:
        """All stages, then ``run.json``; returns the record."""
        self.recipe.check_model(self._log().features if self.recipe.log.is_columnar else None)
        with self.locked():
            self.parent()  # one that is not there or does not fit is better found out now than after hours of ingest
            if self._device_name == "cuda":
                self.device()  # one that is not there is better found out now than after hours of ingest
            for stage in STAGES:
                self._stage(stage)
            from fae.run.record import make_record

            record = make_record(
                self.recipe,
                log=self._log(),
                profile=self._profile(),
                hot_set=self._hot_set(),
                packed=self._packed(),
                checkpoint=self.path("train"),
                stage_seconds=self._seconds(),
                parent=self.parent(),
            )
            write_record(self.out / RUN_RECORD, record)
        return record

    def stage(self, name: str) -> dict[str, Any]:
        """One stage, whose parents must be in the folder; returns what it found."""
        with self.locked():
            return self._stage(name)

    def _stage(self, name: str) -> dict[str, Any]:
        started = time.perf_counter()
        plan, work = getattr(self, f"_prepare_{name}")()
        path = self.path(name)
        skipped = is_current(path, plan) and self._is_finished(name)
        if skipped:
            is_given = name == "ingest" and self.recipe.log.is_columnar
            say(f"{name}: nothing to read, {path} is columnar" if is_given else f"{name}: already there, {path}")
            if name == "ingest" and not is_given:
                from fae.ingest.resume import discard_partial

                discard_partial(path)
        else:
            before = self._seconds_before(path, plan)
            work(path)
            seconds = {**self._seconds(), name: before + time.perf_counter() - started}
            write_record(self.out / "timings.json", seconds)
        summary: dict[str, Any] = getattr(self, f"_describe_{name}")()
        return {
            "stage": name, "path": str(path), "skipped": skipped, "fingerprint": plan.fingerprint,
            "seconds": self._seconds()[name], "summary": summary,
        }  # fmt: skip

    def _is_finished(self, name: str) -> bool:
        if name != "train":
            return True
        from fae.checkpoint.save_load import read_progress

        return bool(read_progress(self.path(name))["complete"])

    def _seconds_before(self, path: Path, plan: Plan) -> float:
        """What processes that were cut off had spent on the artifact that is now gone on with; 0 but for training."""
        if plan.kind != ARTIFACTS["train"] or not is_current(path, plan):
            return 0.0
        from fae.checkpoint.save_load import read_progress

        return float(read_progress(path).get("stage_seconds", 0.0))

    def _seconds(self) -> dict[str, float | None]:
        """Of every stage, when it was last carried out; None where that is not known.

        Of a training that was cut off and gone on with: of all its processes, each up to its last checkpoint.
        """
        try:
            found = json.loads((self.out / TIMINGS).read_text())
        except (OSError, ValueError):
            found = None
        return {stage: found.get(stage) if isinstance(found, dict) else None for stage in STAGES}

    def open_hot_set(self) -> HotSet:
        """The run's hot set."""
        return self._hot_set()

    def open_packed(self) -> PackedDataset:
        """The packed log of the run."""
        return self._packed()

    def calibrate_into(self, path: Path) -> dict[str, Any]:
        """What the recipe's budget would buy, without touching the run's own hot set; returns the summary."""
        _, work = self._prepare_calibrate()
        summary: dict[str, Any] = work(path).summary
        return summary

    def total_row_bytes(self) -> int:
        """Bytes of all rows with their optimizer state."""
        layout = self._hot_set().layout
        return sum(
            feature.num_embeddings * row_bytes(self.recipe.train.optimizer, dim)
            for feature, dim in zip(layout.features, layout.embedding_dims, strict=True)
        )

    # Opening a parent checks that it is there, whole, and made from the parents in the folder.

    def _log(self) -> ColumnarLog:
        if not self.recipe.log.is_columnar:
            return ColumnarLog(self.path("ingest"))
        from fae.ingest.existing_log import open_existing

        log = open_existing(self.recipe.log, self.recipe.base)
        self.recipe.check_dims([feature.name for feature in log.features])
        return log

    def _profile(self) -> AccessProfile:
        from fae.artifacts.access_profile import AccessProfile

        profile = AccessProfile(self.path("profile"))
        require_parent(profile.manifest, self._log().manifest, command="fae profile RECIPE.toml")
        return profile

    def _hot_set(self) -> HotSet:
        from fae.artifacts.hot_set import HotSet

        hot_set = HotSet(self.path("calibrate"))
        require_parent(hot_set.manifest, self._profile().manifest, command="fae calibrate RECIPE.toml")
        return hot_set

    def _packed(self) -> PackedDataset:
        from fae.artifacts.packed import PackedDataset

        packed = PackedDataset(self.path("pack"))
        require_parent(packed.manifest, self._hot_set().manifest, command="fae pack RECIPE.toml")
        return packed

    # A stage prepares its plan (instant) and the work that carries it out.

    def _prepare_ingest(self) -> tuple[Plan, Callable[[Path], Any]]:
        from fae.ingest.ingest import ingest, plan_ingest

        config, base, parent = self.recipe.log, self.recipe.base, self.parent()
        if config.is_columnar:
            from fae.ingest.existing_log import existing_plan

            return existing_plan(self._log()), lambda path: None  # it is there, and so never made
        known = parent.log if parent else None
        plan = plan_ingest(config, base=base, previous=self.path("ingest"), parent=known)
        return plan, lambda path: ingest(config, path, base=base, parent=known)

    def _prepare_profile(self) -> tuple[Plan, Callable[[Path], Any]]:
        from fae.profile.profile import plan_profile, profile

        log, config, seed = self._log(), self.recipe.hot, self.recipe.train.seed
        return plan_profile(log, config, seed=seed), lambda path: profile(log, config, path, seed=seed)

    def _prepare_calibrate(self) -> tuple[Plan, Callable[[Path], Any]]:
        from fae.calibrate.calibrate import calibrate, plan_calibrate

        log, access_profile, recipe = self._log(), self._profile(), self.recipe
        arguments: dict[str, Any] = {
            "embedding_dims": [
                recipe.model.embedding_dims.get(feature.name, recipe.model.embedding_dim) for feature in log.features
            ],
            "optimizer": recipe.train.optimizer,
            "batch_size": recipe.train.batch_size,
            "mixed": recipe.mixed,
            "seed": recipe.train.seed,
        }
        plan = plan_calibrate(log, access_profile, recipe.hot, **arguments)
        return plan, lambda path: calibrate(log, access_profile, recipe.hot, path, **arguments)

    def _prepare_pack(self) -> tuple[Plan, Callable[[Path], Any]]:
        from fae.pack.pack import pack, plan_pack

        log, hot_set, seed = self._log(), self._hot_set(), self.recipe.train.seed
        return plan_pack(log, hot_set, seed=seed), lambda path: pack(log, hot_set, path, seed=seed)

    def _prepare_train(self) -> tuple[Plan, Callable[[Path], Any]]:
        from fae.checkpoint.save_load import COMMAND, FORMAT_VERSION, KIND

        packed, hot_set, log, parent = self._packed(), self._hot_set(), self._log(), self.parent()
        device = self.device()
        # How often to save does not shape the result, so it does not name it; a parent is named by its fingerprint.
        # `compile` names it only where it is asked for: runs from before there was such a setting are still those runs.
        train = {
            key: value
            for key, value in to_table(self.recipe.train).items()
            if key != "from" and not key.startswith("checkpoint_") and (key != "compile" or value)
        }
        parents = {artifact.kind: artifact.fingerprint for artifact in (packed.manifest, log.manifest)}
        if parent:
            require_parent(log.manifest, parent.log.manifest, command="fae ingest RECIPE.toml")
            parents[KIND] = parent.manifest.fingerprint
        plan = Plan(
            kind=KIND,
            format_version=FORMAT_VERSION,
            parameters={"model": to_table(self.recipe.model), "train": train, "device": device},
            parents=parents,
            command=COMMAND,
        )
        return plan, lambda path: self._train(packed, hot_set, plan, device, parent)

    def _train(self, packed: PackedDataset, hot_set: HotSet, plan: Plan, device: str, parent: ParentRun | None) -> None:
        from fae.models.registry import build_model
        from fae.training.trainer import Trainer

        model = build_model(self.recipe.model, hot_set.layout.features, packed.num_dense, seed=self.recipe.train.seed)
        self._require_memory(packed, hot_set, model, device)
        embeddings = self.open_embeddings(hot_set, device)
        model = model.to(embeddings.device)
        trainer = Trainer(model, embeddings, packed, self.recipe.train, folder=self.out, plan=plan)
        if parent and not is_current(self.path("train"), plan):
            from fae.checkpoint.continuation import load_parent

            say(f"train: continuing {parent.checkpoint}")
            load_parent(parent, model, trainer.dense_optimizer, embeddings, seed=self.recipe.train.seed)
        trainer.fit()

    def _require_memory(self, packed: PackedDataset, hot_set: HotSet, model: Any, device: str) -> None:
        """Say what training will take, and refuse what cannot fit, before anything is allocated."""
        import torch

        from fae.embedding.memory_plan import plan_memory, require_memory
        from fae.training.dense import dense_bytes

        train, on_gpu = self.recipe.train, device == "cuda"
        splits = (packed.train, packed.validation, packed.test)
        flat = on_gpu and train.placement != "cpu"
        dense = dense_bytes(train.optimizer, model, flat=flat, bf16=flat and train.precision == "bf16")
        needs = plan_memory(train.placement, hot_set, train.optimizer, splits, on_gpu=on_gpu, dense_bytes=dense)
        say(f"train: {train.placement} takes {needs.describe('the GPU' if on_gpu else 'the CPU as device')}")
        require_memory(needs, train.placement, device_free=torch.cuda.mem_get_info()[0] if on_gpu else None)

    def open_embeddings(self, hot_set: HotSet | None = None, device: str | None = None) -> Any:
        """Fresh embeddings of the recipe's placement, with their first values."""
        from fae.embedding.placements import make_embeddings
        from fae.streaming.row_store import RowOptimizer

        train = self.recipe.train
        embeddings = make_embeddings(
            train.placement,
            hot_set or self._hot_set(),
            RowOptimizer(name=train.optimizer, learning_rate=train.learning_rate),
            device=device or self.device(),
        )
        embeddings.initialise(train.seed)
        return embeddings

    def device(self) -> str:
        """The device that training will use: ``"cpu"`` or ``"cuda"``."""
        import torch

        wanted = self._device_name or ("cuda" if torch.cuda.is_available() else "cpu")
        if wanted == "cuda" and not torch.cuda.is_available():
            raise DeviceError("there is no CUDA device here (or torch is a CPU build); run with --device cpu")
        return "cpu" if self.recipe.train.placement == "cpu" else wanted

    # What people read on stderr, and the summary that --json prints.

    def _describe_ingest(self) -> dict[str, Any]:
        log = self._log()
        rows = sum(feature.num_embeddings for feature in log.features)
        splits = {name: log.split(name)[1] - log.split(name)[0] for name in ("train", "validation", "test")}
        appended = log.manifest.summary.get("appended")
        say(
            f"ingest: {format_count(log.num_inputs)} inputs (train {format_count(splits['train'])}, validation "
            f"{format_count(splits['validation'])}, test {format_count(splits['test'])}), {len(log.features)} "
            f"categorical and {len(log.dense_names)} dense features, {format_count(rows)} rows"
            + (f", {format_count(sum(appended.values()))} of them new" if appended is not None else "")
        )
        return log.manifest.summary

    def _describe_profile(self) -> dict[str, Any]:
        profile = self._profile()
        how = "all of the training split" if profile.is_exact else "a sample"
        say(f"profile: counted the accesses of {format_count(profile.num_inputs)} inputs, {how}")
        return profile.manifest.summary

    def _describe_calibrate(self) -> dict[str, Any]:
        summary = self._hot_set().summary
        total = self.total_row_bytes()
        say(
            f"calibrate: {format_count(summary['num_rows'])} hot rows by {summary['selection']}, "
            f"{format_bytes(summary['bytes'])} + {format_bytes(summary['staging_bytes'])} of staging in a budget of "
            f"{format_bytes(summary['budget_bytes'])} (all rows: {format_bytes(total)}); coverage "
            f"{100 * summary['coverage']:.1f} %, hot-input share {100 * summary['input_share']:.1f} %"
        )
        for note in summary["notes"]:
            say(f"calibrate: {note}")
        return summary

    def _describe_pack(self) -> dict[str, Any]:
        summary = self._packed().manifest.summary
        say(
            f"pack: {summary['num_batches']['hot']} hot and {summary['num_batches']['cold']} "
            f"{'mixed' if summary['mixed'] else 'cold'} batches of {summary['batch_size']}, "
            f"hot-input share {100 * summary['input_share']:.1f} %, coverage {100 * summary['coverage']:.1f} %"
        )
        return summary

    def _describe_train(self) -> dict[str, Any]:
        from fae.checkpoint.save_load import read_progress

        result: dict[str, Any] = read_progress(self.path("train"))["result"]
        test, train = result["test"], result["train"]
        speed = train["samples_per_second"]
        say(
            f"train: {format_count(train['num_inputs'])} inputs in {train['seconds']:.1f} s"
            + (f" ({format_count(speed)} samples/s)" if speed else "")
            + (f"; test AUC {test['auc']:.5f}" if test["auc"] is not None else "; test AUC not defined")
            + (f", log loss {test['log_loss']:.5f}" if test["log_loss"] is not None else "")
        )
        return result
