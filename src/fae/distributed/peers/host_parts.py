"""Sums of whole hosts, which cross the network once: each rank of a host adds a part of them, which all then read.

Ranks of a host read one another's memory; rank i of a host exchanges its part with rank i of each other host by a
collective, into memory that the ranks of its host read.
"""

from __future__ import annotations

import torch

from fae.distributed.group import Group
from fae.distributed.peers.peer_buffers import PeerBuffer, aligned_size, peer_buffer
from fae.kernels.triton_dense import DENSE_BLOCK, add_ranks, part_blocks


class PartsOfHosts:
    """A vector of each host, in as many parts as it has ranks.

    What a rank has received may be written again by the next `send`: the ranks of a host meet before it (their own
    vectors must be there), and come there behind their reads of the step before.

    Parameters
    ----------
    group
        The ranks, with `fae.distributed.group.Group.parts`; all make it together.
    size
        The most numbers of a part.
    channel, what
        As `fae.distributed.peers.peer_buffers.peer_buffer` takes them.

    Attributes
    ----------
    own
        float32 ``[size]``: the part of the own host's vector that this rank adds.
    received
        This rank's part of the vectors of all hosts, which the ranks of its host read.
    pointers
        int64 ``[parts, hosts]`` on the device: where each part of the vector of each host is, at multiples of 16 bytes.
    """

    def __init__(self, group: Group, size: int, device: torch.device, *, channel: int, what: str) -> None:
        assert group.parts is not None
        self._counterparts, self._what = group.parts.counterparts, what
        size, hosts = aligned_size(size), self._counterparts.world
        self.own = torch.zeros(size, device=device)
        self.received = peer_buffer(group.parts.neighbours, hosts * size, device, channel=channel, what=what)
        offsets = 4 * size * torch.arange(hosts, device=device)
        self.pointers = (self.received.pointers[:, None] + offsets[None, :]).contiguous()

    def send(self) -> None:
        """Exchange what `own` holds, in the order of the current stream; all ranks call it in the same order."""
        hosts = self._counterparts.world
        self._counterparts.all_gather(self.own, self._what, self.received.own.view(hosts, -1))
        self.received.send()

    def await_all(self) -> None:
        """From here on the parts of all hosts are there, in the order of the current stream."""
        self.received.await_all()


class DenseOfHosts(PeerBuffer):
    """`fae.distributed.peers.peer_buffers.PeerBuffer` whose vectors are added up by host when they are sent.

    What is read are sums of hosts, in parts of whole blocks (`fae.kernels.triton_dense.part_blocks`).

    Attributes
    ----------
    pointers
        int64 ``[parts, hosts]`` on the device, as `PartsOfHosts.pointers`.
    """

    def __init__(self, group: Group, size: int, device: torch.device, *, channel: int, what: str) -> None:
        near = group.neighbours
        self._near = peer_buffer(near, size, device, channel=channel, what=what)
        self.own, self._size = self._near.own, size
        part_size = part_blocks(size, near.world) * DENSE_BLOCK
        self._first = near.rank * part_size
        self._parts = PartsOfHosts(group, part_size, device, channel=channel + 1, what=what)
        self.pointers = self._parts.pointers

    def send(self) -> None:
        """Add the own part of the vectors of this host, and exchange it."""
        self._near.send()
        self._near.await_all()
        add_ranks(self._near.pointers, self._first, self._size, self._parts.own)
        self._parts.send()

    def await_all(self) -> None:
        """From here on the sums of all hosts are there, in the order of the current stream."""
        self._parts.await_all()


def dense_buffer(group: Group, size: int, device: torch.device, *, channel: int, what: str) -> PeerBuffer:
    """As `fae.distributed.peers.peer_buffers.peer_buffer`, for vectors that are added up."""
    make = peer_buffer if group.parts is None else DenseOfHosts
    return make(group, size, device, channel=channel, what=what)
