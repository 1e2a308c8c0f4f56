"""Host memory for rows: zeroed, and on huge pages where the system gives them.

Rows are read at random places of gigabytes; with 4 KiB pages nearly every read also misses the processor's table of
pages. Requesting 2 MiB pages (``madvise``) makes the CPU row kernels about a third faster (``benchmarks/rows.py``). If
the system refuses, only speed changes.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

import torch
from torch import Tensor

_HUGE_PAGE_BYTES = 2 * 2**20

_lent: Tensor | None = None


@contextlib.contextmanager
def lending(memory: Tensor) -> Iterator[None]:
    """Inside the block `host_zeros` returns the beginning of `memory` for each request of more than half of it.

    For benchmarks whose contenders would not fit beside each other: one memory serves the tables of all of them, one
    contender at a time. The memory returned is *not* zeroed.

    Parameters
    ----------
    memory
        float32 ``[n]`` in host memory, made by `host_zeros`.
    """
    global _lent
    before, _lent = _lent, memory
    try:
        yield
    finally:
        _lent = before


def host_zeros(num_rows: int, width: int) -> Tensor:
    """float32 zeros ``[num_rows, width]`` in host memory; the pages are taken when they are first written."""
    num_bytes = 4 * num_rows * width
    if _lent is not None and 2 * num_bytes > 4 * _lent.numel() >= num_bytes:
        return _lent[: num_rows * width].view(num_rows, width)
    if num_bytes < _HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros((num_rows, width), dtype=torch.float32)
    # One page more than needed, so that rows can start on the boundary of a huge page.
    region = mmap.mmap(-1, num_bytes + _HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        region.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(region, dtype=torch.float32)
    first = -whole.data_ptr() % _HUGE_PAGE_BYTES // 4
    return whole[first : first + num_rows * width].view(num_rows, width)
