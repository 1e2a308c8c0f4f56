"""The device of a rank: on GPUs, each rank of a host has one of its own, with memory of its own."""

from __future__ import annotations

import torch

from fae.core.errors import DeviceError
from fae.distributed.places import RankPlace


def take_device(place: RankPlace, device: str) -> torch.device:
    """The device of a rank, which torch then uses where none is named.

    Parameters
    ----------
    device
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    DeviceError
        If this host has fewer GPUs than ranks.
    """
    if device != "cuda":
        return torch.device(device)
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise DeviceError(
            f"rank {place.rank} is number {place.local_rank + 1} of its host, which has {count} "
            f"GPU{'s' * (count != 1)}; start at most {count} ranks here"
        )
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)


def gpu_with_free_bytes() -> tuple[int, int]:
    """The number of the GPU that this process uses where none is named, and the bytes that it can still take there.

    What torch holds of it and does not use counts as free.
    """
    held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return torch.cuda.current_device(), torch.cuda.mem_get_info()[0] + held
