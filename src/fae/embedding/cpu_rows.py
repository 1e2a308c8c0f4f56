"""Lookup and update of all groups through the CPU kernels, or through the reference on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import read_only
from fae.kernels.cpu import CpuGroupKernels, rows_of_addresses
from fae.kernels.geometry import GroupGeometry
from fae.kernels.reference import ReferenceGroupKernels
from fae.streaming.huge_pages import host_zeros
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore

if TYPE_CHECKING:
    from fae.embedding.ranks.rank_rows import RankRows

ColdRows = Callable[[ReadyBatch, int], tuple[int, npt.NDArray[np.int64]]]
"""From a batch and group to how a cold address becomes a row: ``(shift, list)``, see `CpuGroupKernels.lookup`."""


class CpuRows:
    """Kernels and output buffers of the groups of one layout.

    Parameters
    ----------
    engine
        ``cpu`` (numba) or ``reference`` (plain torch).

    Attributes
    ----------
    outputs
        Pooled rows, float32 ``[B, W]`` per group, of a slice ``[B / S, W]``; the leaves of the backward pass, which
        every lookup takes again.
    addresses
        int32 ``[B, S]``: those of the batch that was looked up last.
    """

    def __init__(
        self,
        layout: RowLayout,
        geometries: Sequence[GroupGeometry],
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        engine: Literal["cpu", "reference"],
    ) -> None:
        self._layout, self._geometries, self._optimizer, self._batch_size = layout, geometries, optimizer, batch_size
        self._derived = self.addresses = np.empty((batch_size, layout.num_slots), np.int32)
        self._joined = np.empty(batch_size * layout.num_slots, np.int32)
        self._order: npt.NDArray[np.int32] | None = None  # of the batch that was looked up last
        self._kernels: list[CpuGroupKernels | ReferenceGroupKernels] = []
        self.outputs: list[Tensor] = []
        for geometry in geometries:
            self._kernels.append(
                CpuGroupKernels(geometry, batch_size, optimizer.name)
                if engine == "cpu"
                else ReferenceGroupKernels(geometry, batch_size, optimizer.name, device)
            )
            self.outputs.append(
                host_zeros(batch_size, geometry.width)
                if device.type == "cpu"
                else torch.zeros((batch_size, geometry.width), device=device)
            )

    def lookup(
        self, batch: ReadyBatch, banks: Sequence[RowStore], cold_rows: ColdRows, *, requires_grad: bool
    ) -> list[Tensor]:
        """Read and pool the rows of a batch from the banks into `outputs`, which are returned."""
        self._order = batch.packed.read_order(self._joined)
        self.addresses = read_only(batch.packed.read_addresses(self._derived, self._order))
        for group, (kernels, output) in enumerate(zip(self._kernels, self.outputs, strict=True)):
            output.requires_grad_(False).grad = None
            shift, listed = cold_rows(batch, group)
            kernels.lookup(
                self.addresses,
                self._layout.groups[group].num_hot_rows,
                banks[group].weight,
                output,
                shift=shift,
                cold_rows=listed,
            )
            increment_version(output)  # numba has written it: a backward pass of an earlier lookup must not use it
            output.requires_grad_(requires_grad)
        return self.outputs

    def keep(self, part: ReadyBatch, ranks: RankRows) -> None:
        """Sum the gradients of the slice that was looked up last; its outputs are free from here on."""
        kernels = [each for each in self._kernels if isinstance(each, CpuGroupKernels)]
        grads = [None if output.grad is None else output.grad.detach().numpy() for output in self.outputs]
        ranks.keep(kernels, part.packed, grads)

    def update(
        self,
        batch: ReadyBatch,
        banks: Sequence[RowStore],
        cold_rows: ColdRows,
        *,
        step: int,
        rate_factor: float = 1.0,
        ranks: RankRows | None = None,
    ) -> None:
        """Sum the gradients of the batch that was looked up last and apply the optimizer.

        Parameters
        ----------
        cold_rows
            As for the lookup; one rank alone has kept what it found there.
        step
            Number of the step, from 1, for Adam.
        rate_factor
            What the learning rate of this step is multiplied by.
        ranks
            Has kept the sums of each slice of this rank, and sums them over all slices; None where batches are whole.
        """
        order, optimizer = self._order, self._optimizer
        assert order is not None
        if ranks is not None:
            ranks.send(batch.packed, f"the row sums of step {step}")
        for group, (kernels, output) in enumerate(zip(self._kernels, self.outputs, strict=True)):
            geometry, bank = self._geometries[group], banks[group]
            rate, kept_share = optimizer.learning_rate * rate_factor, optimizer.kept_share(rate_factor)
            if ranks is not None:
                assert isinstance(kernels, CpuGroupKernels)
                found = ranks.totals(batch.packed, group, f"the row sums of step {step}")
                if found is None:  # the model did not use the group
                    continue
                addresses, totals = found
                shift, listed = cold_rows(batch, group)
                hot = self._layout.groups[group].num_hot_rows
                rows = rows_of_addresses(addresses, hot, shift=shift, cold_rows=listed)
                kernels.step_rows(
                    bank.weight, bank.state, rows, totals, rate, optimizer.eps, betas=optimizer.betas, step=step,
                    kept_share=kept_share,
                )  # fmt: skip
                continue
            if output.grad is None:
                continue
            start = self._batch_size * geometry.order_start
            part = order[start : start + self._batch_size * len(geometry.slots)]
            kernels.update(
                bank.weight, bank.state, part, output.grad.detach(), rate, optimizer.eps, betas=optimizer.betas,
                step=step, kept_share=kept_share,
            )  # fmt: skip
        if ranks is not None:
            ranks.end_step(f"the row steps of step {step}")
