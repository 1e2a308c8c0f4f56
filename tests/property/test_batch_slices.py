"""What a slice of a batch derives from the order of the whole batch is what plain numpy finds in its addresses."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed import batch_slices
from fae.distributed.batch_slices import BatchSlice
from fae.distributed.rank_batches import RankBatches
from fae.distributed.slice_loops import cut_group

from cases import Log
from composed_batches import batches_with_addresses


@given(batches_with_addresses(), st.sampled_from([1, 2, 4, 8]), st.booleans())
@settings(max_examples=80)
def test_slices_are_those_of_the_addresses(case: tuple[Log, RowLayout, BatchSet], world: int, compiled: bool) -> None:
    _, layout, batches = case
    batch_size, _ = batches.arrays.shape
    world = world if batch_size % world == 0 else 1
    size = batch_size // world
    slots = [layout.group_slots(group) for group in range(len(layout.groups))]
    with mock.patch.object(batch_slices, "cut_group", cut_group if compiled else cut_group.py_func):
        for whole in batches:
            cut = [BatchSlice(whole, rank, world, [len(each) for each in slots]) for rank in range(world)]
            assert [own.num_inputs for own in cut] == [
                min(max(whole.num_inputs - rank * size, 0), size) for rank in range(world)
            ]
            assert all(own.total_inputs == whole.num_inputs for own in cut)
            assert all(own.total_weight == whole.total_weight for own in cut)
            for name in ("dense", "labels", "addresses"):
                parts = [getattr(own, name) for own in cut]
                assert np.concatenate(parts).tobytes() == getattr(whole, name).tobytes()
            for own in cut:
                check_order(own, slots)
            check_rows(cut, slots)
    if world > 1:
        check_counts(batches, world, slots)


def check_order(own: BatchSlice, slots: list[np.ndarray]) -> None:
    """The order of a slice is that of its addresses, equal ones by lookup, group by group."""
    size, num_slots = own.addresses.shape
    expected = []
    for group in slots:
        lookups = (np.arange(size)[:, None] * num_slots + group).reshape(-1)
        expected.append(lookups[np.argsort(own.addresses.reshape(-1)[lookups], kind="stable")])
    assert own.order is not None
    assert own.order.dtype == np.int32
    assert np.array_equal(own.order, np.concatenate(expected))


def check_rows(cut: list[BatchSlice], slots: list[np.ndarray]) -> None:
    """The list of a batch has the rows of each slice, and each slice knows where its rows begin."""
    for group, columns in enumerate(slots):
        own_rows = [np.unique(own.addresses[:, columns]) for own in cut]
        own_rows = [rows[rows >= 0] for rows in own_rows]
        every = np.unique(np.concatenate(own_rows))
        for number, (own, rows) in enumerate(zip(cut, own_rows, strict=True)):
            shared = own.shared_rows[group]
            assert np.array_equal(shared.listed.unique_rows, every)
            assert np.array_equal(every[shared.listed.places_of_slice(number)], rows)
            assert own.order is not None
            flat, ends = own.addresses.reshape(-1), [*shared.own_starts, shared.own_end]
            assert len(shared.own_starts) == len(rows)
            for row, start, stop in zip(rows, ends, ends[1:], strict=False):
                assert set(flat[own.order[start:stop]]) == {row}


def check_counts(batches: BatchSet, world: int, slots: list[np.ndarray]) -> None:
    """A slice, cut for a CPU or for a GPU, knows how many rows the others look up."""
    sizes = [len(each) for each in slots]
    for rank in range(world):
        on_gpu = RankBatches(rank, world, sizes, [0] * len(sizes)).of(batches)
        for index, whole in enumerate(batches):
            parts = np.split(whole.addresses, world)
            expected = tuple(
                sum(len(np.setdiff1d(part[:, columns], [-1])) for k, part in enumerate(parts) if k != rank)
                for columns in slots
            )
            assert BatchSlice(whole, rank, world, sizes).rows_of_others == expected
            if len(whole.labels) % 8 == 0:  # the first one of several slices of a rank says so, too
                assert BatchSlice(whole, rank * 8 // world, 8, sizes, world).rows_of_others == expected
            assert on_gpu.batch(index).rows_of_others == expected  # type: ignore[attr-defined]
