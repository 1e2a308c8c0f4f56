"""What ranks on GPUs cut of a whole split is what ranks on CPUs cut batch by batch, and reaches input buffers."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import closing
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.artifacts.batch_arrays import BatchArrays, SegmentArrays, Segments
from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.packed import BatchSet, PackedBatch
from fae.artifacts.row_layout import RowLayout
from fae.artifacts.stored.order_planes import OrderArrays
from fae.distributed import rank_batches
from fae.distributed.batch_slices import BatchSlice
from fae.distributed.rank_batches import SEGMENT_LOOKUPS, Owned, RankBatches
from fae.distributed.slice_loops import count_blocks, cut_group, cut_long_rows
from fae.kernels.input_views import BLOCK_ROWS, InputViews, group_field
from fae.pack import sort_kernels
from fae.streaming.input_layout import InputLayout, InputTable
from fae.streaming.input_ring import InputRing

from cases import Log, random_log
from composed_batches import batches_with_addresses
from packs import order_in_buffer

Slots = list[int]
LOOPS = (cut_group, cut_long_rows, count_blocks)


def with_hot_batches(arrays: BatchArrays, num_hot: int) -> BatchSet:
    """The first batches as hot ones, whose segments are in a list of their own."""
    whole = arrays.segments
    assert whole is not None

    def part(first: int, last: int) -> SegmentArrays:
        offsets, long_offsets = whole.offsets[first : last + 1], whole.long_offsets[first : last + 1]

        def cut(lists: tuple[np.ndarray, ...], at: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(each[at[0, g] : at[-1, g]].copy() for g, each in enumerate(lists))

        return SegmentArrays(
            starts=cut(whole.starts, offsets), addresses=cut(whole.addresses, offsets), offsets=offsets - offsets[0],
            long_rows=cut(whole.long_rows, long_offsets), long_offsets=long_offsets - long_offsets[0],
        )  # fmt: skip

    count = len(arrays.num_inputs)
    arrays = dataclasses.replace(arrays, hot_segments=part(0, num_hot), segments=part(num_hot, count))
    return BatchSet(arrays, num_hot)


@st.composite
def splits(draw: st.DrawFn) -> tuple[BatchSet, BatchSet, Slots, RowLayout]:
    """A training split of any format and order, the same for evaluation; slots and hot rows of each group."""
    log, layout, batches = draw(batches_with_addresses(multiple=8))
    arrays, random = batches.arrays, np.random.default_rng(len(log.ids))
    real = np.arange(log.batch_size) < np.asarray(arrays.num_inputs)[:, None]
    weights = (random.uniform(0, 3, real.shape) * real).astype(np.float32) if draw(st.booleans()) else None
    arrays = dataclasses.replace(
        arrays, dense=random.normal(size=(*real.shape, 2)).astype(np.float32),
        labels=random.integers(0, 2, real.shape).astype(np.float32), weights=weights,
    )  # fmt: skip
    frozen = dataclasses.replace(arrays, order=None, segments=None, hot_segments=None, group_places=None)
    is_older = draw(st.booleans())
    assert arrays.order is not None
    if draw(st.booleans()):
        arrays = dataclasses.replace(arrays, order=OrderArrays.split(arrays.order.parts[0]))
    arrays = dataclasses.replace(arrays, **({"group_places": None} if is_older else {"addresses": None}))
    packed = BatchSet(arrays, 0)
    if draw(st.booleans()):
        packed = with_hot_batches(arrays, draw(st.integers(0, packed.num_batches)))
    slots = [len(layout.group_slots(group)) for group in range(len(layout.groups))]
    return packed, BatchSet(frozen, 0), slots, layout


def same(ours: np.ndarray, expected: np.ndarray) -> bool:
    """Equal, of one type."""
    return ours.dtype == expected.dtype and ours.shape == expected.shape and ours.tobytes() == expected.tobytes()


@given(splits(), st.sampled_from([2, 4, 8]), st.booleans())
@settings(max_examples=60)
def test_slices_of_a_split_are_those_of_its_batches(
    case: tuple[BatchSet, BatchSet, Slots, RowLayout], world: int, compiled: bool
) -> None:
    packed, frozen, slots, layout = case
    hot_rows = [part.num_hot_rows for part in layout.groups]
    loops = {loop.__name__: loop if compiled else loop.py_func for loop in LOOPS}
    with mock.patch.multiple(rank_batches, **loops):
        makers = [RankBatches(rank, world, slots, hot_rows) for rank in range(world)]
        cut, evaluated = [each.of(packed) for each in makers], [each.of(frozen) for each in makers]
    assert makers[0].of(packed) is cut[0]
    check_slices(frozen, evaluated, slots)
    assert evaluated[0].most_shared == ()
    check_slices(packed, cut, slots)


def check_slices(split: BatchSet, slices: list[BatchSet], slots: Slots) -> None:
    """The slices of all ranks are those of each batch."""
    world = len(slices)
    assert sum(each.num_inputs for each in slices) == split.num_inputs
    most = np.zeros(len(slots), np.int64)
    for index, whole in enumerate(split):
        for rank, each in enumerate(slices):
            sliced = BatchSlice(whole, rank, world, slots)
            check_views(each.batch(index), sliced)
            if whole.is_ordered:
                check_lists(each, index, sliced, slots)
                for group, shared in enumerate(sliced.shared_rows):
                    most[group] = max(most[group], len(shared.own_starts))
    for each in slices if split.arrays.order is not None else ():
        assert each.arrays.shared is not None
        assert each.arrays.shared.most_own_rows == tuple(most)
        assert [sizes[:2] for sizes in each.most_shared] == [sizes[:2] for sizes in slices[0].most_shared]


@pytest.mark.parametrize("world", [2, 4, 8])
def test_slices_of_large_batches(world: int) -> None:
    """Blocks of rows, and rows of many segments, of two groups."""
    log = random_log(3, num_inputs=2000, batch_size=800, skew=1.05, lists=True)
    ids = log.ids.copy()
    ids[np.random.default_rng(1).random(len(ids)) < 0.94, 2] = 5
    ids[:, 3:6] = np.where(np.arange(2000)[:, None] % 3 == 0, 7, ids[:, 3:6])
    features = tuple(dataclasses.replace(f, num_embeddings=5000) if f.name == "a" else f for f in log.features)
    ids[:, 0] = np.random.default_rng(2).permutation(5000)[:2000]
    log = dataclasses.replace(log, ids=ids, features=features)
    layout = log.layout(0.3, 1)
    packed, slots = log.packed(layout), [len(layout.group_slots(group)) for group in range(2)]
    hot_rows = [part.num_hot_rows for part in layout.groups]
    slices = [RankBatches(rank, world, slots, hot_rows).of(packed) for rank in range(world)]
    check_slices(packed, slices, slots)
    shared = slices[0].arrays.shared
    assert shared is not None
    assert slices[0].most_shared[1][1] > 8 * world, "there are many blocks"
    assert slices[0].batch(0).segments[1].long_rows[-1, 1] + 1 < len(shared.further[1]), "and rows of many segments"


@given(splits(), st.sampled_from([2, 4, 8]))
@settings(max_examples=30)
def test_what_is_read_of_others_where_cold_rows_are_spread(
    case: tuple[BatchSet, BatchSet, Slots, RowLayout], world: int
) -> None:
    packed, _, slots, layout = case
    hot_rows = [part.num_hot_rows for part in layout.groups]
    for rank in (0, world - 1):
        cut = RankBatches(rank, world, slots, hot_rows, owned="share").of(packed)
        for index, whole in enumerate(packed):
            expected = [
                vectors_of_others(whole, group, layout.group_slots(group), hot_rows[group], rank, world)
                for group in range(len(slots))
            ]
            assert list(cut.batch(index).rows_of_others) == expected  # type: ignore[attr-defined]


@given(splits(), st.sampled_from([2, 4, 8]))
@settings(max_examples=30)
def test_every_cold_row_has_a_place_with_its_owner(
    case: tuple[BatchSet, BatchSet, Slots, RowLayout], world: int
) -> None:
    """In training and in evaluation: the p-th row of a rank is row p W + r, or the p-th of the batch that it owns."""
    packed, frozen, slots, layout = case
    hot_rows = [part.num_hot_rows for part in layout.groups]
    kinds: tuple[Owned, ...] = ("share", "batch")
    for split, owned in itertools.product((packed, frozen), kinds):
        cut = [RankBatches(rank, world, slots, hot_rows, owned=owned).of(split) for rank in range(world)]
        shared = cut[0].arrays.shared
        assert shared is not None
        for index, whole in enumerate(split):
            for group, rows in enumerate(whole.cold_rows):
                owners = [each.batch(index).cold_rows[group] for each in cut]
                assert np.array_equal(np.sort(np.concatenate(owners)), rows)
                places = listed(shared.places, shared.place_offsets, group, index)
                for row, place in zip((rows - hot_rows[group]).tolist(), places.tolist(), strict=True):
                    owner, number = place % world, place // world
                    assert owner == row % world
                    found = number * world + owner
                    if owned == "batch":
                        found = owners[owner][number] - hot_rows[group]
                    assert found == row


def vectors_of_others(whole: PackedBatch, group: int, columns: np.ndarray, hot: int, rank: int, world: int) -> int:
    """Sums of hot rows and of own cold ones that the other slices look up, and cold rows of others that this does."""
    found = 0
    for number, part in enumerate(np.split(whole.addresses[:, columns], world)):
        addresses = np.setdiff1d(part, [-1])
        owners = (whole.cold_rows[group][addresses[addresses >= hot] - hot] - hot) % world
        if number == rank:
            found += np.count_nonzero(owners != rank)
        else:
            found += np.count_nonzero(addresses < hot) + np.count_nonzero(owners == rank)
    return int(found)


def check_views(own: PackedBatch, sliced: BatchSlice) -> None:
    """A slice of a split has what the slice of its batch has."""
    assert own.num_inputs == sliced.num_inputs
    assert own.total_inputs == sliced.total_inputs
    assert own.total_weight == pytest.approx(sliced.total_weight, rel=1e-12)
    assert own.is_ordered == sliced.is_ordered
    assert same(own.addresses, sliced.addresses)
    assert same(own.dense, sliced.dense)
    assert same(own.labels, sliced.labels)
    assert (own.weights is None) == (sliced.weights is None)
    if own.weights is not None and sliced.weights is not None:
        assert same(own.weights, sliced.weights)
    if own.order is not None and sliced.order is not None:
        assert same(own.order, sliced.order)


def check_lists(split: BatchSet, index: int, sliced: BatchSlice, slots: Slots) -> None:
    """The rows of a batch, of its slice, and where their lookups are."""
    shared, world = split.arrays.shared, sliced.shared_rows[0].listed.num_slices
    assert shared is not None
    rank = sliced.number
    for group, (segments, expected) in enumerate(zip(split.batch(index).segments, sliced.shared_rows, strict=True)):
        rows = listed(shared.rows, shared.offsets, group, index)
        bits = listed(shared.bits, shared.offsets, group, index)
        assert same(rows, expected.listed.unique_rows)
        assert same(bits, expected.listed.slice_bits)
        assert same(segments.starts, expected.own_starts)
        assert same(segments.addresses, rows[expected.listed.places_of_slice(rank)])
        flags = np.array([bits >> s & 1 for s in range(world)], np.int32).T
        before = [flags[:first].sum(axis=0) for first in range(0, len(rows), BLOCK_ROWS)]
        counts = listed(shared.counts, shared.count_offsets, group, index)
        assert same(counts, np.array(before, np.int32).reshape(-1, world))
        further = listed(shared.further, shared.further_offsets, group, index)
        check_segments(segments, further, expected.own_end)
    assert len(sliced.shared_rows) == len(slots)


def listed(lists: tuple[np.ndarray, ...], offsets: np.ndarray | None, group: int, index: int) -> np.ndarray:
    """The part of one batch."""
    assert offsets is not None
    return lists[group][offsets[index, group] : offsets[index + 1, group]]


def check_segments(segments: Segments, further: np.ndarray, own_end: int) -> None:
    """First and further segments of each row are its lookups, in order, cut after every 32 of them."""
    parts = {row: [(start, None)] for row, start in enumerate(segments.starts.tolist())}
    first_ones = [*segments.long_rows[:, 1].tolist(), len(further)]
    assert first_ones[0] == 0
    assert np.all(np.diff(segments.long_rows[:, 0]) > 0)
    for (row, first), last in zip(segments.long_rows.tolist(), first_ones[1:], strict=True):
        assert last > first, "a long row has more than its first segment"
        parts[row] += [tuple(pair) for pair in further[first:last].tolist()]
    ends = [*segments.starts.tolist(), own_end][1:]
    for (row, own), end in zip(parts.items(), ends, strict=True):
        start = int(segments.starts[row])
        found = [(start, min(start + SEGMENT_LOOKUPS, end)), *own[1:]]
        assert found == [(at, min(at + SEGMENT_LOOKUPS, end)) for at in range(start, end, SEGMENT_LOOKUPS)]


@given(splits(), st.sampled_from([2, 4, 8]))
@settings(max_examples=20)
def test_input_buffers_have_what_the_slices_have(case: tuple[BatchSet, BatchSet, Slots, RowLayout], world: int) -> None:
    packed, frozen, slots, layout = case
    hot_rows = [part.num_hot_rows for part in layout.groups]
    size = packed.arrays.shape[0] // world
    layout = InputLayout(
        batch_size=size, num_slots=sum(slots), num_dense=2, num_groups=len(slots), with_cold_lists=True,
        with_weights=packed.is_weighted, of_slices=True, rounds_dense=size % 2 == 0,
    )  # fmt: skip
    for rank in (0, world - 1):
        maker = RankBatches(rank, world, slots, hot_rows)
        for split in (maker.of(packed), maker.of(frozen), maker.of(packed)):
            order = np.arange(split.num_batches)[::-1].copy()
            rates = np.linspace(1, 2, len(order), dtype=np.float32)
            table = layout.table(
                split, order, slots=np.full(len(order), -1), slot_rows=[0] * len(slots), rates=rates, kept_shares=-rates
            )
            check_sources(table)
            ring = InputRing(layout, 2, torch.device("cpu"))
            ring.reserve(split)
            with closing(ring.run(split, order, table)) as run:
                for place, (batch, buffer) in enumerate(run):
                    words = buffer.views.words.numpy()
                    assert words[1:3].view(np.float32).tolist() == [rates[place], -rates[place]]
                    assert table.words[place] <= len(words)
                    check_buffer(buffer.views, batch, split, int(order[place]), hot_rows)


def check_sources(table: InputTable) -> None:
    """All that is copied lies in the sources, whose memory is locked where a GPU copies from it."""
    bounds = [(source.ctypes.data, source.ctypes.data + source.nbytes) for source in table.sources]
    assert all(source.flags.c_contiguous for source in table.sources)
    for begin, _, count in table.pieces.reshape(-1, 3).tolist():
        assert not count or any(first <= begin and begin + count <= last for first, last in bounds)


def check_buffer(views: InputViews, batch: PackedBatch, split: BatchSet, index: int, hot_rows: list[int]) -> None:
    """Kernels read from a buffer what the slice has."""
    words = views.words.numpy()
    assert (words[0], words[3]) == (batch.num_inputs, batch.total_inputs)
    expected = torch.from_numpy(batch.dense.copy()).to(views.dense.dtype)
    assert same(views.dense.float().numpy(), expected.float().numpy())
    assert same(views.labels.numpy(), batch.labels)
    if batch.weights is not None:
        assert views.weights is not None
        assert views.whole_weight is not None
        assert same(views.weights.numpy(), batch.weights)
        assert float(views.whole_weight[0]) == batch.total_weight
    if batch.order is None:
        assert same(views.addresses.numpy(), batch.addresses)
    else:
        assert same(order_in_buffer(views, split), batch.order)
    for group, cold in enumerate(batch.cold_rows):
        header = words[group_field(group) : group_field(group + 1)]
        assert header[7] == len(cold)
        assert same(views.longs.numpy()[header[6] : header[6] + len(cold)], cold)
        if batch.order is None:
            assert not header[[1, 2, 8, 10, 14]].any()
            continue
        own, shared = batch.segments[group], split.arrays.shared
        assert shared is not None
        rows = listed(shared.rows, shared.offsets, group, index)
        bits = listed(shared.bits, shared.offsets, group, index)
        counts = listed(shared.counts, shared.count_offsets, group, index)
        further = listed(shared.further, shared.further_offsets, group, index)
        assert header[[1, 2, 8, 10]].tolist() == [len(own.starts), len(own.long_rows), len(further), len(rows)]
        assert header[14] == np.count_nonzero(own.addresses < hot_rows[group])
        for word, expected in (
            (3, own.starts), (4, own.addresses), (5, own.long_rows), (9, further), (11, rows), (13, counts)
        ):  # fmt: skip
            found = words[header[word] : header[word] + expected.size].reshape(expected.shape)
            assert same(found, expected), word
        assert same(words[header[12] :].view(np.uint8)[: len(bits)], bits)


def test_segments_are_cut_as_pack_cuts_them() -> None:
    assert SEGMENT_LOOKUPS == sort_kernels.SEGMENT_LOOKUPS


def test_a_split_without_batches() -> None:
    log = Log(
        ids=np.zeros((0, 1), np.int32), dense=np.zeros((0, 2), np.float32), labels=np.zeros(0, np.uint8), groups=[],
        features=(FeatureSchema(name="C0", num_embeddings=3),), embedding_dims=(4,), batch_size=8,
    )  # fmt: skip
    packed = log.packed(RowLayout(log.features, (4,), [1], [None]))
    cut = RankBatches(1, 2, [1], [1]).of(packed)
    assert (cut.num_batches, cut.most_shared, cut.most_segments) == (0, ((0, 0, 0, 0),), ((0, 0),))
