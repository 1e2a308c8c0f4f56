"""Buffers that every rank writes its own part of and reads all parts of: on GPUs that see each other, in place.

A rank writes `own`, calls `send` and `await_all`, and reads what the `pointers` say. Before it writes again, all must
have read: `await_all` says so too, and one of any buffer is enough for all of them. The host waits for nothing, so all
can be captured in a CUDA graph. What is read has the same bytes whatever moved it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fae.distributed.ends import CommonFault
from fae.distributed.group import Group, Wire
from fae.kernels.torch_private import symmetric_memory

_BARRIER_MILLISECONDS = 15 * 60 * 1000
"""A GPU whose others do not come ends with an error after this time, which is longer than the host waits for them."""


class PeerBuffer(Protocol):
    """A float32 vector of each rank.

    Attributes
    ----------
    own
        float32 ``[size]``: that of this rank.
    pointers
        int64 ``[world]`` on the device: where the vector of each rank is.
    """

    own: Tensor
    pointers: Tensor

    def send(self) -> None:
        """What this rank has written is whole, in the order of the current stream."""

    def await_all(self) -> None:
        """From here on all ranks have done what they had launched before, in the order of the current stream."""


class _PeerMemory:
    """Memory of each GPU that all GPUs of the host map; nothing is sent.

    Parameters
    ----------
    channel
        Number of the buffer: barriers of different buffers may be under way at the same time.
    """

    def __init__(self, group: Group, size: int, device: torch.device, channel: int) -> None:
        assert group.link is not None
        memory = symmetric_memory()
        self.own: Tensor = memory.empty(size, dtype=torch.float32, device=device)
        self.own.zero_()
        self._handle = memory.rendezvous(self.own, group.link.tensor_group)
        self._channel = channel
        addresses = [int(address) for address in self._handle.buffer_ptrs]
        self.pointers = torch.tensor(addresses, dtype=torch.int64, device=device)

    def send(self) -> None:
        """Nothing: all ranks see the memory."""

    def await_all(self) -> None:
        self._handle.barrier(channel=self._channel, timeout_ms=_BARRIER_MILLISECONDS)


class _Gathered:
    """A copy of every rank's vector, brought by a collective."""

    def __init__(self, group: Group, size: int, device: torch.device, what: str) -> None:
        self._group, self._what = group, what
        self.own = torch.zeros(size, device=device)
        self._all = torch.zeros((group.world, size), device=device)
        first = self._all.data_ptr()
        self.pointers = torch.tensor([first + 4 * size * rank for rank in range(group.world)], device=device)

    def send(self) -> None:
        self._group.all_gather(self.own, self._what, self._all)

    def await_all(self) -> None:
        """Nothing: what is read is a copy, which is there when `send` is over."""


def peer_buffer(group: Group, size: int, device: torch.device, *, channel: int, what: str) -> PeerBuffer:
    """Make a buffer; all ranks call it at the same place, with the same arguments.

    Parameters
    ----------
    group
        The ranks, of which there are several; `Group.wire` says how bytes get from one to the other: ``peer`` reads
        other GPUs' memory in place, ``gather`` has a collective copy it.
    size
        Numbers of a rank, at least 1.
    channel
        From 0: another one for each buffer that is in use at the same time.
    what
        The buffer in words, as for `Group.all_gather`.

    Raises
    ------
    CommonFault
        If GPUs do not see each other and `Group.wire` does not say to use NCCL, whose sums nobody has seen end.
    """
    size = max(1, size)
    wire = group.wire or best_wire(group, device)
    if wire == "gather" and group.wire is None and device.type == "cuda":
        raise CommonFault(
            "the GPUs of these ranks do not read each other's memory, as those of one host with NVLink do; train on "
            "GPUs that do (nvidia-smi topo -m), on one of them, or with --device cpu"
        )
    if wire == "peer":
        return _PeerMemory(group, size, device, channel)
    return _Gathered(group, size, device, what)


def best_wire(group: Group, device: torch.device) -> Wire:
    """``peer`` where all ranks are GPUs of one host that map each other's memory; the same on all ranks."""
    can = device.type == "cuda" and symmetric_memory() is not None and len(set(group.hosts)) == 1
    if can:
        others = (other for other in range(torch.cuda.device_count()) if other != device.index)
        can = all(torch.cuda.can_device_access_peer(device, other) for other in others)
    return "gather" if group.any(not can, "whether GPUs see each other") else "peer"
