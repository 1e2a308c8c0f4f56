"""Memory of each rank that all ranks of a host map: its owner writes it, the others read it in place.

On GPUs it is torch's symmetric memory. Nothing is sent, so a rank must know that another one has written: kernels know
it by the barriers of a step, and what reads from the host by `written`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fae.distributed.ends import CommonFault
from fae.distributed.group import Group
from fae.distributed.peers.shared_memory import memory_of_ranks
from fae.distributed.peers.written_words import WrittenWords
from fae.kernels.torch_private import symmetric_memory


class PeerRows:
    """A float32 vector of each rank, all of one length.

    Parameters
    ----------
    group
        The ranks, of one host; all make it together.
    size
        Numbers of a rank, the same on all.
    device
        A GPU, or the CPU.

    Attributes
    ----------
    pointers
        int64 ``[world]`` on the device: where the vector of each rank is.
    written
        Says on the host that vectors are written.

    Raises
    ------
    CommonFault
        If the ranks cannot map each other's memory.
    """

    def __init__(self, group: Group, size: int, device: torch.device) -> None:
        self._group, self._device = group, device
        self._handles: list[Any] = []  # of memory that GPUs map
        if device.type == "cuda" and group.wire != "peer":
            raise CommonFault(
                "[train] placement = 'spread' reads rows in place on other GPUs, and these GPUs do not read each "
                f"other's memory, since {group.why_gathered}; use placement tiered, or device where all rows fit a GPU"
            )
        parts = self._map(max(1, size), torch.float32)
        self._parts = [part[:size] for part in parts]
        self.pointers = torch.tensor([part.data_ptr() for part in parts], dtype=torch.int64, device=device)
        self.written = WrittenWords(self._map(1, torch.int64), group.rank)

    def of(self, rank: int) -> Tensor:
        """The vector of a rank, zeros at first, to be read; written by that rank alone."""
        return self._parts[rank]

    def _map(self, size: int, dtype: torch.dtype) -> list[Tensor]:
        if self._device.type != "cuda":
            return memory_of_ranks(self._group, size, dtype)
        assert self._group.link is not None
        memory = symmetric_memory()
        own: Tensor = memory.empty(size, dtype=dtype, device=self._device).zero_()
        torch.cuda.synchronize(self._device)  # no rank reads what another one still fills with zeros
        handle = memory.rendezvous(own, self._group.link.tensor_group)
        self._handles.append(handle)
        return [
            own if rank == self._group.rank else handle.get_buffer(rank, (size,), dtype)
            for rank in range(self._group.world)
        ]
