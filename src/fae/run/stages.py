"""The data stages of a run as objects: what each is made from, how it is made, opened and described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import SPLITS, ColumnarLog, model_features
from fae.artifacts.hot_set import HotSet
from fae.artifacts.manifest import Plan, require_parent
from fae.artifacts.packed import PackedDataset
from fae.core.optimizers import row_bytes
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.run import prepare
from fae.run.context import RunContext
from fae.run.prepare import PackOptions
from fae.run.shared_logs import drop_broken_link, find_shared_log, learn_digests, link_log

Artifact = TypeVar("Artifact")


class Stage(ABC, Generic[Artifact]):
    """One verb that makes one artifact of a run.

    Attributes
    ----------
    name
        The verb: ``fae <name> RECIPE.toml``.
    kind
        Kind of the artifact, and the name of its folder in the run.
    parents
        Kinds of the artifacts that it reads.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    parents: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def plan(self, run: RunContext) -> Plan:
        """Name the artifact before it is made. Instant, but for a raw log that was never hashed."""

    @abstractmethod
    def work(self, run: RunContext, plan: Plan, path: Path) -> None:
        """Make the artifact at `path`."""

    @abstractmethod
    def open(self, run: RunContext) -> Artifact:
        """Open the artifact: check that it is there, whole, and made from the parents in the folder."""

    @abstractmethod
    def describe(self, run: RunContext) -> dict[str, Any]:
        """Print what the stage found, for people, and return its summary."""

    def path(self, run: RunContext) -> Path:
        """Folder of the artifact."""
        return run.artifact_path(self.kind)

    def is_finished(self, run: RunContext) -> bool:
        """Whether an artifact with the planned fingerprint needs no more work."""
        return True

    def earlier_seconds(self, run: RunContext, plan: Plan) -> float:
        """Seconds that earlier processes spent on the artifact that this one continues."""
        return 0.0

    def skip(self, run: RunContext) -> None:
        """Say that there is nothing to do."""
        say(f"{self.name}: already there, {self.path(run)}")


class IngestStage(Stage[ColumnarLog]):
    """Text to the columnar log; a log that is columnar already is opened where it is."""

    name, kind = "ingest", "log"

    def plan(self, run: RunContext) -> Plan:
        """As `Stage.plan`."""
        from fae.ingest.existing_log import existing_plan
        from fae.ingest.log_plan import plan_ingest

        if run.recipe.log.is_columnar:
            run.parent()
            return existing_plan(self.open(run))
        parent = run.parent()
        known = parent.log if parent else None
        learn_digests(run.out, {} if known is None else {self.kind: known.manifest.fingerprint})
        return plan_ingest(
            run.recipe.log, base=run.recipe.base, previous=self.path(run), parent=known, engine=run.engine
        )

    def work(self, run: RunContext, plan: Plan, path: Path) -> None:
        """As `Stage.work`."""
        from fae.ingest.ingest import ingest
        from fae.ingest.shards.unfinished_paths import discard_progress

        if run.recipe.log.is_columnar:
            return
        if led := drop_broken_link(path):
            say(f"ingest: {path} led to {led}, which is not there any more")
        shared = find_shared_log(run.out, plan)
        if shared is None or not link_log(shared, path):
            parent = run.parent()
            ingest(run.recipe.log, path, base=run.recipe.base, parent=parent.log if parent else None, engine=run.engine)
            return
        say(f"ingest: found {shared}, made from the same files by the same settings; {path} is a link to it")
        discard_progress(path)

    def open(self, run: RunContext) -> ColumnarLog:
        """As `Stage.open`."""
        return run.existing_log() if run.recipe.log.is_columnar else ColumnarLog(self.path(run))

    def skip(self, run: RunContext) -> None:
        """As `Stage.skip`; what an interrupted ingest had kept is removed."""
        if run.recipe.log.is_columnar:
            say(f"ingest: nothing to read, {self.path(run)} is columnar")
            return
        from fae.ingest.shards.unfinished_paths import discard_progress

        super().skip(run)
        discard_progress(self.path(run))

    def describe(self, run: RunContext) -> dict[str, Any]:
        """As `Stage.describe`."""
        log = self.open(run)
        rows, num_columns = sum(feature.num_embeddings for feature in log.features), len(model_features(log.features))
        splits = {name: log.split(name)[1] - log.split(name)[0] for name in SPLITS}
        appended = log.manifest.summary.get("appended")
        say(
            f"ingest: {format_count(log.num_inputs)} inputs (train {format_count(splits['train'])}, validation "
            f"{format_count(splits['validation'])}, test {format_count(splits['test'])}), {num_columns} "
            f"categorical and {len(log.dense_names)} dense features, {format_count(rows)} rows"
            + (f", {format_count(sum(appended.values()))} of them new" if appended is not None else "")
        )
        for note in log.manifest.summary.get("notes", ()):
            say(f"ingest: {note}")
        return log.manifest.summary


class ProfileStage(Stage[AccessProfile]):
    """Accesses of every row, counted over a sample of the training inputs."""

    name, kind, parents = "profile", "profile", ("log",)

    def plan(self, run: RunContext) -> Plan:
        """As `Stage.plan`."""
        log = INGEST.open(run)
        prepare.require_validation(run.recipe, log)
        return prepare.planned_profile(log, PackOptions.from_recipe(run.recipe, log.features))

    def work(self, run: RunContext, plan: Plan, path: Path) -> None:
        """As `Stage.work`."""
        log = INGEST.open(run)
        prepare.make_profile(log, PackOptions.from_recipe(run.recipe, log.features), path)

    def open(self, run: RunContext) -> AccessProfile:
        """As `Stage.open`."""
        profile = AccessProfile(self.path(run))
        require_parent(profile.manifest, INGEST.open(run).manifest, command="fae profile RECIPE.toml")
        return profile

    def describe(self, run: RunContext) -> dict[str, Any]:
        """As `Stage.describe`."""
        profile = self.open(run)
        how = "all of the training split" if profile.is_exact else "a sample"
        say(f"profile: counted the accesses of {format_count(profile.num_inputs)} inputs, {how}")
        return profile.manifest.summary


class CalibrateStage(Stage[HotSet]):
    """The hot rows for the memory budget."""

    name, kind, parents = "calibrate", "hot_set", ("log", "profile")

    def plan(self, run: RunContext) -> Plan:
        """As `Stage.plan`."""
        log, profile = INGEST.open(run), PROFILE.open(run)
        return prepare.planned_hot_set(log, profile, PackOptions.from_recipe(run.recipe, log.features))

    def work(self, run: RunContext, plan: Plan, path: Path) -> None:
        """As `Stage.work`."""
        log, profile = INGEST.open(run), PROFILE.open(run)
        prepare.make_hot_set(log, profile, PackOptions.from_recipe(run.recipe, log.features), path)

    def open(self, run: RunContext) -> HotSet:
        """As `Stage.open`."""
        hot_set = HotSet(self.path(run))
        require_parent(hot_set.manifest, PROFILE.open(run).manifest, command="fae calibrate RECIPE.toml")
        return hot_set

    def describe(self, run: RunContext) -> dict[str, Any]:
        """As `Stage.describe`."""
        hot_set = self.open(run)
        summary: dict[str, Any] = hot_set.summary
        say(
            f"calibrate: {format_count(summary['num_rows'])} hot rows by {summary['selection']}, "
            f"{format_bytes(summary['bytes'])} + {format_bytes(summary['staging_bytes'])} of staging in a budget of "
            f"{format_bytes(summary['budget_bytes'])} (all rows: {format_bytes(total_row_bytes(hot_set))}); coverage "
            f"{100 * summary['coverage']:.1f} %, hot-input share {100 * summary['input_share']:.1f} %"
        )
        for note in summary["notes"]:
            say(f"calibrate: {note}")
        return summary


class PackStage(Stage[PackedDataset]):
    """Hot and cold batches whose lookups are final addresses."""

    name, kind, parents = "pack", "packed", ("log", "hot_set")

    def plan(self, run: RunContext) -> Plan:
        """As `Stage.plan`."""
        log, hot_set = INGEST.open(run), CALIBRATE.open(run)
        return prepare.planned_packed(log, hot_set, PackOptions.from_recipe(run.recipe, log.features))

    def work(self, run: RunContext, plan: Plan, path: Path) -> None:
        """As `Stage.work`."""
        log, hot_set = INGEST.open(run), CALIBRATE.open(run)
        prepare.make_packed(log, hot_set, PackOptions.from_recipe(run.recipe, log.features), path)

    def open(self, run: RunContext) -> PackedDataset:
        """As `Stage.open`."""
        packed = PackedDataset(self.path(run))
        require_parent(packed.manifest, CALIBRATE.open(run).manifest, command="fae pack RECIPE.toml")
        return packed

    def describe(self, run: RunContext) -> dict[str, Any]:
        """As `Stage.describe`."""
        summary = self.open(run).manifest.summary
        hot, others = summary["num_batches"]["hot"], summary["num_batches"]["cold"]
        say(
            f"pack: {f'{others} mixed' if summary['mixed'] else f'{hot} hot and {others} cold'} batches of "
            f"{summary['batch_size']}, "
            f"hot-input share {100 * summary['input_share']:.1f} %, coverage {100 * summary['coverage']:.1f} %"
        )
        return summary


def total_row_bytes(hot_set: HotSet) -> int:
    """Bytes of all rows of all tables with their optimizer state."""
    layout = hot_set.layout
    return sum(
        feature.num_embeddings * row_bytes(hot_set.optimizer, dim)
        for feature, dim in zip(layout.features, layout.embedding_dims, strict=True)
    )


INGEST, PROFILE, CALIBRATE, PACK = IngestStage(), ProfileStage(), CalibrateStage(), PackStage()
