"""How ranks reach one another's buffers: what they find out when they meet."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from fae.distributed.group import Group, HostParts, Wire
from fae.distributed.link import Link
from fae.distributed.part_link import PartLink
from fae.kernels.torch_private import symmetric_memory


def with_best_wire(group: Group, device: torch.device) -> Group:
    """The group with `Group.wire`: ``peer`` where all ranks are GPUs of one host that map each other's memory.

    Where those of each host do, and hosts have as many of them, it is ``hosts``. All ranks call it together, and find
    the same.
    """
    if device.type != "cuda":
        return replace(group, wire="gather")
    reason = _why_not_peer(group, device)
    if not reason:
        return replace(group, wire="peer")
    found = replace(group, wire="gather", why_gathered=reason)
    num_ranks = _ranks_of_each_host(group)
    return found if num_ranks < 2 or not _see_neighbours(group, device) else in_hosts(found, num_ranks)


def in_hosts(group: Group, num_ranks: int) -> Group:
    """The group with `Group.parts`: hosts of `num_ranks` consecutive ranks each. All ranks call it together."""
    assert isinstance(group.link, Link)
    world, host, number = group.world, group.rank // num_ranks, group.rank % num_ranks
    hosts = [range(first, first + num_ranks) for first in range(0, world, num_ranks)]
    # A store of the ranks of a host is all that mapped memory needs of their group.
    near = PartLink(group.link, group.rank, hosts, "gloo")
    far = PartLink(group.link, group.rank, [range(each, world, num_ranks) for each in range(num_ranks)], "nccl")
    wire: Wire = "peer" if group.device.startswith("cuda") else "gather"
    parts = HostParts(
        neighbours=Group(
            rank=number, world=num_ranks, local_rank=group.local_rank, device=group.device, link=near, wire=wire,
            hosts=tuple(group.hosts[rank] for rank in hosts[host]),
        ),
        counterparts=Group(
            rank=host, world=len(hosts), local_rank=group.local_rank, device=group.device, link=far, wire="gather",
            hosts=group.hosts[number::num_ranks],
        ),
    )  # fmt: skip
    return replace(group, wire="hosts", parts=parts)


def _ranks_of_each_host(group: Group) -> int:
    """How many ranks each host has, in a row; 0 where hosts differ, or where one has them all."""
    firsts = group.gather_json(group.rank - group.local_rank, "the first rank of each host")
    sizes = Counter(firsts)
    size = sizes[firsts[0]]
    is_even = (
        len(sizes) > 1
        and set(sizes.values()) == {size}
        and firsts == [rank // size * size for rank in range(group.world)]
    )
    return size if is_even else 0


def _see_neighbours(group: Group, device: torch.device) -> bool:
    """Whether on every host GPUs read each other's memory."""
    found = group.gather_json([group.rank - group.local_rank, device.index], "the GPUs of each host")
    numbers = [number for first, number in found if first == group.rank - group.local_rank]
    sees = (
        len(set(numbers)) == len(numbers)
        and symmetric_memory() is not None
        and all(_reads_memory(device, other) for other in numbers if other != device.index)
    )
    return all(group.gather_json(sees, "whether GPUs of each host see each other"))


def _why_not_peer(group: Group, device: torch.device) -> str:
    """Why GPUs of ranks do not read each other's memory, the same on all ranks; empty where they do."""
    numbers: list[int] = group.gather_json(device.index, "the GPUs of all ranks")
    hosts = len(set(group.hosts))
    if hosts > 1:
        found = f"ranks are on {hosts} hosts"
    elif len(set(numbers)) < len(numbers):  # several containers of one host, or starts of torchrun with other GPUs
        found = "ranks of this host do not see each other's GPUs (CUDA_VISIBLE_DEVICES)"
    elif symmetric_memory() is None:
        found = "this torch has no memory that GPUs share"
    else:
        apart = [other for other in numbers if other != device.index and not _reads_memory(device, other)]
        found = f"GPU {device.index} does not read the memory of GPU {apart[0]} (nvidia-smi topo -m)" if apart else ""
    return next((each for each in group.gather_json(found, "whether GPUs see each other") if each), "")


def _reads_memory(device: torch.device, other: int) -> bool:
    return other < torch.cuda.device_count() and torch.cuda.can_device_access_peer(device, other)
