"""A batch that is ready to be computed: its tensors on the device, its rows within reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import PackedBatch
from fae.streaming.batch_turn import BatchTurn

if TYPE_CHECKING:
    from fae.kernels.input_views import InputViews


@dataclass(frozen=True, kw_only=True)
class InputSlot:
    """The input buffer of a batch on the device, and which captured graph may run on it.

    Attributes
    ----------
    views
        Its tensors; the same memory for every batch of this index and generation.
    index
        Place in the ring of input buffers.
    generation
        Grows whenever the buffers of the ring are replaced.
    """

    views: InputViews
    index: int
    generation: int


@dataclass(frozen=True, kw_only=True)
class ReadyBatch:
    """A batch that `Embeddings.stream` yields; good for its turn, until the stream is advanced or closed.

    Attributes
    ----------
    packed
        The packed batch in host memory.
    dense
        float32 ``[B, K]`` on the device; bfloat16 in an input buffer, where `Embeddings.round_dense` says so.
    labels
        float32 ``[B]`` on the device, 0 in padded inputs.
    slot
        Staging slot that holds its cold rows; 0 if it has none.
    buffer
        On a GPU, its input buffer, which the kernels read.
    turn
        How long it is good for.
    weights
        float32 ``[B]`` on the device, weights of the inputs, 0 in padded ones; None where the log has none.
    others
        The further slices of this rank, where it has several: then this batch is the first one. Each is looked up, and
        its gradients are kept, in turn.
    """

    packed: PackedBatch
    dense: Tensor
    labels: Tensor
    slot: int
    buffer: InputSlot | None = None
    turn: BatchTurn
    weights: Tensor | None = None
    others: tuple[ReadyBatch, ...] = ()

    @property
    def slices(self) -> tuple[ReadyBatch, ...]:
        """What this rank computes of the batch, one after the other: its slices, or the batch itself."""
        return (self, *self.others)

    def require_update(self, looked_up: BatchTurn | None) -> None:
        """Refuse to update rows by this batch where it is one for evaluation, or was not looked up last.

        Raises
        ------
        RuntimeError
            If so.
        """
        if self.turn.frozen or not self.packed.is_ordered:
            raise RuntimeError(
                "update of a batch for evaluation (from stream_frozen, or of a validation or test split); train on "
                "embeddings.stream(packed.train, order)"
            )
        if looked_up is not self.turn:
            raise RuntimeError(
                "update of a batch that is not the one whose lookup, with requires_grad=True, came last: the gradients "
                "are those of that lookup; call lookup, backward and update batch by batch"
            )

    @property
    def num_inputs(self) -> int:
        """Inputs that are not padding."""
        return self.packed.num_inputs

    @property
    def total_inputs(self) -> int:
        """The same of the whole batch, of which ranks have a slice each; `num_inputs` where there is one rank."""
        return self.packed.total_inputs

    @property
    def total_weight(self) -> float:
        """Sum of the weights of the whole batch's inputs; their number where the log has none."""
        return self.packed.total_weight

    @property
    def weighing(self) -> Tensor:
        """float32 ``[B]`` on the device: what the loss of each input counts, `weights` or else `real`."""
        return self.real if self.weights is None else self.weights

    @cached_property
    def real(self) -> Tensor:
        """float32 ``[B]`` on the device: 1 for inputs, 0 for padding."""
        size, device = len(self.labels), self.labels.device
        if self.buffer is not None:
            return (torch.arange(size, device=device) < self.buffer.views.words[0]).float()
        real = np.zeros(size, np.float32)
        real[: self.num_inputs] = 1.0
        return torch.from_numpy(real).to(device)


def make_ready(
    packed: PackedBatch, device: torch.device, slot: int, turn: BatchTurn, others: Sequence[PackedBatch] = ()
) -> ReadyBatch:
    """Copy a batch's dense features and labels to `device`; `others` are the further slices of this rank."""

    def to_device(array: npt.NDArray[Any]) -> Tensor:
        # A copy on purpose: packed arrays are views of a memory-mapped file.
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(device)

    return ReadyBatch(
        packed=packed, dense=to_device(packed.dense), labels=to_device(packed.labels), slot=slot, turn=turn,
        weights=None if packed.weights is None else to_device(packed.weights),
        others=tuple(make_ready(other, device, slot, turn) for other in others),
    )  # fmt: skip


def ready_from_buffers(filled: Sequence[tuple[PackedBatch, InputSlot]], slot: int, turn: BatchTurn) -> ReadyBatch:
    """A batch, or the slices of a rank, whose tensors are views of input buffers."""
    first, *others = (
        ReadyBatch(
            packed=packed, dense=buffer.views.dense, labels=buffer.views.labels, slot=slot, buffer=buffer, turn=turn,
            weights=buffer.views.weights,
        )
        for packed, buffer in filled
    )  # fmt: skip
    return replace(first, others=tuple(others)) if others else first
