"""Memory of each rank that all ranks of a host map: its owner writes it, the others read it in place.

On GPUs it is torch's symmetric memory, in host memory a file without a name. Nothing is sent, so a rank must know that
another one has written: kernels know it by the barriers of a step, and whoever reads from the host by `await_written`.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fae.core.errors import RankError
from fae.distributed.ends import CommonFault
from fae.distributed.group import Group
from fae.distributed.peer_buffers import best_wire
from fae.kernels.torch_private import symmetric_memory

_LOOK_SECONDS = 0.002
_MOST_SECONDS = 600.0
"""As long as a collective waits for a rank."""


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
    own
        float32 ``[size]``, zeros at first: that of this rank.
    pointers
        int64 ``[world]`` on the device: where the vector of each rank is.

    Raises
    ------
    CommonFault
        If the ranks cannot map each other's memory.
    """

    def __init__(self, group: Group, size: int, device: torch.device) -> None:
        self._group, self._number = group, 0
        self._handles: list[Any] = []  # of memory that GPUs map
        if len(set(group.hosts)) > 1 or (device.type == "cuda" and best_wire(group, device) != "peer"):
            raise CommonFault(
                "rows that are spread over GPUs are read in place, and these GPUs do not read each other's memory, as "
                "those of one host with NVLink do; use placement tiered, or device where all rows fit each GPU"
            )
        self._map = self._map_gpus if device.type == "cuda" else self._map_host_memory
        parts = self._map(max(1, size), torch.float32, device)
        self._parts = [part[:size] for part in parts]
        self._words = self._map(1, torch.int64, device)  # how often each rank has said that its rows are written
        self.own: Tensor = self._parts[group.rank]
        self.pointers = torch.tensor([part.data_ptr() for part in parts], dtype=torch.int64, device=device)

    def of(self, rank: int) -> Tensor:
        """The vector of a rank, to be read."""
        return self._parts[rank]

    def say_written(self) -> None:
        """Say, in the order of the current stream, that the own vector is written; each rank says so as often."""
        self._number += 1
        self._words[self._group.rank].fill_(self._number)

    def await_written(self) -> None:
        """Wait until every rank has said so as often as this one has.

        Raises
        ------
        RankError
            If a rank has not within 600 s.
        """
        end = time.monotonic() + _MOST_SECONDS
        for rank, word in enumerate(self._words):
            while int(word.item()) < self._number:
                if time.monotonic() > end:
                    raise RankError(f"rank {rank} has not written its rows within {_MOST_SECONDS:.0f} s")
                time.sleep(_LOOK_SECONDS)

    def _map_gpus(self, size: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        assert self._group.link is not None
        memory = symmetric_memory()
        own: Tensor = memory.empty(size, dtype=dtype, device=device).zero_()
        torch.cuda.synchronize(device)  # no rank reads what another one still fills with zeros
        handle = memory.rendezvous(own, self._group.link.tensor_group)
        self._handles.append(handle)
        return [
            own if rank == self._group.rank else handle.get_buffer(rank, (size,), dtype)
            for rank in range(self._group.world)
        ]

    def _map_host_memory(self, size: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        item = torch.empty(0, dtype=dtype).numpy().dtype
        descriptor = os.memfd_create("rows of a rank")
        os.truncate(descriptor, size * item.itemsize)
        places = self._group.gather_json([os.getpid(), descriptor], "where the memory of each rank is")
        parts = [
            torch.from_numpy(np.memmap(f"/proc/{process}/fd/{file}", item, "r+", shape=(size,)))
            for process, file in places
        ]
        self._group.barrier("all have mapped the memory of each rank")
        os.close(descriptor)
        return parts
