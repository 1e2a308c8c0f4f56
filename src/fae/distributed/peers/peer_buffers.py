"""Buffers that every rank writes its own part of and reads all parts of: on GPUs that see each other, in place.

A rank writes `own`, calls `send` and `await_all`, and reads what the `pointers` say. Before it writes again, all must
have read: `await_all` says so too, and one of any buffer is enough for all of them. The host waits for nothing, so all
can be captured in a CUDA graph. What is read has the same bytes whatever moved it.

GPUs of several hosts, and those of one host that do not see each other, have NCCL copy what is read; ranks of CPUs have
Gloo do it. Which of these it is `fae.distributed.peers.wires` finds.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fae.distributed.group import Group
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
        int64 ``[world]`` on the device: where the vector of each rank is, at multiples of 16 bytes.
    """

    own: Tensor
    pointers: Tensor

    def send(self) -> None:
        """What this rank has written is whole, in the order of the current stream."""

    def await_all(self) -> None:
        """From here on all ranks have done what they had launched before, in the order of the current stream."""


class _OwnMemory:
    """The vector of the only rank."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.own = torch.zeros(size, device=device)
        self.pointers = torch.tensor([self.own.data_ptr()], device=device)

    def send(self) -> None:
        """Nothing: nobody else reads it."""

    def await_all(self) -> None:
        """Nothing: there are no others."""


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
    """A copy of every rank's vector, brought by a collective, which is all that ranks wait for.

    Nothing of this rank's memory is read or written by another rank outside of the collective, so no barrier is needed,
    and `await_all` may be left out or called once for many buffers, as those who read in place do:

    * *Reading behind writing.* On a GPU the collective reads `own` behind what the current stream had launched, and
      the current stream continues behind the collective: torch launches it there, or on a stream of NCCL's that waits
      for an event of the current one and is waited for in turn. It is over when the parts of all ranks are in the copy.
    * *Writing behind reading.* NCCL's part of a rank is over when nobody needs its `own` any longer, so the next step,
      behind it in the order of the stream, may overwrite it. The copy is overwritten by the next `send` of this rank
      alone: what reads it on another stream (rows that are stepped when the next step begins) is waited for by the
      current one before gradients are written (`Embeddings.await_lookup`), and `send` comes behind them.
    * *The same order on all ranks.* All collectives of NCCL are launched by one thread, in the order of batches, groups
      of tables and then dense weights, which is the same on all ranks; one communicator runs them one by one.
    * *Captured graphs* hold the collective with the addresses of `own` and of the copy, which are made once. The first
      steps run kernel by kernel, so NCCL has connected ranks before a capture. Ranks capture at the same batch. NCCL is
      taken down when the graphs are gone (`fae.distributed.link`).
    """

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
        The ranks. Where there are several, `Group.wire` says how bytes get from one to the other: ``peer`` reads other
        GPUs' memory in place, else a collective copies it.
    size
        Numbers of a rank; there are some more where it is no multiple of 4.
    channel
        From 0: another one for each buffer that is in use at the same time.
    what
        The buffer in words, as for `Group.all_gather`.
    """
    size = aligned_size(size)
    if group.world == 1:
        return _OwnMemory(size, device)
    if group.wire == "peer":
        return _PeerMemory(group, size, device, channel)
    return _Gathered(group, size, device, what)


def aligned_size(size: int) -> int:
    """The least multiple of 4 numbers, which are 16 bytes, that is no less than `size`, and not 0.

    >>> aligned_size(0), aligned_size(4), aligned_size(5)
    (4, 4, 8)
    """
    return -(-max(1, size) // 4) * 4
