"""Row kernels in plain torch, on any device: the definition that every other engine is tested against.

The gradients of a row are summed along its run of ``order``, one after the other (torch's `segment_reduce` adds in
order on the CPU and on CUDA), so results do not depend on timing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.core.optimizers import DEFAULT_BETAS, Betas, bias_corrected_rate
from fae.core.pooling import POOLING_CODE
from fae.kernels.geometry import GroupGeometry


class ReferenceGroupKernels:
    """Lookup and update of one group; the same calls as `fae.kernels.cpu.CpuGroupKernels`, tensors on `device`."""

    def __init__(self, geometry: GroupGeometry, batch_size: int, optimizer: str, device: torch.device) -> None:
        self.geometry = geometry
        self._optimizer, self._device, self._batch_size = optimizer, device, batch_size
        self._slots = torch.from_numpy(geometry.slots).to(device)
        self._slot_column = torch.from_numpy(geometry.slot_column).to(device)
        self._slot_feature = torch.from_numpy(geometry.slot_feature).to(device)
        self._is_mean = torch.from_numpy(geometry.pooling == POOLING_CODE["mean"]).to(device)
        self._dims = torch.arange(geometry.embedding_dim, device=device)
        self._rows = torch.full((batch_size, geometry.num_slots), -1, dtype=torch.int64, device=device)
        self._inverse_count = torch.ones((batch_size, len(geometry.length)), device=device)

    def lookup(
        self,
        addresses: npt.NDArray[np.int32],
        num_hot_rows: int,
        weight: Tensor,
        out: Tensor,
        *,
        shift: int,
        cold_rows: npt.NDArray[np.int64],
    ) -> None:
        """Turn a batch's addresses into rows of the bank and pool them; see `CpuGroupKernels.lookup`."""
        self._translate(addresses, num_hot_rows, shift, cold_rows)
        self._pool(weight, out)

    def _translate(
        self, addresses: npt.NDArray[np.int32], num_hot_rows: int, shift: int, cold_rows: npt.NDArray[np.int64]
    ) -> None:
        # Copies: packed arrays are read-only views of a file, which torch would warn about.
        rows = torch.from_numpy(np.array(addresses)).to(self._device)[:, self._slots].long()
        is_cold = rows >= num_hot_rows
        if len(cold_rows):
            listed = torch.from_numpy(np.array(cold_rows)).to(self._device)
            rows = torch.where(is_cold, listed[(rows - num_hot_rows).clamp(0, len(cold_rows) - 1)], rows)
        else:
            rows = torch.where(is_cold, rows + shift, rows)
        self._rows[:, self._slots] = rows

    def _pool(self, weight: Tensor, out: Tensor) -> None:
        geometry, dim = self.geometry, self.geometry.embedding_dim
        for index in range(len(geometry.length)):
            first, length, column = (
                int(geometry.first_slot[index]), int(geometry.length[index]), int(geometry.column[index])
            )  # fmt: skip
            rows = self._rows[:, first : first + length]
            vectors = weight[rows.clamp(min=0)] * (rows >= 0).unsqueeze(-1)
            if geometry.pooling[index] == POOLING_CODE["none"]:
                out[:, column : column + length * dim] = vectors.reshape(len(out), -1)
                continue
            pooled = vectors[:, 0]
            for step in range(1, length):
                pooled = pooled + vectors[:, step]
            if geometry.pooling[index] == POOLING_CODE["mean"]:
                self._inverse_count[:, index] = 1.0 / (rows >= 0).sum(1).clamp(min=1)
                pooled = pooled * self._inverse_count[:, index : index + 1]
            out[:, column : column + dim] = pooled

    def update(
        self,
        weight: Tensor,
        state: Tensor,
        order: npt.NDArray[np.int32],
        grad: Tensor,
        learning_rate: float,
        eps: float,
        *,
        betas: Betas = DEFAULT_BETAS,
        step: int = 1,
        kept_share: float = 1.0,
    ) -> None:
        """Sum gradients by row and apply the optimizer, in place; see `CpuGroupKernels.update`."""
        lookups = torch.from_numpy(np.array(order)).to(self._device).long()
        rows = self._rows.reshape(-1)[lookups]
        lookups, rows = lookups[rows >= 0], rows[rows >= 0]
        if rows.numel() == 0:
            return
        inputs = torch.div(lookups, self.geometry.num_slots, rounding_mode="floor")
        slots = lookups - inputs * self.geometry.num_slots
        columns = self._slot_column[slots].unsqueeze(1) + self._dims
        gradients = grad[inputs.unsqueeze(1), columns]
        features = self._slot_feature[slots]
        scales = torch.where(self._is_mean[features], self._inverse_count[inputs, features], 1.0)
        touched, lengths = torch.unique_consecutive(rows, return_counts=True)
        total = torch.segment_reduce(gradients * scales.unsqueeze(1), "sum", lengths=lengths, axis=0)
        if kept_share != 1.0:
            weight[touched] *= kept_share
        if self._optimizer == "sgd":
            weight[touched] -= learning_rate * total
        elif self._optimizer == "rowwise_adagrad":
            state[touched] += (total * total).mean(1, keepdim=True)
            weight[touched] -= learning_rate / (state[touched].sqrt() + eps) * total
        elif self._optimizer == "adagrad":
            state[touched] += total * total
            weight[touched] -= learning_rate * (total / (state[touched].sqrt() + eps))
        else:
            # torch.optim.SparseAdam: rows of this batch only, old + (1 - beta) * (new - old), one step count.
            moment, square = state[touched].split(self.geometry.embedding_dim, dim=1)
            moment = moment + (total - moment) * (1 - betas[0])
            square = square + (total * total - square) * (1 - betas[1])
            state[touched] = torch.cat([moment, square], 1)
            rate = bias_corrected_rate(learning_rate, betas, step)
            weight[touched] -= rate * (moment / (square.sqrt() + eps))
