"""The same training with another number of epochs: whether a checkpoint is its beginning, and where to continue it.

Nothing that decides a step depends on how many epochs follow: the order of an epoch is drawn from the seed and the
epoch's number, the windows of the loss curve depend on the epoch's number. So 2 epochs and then 2 more are 4 epochs, to
the byte. Learning rates that fall over all epochs (``linear``, ``cosine``) are the exception: there another number of
epochs is another training from its first batch on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fae.artifacts.checkpoint import KIND, open_checkpoint, read_progress
from fae.artifacts.manifest import Plan, is_current
from fae.artifacts.packed import KIND as PACKED_KIND
from fae.core.files import MANIFEST
from fae.core.whole_files import read_json

BEST, LAST = "best", "last"
"""Folders beside a checkpoint: the weights of the best epoch, and those of the last one where that is another."""

_OVER_ALL_EPOCHS = ("linear", "cosine")
"""Values of ``[train] rate_schedule`` under which the rate of a step depends on the number of epochs."""


@dataclass(frozen=True, kw_only=True)
class EarlierEpochs:
    """A checkpoint of the training that a plan describes, but for its number of epochs.

    Attributes
    ----------
    folder
        The run folder.
    plan
        The plan that the checkpoint was made by.
    progress
        Its ``progress.json``.
    wanted
        Epochs that are wanted now.
    """

    folder: Path
    plan: Plan
    progress: Mapping[str, Any]
    wanted: int

    @property
    def epochs(self) -> int:
        """Epochs that were wanted when the checkpoint was made."""
        return _epochs(self.plan.parameters) or 0

    @property
    def trained(self) -> int:
        """Epochs that are complete."""
        return int(self.progress["schedule"].get("epoch", 0))

    @property
    def finished(self) -> bool:
        """Whether the checkpoint is the end of its training."""
        return bool(self.progress["complete"])

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping ended it: more epochs then change nothing."""
        return bool(self.progress["stopped_early"])

    @property
    def is_too_long(self) -> bool:
        """Whether more has been trained than is wanted now."""
        if self.trained < self.wanted:
            return False
        schedule = self.progress["schedule"]
        inside = self.progress["in_segment"] or schedule.get("hot_done") or schedule.get("cold_done")
        return self.trained > self.wanted or (bool(inside) and not self.finished)

    @property
    def last_is_gone(self) -> bool:
        """Whether the weights of the last epoch, from which more epochs continue, are no longer there."""
        return self._ended_elsewhere and not is_current(self.folder / LAST, self.plan)

    @property
    def can_continue(self) -> bool:
        """Whether the wanted epochs can continue from the checkpoint."""
        return not (self.is_too_long or self.last_is_gone)

    @property
    def _ended_elsewhere(self) -> bool:
        """Whether the checkpoint has the weights of an earlier epoch than the last one (early stopping)."""
        early_stopping = self.plan.parameters["train"].get("early_stopping")
        return bool(
            self.finished and early_stopping and self.progress["epochs_without_gain"] and not self.stopped_early
        )

    @property
    def best_weights(self) -> Path:
        """Folder with the weights of the best epoch so far."""
        return self.folder / (KIND if self.finished else BEST)

    @property
    def last_weights(self) -> Path:
        """Folder with the weights that training continues from."""
        return self.folder / (LAST if self._ended_elsewhere else KIND)


def find_earlier_epochs(folder: Path, plan: Plan) -> EarlierEpochs | None:
    """The checkpoint in a run folder, where it is of the training of `plan` with another number of epochs.

    Raises
    ------
    ArtifactError
        If the checkpoint is damaged.
    """
    path, wanted = folder / KIND, _epochs(plan.parameters)
    if wanted is None or not (path / MANIFEST).is_file():
        return None
    manifest = open_checkpoint(path)
    before, train = _epochs(manifest.parameters), plan.parameters["train"]
    if before is None or before == wanted or train.get("rate_schedule") in _OVER_ALL_EPOCHS:
        return None
    made_by = dataclasses.replace(plan, parameters={**plan.parameters, "train": {**train, "epochs": before}})
    if made_by.fingerprint != manifest.fingerprint:
        return None
    return EarlierEpochs(folder=folder, plan=made_by, progress=read_progress(path), wanted=wanted)


def trained_batches(folder: Path, names: Sequence[str]) -> str:
    """That of the fingerprints of the same batches by which the training in a run folder knows them; else the first.

    Batches have another fingerprint in each format, and train the same bytes in all: a training that was made from
    those of an older one is not made again.
    """
    for place in (KIND, LAST):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damage is told by who reads the weights
            known = read_json(folder / place / MANIFEST)["parents"][PACKED_KIND]
            if known in names:
                return str(known)
    return names[0]


def continues(folder: Path, plan: Plan) -> bool:
    """Whether a training of `plan` finds a state to continue from, or its end, in a run folder.

    Raises
    ------
    ArtifactError
        If the checkpoint is damaged.
    """
    if is_current(folder / KIND, plan) or is_current(folder / LAST, plan):
        return True
    earlier = find_earlier_epochs(folder, plan)
    return earlier is not None and earlier.can_continue


def _epochs(parameters: Mapping[str, Any]) -> int | None:
    train = parameters.get("train")
    found = train.get("epochs") if isinstance(train, Mapping) else None
    return found if isinstance(found, int) else None
