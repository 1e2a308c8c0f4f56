"""What a rank counts that it has received, where hosts add their sums up first and where CPUs step rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from fae.distributed.batch_slices import BatchSlice
from fae.distributed.group import Group, HostParts
from fae.distributed.rank_batches import RankBatches
from fae.training.ranks.rank_work import RankWork
from kernel_ranks import many_rows

WEIGHTS = 100


def group_of(rank: int) -> Group:
    """Rank of two hosts of two."""
    parts = HostParts(neighbours=Group(rank=rank % 2, world=2), counterparts=Group(rank=rank // 2, world=2))
    return Group(rank=rank, world=4, hosts=("a", "a", "b", "b"), wire="hosts", parts=parts)


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("cut_for", ["kernels", "kernels, by the CPU", "the CPU"])
def test_bytes_of_hosts(rank: int, cut_for: str) -> None:
    log = many_rows()
    layout = log.layout(0.4, 1)
    packed, slots = log.packed(layout), [len(layout.group_slots(0))]
    group = group_of(rank)
    whole = packed.batch(0)
    slices = [set(np.unique(part)) for part in np.split(whole.addresses, 4)]
    near = [number for number in range(4) if number // 2 == rank // 2]
    cut: Any = BatchSlice(whole, rank, 4, slots)
    if cut_for != "the CPU":
        cut = RankBatches(rank, 4, slots, [layout.groups[0].num_hot_rows], plan=group.slices).of(packed).batch(0)
    embeddings: Any = SimpleNamespace(
        group=group, layout=layout, computes_on_host=lambda _: cut_for == "kernels, by the CPU"
    )
    work = RankWork(embeddings, nn.Linear(WEIGHTS, 1, bias=False))
    batch: Any = SimpleNamespace(packed=cut, slices=[cut])
    assert list(work.counted([batch])) == [batch]
    dim = layout.groups[0].embedding_dim
    if cut_for == "kernels":
        rows, far = cut.rows_of_others[0], cut.rows_of_hosts[0]
    else:
        rows = sum(len(each) for number, each in enumerate(slices) if number != rank)
        far = sum(len(each) for number, each in enumerate(slices) if number not in near)
    # Of a vector: half of a neighbour's, half of the other host's, and the other half of both hosts'.
    assert work._bytes == 4 * (rows * dim + 2 * WEIGHTS)
    assert work._network_bytes == 4 * (far * dim + WEIGHTS // 2)
    assert 0 < far < rows
