"""What hosts look up of each part of a batch's rows, and what a rank reads of others there, by drawn batches."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.artifacts.packed import PackedBatch
from fae.distributed import rank_batches
from fae.distributed.rank_batches import RankBatches
from fae.distributed.slice_loops import count_hosts
from fae.distributed.slice_plan import SlicePlan

from composed_batches import batches_with_addresses

BLOCK = 3
"""Rows of a block here, so that small batches have several."""


def rows_of_slices(whole: PackedBatch, columns: np.ndarray, num_slices: int) -> list[np.ndarray]:
    """The addresses that each slice looks up, ascending."""
    return [np.setdiff1d(part, [-1]) for part in np.split(whole.addresses[:, columns], num_slices)]


@given(
    batches_with_addresses(multiple=8), st.sampled_from([(4, 2, 4), (8, 2, 8), (8, 4, 8), (4, 2, 8)]), st.booleans(),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=60)
def test_parts_of_hosts(case: tuple, shape: tuple[int, int, int], owned: bool, compiled: bool) -> None:
    """Counts of every block, the largest part, and the vectors that each rank reads, of all and of other hosts."""
    _, layout, packed = case
    world, num_hosts, num_slices = shape
    hot_rows = [part.num_hot_rows for part in layout.groups]
    slots = [len(layout.group_slots(group)) for group in range(len(layout.groups))]
    loop = count_hosts if compiled else count_hosts.py_func
    with mock.patch.multiple(rank_batches, BLOCK_ROWS=BLOCK, count_hosts=loop):
        plans = [SlicePlan(num_slices=num_slices, rank=rank, world=world, num_hosts=num_hosts) for rank in range(world)]
        cut = [
            RankBatches(
                plan.own[0], num_slices, slots, hot_rows, plan=plan, owned="batch" if owned else ""
            ).of(packed)
            for plan in plans
        ]  # fmt: skip
    most = np.zeros(len(slots), np.int64)
    for index, whole in enumerate(packed):
        for group in range(len(slots)):
            shared = cut[0].arrays.shared
            assert shared is not None
            assert shared.count_offsets is not None
            rows = np.unique(np.concatenate(rows_of_slices(whole, layout.group_slots(group), num_slices)))
            of_slices = [np.isin(rows, each) for each in rows_of_slices(whole, layout.group_slots(group), num_slices)]
            of_hosts = [np.any(each, axis=0) for each in np.split(np.array(of_slices), num_hosts)]
            blocks, near = -(-len(rows) // BLOCK), world // num_hosts
            size = -(-blocks // near) * BLOCK
            first, last = shared.count_offsets[index, group], shared.count_offsets[index + 1, group]
            counts = shared.counts[group][first:last]
            assert counts.shape == (blocks, num_slices + num_hosts)
            for block in range(blocks):
                begin = block * BLOCK // size * size
                expected = [np.count_nonzero(each[begin : block * BLOCK]) for each in of_hosts]
                assert counts[block, num_slices:].tolist() == expected
            for begin in range(0, len(rows), size or 1):
                most[group] = max(most[group], *(np.count_nonzero(each[begin : begin + size]) for each in of_hosts))
            for plan, split in zip(plans, cut, strict=True):
                part = np.zeros(len(rows), np.bool_)
                part[plan.rank % near * size : (plan.rank % near + 1) * size] = True
                steps, pulled = np.ones(len(rows), np.bool_), 0
                if owned:
                    cold = rows >= hot_rows[group]
                    numbers = whole.cold_rows[group][rows[cold] - hot_rows[group]] - hot_rows[group]
                    steps[cold] = numbers % near == plan.rank % near
                    pulled = sum(np.count_nonzero(of_slices[number] & ~steps) for number in plan.own)
                own_host = range(plan.host * plan.host_slices, (plan.host + 1) * plan.host_slices)
                others = [of_slices[number] for number in own_host if number not in plan.own]
                far = [each for host, each in enumerate(of_hosts) if host != plan.host]
                network = sum(np.count_nonzero(each & part) for each in far)
                near_sums = sum(np.count_nonzero(each & part) for each in others)
                of_neighbours = sum(np.count_nonzero(each & ~part & steps) for each in of_hosts)
                found = split.batch(index)
                assert found.rows_of_hosts[group] == network
                assert found.rows_of_others[group] == near_sums + network + of_neighbours + pulled
    assert cut[0].arrays.shared.most_part_rows == tuple(most)
