"""Name the batches and the training of a recipe before they are made, also under defaults of earlier versions."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fae.artifacts.manifest import Manifest, Plan, is_current
from fae.checkpoint.more_epochs import continues
from fae.core.errors import RecipeError
from fae.run import prepare
from fae.run.stages import INGEST
from fae.run.train_stage import plan_training

if TYPE_CHECKING:
    from fae.artifacts.access_profile import AccessProfile
    from fae.artifacts.hot_set import HotSet
    from fae.run.context import RunContext

_FORMER = {("train", "order"): "interleaved", ("hot", "ring_depth"): 8}
"""Keys whose default is another one by now, and what it was."""


def batches_of(run: RunContext, log_plan: Plan) -> Plan | None:
    """What the packed batches of the recipe would be made from; None where its log is not in the folder."""
    if not run.recipe.log.is_columnar and not is_current(INGEST.path(run), log_plan):
        return None
    log = INGEST.open(run)
    try:
        options = prepare.PackOptions.from_recipe(run.recipe, log.features)
        profile = _Named.by(prepare.planned_profile(log, options))
        hot_set = _Named.by(prepare.planned_hot_set(log, cast("AccessProfile", profile), options))
        return prepare.planned_packed(log, cast("HotSet", hot_set), options)
    except RecipeError:
        return None  # the stage itself says why


@dataclass(frozen=True)
class _Named:
    """An artifact that need not be there: plans read its manifest's kind and fingerprint alone."""

    manifest: Manifest

    @classmethod
    def by(cls, plan: Plan) -> _Named:
        return cls(
            Manifest(
                kind=plan.kind, format_version=plan.format_version, fingerprint=plan.fingerprint, parents=plan.parents,
                parameters=plan.parameters,
            )
        )  # fmt: skip


def former_settings(run: RunContext, log_plan: Plan) -> str:
    """The ``--set`` options under which the recipe means the training that is in the folder.

    Defaults change from version to version. A training that was made, or begun, by a recipe that leaves such a key out
    need not be made again.

    Returns
    -------
    str
        ``--set train.order=interleaved``, for example; "" where former defaults do not lead to that training.
    """
    for changes in _former_choices(run):
        recipe = run.recipe
        for (section, key), value in changes.items():
            table = dataclasses.replace(getattr(recipe, section), **{key: value})
            recipe = dataclasses.replace(recipe, **{section: table})
        former = copy.copy(run)
        former.recipe = recipe
        packed = batches_of(former, log_plan)
        if packed and continues(run.out, plan_training(former, packed.fingerprints, log_plan.fingerprint)):
            return " ".join(f"--set {section}.{key}={value}" for (section, key), value in changes.items())
    return ""


def _former_choices(run: RunContext) -> Iterator[dict[tuple[str, str], Any]]:
    """Former values for one or more of the keys that have today's default."""
    keys = [
        (section, key)
        for section, key in _FORMER
        if getattr(getattr(run.recipe, section), key) == getattr(type(getattr(run.recipe, section)), key)
    ]
    for chosen in range(1, 1 << len(keys)):
        yield {key: _FORMER[key] for place, key in enumerate(keys) if chosen >> place & 1}
