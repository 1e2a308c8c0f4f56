"""A run folder: the stages of a recipe in order; what is already there is skipped, what is missing is made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.hot_set import HotSet
from fae.artifacts.manifest import Plan, is_current
from fae.artifacts.packed import PackedDataset
from fae.checkpoint.more_epochs import BEST, LAST
from fae.core.errors import RecipeError
from fae.core.files import MANIFEST, locked_folder, recover_folder, temporary_path
from fae.core.whole_files import read_json, write_record
from fae.engine.leftovers import sweep_workers
from fae.ingest.existing_log import existing_plan
from fae.ingest.raw_files.source_digests import sidecar
from fae.run.ahead.compile_helpers import compile_ahead
from fae.run.ahead.loops_ahead import loops_ahead
from fae.run.ahead.torch_ahead import import_ahead
from fae.run.context import RunContext
from fae.run.earlier_training import keep_for_users, missing_sources, require_replaceable
from fae.run.prepare import require_validation
from fae.run.rank_training import check_ranks
from fae.run.stages import CALIBRATE, INGEST, PACK, PROFILE, Stage, total_row_bytes
from fae.run.stale_files import METRICS, PARENT_TEST, RUN_RECORD, drop_stale_report, take_back
from fae.run.train_stage import TRAIN, fresh_embeddings, require_model_memory

if TYPE_CHECKING:
    from fae.embedding.base import Embeddings
    from fae.engine.engine import Engine
    from fae.run.record import RunResult

STAGES: tuple[Stage[Any], ...] = (INGEST, PROFILE, CALIBRATE, PACK, TRAIN)
TIMINGS = "timings.json"


class RunFolder(RunContext):
    """One recipe in one folder: run all stages or one, and open what they made.

    A stage is skipped exactly where an artifact with the fingerprint that it would have is already in the folder.

    Parameters
    ----------
    recipe
        What to do.
    out
        Folder of the artifacts; made where it does not exist.
    device
        ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.
    callbacks
        They see the training and may end it (`fae.Callback`).
    ranks
        This process as one of the ranks that train; None is the only one.
    """

    _log_plan: Plan | None = None
    """Plan of the log, where it was made before the stage began."""
    _compiled_ahead: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        done = [stage.name for stage in STAGES if (self.out / stage.kind / "manifest.json").is_file()]
        if self.recipe.log.is_columnar:
            done.insert(0, "ingest")
        stages = ", ".join(done) or "none"
        return f"RunFolder({str(self.out)!r}, placement={self.recipe.train.placement!r}, artifacts of: {stages})"

    def path(self, stage: str) -> Path:
        """Folder of a stage's artifact, by the stage's name."""
        return find_stage(stage).path(self)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder while the block runs, and clear what a killed one left.

        Raises
        ------
        ArtifactError
            If another process is writing to the folder.
        """
        with locked_folder(self.out):
            for name in (*(stage.kind for stage in STAGES), BEST, LAST):
                recover_folder(self.out / name)
            for name in (RUN_RECORD, TIMINGS, METRICS, PARENT_TEST, sidecar(self.out / INGEST.kind).name):
                with contextlib.suppress(OSError):  # what is in the way is named by the code that writes there
                    temporary_path(self.out / name).unlink(missing_ok=True)
            take_back(self.out)
            sweep_workers(self.out)
            try:
                yield
            finally:
                self._has_read.set()  # whatever happened: nobody need wait for it
                take_back(self.out)
                sweep_workers(self.out)

    def help_ingest(self, engine: Engine) -> dict[str, Any]:
        """Read shards of the log that worker 1 ingests into this folder, until it is there.

        Returns
        -------
        dict
            ``helped`` and ``num_shards``.

        Raises
        ------
        EngineError
            If worker 1 ends without the log.
        """
        from fae.ingest.shards.helping import as_result, help_ingest
        from fae.ingest.shards.unfinished_paths import parts_folder

        path = self.path("ingest")
        if self.recipe.log.is_columnar:
            return as_result(0)
        return as_result(help_ingest(path, parts_folder(path), engine))

    def help_train(self) -> dict[str, Any]:
        """Train as another rank than the first, which does everything else; returns nothing.

        Raises
        ------
        FaeError
            If ranks differ, or one of them fails.
        """
        with self.ranks.joined() as group:
            if group is not None:
                TRAIN.train(self, TRAIN.plan(self), group)
        return {}

    def run(self, *, replace: bool = False, command: str | None = None) -> RunResult:
        """Run every stage, write ``run.json`` and return that record.

        Parameters
        ----------
        replace
            Whether a finished training of another recipe may be replaced. More epochs of the same recipe continue it
            either way.
        command
            The command line, for the record.

        Raises
        ------
        FaeError
            If the recipe, the log, the folder or the machine does not allow it, or a finished training would be lost.
        """
        started = _now()
        log = self.existing_log() if self.recipe.log.is_columnar else None
        self.recipe.check_model(log.features if log else None)
        require_validation(self.recipe, log)
        check_ranks(self.recipe, self.requested_device, self.ranks.place.world, self.ranks.place.local_world)
        self.compile_ahead(log)
        # An import holds the interpreter. While processes read the log, it is needed to join what they have read; from
        # then on, compiled loops do nearly all until the training.
        import_torch = partial(import_ahead, self.recipe, self.requested_device)
        if self.engine is None:
            import_torch()
        else:
            self.engine.when_tasks_have_run(import_torch)
        require_model_memory(self.recipe, log, self.ranks.place.local_world)
        with self.locked():
            # A parent that does not fit and a missing GPU are found now, not after hours of ingest.
            self.parent()
            self.check_device()
            self._check_replaceable(INGEST, replace=replace)
            skipped = {}
            for stage in STAGES:
                skipped[stage.name] = self._run_stage(stage)["skipped"]
                if stage is INGEST:
                    self._has_read.set()
                    import_torch()  # if no process has read anything
                    if not skipped[stage.name]:
                        self._check_replaceable(PROFILE, replace=replace)  # by the log that is there now
            from fae.run.record import make_record, run_times

            record = make_record(
                self.recipe,
                log=INGEST.open(self),
                profile=PROFILE.open(self),
                hot_set=CALIBRATE.open(self),
                packed=PACK.open(self),
                checkpoint=TRAIN.path(self),
                stage_seconds=self.stage_seconds(),
                parent=self.parent(),
                times=run_times(
                    self.out / RUN_RECORD, keep=skipped[TRAIN.name], started=started, ended=_now(), command=command
                ),
            )
            drop_stale_report(self.out, record)
            write_record(self.out / RUN_RECORD, record)
        return record

    def stage(self, name: str, *, replace: bool = False) -> dict[str, Any]:
        """Run one stage, whose parents must be in the folder, and return what it found: its figures are ``summary``.

        Beside them are ``stage``, ``path``, ``skipped`` (it was there), ``fingerprint`` and ``seconds``.

        Parameters
        ----------
        replace
            As for `run`; it concerns ``ingest`` and ``train``, which would replace what takes long to make again.

        Raises
        ------
        RecipeError
            If no stage has that name.
        FaeError
            As `run`.
        """
        stage = find_stage(name)
        self.compile_ahead(self.existing_log() if stage is TRAIN and self.recipe.log.is_columnar else None, [stage])
        with self.locked():
            if stage in (INGEST, TRAIN):
                self._check_replaceable(stage, replace=replace)
            return self._run_stage(stage)

    def compile_ahead(self, log: ColumnarLog | None = None, stages: Sequence[Stage[Any]] = STAGES) -> None:
        """Start to compile what those of `stages` will call that have no artifact yet, unless that was done before.

        Parameters
        ----------
        log
            A log that is columnar already; None takes the columns that the recipe names.
        """
        missing = [
            stage.name
            for stage in stages
            if stage.name not in self._compiled_ahead and not (stage.path(self) / MANIFEST).is_file()
        ]
        if missing:
            self._compiled_ahead = self._compiled_ahead.union(missing)
            # Loading takes the interpreter, which what reads the log needs first.
            wanted = loops_ahead(self.recipe, log, self.requested_device, missing)
            compile_ahead(wanted, loads_from=self._has_read)
            if self.engine is None or INGEST.name not in missing:
                self._has_read.set()
            else:
                self.engine.when_tasks_have_run(self._has_read.set)

    def _check_replaceable(self, stage: Stage[Any], *, replace: bool) -> None:
        """Stop before a finished training is lost, or a log that cannot be made again: `fae.run.earlier_training`."""
        if not any((self.out / kind / MANIFEST).is_file() for kind in (INGEST.kind, TRAIN.kind)):
            return
        if replace:
            if stage is INGEST:
                self._log_plan = INGEST.plan(self)
                keep_for_users(self, self._log_plan)
            return
        if stage is INGEST:
            gone = missing_sources(self.out / INGEST.kind)  # the plan renews what is known of raw files
            self._log_plan = INGEST.plan(self)
            require_replaceable(self, self._log_plan, gone)
            return
        if stage is TRAIN:
            TRAIN.plan(self)  # what it would be made from is looked at first
        require_replaceable(self, existing_plan(INGEST.open(self)))

    def _run_stage(self, stage: Stage[Any]) -> dict[str, Any]:
        started = time.perf_counter()
        plan, path = self._log_plan if stage is INGEST else None, stage.path(self)
        self._log_plan, plan = None, plan or stage.plan(self)
        skipped = is_current(path, plan) and stage.is_finished(self)
        if skipped:
            stage.skip(self)
        else:
            before = stage.earlier_seconds(self, plan)
            stage.work(self, plan, path)
            seconds = {**self.stage_seconds(), stage.name: before + time.perf_counter() - started}
            write_record(self.out / TIMINGS, seconds)
        summary = stage.describe(self)
        return {
            "stage": stage.name,
            "path": str(path),
            "skipped": skipped,
            "fingerprint": plan.fingerprint,
            "seconds": self.stage_seconds()[stage.name],
            "summary": summary,
        }

    def drift(self, against: str | Path) -> dict[str, Any]:
        """What the hot rows of the run `against` serve of this recipe's log, which is ingested and profiled first.

        Raises
        ------
        FaeError
            As `run`; also if `against` is no run, or has other columns.
        """
        from fae.run.drift import measure_drift

        for stage in (INGEST, PROFILE):
            self.stage(stage.name)
        return measure_drift(self, INGEST.open(self), PROFILE.open(self), against)

    def stage_seconds(self) -> dict[str, float | None]:
        """Seconds that every stage took when it last did its work; None where that is not known.

        A training that was interrupted counts all its processes, each up to its last checkpoint.
        """
        try:
            found = read_json(self.out / TIMINGS)
        except (OSError, ValueError):
            found = None
        known = found if isinstance(found, dict) else {}
        seconds = {stage.name: known.get(stage.name) for stage in STAGES}
        return {name: value if _is_duration(value) else None for name, value in seconds.items()}

    def open_log(self) -> ColumnarLog:
        """Open the columnar log of the run."""
        return INGEST.open(self)

    def open_hot_set(self) -> HotSet:
        """Open the hot set of the run."""
        return CALIBRATE.open(self)

    def open_packed(self) -> PackedDataset:
        """Open the packed batches of the run."""
        return PACK.open(self)

    def open_embeddings(self, hot_set: HotSet | None = None, device: str | None = None) -> Embeddings:
        """Make fresh embeddings of the recipe's placement, with their first values.

        Parameters
        ----------
        hot_set
            None takes the run's own.
        device
            ``"cpu"`` or ``"cuda"``; None takes the run's own.
        """
        return fresh_embeddings(self, hot_set or CALIBRATE.open(self), device)

    def calibrate_into(self, path: Path) -> dict[str, Any]:
        """Calibrate for the recipe's budget into `path`, leaving the run's own hot set alone; returns the summary."""
        CALIBRATE.work(self, CALIBRATE.plan(self), path)
        summary: dict[str, Any] = HotSet(path).summary
        return summary

    def total_row_bytes(self) -> int:
        """Bytes of all rows with their optimizer state."""
        return total_row_bytes(CALIBRATE.open(self))


def _now() -> str:
    """Date and time in ISO 8601, with the zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _is_duration(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12


def find_stage(name: str) -> Stage[Any]:
    """The stage of that name.

    Raises
    ------
    RecipeError
        If there is none.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise RecipeError(f"there is no stage {name!r}; the stages are {', '.join(stage.name for stage in STAGES)}")
