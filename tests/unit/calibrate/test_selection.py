"""Threshold, peeling, staging and budget search, each against a plain restatement of what it should do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from fae.artifacts.columnar_log import FeatureSchema
from fae.calibrate import peeling
from fae.calibrate.budget_search import BudgetSearch, anchor_below, anchor_bytes
from fae.calibrate.coverage import measure, training_coverage
from fae.calibrate.nested_sets import PopularityTail, small_tables
from fae.calibrate.peeled_sets import PeeledSets
from fae.calibrate.peeling import list_edges, peel
from fae.calibrate.staging_rows import MARGIN, StagingProbe
from fae.calibrate.table_facts import Tables, num_at_least
from fae.calibrate.threshold import ThresholdSets, threshold_grid, thresholds_above
from fae.core.seeds import generator
from fae.profile import counting
from fae.profile.config import HotConfig
from fae.profile.counting import count_accesses
from fae.profile.sampling import SampledInputs, sample_without_replacement

NO_SMALL = HotConfig(small_table=1)


def tables_of(
    ids: np.ndarray, sizes: Sequence[int], dims: Sequence[int] | None = None, lengths: Sequence[int] | None = None
) -> tuple[Tables, SampledInputs, np.ndarray]:
    """Tables whose full counts are those of `ids`; the inputs; the counts."""
    lengths = lengths or [1] * len(sizes)
    features = [
        FeatureSchema(name=f"C{t}", num_embeddings=n, length=length, encoded=True)
        for t, (n, length) in enumerate(zip(sizes, lengths, strict=True))
    ]
    inputs = SampledInputs(ids.astype(np.int32), np.zeros(len(ids), np.uint8), range(len(ids)))
    counts = count_accesses(inputs, features)
    return Tables(features, counts, dims or [1] * len(sizes), "sgd"), inputs, counts


def random_ids(seed: int, num_inputs: int, sizes: Sequence[int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([(random.random(num_inputs) ** 2 * size).astype(np.int32) for size in sizes], axis=1)


def hot_share(tables: Tables, inputs: SampledInputs, sets: PeeledSets | ThresholdSets, num_bytes: int) -> float:
    return measure(tables, inputs, sets.ranks(), sets.largest(num_bytes)).input_share


def test_tables_know_popularity_order() -> None:
    tables, _, _ = tables_of(np.array([[2, 0], [2, 0], [1, 0], [2, 1]]), [4, 2], [2, 1])
    assert tables.order(0).tolist() == [2, 1, 0, 3]
    assert tables.order(1) is None
    assert tables.popular_counts(0).tolist() == [3, 1, 0, 0]
    assert tables.num_accessed.tolist() == [2, 2]
    assert tables.popularity_ranks().tolist() == [2, 1, 0, 3, 0, 1]
    assert tables.total_bytes == 4 * 8 + 2 * 4
    assert tables.cold_rows(np.array([1, 0])).tolist() == [2, 3]  # groups by ascending width
    with pytest.raises(ValueError, match="1 embedding_dims for 2 tables"):
        Tables(tables.features, tables.counts, [4], "sgd")


def test_num_at_least() -> None:
    descending = np.array([9, 5, 5, 1, 0])
    assert [num_at_least(descending, count) for count in (10, 9, 5, 1, 0)] == [0, 1, 3, 4, 5]


def test_the_tail_takes_the_most_accessed_rows_first() -> None:
    tables, _, _ = tables_of(random_ids(0, 50, [30, 40]), [30, 40], [1, 2])
    tail = PopularityTail(tables, [np.array([9, 4, 4, 0]), np.array([7, 4, 1, 1])])
    # 4 bytes a row of the first table, 8 of the second.
    assert [tail.largest(room).tolist() for room in (3, 4, 11, 12, 16, 20, 28, 35, 36, 44, 999)] == [
        [0, 0], [1, 0], [1, 0], [1, 1], [2, 1], [3, 1], [3, 2], [3, 2], [3, 3], [3, 4], [3, 4],
    ]  # fmt: skip
    assert PopularityTail(tables, [np.empty(0, np.int64)] * 2).largest(100).tolist() == [0, 0]


def test_the_threshold_rule_is_that_of_the_paper() -> None:
    ids = random_ids(1, 400, [60, 90])
    tables, _, counts = tables_of(ids, [60, 90])
    sets = ThresholdSets(tables, counts, NO_SMALL)
    for threshold in (0.5, 0.05, 0.0123, 1e-3, 1e-7):
        want = [
            int((tables.of_table(counts, t) >= max(1, threshold * tables.of_table(counts, t).sum())).sum())
            for t in range(2)
        ]
        assert sets.rows_by_threshold(threshold).tolist() == want
        for table in range(2):
            of_table = tables.of_table(counts, table)
            assert (of_table >= sets.count_at(table, threshold)).sum() == want[table]


def test_threshold_is_bisected_to_the_last_level_that_fits() -> None:
    ids = random_ids(2, 500, [80, 120])
    tables, inputs, _ = tables_of(ids, [80, 120], [3, 5])
    sample = inputs.take(np.arange(0, 500, 5))
    sets = ThresholdSets(tables, count_accesses(sample, tables.features), NO_SMALL)
    every = np.unique(np.concatenate([np.linspace(0, 0.2, 20_001)[1:], sets.levels]))[::-1]
    extra = []
    for num_bytes in (0, 100, 500, 800, 1200):
        step = sets.largest_step(num_bytes)
        fitting = [t for t in every if tables.bytes(sets.rows_by_threshold(t)) <= num_bytes]
        want = sets.rows_by_threshold(min(fitting)) if fitting else np.zeros(2, np.int64)
        assert tables.bytes(step.num_hot) <= num_bytes
        assert step.num_extra == (step.num_hot - want).sum()
        assert np.all(step.num_hot >= want)
        assert not step.beyond_sample
        extra.append(step.num_extra)
        if step.threshold is not None:
            assert want.tolist() == sets.at(step.threshold).num_hot.tolist()
    assert max(extra) > 0


def test_bytes_left_by_a_level_go_to_the_most_accessed_rows_of_the_next() -> None:
    ids = np.concatenate([np.repeat(np.arange(6), [9, 8, 7, 6, 5, 4]), np.array([0, 0, 1, 2, 3, 4])])[:, None]
    tables, inputs, _ = tables_of(ids, [6])
    sample = inputs.take(np.arange(39, 45))  # row 0 twice, rows 1 to 4 once, row 5 never
    sets = ThresholdSets(tables, count_accesses(sample, tables.features), NO_SMALL)
    steps = [sets.largest_step(4 * rows) for rows in range(7)]
    assert [int(step.num_hot[0]) for step in steps] == list(range(7))
    assert [step.num_extra for step in steps] == [0, 0, 1, 2, 3, 0, 1]
    assert [step.beyond_sample for step in steps] == [False] * 6 + [True]
    assert [step.threshold for step in steps] == [None, *[2 / 6] * 4, *[1 / 6] * 2]


def test_rows_the_sample_did_not_see_follow_but_never_unaccessed_ones() -> None:
    ids = random_ids(3, 600, [100, 300])
    tables, inputs, _ = tables_of(ids, [100, 400])
    sample = inputs.take(np.arange(0, 600, 10))
    sets = ThresholdSets(tables, count_accesses(sample, tables.features), NO_SMALL)
    step = sets.largest_step(tables.total_bytes - 1)
    assert step.beyond_sample
    assert step.num_hot.tolist() == tables.num_accessed.tolist()
    assert (tables.num_accessed < tables.sizes).any()


def test_small_tables_take_at_most_half_of_the_hot_bytes_while_others_want_them() -> None:
    sizes = [10, 40, 2000]
    ids = random_ids(4, 3000, sizes)
    tables, _, counts = tables_of(ids, sizes)
    sets = ThresholdSets(tables, counts, HotConfig(small_table=160))
    assert sets.candidates.tolist() == small_tables(tables, 160).tolist() == [0, 1]
    joined = []
    for num_bytes in range(0, 8000, 40):
        step = sets.largest_step(num_bytes)
        small_bytes = int((tables.sizes * tables.row_bytes)[list(step.small)].sum())
        assert 2 * small_bytes <= tables.bytes(step.num_hot)
        joined.append(len(step.small))
    assert joined[0] == 0
    assert joined[-1] == 2
    assert joined == sorted(joined)


def test_small_tables_left_over_join_behind_the_last_threshold() -> None:
    ids = np.concatenate([np.zeros((50, 2), np.int32), np.array([[1, 1]])])
    tables, _, counts = tables_of(ids, [100, 50])
    sets = ThresholdSets(tables, counts, HotConfig(small_table=4000))
    assert sets.largest_step(16).num_hot.tolist() == [2, 2]
    assert sets.largest_step(2 * 4 + 200).num_hot.tolist() == [2, 50]
    assert sets.largest_step(600).num_hot.tolist() == [100, 50]


def test_a_log_without_lookups_has_no_hot_rows() -> None:
    tables, _, counts = tables_of(np.full((5, 2), -1), [3, 4])
    sets = ThresholdSets(tables, counts, HotConfig(small_table=12))
    assert sets.largest_step(0).num_hot.tolist() == [0, 0]
    assert sets.count_at(0, 0.5) == 1
    assert sets.largest_step(12).num_hot.tolist() == [3, 0]


def test_grids() -> None:
    assert threshold_grid(HotConfig()) == [1e-3, 1e-4, 1e-5, 1e-6, 1e-7]
    assert threshold_grid(HotConfig(max_threshold=0.5, min_threshold=0.5)) == [0.5]
    assert thresholds_above(HotConfig()) == [0.01, 0.1, 1.0]
    assert thresholds_above(HotConfig(max_threshold=1.0)) == []


# Peeling


def replay(edges: list[set[int]], order: Sequence[int], load: dict[int, int]) -> None:
    """Repeat a pass in this order, checking that each removed row had the smallest key."""
    alive = list(edges)
    left = list(order)
    for row in order:
        keys = {v: load[v] + sum(v in edge for edge in alive) for v in left}
        assert keys[row] == min(keys.values())
        killed = [edge for edge in alive if row in edge]
        alive = [edge for edge in alive if row not in edge]
        load[row] += len(killed)
        left.remove(row)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("interpreted", [False, True])
def test_a_pass_removes_the_smallest_key_and_loads_add_up(
    seed: int, interpreted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if interpreted:
        loops = (
            (peeling, ("incidence_kernel", "order_rows_kernel", "remove_rows_kernel")),
            (counting, ("count_kernel",)),
        )
        for module, name in ((module, name) for module, names in loops for name in names):
            kernel = getattr(module, name)
            monkeypatch.setattr(module, name, getattr(kernel, "py_func", kernel))
    ids = random_ids(seed, 40, [6, 9, 5])
    ids[::7, 1] = -1
    tables, inputs, counts = tables_of(ids, [6, 9, 5])
    edges = [{int(tables.offsets[t]) + int(row[t]) for t in range(3) if row[t] >= 0} for row in ids]
    load = dict.fromkeys(range(20), 0)
    for passes in (1, 2, 3):
        peeled = peel(tables, inputs, counts, passes, np.zeros(3, bool))
        order = peeled.rows[::-1].tolist()
        assert sorted(order) == np.flatnonzero(counts).tolist()
        replay(edges, order, load)
        assert dict(zip(peeled.rows.tolist(), peeled.load.tolist(), strict=True)) == {
            row: value for row, value in load.items() if counts[row]
        }
        assert peeled.load.sum() == passes * len(ids)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("free_table", [None, 0])
def test_the_certificate_bounds_every_set_of_rows(seed: int, free_table: int | None) -> None:
    sizes, dims = [4, 3, 3], [1, 2, 1]
    ids = random_ids(seed, 25, sizes)
    tables, inputs, counts = tables_of(ids, sizes, dims)
    free = np.arange(3) == free_table
    peeled = peel(tables, inputs, counts, 3, free)
    sets = PeeledSets(tables, peeled, () if free_table is None else (free_table,))
    flat = ids + tables.offsets[:-1]
    width = np.repeat(tables.row_bytes, sizes)
    cost_rows = [row for row in range(10) if not free[np.searchsorted(tables.offsets, row, side="right") - 1]]
    best: dict[int, float] = {}
    for take in range(len(cost_rows) + 1):
        for chosen in itertools.combinations(cost_rows, take):
            hot = np.isin(np.arange(10), chosen) | np.repeat(free, sizes)
            cost = int(width[list(chosen)].sum())
            best[cost] = max(best.get(cost, 0.0), float(hot[flat].all(axis=1).mean()))
    for cost, share in best.items():
        assert peeled.bound(sets.row_bytes, cost) >= share - 1e-12
    assert peeled.bound(sets.row_bytes, 10**6) == 1.0


def test_the_same_row_twice_in_an_input_is_one_incidence() -> None:
    ids = np.array([[1, 1, 0], [1, 2, 0], [2, 2, 0], [-1, -1, 0]])
    tables, inputs, counts = tables_of(ids, [4, 2], lengths=[2, 1])
    peeled = peel(tables, inputs, counts, 1, np.array([False, True]))
    assert peeled.num_free == 1
    assert peeled.load.sum() == 3
    edges, num_free = list_edges(tables, inputs, np.array([-1, 0, 1, -1, -1, -1], np.int32), np.array([False, True]))
    assert num_free == 1
    assert sorted(map(sorted, edges.tolist())) == [[-1, -1], [-1, 0], [-1, 1], [0, 1]]


def correlated_ids(seed: int, num_inputs: int, size: int) -> np.ndarray:
    """Each input belongs to a theme that fixes most of its ids, beside popular ids of no theme."""
    random = np.random.default_rng(seed)
    theme = (random.random(num_inputs) ** 2 * size).astype(np.int64)
    columns = []
    for column in range(5):
        common = (random.random(num_inputs) ** 4 * size).astype(np.int64)
        own = (theme * (2 * column + 3)) % size
        columns.append(np.where(random.random(num_inputs) < 0.7, own, common))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4])
def test_peeling_beats_the_threshold_on_the_inputs_it_saw_and_the_bound_both(share: float) -> None:
    tables, inputs, counts = tables_of(correlated_ids(1, 4000, 200), [200] * 5)
    threshold = ThresholdSets(tables, counts, NO_SMALL)
    peeled = PeeledSets(tables, peel(tables, inputs, counts, 3, np.zeros(5, bool)), ())
    num_bytes = tables.bytes(threshold.largest(int(share * tables.total_bytes)))
    by_threshold, by_peeling = (hot_share(tables, inputs, sets, num_bytes) for sets in (threshold, peeled))
    assert by_threshold < by_peeling <= peeled.peeled.bound(peeled.row_bytes, num_bytes)


def test_peeled_sets_are_nested_and_store_the_hottest_first() -> None:
    ids = random_ids(5, 300, [30, 50])
    tables, inputs, counts = tables_of(np.concatenate([ids, ids[:3]]), [30, 60], [1, 2])
    sample = inputs.take(np.arange(0, 300, 3))
    sampled = count_accesses(sample, tables.features)
    sets = PeeledSets(tables, peel(tables, sample, sampled, 2, np.zeros(2, bool)), ())
    ranks = sets.ranks()
    for table in range(2):
        of_table = tables.of_table(ranks, table)
        assert sorted(of_table.tolist()) == list(range(tables.sizes[table]))
        unseen = np.flatnonzero(tables.of_table(sampled, table) == 0)
        in_order = tables.of_table(counts, table)[unseen[np.argsort(of_table[unseen])]]
        assert np.all(np.diff(in_order) <= 0)
        seen = tables.of_table(sampled, table) > 0
        assert of_table[seen].max() < of_table[unseen].min()
    before = np.zeros(2, np.int64)
    for num_bytes in range(0, tables.total_bytes, 8):
        num_hot = sets.largest(num_bytes)
        assert np.all(num_hot >= before)
        assert tables.bytes(num_hot) <= num_bytes
        before = num_hot
    assert before.tolist() == tables.num_accessed.tolist()


def test_peeling_takes_free_tables_first_and_whole() -> None:
    tables, inputs, counts = tables_of(random_ids(6, 100, [5, 40]), [5, 40])
    sets = PeeledSets(tables, peel(tables, inputs, counts, 1, np.array([True, False])), (0,))
    assert sets.largest(19).tolist() == [0, 0]
    assert sets.largest(20).tolist() == [5, 0]
    assert sets.largest(28).tolist() == [5, 2]


# Staging and search


@pytest.mark.parametrize("mixed", [False, True])
def test_staging_is_what_batches_need_within_its_limits(mixed: bool) -> None:
    sizes = [20, 300]
    ids = random_ids(7, 2000, sizes)
    tables, inputs, _ = tables_of(ids, sizes, [2, 4])
    ranks = tables.popularity_ranks()
    probe = StagingProbe(tables, inputs, 2000, batch_size=64, mixed=mixed, seed=3).use_ranks(ranks)
    num_hot = np.array([15, 40])
    rows = probe.staging_rows(num_hot)
    stored = np.stack([ranks[tables.offsets[t] + ids[:, t]] for t in range(2)], axis=1)
    cold = stored >= num_hot
    pool = np.flatnonzero(np.ones(2000, bool) if mixed else cold.any(axis=1))
    needed = []
    for batch in np.split(pool, range(64, len(pool), 64))[:-1]:
        needed.append([len(np.unique(stored[batch, t][cold[batch, t]])) for t in range(2)])
    assert rows[0] == 5  # all there are
    assert np.median(needed, axis=0)[1] <= rows[1] <= 1.3 * np.max(needed, axis=0)[1] + 2
    assert probe.staging_rows(tables.sizes).tolist() == [0, 0]
    assert np.all(probe.staging_rows(np.zeros(2, np.int64)) <= tables.sizes)


def test_staging_holds_the_cold_rows_of_any_one_input() -> None:
    ids = np.zeros((50, 4), np.int32)  # every lookup is hot, cold rows exist
    tables, inputs, _ = tables_of(ids, [9, 2], lengths=[3, 1])
    probe = StagingProbe(tables, inputs, 50, batch_size=1, mixed=False, seed=1)
    assert probe.staging_rows(np.array([1, 1])).tolist() == [4]
    assert probe.staging_rows(np.array([8, 2])).tolist() == [1]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_staging_is_to_the_row_what_plain_counting_gives(seed: int, mixed: bool) -> None:
    """Lists with pads and repeated rows, groups of two widths, pools with few inputs or without a cold one."""
    random = np.random.default_rng(seed)
    num_tables = random.integers(1, 5)
    sizes, lengths = random.integers(1, 60, num_tables), random.integers(1, 4, num_tables)
    dims, num_inputs = random.integers(1, 3, num_tables), int(random.integers(1, 200))
    columns = [random.random((num_inputs, n)) ** 2 * size for size, n in zip(sizes, lengths, strict=True)]
    ids = np.concatenate(columns, 1).astype(np.int32)
    ids[random.random(ids.shape) < random.choice([0.0, 0.3, 1.0])] = -1
    tables, inputs, _ = tables_of(ids, sizes.tolist(), dims.tolist(), lengths.tolist())
    ranks = None if seed % 3 == 0 else np.concatenate([random.permutation(size) for size in sizes]).astype(np.int32)
    batch_size = int(random.integers(1, 50))
    probe = StagingProbe(tables, inputs, 4 * num_inputs, batch_size=batch_size, mixed=mixed, seed=seed)
    probe = probe.use_ranks(ranks)
    draws, num_pooled = generator(seed, "calibrate", "probe"), min(num_inputs, 16 * batch_size)
    pool = ids[sample_without_replacement(draws, num_inputs, num_pooled)][draws.permutation(num_pooled)]
    stored = pool
    if ranks is not None:
        stored = np.where(pool >= 0, ranks[tables.slots.slot_first_row + np.maximum(pool, 0)], -1)
    group_of = tables.group_of_table[tables.slots.slot_table]
    slots = np.bincount(group_of, minlength=len(tables.group_row_bytes))
    for num_hot in (np.zeros_like(sizes), random.integers(0, sizes + 1), random.integers(0, sizes + 1), sizes):
        cold = stored >= num_hot[tables.slots.slot_table]
        chosen = [b for b in range(len(cold)) if mixed or cold[b].any()]
        batches = [chosen[first : first + batch_size] for first in range(0, len(chosen), batch_size)][:8]
        batches = [batch for batch in batches if len(batch) == batch_size] or batches[:1]
        scale = max(1.0, min(batch_size, len(chosen) * 4 * num_inputs / num_pooled) / max(1, len(chosen)))
        for group, rows in enumerate(probe.staging_rows(num_hot)):
            most = 0
            for batch in batches:
                lookups = [(b, s) for b in batch for s in np.flatnonzero(cold[b] & (group_of == group))]
                most = max(most, len({(int(tables.slots.slot_table[s]), int(stored[b, s])) for b, s in lookups}))
            of_group = tables.group_of_table == group
            left = sizes - num_hot
            least = int(np.minimum(left, lengths)[of_group].sum())
            wanted = max(math.ceil(MARGIN * scale * most) + slots[group], least)
            assert rows == min(wanted, left[of_group].sum(), batch_size * slots[group]) * bool(left.any())


def test_staging_is_scaled_up_where_the_sample_is_less_than_a_batch() -> None:
    ids = random_ids(8, 20, [5000])
    tables, inputs, _ = tables_of(ids, [5000])
    none = np.zeros(1, np.int64)
    alone = StagingProbe(tables, inputs, 20, batch_size=1000, mixed=True, seed=1).staging_rows(none)
    sampled = StagingProbe(tables, inputs, 400, batch_size=1000, mixed=True, seed=1).staging_rows(none)
    assert alone[0] < 1.1 * 20 + 3
    assert sampled[0] > 15 * alone[0]


def test_anchors_are_found_again() -> None:
    for num_bytes in (0, 63, 64, 65, 69, 70, 1000, 2**20, 2**20 - 1, 10**12):
        anchor = anchor_below(num_bytes)
        assert anchor_bytes(anchor) <= num_bytes < max(64, anchor_bytes(anchor + 1))


def test_search_takes_the_deepest_ring_that_leaves_half_to_the_rows() -> None:
    sizes = [40, 150]
    tables, inputs, counts = tables_of(random_ids(9, 800, sizes), sizes, [2, 4])
    sets = PeeledSets(tables, peel(tables, inputs, counts, 1, np.zeros(2, bool)), ())
    probe = StagingProbe(tables, inputs, 800, batch_size=8, mixed=True, seed=1).use_ranks(sets.ranks())
    of_depth = {depth: BudgetSearch(tables, sets, probe, [depth]) for depth in range(8, 1, -1)}
    auto = BudgetSearch(tables, sets, probe, list(of_depth))
    assert auto.smallest_need() == of_depth[2].smallest_need()
    taken = set()
    for budget in range(auto.smallest_need()[0], tables.total_bytes, 40):
        fits = {depth: search.largest(budget) for depth, search in of_depth.items()}
        depth = max((d for d, fit in fits.items() if fit and fit.staging_bytes <= budget / 2), default=2)
        fit, expected = auto.largest(budget), fits[depth]
        taken.add(depth)
        assert fit is not None
        assert expected is not None
        assert (fit.ring_depth, fit.bytes, fit.staging_bytes) == (depth, expected.bytes, expected.staging_bytes)
        assert fit.num_hot.tolist() == expected.num_hot.tolist()
    assert len(taken) > 2


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_search_agrees_with_trying_every_hot_set(mixed: bool, batch_size: int) -> None:
    sizes = [40, 150]
    tables, inputs, counts = tables_of(random_ids(9, 800, sizes), sizes, [2, 4])
    sets = PeeledSets(tables, peel(tables, inputs, counts, 1, np.zeros(2, bool)), ())
    probe = StagingProbe(tables, inputs, 800, batch_size=batch_size, mixed=mixed, seed=1).use_ranks(sets.ranks())
    search = BudgetSearch(tables, sets, probe, [2])
    need, ring = search.smallest_need()
    assert 0 <= ring <= need <= tables.total_bytes
    assert search.largest(need - 1) is None
    assert search.largest(need) is not None
    every = [tables.bytes(sets.largest(num_bytes)) for num_bytes in range(0, tables.total_bytes, 4)]
    cost = {b: b + search.ring_bytes(search.staging_rows(b)) for b in every}
    before = np.zeros(2, np.int64)
    for budget in range(need, tables.total_bytes + 200, 100):
        fit = search.largest(budget)
        assert fit is not None
        assert fit.bytes + fit.staging_bytes <= budget
        if budget < tables.total_bytes:
            # Not "equal": a hot set that is the largest of two anchors may take the smaller ring of the two.
            assert fit.bytes >= max(b for b in cost if cost[b] <= budget)
        else:
            assert fit.num_hot.tolist() == tables.sizes.tolist()
            assert fit.staging_bytes == 0
        assert np.all(fit.num_hot >= before)
        before = fit.num_hot


def test_coverage_counts_every_lookup_of_the_training_split() -> None:
    ids = random_ids(10, 200, [9, 30])
    ids[::5, 1] = -1
    tables, inputs, _ = tables_of(ids, [9, 30])
    num_hot, ranks = np.array([3, 8]), tables.popularity_ranks()
    coverage, each = training_coverage(tables, ranks, num_hot)
    measured = measure(tables, inputs, ranks, num_hot)
    assert coverage == measured.coverage
    hot = [ranks[tables.offsets[t] + ids[:, t]] < num_hot[t] for t in range(2)]
    used = ids >= 0
    assert each == [pytest.approx((hot[t] & used[:, t]).sum() / used[:, t].sum()) for t in range(2)]
    assert measured.num_hot_inputs == ((hot[0] | ~used[:, 0]) & (hot[1] | ~used[:, 1])).sum()
    assert training_coverage(tables, None, tables.sizes)[0] == 1.0


def test_coverage_interval_takes_inputs_as_clusters() -> None:
    population = correlated_ids(2, 20_000, 300)
    tables, inputs, _ = tables_of(population, [300] * 5)
    num_hot, ranks = np.full(5, 60), tables.popularity_ranks()
    truth = measure(tables, inputs, ranks, num_hot).coverage
    random, covered, widths = np.random.default_rng(0), 0, []
    for _ in range(200):
        sample = inputs.take(np.sort(random.choice(20_000, 500, replace=False)))
        low, high = measure(tables, sample, ranks, num_hot).coverage_interval(20_000, 0.95)
        covered += low <= truth <= high
        widths.append(high - low)
    assert 180 <= covered <= 199
    independent = 2 * 1.96 * np.sqrt(truth * (1 - truth) / 2500)
    assert np.mean(widths) > 1.2 * independent  # lookups of one input go together
    assert measure(tables, inputs, ranks, num_hot).coverage_interval(20_000, 0.95) == (truth, truth)
    assert measure(tables, inputs.take(np.array([3])), ranks, num_hot).coverage_interval(20_000, 0.95) == (0.0, 1.0)
