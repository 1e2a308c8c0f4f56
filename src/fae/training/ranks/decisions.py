"""What the ranks of a training decide together, so that they stay in step: pauses, ends, errors that all find alike.

Each rank runs the same loop over the same batches. Whatever only one of them knows (a signal, a clock, a callback) is
told to all before any of them follows it. With one rank every decision is that of this process, at no cost.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from torch import nn

from fae.artifacts.packed import PackedDataset
from fae.core.config import to_table
from fae.core.errors import FaeError, RecipeError, TrainingError
from fae.distributed.ends import CommonFault
from fae.distributed.group import Group
from fae.embedding.base import Embeddings
from fae.training.config import TrainConfig
from fae.training.dense_threads import threads_of_slice
from fae.training.position import Position
from fae.training.real_inputs import require_single_inputs


@dataclass(frozen=True)
class RankDecisions:
    """Decisions of one group.

    Attributes
    ----------
    group
        The ranks.
    """

    group: Group

    def require_fit(self, model: nn.Module, *, reproducible: bool = False) -> None:
        """Refuse a model that slices of a batch would train otherwise than the batch, and slices that are not wanted.

        Raises
        ------
        RecipeError
            If batches are cut and the model may look across inputs, or they are not cut as `reproducible` says.
        """
        if self.group.reproducible != reproducible:
            raise RecipeError(
                f"[train] reproducible = {str(reproducible).lower()}, and these embeddings do not cut batches so; make "
                f"them with fae.make_embeddings(..., reproducible={reproducible})"
            )
        if self.group.slices.is_cut:
            require_single_inputs(model, self.group.world)

    def agree(
        self,
        model: nn.Module,
        embeddings: Embeddings,
        packed: PackedDataset,
        config: TrainConfig,
        position: Position,
        precision: str,
    ) -> None:
        """Refuse to train where ranks have other batches, settings, first weights, or another place to begin at.

        Raises
        ------
        CommonFault
            With what differs.
        """
        if self.group.world == 1:
            return
        facts = {
            "packed batches": packed.manifest.fingerprint,
            "train": to_table(config),
            "precision": precision,
            "place": [position.batches, position.in_segment, position.complete],
            "weights": _checksum(model, embeddings),
        }
        self.group.agree(facts, "training")

    @contextlib.contextmanager
    def checkpoint(self, model: nn.Module, embeddings: Embeddings, batches: int) -> Iterator[None]:
        """Let the first rank write a checkpoint in the block, and all others wait for its end, however long it takes.

        Raises
        ------
        CommonFault
            Before anything is written, if ranks have other weights: what they train is nobody's model.
        """
        if self.group.world > 1:
            self.group.agree(_checksum(model, embeddings), f"weights behind batch {batches}")
        what = f"the checkpoint behind batch {batches}"
        with self.group.first_works(what):
            yield
        self.group.barrier(what)

    def threads(self, threads: int, config: TrainConfig) -> int:
        """Threads of the dense part of one slice, where a whole batch would take `threads`."""
        return threads_of_slice(threads, config.threads, self.group.slices.num_slices)

    def wants_pause(self, flag: bool, batches: int) -> bool:
        """Whether any rank wants to pause behind this batch; on GPUs they ask one another at every 16th."""
        if self.group.world == 1:
            return flag
        if self.group.device != "cpu" and batches % _GPU_BATCHES:
            return False
        return self.group.any(flag, f"the end of batch {batches}")

    def reason_of_first(self, reason: str | None, batches: int) -> str | None:
        """Why the first rank, which alone has callbacks, wants the training to end; None where it does not."""
        if self.group.world == 1:
            return reason
        found: str | None = self.group.broadcast_json(reason, f"who stops the training at batch {batches}")
        return found

    def fault(self, line: str) -> FaeError:
        """The error of a training that has gone wrong, where every rank finds the same."""
        return TrainingError(line) if self.group.world == 1 else CommonFault(line)


_SOME_ROWS = 4096
_GPU_BATCHES = 16
"""A step of a GPU takes less time than ranks take to ask one another."""


def _checksum(model: nn.Module, embeddings: Embeddings) -> int:
    """A checksum of all dense weights and of some rows with their state, hot and cold: the same on all ranks."""
    found = 0
    for tensor in (*model.parameters(), *chain.from_iterable(embeddings.sample_rows(_SOME_ROWS))):
        found = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), found)
    return found
