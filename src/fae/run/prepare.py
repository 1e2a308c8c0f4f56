"""From a columnar log to packed batches: the one way, for runs, `fae bench`, studies and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.hot_set import HotSet
from fae.artifacts.manifest import Plan, is_current
from fae.artifacts.packed import PackedDataset
from fae.core.errors import RecipeError
from fae.core.progress import say
from fae.profile.config import HotConfig

if TYPE_CHECKING:
    from fae.run.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What profile, hot set and packed batches depend on beside the log.

    Attributes
    ----------
    hot
        The recipe's ``[hot]``.
    embedding_dims
        Width of each feature's table, in the log's order.
    optimizer
        Optimizer of the rows: its state counts against the budget.
    batch_size
        Inputs of a batch.
    mixed
        Whether batches mix hot and cold inputs.
    seed
        Seed of the sample and of the order of inputs.
    """

    hot: HotConfig
    embedding_dims: tuple[int, ...]
    optimizer: str
    batch_size: int
    mixed: bool
    seed: int

    @classmethod
    def from_recipe(cls, recipe: Recipe, features: Sequence[FeatureSchema]) -> PackOptions:
        """What a recipe says for a log with these features."""
        model, train = recipe.model, recipe.train
        return cls(
            hot=recipe.hot,
            embedding_dims=tuple(model.embedding_dims.get(feature.name, model.embedding_dim) for feature in features),
            optimizer=train.optimizer,
            batch_size=train.batch_size,
            mixed=recipe.mixed,
            seed=train.seed,
        )

    @property
    def calibration(self) -> dict[str, Any]:
        """The keyword arguments of `plan_calibrate` and `calibrate`."""
        return {
            "embedding_dims": list(self.embedding_dims),
            "optimizer": self.optimizer,
            "batch_size": self.batch_size,
            "mixed": self.mixed,
            "seed": self.seed,
        }


def require_validation(recipe: Recipe, log: ColumnarLog | None = None) -> None:
    """Refuse a training that needs a validation split where there is none.

    Parameters
    ----------
    log
        The log, once it is there; None looks at the recipe alone.

    Raises
    ------
    RecipeError
        If early stopping, the adaptive order or rates that follow the loss would have no validation loss.
    """
    train, fraction = recipe.train, recipe.log.validation_fraction
    needs = [
        *([f"early_stopping = {train.early_stopping}"] if train.early_stopping else []),
        *([f"validate_batches = {train.validate_batches}"] if train.validate_batches else []),
        *(['order = "adaptive"'] if train.order == "adaptive" else []),
        *(['rate_schedule = "plateau"'] if train.rate_schedule == "plateau" else []),
    ]
    if log is None:
        why = "[log] validation_fraction is 0" if fraction == 0 else ""
    else:
        start, stop = log.split("validation")
        why = "" if stop > start else "the validation split of the log is empty"
    if needs and why:
        raise RecipeError(
            f"[train] {' and '.join(needs)} needs a validation loss, and {why}; raise [log] validation_fraction, or "
            f"leave {'them' if len(needs) > 1 else 'it'} out"
        )


def planned_profile(log: ColumnarLog, options: PackOptions) -> Plan:
    """Name the access profile of `log` before it is made."""
    from fae.profile import profile

    return profile.plan_profile(log, options.hot, seed=options.seed)


def make_profile(log: ColumnarLog, options: PackOptions, path: Path) -> AccessProfile:
    """Count accesses and write the profile to `path`."""
    from fae.profile import profile

    return profile.profile(log, options.hot, path, seed=options.seed)


def planned_hot_set(log: ColumnarLog, profile: AccessProfile, options: PackOptions) -> Plan:
    """Name the hot set before it is chosen."""
    from fae.calibrate import calibrate

    return calibrate.plan_calibrate(log, profile, options.hot, **options.calibration)


def make_hot_set(log: ColumnarLog, profile: AccessProfile, options: PackOptions, path: Path) -> HotSet:
    """Choose the hot rows for the budget and write them to `path`."""
    from fae.calibrate import calibrate

    return calibrate.calibrate(log, profile, options.hot, path, **options.calibration)


def planned_packed(log: ColumnarLog, hot_set: HotSet, options: PackOptions) -> Plan:
    """Name the packed batches before they are written."""
    from fae.pack import pack

    return pack.plan_pack(log, hot_set, seed=options.seed)


def make_packed(log: ColumnarLog, hot_set: HotSet, options: PackOptions, path: Path) -> PackedDataset:
    """Write hot and cold batches to `path`."""
    from fae.pack import pack

    return pack.pack(log, hot_set, path, seed=options.seed)


def make_missing(path: Path, plan: Plan, work: Callable[[Path], object], *, note: str = "") -> bool:
    """Make the artifact that `plan` names unless it is already at `path`; return whether it was made.

    Parameters
    ----------
    note
        A line for people, printed before the work starts.
    """
    if is_current(path, plan):
        return False
    if note:
        say(note)
    path.parent.mkdir(parents=True, exist_ok=True)
    work(path)
    return True


def prepare_packed(
    log: ColumnarLog, options: PackOptions, folder: Path, *, profile_path: Path | None = None, note: str = ""
) -> tuple[HotSet, PackedDataset]:
    """Make the profile, the hot set and the packed batches of `log` where they are missing, and open them.

    Parameters
    ----------
    folder
        Holds ``hot_set/`` and ``packed/`` afterwards, and ``profile/`` unless `profile_path` names another place.
    profile_path
        A profile that several hot sets share.
    note
        What is made, for progress lines such as ``bench: calibrate, batches of 1,024``; empty for none.

    Raises
    ------
    BudgetError
        If the budget cannot hold the staging ring.
    """
    where = profile_path or folder / "profile"

    def line(verb: str) -> str:
        return note and f"{verb}: {note}"

    make_missing(
        where, planned_profile(log, options), lambda path: make_profile(log, options, path), note=line("profile")
    )
    profile = AccessProfile(where)
    make_missing(
        folder / "hot_set",
        planned_hot_set(log, profile, options),
        lambda path: make_hot_set(log, profile, options, path),
        note=line("calibrate"),
    )
    hot_set = HotSet(folder / "hot_set")
    make_missing(
        folder / "packed",
        planned_packed(log, hot_set, options),
        lambda path: make_packed(log, hot_set, options, path),
        note=line("pack"),
    )
    return hot_set, PackedDataset(folder / "packed")
