"""Host memory that all ranks of one host map: a file without a name, which ends with the last of them."""

from __future__ import annotations

import contextlib
import mmap
import os

import numpy as np
import torch
from torch import Tensor

from fae.core.errors import RankError
from fae.core.units import format_bytes
from fae.distributed.group import Group


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
