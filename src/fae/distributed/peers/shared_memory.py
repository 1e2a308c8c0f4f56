"""Host memory that all ranks of one host map: a file without a name, which ends with the last of them."""

from __future__ import annotations

import ctypes
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
"""``MADV_COLLAPSE`` of Linux 6.1, which takes large pages also for memory that processes share."""
_LARGE_PAGE = 2 * 2**20
_CALL_BYTES = 32 * _LARGE_PAGE
"""As much in one call, between which signals are heard."""
_FEWEST_BYTES = 16 * _LARGE_PAGE
_MAP_FIXED = 0x10


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

    Small memory takes its pages when it is first written. Of 32 MiB or more the ranks take large pages at once, each a
    part of them: rows are read at random, and with small pages the loops over rows take a third longer.

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
        found = [
            _mapped(f"/proc/{process}/fd/{file}", item, numbers) if numbers else torch.from_numpy(np.zeros(0, item))
            for process, file, numbers in made
        ]
        for each in found:
            _take_large_pages(each, group.rank, group.world)
        group.barrier("all have mapped the memory of each rank")
    finally:
        if size:
            os.close(descriptor)
    return found


def _mapped(path: str, item: np.dtype[Any], numbers: int) -> Tensor:
    """A file as a vector; a large one from the address of a large page on."""
    size = numbers * item.itemsize
    if size < _FEWEST_BYTES:
        return torch.from_numpy(np.memmap(path, item, "r+", shape=(numbers,)))
    region = mmap.mmap(-1, size + _LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # whose addresses it takes
    whole = np.frombuffer(region, np.uint8)
    first = -whole.ctypes.data % _LARGE_PAGE
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    file = os.open(path, os.O_RDWR)
    try:
        flags = mmap.MAP_SHARED | _MAP_FIXED
        at = call(whole.ctypes.data + first, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, 0)
        if at != whole.ctypes.data + first:
            raise RankError(f"memory of another rank cannot be mapped: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(file)
    return torch.from_numpy(whole[first : first + size].view(item))


def _take_large_pages(memory: Tensor, rank: int, world: int) -> None:
    """Take the large pages of this rank's part of a vector of zeros, as far as the system has them."""
    size, at = memory.nbytes, memory.data_ptr()
    if size < _FEWEST_BYTES:
        return
    first, end = (size // _LARGE_PAGE * part // world * _LARGE_PAGE for part in (rank, rank + 1))
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    advise(at, size, mmap.MADV_HUGEPAGE)  # what older systems may follow when a page is first written
    numbers = memory.view(torch.uint8)
    for start in range(first, end, _CALL_BYTES):
        stop = min(start + _CALL_BYTES, end)
        numbers[start:stop:_LARGE_PAGE] = 0  # a part that has no page at all is left as it is
        if advise(at + start, stop - start, _COLLAPSE):
            return
