"""Memory of the contenders' tables: one for each, or one that all take in turns where the machine is too small."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from fae.bench.config import BenchConfig
from fae.bench.preparation import Preparation
from fae.core.progress import say
from fae.core.units import format_bytes
from fae.run.record import machine
from fae.streaming.huge_pages import host_zeros, lending

_SHARED_FROM = 0.4
"""Contenders share one memory where their tables side by side would take more than this share of the machine's."""
_FILL_FLOATS = 2**24


def random_rows(num_floats: int) -> Tensor:
    """Host memory of small random values, on huge pages, float32 ``[num_floats]``."""
    memory = host_zeros(num_floats, 1).view(-1)
    fill(memory)
    return memory


def fill(weight: Tensor) -> None:
    """Fill with small random values, in place; one block of 64 MiB is drawn and repeated, as fast as memory is."""
    flat = weight.view(-1)
    block = torch.empty(min(_FILL_FLOATS, flat.numel()), device=weight.device).normal_(std=0.02)
    for start in range(0, flat.numel(), _FILL_FLOATS):
        part = flat[start : start + _FILL_FLOATS]
        part.copy_(block[: part.numel()])


class RowMemory:
    """The host memory in which the contenders of one command keep their rows.

    Parameters
    ----------
    copies
        How many of each contender this host has, where its ranks have one each.

    Attributes
    ----------
    is_shared
        Whether contenders take turns in one memory, filled already. Optimizer state must start at zero, so only SGD
        can share.
    """

    def __init__(self, config: BenchConfig, prepared: Preparation, *, copies: int = 1) -> None:
        self._prepared = prepared
        self._table_bytes = prepared.num_rows * prepared.row_bytes
        installed = machine()["memory_bytes"] or 2**62
        on_host = len([name for name in config.contenders if name != "device"])
        is_large = copies * on_host * self._table_bytes > _SHARED_FROM * installed
        self.is_shared = bool(is_large) and prepared.optimizer == "sgd"
        self._shared: Tensor | None = None

    def lent(self) -> AbstractContextManager[None]:
        """Within the block, large host allocations of FAE's row stores take the shared memory, where it is shared."""
        return lending(self._shared_rows()) if self.is_shared else nullcontext()

    def plain_tables(self) -> Tensor:
        """Memory of plain PyTorch's rows, on huge pages like FAE's, float32 ``[num_rows * D]`` or more."""
        if self.is_shared:
            return self._shared_rows()
        return random_rows(self._prepared.num_rows * self._prepared.model.embedding_dim)

    def _shared_rows(self) -> Tensor:
        if self._shared is None:
            floats = self._table_bytes // 4
            say(f"bench: {format_bytes(4 * floats)} of host memory for the tables of all contenders, in turns")
            self._shared = random_rows(floats)
        return self._shared
