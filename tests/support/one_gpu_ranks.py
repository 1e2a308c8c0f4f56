"""Let several ranks share one GPU, which no training does: what they compute is the same, at another speed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from fae.distributed import devices
from fae.distributed.link import Link
from fae.distributed.peers import wires


def share_one_gpu() -> None:
    """Give every rank of this host its first GPU; NCCL refuses that, so what is not read in place goes over Gloo."""
    os.environ["TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES"] = "1"
    wires._why_not_peer = lambda group, device: ""
    _take(lambda rank: 0)


def share_two_gpus() -> None:
    """Give two hosts of two ranks two GPUs each, which are the same: those of one number on both hosts differ."""
    _take(lambda rank: (rank + rank // 2) % 2)


def _take(number_of: Callable[[int], int]) -> None:
    def take(place: Any, device: str) -> torch.device:
        torch.cuda.set_device(number_of(place.rank))
        return torch.device("cuda", number_of(place.rank))

    devices.take_device = take
    gather_through_host_memory()


def gather_through_host_memory() -> None:
    """Let Gloo move what NCCL would gather over all ranks: it refuses two of them on one GPU."""

    def gather(self: Link, out: torch.Tensor, tensor: torch.Tensor, what: str) -> None:
        found = torch.empty(out.shape, dtype=out.dtype)
        self._gather(found, tensor.detach().cpu().contiguous(), self._control, what)
        out.copy_(found)

    new_group = dist.new_group
    dist.new_group = lambda ranks=None, backend=None, **options: new_group(
        ranks, backend=backend if ranks else "gloo", **options
    )  # fmt: skip
    Link.gather_tensors = gather  # type: ignore[method-assign]
