"""Host memory that all ranks of one host map: a file without a name, which ends with the last of them."""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fae.core.errors import RankError
from fae.core.units import format_bytes
from fae.distributed.group import Group
from fae.distributed.peers.host_meeting import WORD_NUMBERS, HostMeeting

_COLLAPSE = 25
"""``MADV_COLLAPSE`` of Linux 6.1: large pages at once, also for memory that processes share."""


def with_host_meeting(group: Group) -> Group:
    """The group with `Group.meeting`, where its ranks are processes of one host that map one another's memory.

    All ranks call it together, and find the same.
    """
    if group.link is None or not _can_share_memory(group):
        return group
    size = group.world * WORD_NUMBERS if group.is_first else 0
    words: Any = memory_of_ranks(group, size, torch.int64)[0].view(group.world, WORD_NUMBERS).numpy()
    return replace(group, meeting=HostMeeting(words, group.rank, group.link))


def _can_share_memory(group: Group) -> bool:
    assert group.link is not None
    can = hasattr(os, "memfd_create") and group.link.is_on_one_host
    descriptor = os.memfd_create("fae") if can else -1
    try:
        made = group.gather_json([os.getpid(), descriptor], "whether ranks share memory")
        for process, file in made:
            can = can and file >= 0 and os.access(f"/proc/{process}/fd/{file}", os.R_OK | os.W_OK)
        return all(group.gather_json(can, "whether all ranks share memory"))
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def memory_of_ranks(group: Group, size: int, dtype: torch.dtype) -> list[Tensor]:
    """Make a vector of zeros, and map those of all ranks; all call it together.

    The pages are taken when they are first written, large ones where the system gives them.

    Parameters
    ----------
    group
        The ranks, of one host.
    size
        Numbers of this rank's vector; 0 for none.

    Returns
    -------
    list of Tensor
        The vector of each rank, shape ``[size]`` of that rank.
    """
    item = torch.empty(0, dtype=dtype).numpy().dtype
    descriptor = os.memfd_create("fae") if size else -1
    try:
        if size:
            try:
                os.truncate(descriptor, size * item.itemsize)
            except OSError as error:
                raise RankError(
                    f"this host does not give {format_bytes(size * item.itemsize)} that its ranks share ({error}); see "
                    "ulimit -f and the host's free memory"
                ) from error
        made = group.gather_json([os.getpid(), descriptor, size], "where the memory of each rank is")
        found = []
        for process, file, numbers in made:
            mapped = np.zeros(0, item)
            if numbers:
                mapped = np.memmap(f"/proc/{process}/fd/{file}", item, "r+", shape=(numbers,))
                with contextlib.suppress(OSError, AttributeError):  # a system without large pages
                    mapped.base.madvise(mmap.MADV_HUGEPAGE)  # type: ignore[union-attr]
            found.append(torch.from_numpy(mapped))
        group.barrier("all have mapped the memory of each rank")
    finally:
        if size:
            os.close(descriptor)
    return found
