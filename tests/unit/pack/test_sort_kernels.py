"""The compiled loops of pack, also in plain Python, on inputs small enough to check by eye or with numpy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import RecipeError
from fae.pack import compose as compose_module
from fae.pack import cut_kernels, input_kernels, order_kernels, rank_tables, sort_kernels, table_sort
from fae.pack.classify import classify, translate_inputs
from fae.pack.compose import Composer, check_address_space
from fae.pack.in_memory import pack_groups
from fae.pack.log_reader import plain_view
from fae.pack.rank_tables import RankTables


def plain(function: Any) -> Any:
    """The Python form of a compiled function (itself where compiling is switched off)."""
    return getattr(function, "py_func", function)


@pytest.fixture(params=["compiled", "plain"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms of every loop; arithmetic that leaves its type is an error in the plain one."""
    if request.param == "plain":
        for module, names in (
            (rank_tables, ("ids_to_ranks",)),
            (cut_kernels, ("make_cold_scratch", "find_cold", "list_cold_lookups", "cut_batches")),
            (
                input_kernels,
                (
                    "ids_to_ranks",
                    "make_cold_scratch",
                    "find_cold",
                    "list_cold_lookups",
                    "classify_inputs",
                    "gather_ranks",
                    "read_ranks",
                    "read_block",
                    "gather_columns",
                ),
            ),
            (
                sort_kernels,
                (
                    "turn_to_columns",
                    "sort_table",
                    "list_pads",
                    "compose_batch",
                    "compose_batches",
                    "join_lists",
                ),
            ),
            (table_sort, ("count_digits", "sort_pairs", "sort_table")),
            (order_kernels, ("count_hot", "split_kinds")),
        ):
            for name in names:
                monkeypatch.setattr(module, name, plain(getattr(module, name)))
    return str(request.param)


def layout_of(sizes: list[int], num_hot: list[int], lengths: list[int] | None = None, **options: Any) -> RowLayout:
    features = [
        FeatureSchema(name=f"C{t}", num_embeddings=size, length=(lengths or [1] * len(sizes))[t])
        for t, size in enumerate(sizes)
    ]
    return RowLayout(features, options.get("dims", [4] * len(sizes)), num_hot, options.get("ranks"))


def test_ranks_replace_ids_where_the_order_differs(loops: str) -> None:
    layout = layout_of([3, 3], [1, 1], ranks=[np.array([2, 0, 1], np.int32), None])
    ids, tables = np.array([[0, 0], [1, 2], [-1, -1]], np.int32), RankTables(layout)
    ranks, positions = np.zeros((300, 2), np.int32), np.arange(300) % 3
    input_kernels.read_ranks(plain_view(ids), positions, tables.slots, tables.addresses, ranks)
    assert np.array_equal(ranks, np.array([[2, 0], [0, 2], [-1, -1]])[positions])


def test_an_input_is_hot_only_if_every_lookup_is(loops: str) -> None:
    layout = layout_of([4, 4], [2, 1], [1, 2])
    ids = np.array([[1, 0, -1], [2, 0, 0], [0, 0, 1], [-1, -1, -1]], np.int32)
    hot, counts = classify(ids, np.array([1, 1, 0, 1], np.uint8), layout)
    assert hot.tolist() == [True, False, False, True]
    assert counts == (8, 6, 2, 3, 2)


@pytest.mark.parametrize("has_ranks", [False, True])
@pytest.mark.parametrize("num_slots", [1, 3, 8, 26, 5000])
def test_cold_lookups_are_those_that_numpy_finds(num_slots: int, has_ranks: bool) -> None:
    """Blocks of fewer and of more inputs than are worked on at a time, from one of them to all of them cold."""
    random = np.random.default_rng(num_slots)
    orders = [random.permutation(50).astype(np.int32) if has_ranks and s % 3 else None for s in range(num_slots)]
    layout = layout_of([50] * num_slots, [45 + s % 6 for s in range(num_slots)], ranks=orders)
    ids = random.integers(-1, 50, (1200 if num_slots < 30 else 7, num_slots)).astype(np.int32)
    labels = random.integers(0, 2, len(ids)).astype(np.uint8)
    expected = np.stack([c if o is None else np.where(c < 0, -1, o[c]) for c, o in zip(ids.T, orders, strict=True)], 1)
    cold = expected >= np.array(layout.num_hot)
    hot, counts = classify(ids, labels, layout)
    assert np.array_equal(hot, ~cold.any(axis=1))
    assert counts == (
        np.count_nonzero(ids >= 0), np.count_nonzero((ids >= 0) & ~cold), hot.sum(), labels.sum(), labels[hot].sum(),
    )  # fmt: skip
    tables, positions = RankTables(layout), random.permutation(len(ids))
    ranks, lookups = np.zeros_like(ids), cut_kernels.make_cold_lookups(len(ids), num_slots)
    input_kernels.read_block(
        plain_view(ids), positions, tables.slots, tables.addresses, layout.addressing, ranks, lookups
    )
    assert np.array_equal(ranks, expected[positions])
    owner, slot = np.nonzero(cold[positions])
    assert np.array_equal(lookups.ends, np.cumsum(cold[positions].sum(axis=1)))
    assert np.array_equal(lookups.rows[: len(owner)], 50 * slot + ranks[owner, slot])
    assert np.array_equal(lookups.groups[: len(owner)], np.zeros(len(owner)))


@pytest.mark.parametrize("largest", [0, 5, 300, 4095, 70_000, 2**24, 2**31 - 1])
@pytest.mark.parametrize(("count", "step"), [(0, 0), (1, 3), (50, 0), (50, 3), (5000, 0), (5000, 3)])
def test_sorting_is_stable(largest: int, count: int, step: int) -> None:
    random = np.random.default_rng(count)
    layout = layout_of([2**31 - 1], [1])
    keys = random.integers(0, largest, max(1, count // 3), endpoint=True)
    keys = random.choice(keys, count).astype(np.int32)
    lookups = random.permutation(count).astype(np.int32)
    scratch = table_sort.make_sort_scratch(layout, max(1, count))
    num_hot = count // 4
    hot, cold = np.zeros(num_hot, np.int32), np.zeros(count - num_hot, np.int32)
    digits = table_sort.sort_table(
        keys, lookups, step, 7 if step else 0, count, int(keys.max(initial=0)), num_hot, scratch, hot, cold
    )
    order = np.argsort(keys, kind="stable")
    expected = 7 + step * order if step else lookups[order]
    assert np.array_equal(np.concatenate([hot, cold]), expected)
    if digits > 1:
        assert np.array_equal(scratch.keys[:count], keys[order])
    else:
        found = np.bincount(keys, minlength=1)
        assert np.array_equal(scratch.counters[0, : len(found)], found)


def find(layout: RowLayout, ranks: list[list[int]], batch_size: int, staging: list[int]) -> list[int]:
    """Bounds of the closed batches; the inputs come in blocks of every size, which must not matter."""
    found = {block: find_in_blocks(layout, ranks, batch_size, staging, block) for block in range(1, len(ranks) + 1)}
    assert all(bounds == found[1] for bounds in found.values())
    return found[1]


def find_in_blocks(
    layout: RowLayout, ranks: list[list[int]], batch_size: int, staging: list[int], block: int
) -> list[int]:
    seen, open_batch = cut_kernels.make_seen_rows(sum(staging) + 1), cut_kernels.make_open_batch(len(layout.groups))
    lookups, closed, bounds = cut_kernels.make_cold_lookups(block, len(ranks[0])), np.zeros(block, np.int64), [0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for first in range(0, len(ranks), block):
            part = np.array(ranks[first : first + block], np.int32)
            scratch = cut_kernels.make_cold_scratch(layout.addressing.slot_num_hot)
            cut_kernels.list_cold_lookups(part, 0, len(part), layout.addressing, scratch, lookups)
            count = cut_kernels.cut_batches(
                first, len(part), lookups, batch_size, np.array(staging, np.int64), seen, open_batch, closed
            )
            bounds += closed[:count].tolist()
    return bounds


def test_batches_end_full_or_before_the_row_too_many(loops: str) -> None:
    layout = layout_of([2**31 - 1, 10], [1, 1])
    # Rows of the largest ranks: the hash must not leave its type.
    far = 2**31 - 2
    ranks = [[far, 0], [far, -1], [far - 1, 0], [far - 2, 0], [far - 2, 9], [1, 0]]
    assert find(layout, ranks, 4, [2]) == [0, 3, 5]  # two rows each; the last batch is still open
    assert find(layout, ranks, 3, [100]) == [0, 3, 6]
    assert find(layout, ranks, 1, [2]) == [0, 1, 2, 3, 4, 5, 6]


def test_each_group_has_its_own_limit(loops: str) -> None:
    layout = layout_of([10, 10], [0, 0], dims=[4, 8])
    ranks = [[1, 1], [1, 2], [2, 3], [3, 3]]
    assert find(layout, ranks, 4, [2, 9]) == [0, 3]
    assert find(layout, ranks, 4, [9, 2]) == [0, 2]


def compose(layout: RowLayout, ranks: np.ndarray, batch_size: int) -> sort_kernels.ComposedLists:
    """The lists of one batch, each without its first axis; through the module, so that its plain form is used."""
    num_lookups = batch_size * layout.num_slots
    lists = sort_kernels.make_composed_lists(1, num_lookups, len(layout.groups), num_lookups, with_addresses=True)
    scratch = table_sort.make_sort_scratch(layout, batch_size)
    sort_kernels.compose_batch(ranks, layout.addressing, scratch, batch_size, lists, 0)
    return sort_kernels.ComposedLists(*(array[0] for array in lists))


def test_a_batch_worked_out_by_hand(loops: str) -> None:
    """Two tables and 2 hot rows each: hot rows 0-1 and 2-3, cold rows from 4 (first table) and from 7 (second)."""
    layout = layout_of([5, 5], [2, 2], [1, 2])
    lists = compose(layout, np.array([[4, 0, 3], [1, 1, -1]], np.int32), 3)
    assert lists.cold_bounds.tolist() == [0, 2]
    assert lists.cold_rows[:2].tolist() == [6, 8]
    assert lists.addresses.tolist() == [4, 2, 5, 1, 3, -1, -1, -1, -1]
    assert lists.order.tolist() == [5, 6, 7, 8, 3, 1, 4, 0, 2]
    assert lists.segment_bounds.tolist() == [0, 5]
    assert lists.segment_starts[:5].tolist() == [4, 5, 6, 7, 8]
    assert lists.segment_addresses[:5].tolist() == [1, 2, 3, 4, 5]
    assert lists.long_bounds.tolist() == [0, 0]


def test_two_groups_count_their_cold_rows_apart(loops: str) -> None:
    layout = layout_of([4, 4], [1, 2], dims=[8, 4])  # group 0 is the second table (width 4)
    lists = compose(layout, np.array([[3, 3], [0, 2], [3, 3]], np.int32), 3)
    assert lists.cold_bounds.tolist() == [0, 2, 3]
    assert lists.cold_rows[:3].tolist() == [2, 3, 3]
    assert lists.addresses.reshape(3, 2).tolist() == [[1, 3], [0, 2], [1, 3]]
    assert lists.order.tolist() == [3, 1, 5, 2, 0, 4]
    assert lists.segment_bounds.tolist() == [0, 2, 4]
    assert lists.segment_starts[:4].tolist() == [0, 1, 3, 4]
    assert lists.segment_addresses[:4].tolist() == [2, 3, 0, 1]


def test_long_rows_are_cut_from_their_own_first_lookup(loops: str) -> None:
    layout, count = layout_of([3], [1]), 3 * sort_kernels.SEGMENT_LOOKUPS + 2
    ranks = np.ones((count, 1), np.int32)
    ranks[::3] = 0  # a third of them
    lists = compose(layout, ranks, count)
    assert lists.segment_bounds.tolist() == [0, 5]  # 33 lookups of the hot row, 65 of the cold one
    assert lists.segment_starts[:5].tolist() == [0, 32, 33, 65, 97]
    assert lists.segment_addresses[:5].tolist() == [0, 0, 1, 1, 1]
    assert lists.long_rows[: lists.long_bounds[1]].tolist() == [[0, 2], [2, 3]]


def test_the_example_of_the_format_page(loops: str) -> None:
    """Segments of packed.md: 33 lookups of the hot row, then 37 of a cold one."""
    lists = compose(layout_of([2], [1]), np.repeat([0, 1], [33, 37]).astype(np.int32)[:, None], 70)
    assert lists.order.tolist() == list(range(70))
    assert lists.segment_starts[:4].tolist() == [0, 32, 33, 65]
    assert lists.segment_addresses[:4].tolist() == [0, 0, 1, 1]
    assert lists.long_rows[: lists.long_bounds[1]].tolist() == [[0, 2], [2, 2]]


def test_row_numbers_beyond_int32() -> None:
    layout = layout_of([2**31 - 1] * 3, [1, 1, 1])
    ids = np.array([[5, 7, 2**31 - 2]], np.int32)
    expected = [3 + 4, 3 + (2**31 - 2) + 6, 3 + 2 * (2**31 - 2) + 2**31 - 3]
    assert translate_inputs(ids, layout).tolist() == [expected]
    (batch,) = pack_groups(ids, np.zeros((1, 0), np.float32), np.ones(1), [np.array([0])], layout, 1)
    assert batch.cold_rows[0].tolist() == expected
    assert batch.addresses.tolist() == [[3, 4, 5]]


def test_groups_must_fit_and_exist() -> None:
    layout, ids, dense = layout_of([2], [1]), np.zeros((3, 1), np.int32), np.zeros((3, 0), np.float32)
    with pytest.raises(ValueError, match="a group has 3 inputs, a batch holds 2"):
        pack_groups(ids, dense, np.zeros(3), [np.arange(3)], layout, 2)
    with pytest.raises(ValueError, match="outside"):
        pack_groups(ids, dense, np.zeros(3), [np.array([3])], layout, 2)
    assert pack_groups(ids, dense, np.zeros(3), [], layout, 2) == []


def test_addresses_that_int32_cannot_name_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"batch_size = 2000000000 with 2 lookups .* choose at most 1073741823"):
        check_address_space(layout_of([5, 5], [1, 1]), 2_000_000_000)
    with pytest.raises(RecipeError, match="choose a smaller budget"):
        check_address_space(layout_of([2**31 - 1] * 2, [2**31 - 1, 0]), 4)


def test_a_group_has_as_many_batches_as_its_bytes_allow() -> None:
    layout = layout_of([100], [50])
    small, large = Composer(layout, 1, 64, None), Composer(layout, 1, 2**20, [10])
    assert small.group_batches > 1000
    assert small.group_bytes <= compose_module.GROUP_BYTES
    assert (large.group_batches, large.group_bytes) == (1, 2**20 * 39 + 80)


def test_lists_of_batches_are_joined_group_by_group(loops: str) -> None:
    layout = layout_of([4, 4], [1, 2], dims=[8, 4])
    lists = sort_kernels.make_composed_lists(3, 4, 2, 4, with_addresses=False)
    bounds, ranks = np.array([0, 2, 2, 3]), np.array([[3, 3], [2, 2], [3, 1]], np.int32)
    scratch = table_sort.make_sort_scratch(layout, 2)
    sort_kernels.compose_batches(ranks, bounds, 0, 3, layout.addressing, scratch, 2, lists)
    assert lists.cold_bounds.tolist() == [[0, 2, 4], [0, 0, 0], [0, 0, 1]]
    for group, expected in ((0, [2, 3]), (1, [2, 3, 3])):
        counts = np.diff(lists.cold_bounds, axis=1)[:, group]
        joined = np.zeros(counts.sum(), np.int64)
        sort_kernels.join_lists(lists.cold_rows, lists.cold_bounds, group, np.cumsum(counts) - counts, joined)
        assert joined.tolist() == expected


def test_inputs_are_sorted_by_bucket_and_split_by_kind(loops: str) -> None:
    key, count, num_buckets = np.uint64(2**63 + 12345), 1000, 7
    with np.errstate(over="ignore"):
        bits = np.arange(50, 50 + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
    buckets = ((bits * np.uint64(num_buckets)) >> np.uint64(32)).astype(np.int64)
    counts, positions = np.zeros(num_buckets, np.int64), np.zeros(count, np.int64)
    order_kernels.count_buckets(50, 50 + count, key, counts)
    assert counts.tolist() == np.bincount(buckets, minlength=num_buckets).tolist()
    places = np.cumsum(counts) - counts
    order_kernels.place_by_bucket(50, 450, 50, key, places, positions)
    order_kernels.place_by_bucket(450, 50 + count, 50, key, places, positions)
    assert positions.tolist() == np.argsort(buckets, kind="stable").tolist()
    positions = np.array([1, 0, 2, 3])
    hot = np.array([True, False, False, True])
    of_hot, of_cold = np.zeros(2, np.int64), np.zeros(2, np.int64)
    assert order_kernels.count_hot(positions, hot) == 2
    order_kernels.split_kinds(positions, hot, of_hot, of_cold)
    assert (of_hot.tolist(), of_cold.tolist()) == ([0, 3], [1, 2])
