"""A batch that is ready to be computed: its tensors on the device, its rows within reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fae.packing.dataset import PackedBatch


@dataclass(frozen=True, kw_only=True)
class ReadyBatch:
    """What `Embeddings.stream` yields.

    Attributes
    ----------
    packed
        The packed batch, on the host.
    dense
        float32 ``[B, K]`` on the device.
    labels
        float32 ``[B]`` on the device, 0 in padded inputs.
    real
        float32 ``[B]`` on the device: 1 for inputs, 0 for padding.
    slot
        Staging slot that holds its cold rows; 0 where there is none.
    """

    packed: PackedBatch
    dense: Tensor
    labels: Tensor
    real: Tensor
    slot: int

    @property
    def num_inputs(self) -> int:
        """Inputs that are not padding."""
        return self.packed.num_inputs


def make_ready(packed: PackedBatch, device: torch.device, slot: int) -> ReadyBatch:
    """Copy what the model needs to `device`."""
    real = np.zeros(len(packed.labels), np.float32)
    real[: packed.num_inputs] = 1.0

    def to_device(array: np.ndarray) -> Tensor:
        # A copy on purpose: packed arrays are views of a memory-mapped file.
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(device)

    return ReadyBatch(
        packed=packed,
        dense=to_device(packed.dense),
        labels=to_device(packed.labels),
        real=to_device(real),
        slot=slot,
    )
