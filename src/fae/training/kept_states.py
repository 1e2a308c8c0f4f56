"""The checkpoints of one training: ``checkpoint/`` and, with early stopping, ``best/`` and ``last/``.

``best/`` has the weights that early stopping returns to. ``last/`` has those of the last epoch where that was not the
best one: ``checkpoint/`` then ends on the best weights, and more epochs continue from ``last/``. Where several ranks
train together the first one writes, and every rank loads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fae.artifacts.manifest import Plan, is_current
from fae.checkpoint.more_epochs import BEST, LAST, EarlierEpochs, find_earlier_epochs
from fae.checkpoint.save_load import KIND, load_dense, load_tables, read_progress, save_checkpoint
from fae.core.files import MANIFEST, drop_folder
from fae.core.progress import say
from fae.embedding.base import Embeddings
from fae.training.position import Position, require_best


class KeptStates:
    """Saves and loads the state of one training.

    Parameters
    ----------
    folder
        The run folder.
    plan
        Names the training: checkpoints of another plan are replaced, but for one that differs in its epochs alone.
    early_stopping
        Whether the training ends on the weights of its best epoch.
    on_replace
        Called once, when the first checkpoint is whole and before it takes the place of an earlier one.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        model: nn.Module,
        dense_optimizer: torch.optim.Optimizer,
        embeddings: Embeddings,
        *,
        early_stopping: bool,
        on_replace: Callable[[], None] | None = None,
    ) -> None:
        self._folder, self._plan, self._early_stopping = folder, plan, early_stopping
        self._model, self._dense_optimizer, self._embeddings = model, dense_optimizer, embeddings
        self._on_replace = on_replace

    def save(self, name: str, progress: dict[str, Any]) -> None:
        """Write the present state as the checkpoint `name`.

        Raises
        ------
        ArtifactError
            If it cannot be written.
        """
        if not self._embeddings.group.is_first:
            return
        save_checkpoint(
            self._folder / name,
            self._plan,
            model=self._model,
            dense_optimizer=self._dense_optimizer,
            embeddings=self._embeddings,
            progress=progress,
            before_replacing=self._replacing if name == KIND else None,
        )

    def _replacing(self) -> None:
        on_replace, self._on_replace = self._on_replace, None
        if on_replace is not None:
            on_replace()

    def load(self, path: Path) -> None:
        """Take rows, dense weights, the state of both and the random streams from a checkpoint."""
        load_tables(path, self._embeddings)
        load_dense(path, self._model, self._dense_optimizer)

    def load_best(self) -> None:
        """Return to the weights of the best epoch, with their optimizer state: a later run may continue them."""
        self.load(self._folder / BEST)

    def remove_old_last(self) -> None:
        """Remove a ``last/`` of another training, once this one is at its end."""
        if not self._embeddings.group.is_first:
            return
        last = self._folder / LAST
        if (last / MANIFEST).is_file() and not is_current(last, self._plan):
            drop_folder(last)

    def resume(self) -> Position | None:
        """Load the state to continue from, and say where it is; None where there is none. The same on all ranks.

        Raises
        ------
        ArtifactError
            If a checkpoint is damaged, or early stopping would end on weights that are not there.
        """
        found = self._find_and_load()
        self._embeddings.group.barrier("the states that are there")
        return found

    def _find_and_load(self) -> Position | None:
        path, earlier = self._folder / KIND, None
        if not is_current(path, self._plan):
            if is_current(self._folder / LAST, self._plan):  # killed between the last epoch and the end
                path = self._folder / LAST
            else:
                earlier = find_earlier_epochs(self._folder, self._plan)
                if earlier is None or not earlier.can_continue:
                    return None
        position = Position(**read_progress(path))
        if earlier is not None:
            self._continue_epochs(earlier, position)
            return position
        self.load(path)
        if self._early_stopping and position.best_loss is not None and not position.complete:
            require_best(path, self._folder / BEST, self._plan)
        return position

    def _continue_epochs(self, earlier: EarlierEpochs, position: Position) -> None:
        """Load the checkpoint of fewer epochs (or of more) as one in the middle of this training."""
        say(f"train: {earlier.trained} epochs are trained, {earlier.wanted} are wanted")
        position.complete, position.result = False, {}
        if self._early_stopping and position.best_loss is not None:
            self._take_best(earlier, position)
        self.load(earlier.last_weights)

    def _take_best(self, earlier: EarlierEpochs, position: Position) -> None:
        """Give the best weights of the earlier epochs the name of this training, where that is not done yet."""
        best = self._folder / BEST
        if not earlier.finished and is_current(best, self._plan):  # it was ended before its first checkpoint
            require_best(self._folder / KIND, best, self._plan)
            return
        if not earlier.finished:
            require_best(self._folder / KIND, earlier.best_weights, earlier.plan)
        self.load(earlier.best_weights)
        group, what = self._embeddings.group, "the best weights of the epochs before"
        group.barrier(what)  # all have them: rank 0 writes rows of all ranks, over files that all have read
        with group.first_works(what):
            self.save(BEST, position.to_checkpoint(self._embeddings, 0.0))
