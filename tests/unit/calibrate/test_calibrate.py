"""Calibrate as a stage: what the hot set holds and says, for each selection, and what calibrate refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.hot_set import HotSet
from fae.calibrate import candidates
from fae.calibrate.calibrate import calibrate, plan_calibrate
from fae.core.errors import ArtifactError, BudgetError, RecipeError
from fae.core.optimizers import row_bytes
from fae.core.units import parse_bytes
from fae.pack.pack import pack
from fae.profile.config import HotConfig
from fae.profile.profile import profile

from logs import make_log, zipf_log

SETTINGS: dict[str, Any] = {"optimizer": "rowwise_adagrad", "batch_size": 32, "mixed": False, "seed": 3}


def run(log: ColumnarLog, config: HotConfig, folder: Path, **changes: Any) -> HotSet:
    settings = {**SETTINGS, "embedding_dims": [4] * len(log.features), **changes}
    opened = profile(log, config, folder / "profile", seed=settings["seed"])
    return calibrate(log, opened, config, folder / "hot_set", **settings)


def hot_lookups(hot_set: HotSet, log: ColumnarLog, name: str = "train") -> np.ndarray:
    """bool ``[n, S]``: hot lookups by row numbers, where hot rows are ``[0, H)`` of their group; pads count as hot."""
    start, stop = log.split(name)
    ids, layout = np.asarray(log.ids[start:stop]), hot_set.layout
    hot = np.ones(ids.shape, bool)
    for slot, table in enumerate(layout.table_of_slot):
        group = layout.groups[layout.group_of_table[table]]
        rows = layout.row_numbers(int(table))[ids[:, slot]]
        hot[:, slot] = (rows < group.num_hot_rows) | (ids[:, slot] < 0)
    return hot


@pytest.mark.parametrize("selection", ["threshold", "peeling", "auto"])
@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("sampled", [False, True])
def test_the_summary_says_what_the_layout_holds(tmp_path: Path, selection: Any, encoded: bool, sampled: bool) -> None:
    log = zipf_log(tmp_path, num_inputs=1500, sizes=(60, 500, 9), encoded=encoded, num_test=300)
    config = HotConfig(
        budget="6KiB", selection=selection, sample_min_inputs=300 if sampled else 10**6, ring_depth=2, small_table=200
    )
    hot_set = run(log, config, tmp_path)
    summary, layout = hot_set.summary, hot_set.layout
    json.dumps(summary, allow_nan=False)
    hot = hot_lookups(hot_set, log)
    assert summary["coverage"] == pytest.approx(hot.mean())
    assert summary["intervals"]["coverage"] == [summary["coverage"]] * 2
    assert summary["num_rows"] == sum(layout.num_hot) == sum(table["num_hot"] for table in summary["tables"])
    assert summary["bytes"] == 20 * summary["num_rows"] == sum(table["bytes"] for table in summary["tables"])
    assert summary["staging_bytes"] == 2 * 20 * hot_set.staging_rows[0]
    assert summary["bytes"] + summary["staging_bytes"] <= summary["budget_bytes"] == 6 * 1024
    assert [table["coverage"] for table in summary["tables"]] == pytest.approx(hot.mean(axis=0).tolist())
    low, high = summary["intervals"]["input_share"]
    assert low <= summary["input_share"] <= high
    share = hot.all(axis=1).mean()
    if sampled:
        assert low < high
        assert low <= share <= high
    else:
        assert low == high == pytest.approx(share)
        labels = np.asarray(log.labels[:1200])
        assert summary["label_rate"]["hot"] == pytest.approx(labels[hot.all(axis=1)].mean())
        assert summary["label_rate"]["cold"] == pytest.approx(labels[~hot.all(axis=1)].mean())
    assert (summary["bound"] is None) == (selection == "threshold")
    assert selection in (summary["selection"], "auto")
    assert (hot_set.ring_depth, hot_set.batch_size, hot_set.mixed, hot_set.optimizer) == (
        2,
        32,
        False,
        "rowwise_adagrad",
    )


def test_threshold_needs_no_ranks_where_ids_are_by_popularity(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=800)
    hot_set = run(log, HotConfig(budget="8KiB", selection="threshold", ring_depth=2), tmp_path)
    assert hot_set.layout.ranks == (None,) * 4
    assert not (hot_set.path / "ranks").exists()
    assert hot_set.summary["overlap"] == 1.0
    other = run(log, HotConfig(budget="8KiB", selection="peeling", ring_depth=2), tmp_path)
    ranks = other.layout.ranks[3]
    assert ranks is not None
    assert sorted(ranks.tolist()) == list(range(900))
    assert other.summary["threshold"] is None
    assert other.summary["overlap"] is None


def test_auto_takes_the_better_one_on_all_inputs_where_all_were_read(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=1500)
    summary = run(log, HotConfig(budget="10KiB", ring_depth=2), tmp_path).summary
    shares = {name: one["input_share"] for name, one in summary["candidates"].items()}
    assert set(shares) == {"threshold", "peeling"}
    assert summary["input_share"] == max(shares.values()) == shares[summary["selection"]]
    assert all(share <= summary["bound"] for share in shares.values())
    assert {one["judged_on"] for one in summary["candidates"].values()} == {"every training input"}
    assert summary["notes"][0].startswith(f"auto took {summary['selection']}")


def test_auto_judges_on_held_out_inputs_of_a_sample(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=2000)
    config = HotConfig(budget="10KiB", ring_depth=2, sample=0.2, sample_min_inputs=0)
    summary = run(log, config, tmp_path).summary
    for one in summary["candidates"].values():
        assert (one["num_judged_inputs"], one["num_fitted_inputs"]) == (80, 320)
    assert summary["num_fitted_inputs"] == 400
    if summary["selection"] == "peeling":
        assert summary["measured_on"] == "a fifth of the sample, held out"
    else:
        assert summary["measured_on"] == "the sample"


def test_where_peeling_only_overfits_auto_stays_with_the_threshold(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ids = np.stack([(random.random(20_000) ** 2 * size).astype(int) for size in (3000, 3000)], axis=1)
    log = make_log(tmp_path, ids, random.integers(0, 2, len(ids)))
    config = HotConfig(budget="20KiB", ring_depth=2, sample=0.02, sample_min_inputs=0, small_table=1)
    summary = run(log, config, tmp_path).summary
    shares = {name: one["input_share"] for name, one in summary["candidates"].items()}
    assert summary["selection"] == max(shares, key=lambda name: shares[name]) == "threshold"
    assert summary["measured_on"] == "the sample"
    assert summary["overlap"] < 1


def test_a_budget_above_everything_makes_all_rows_hot_and_says_so(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=500)
    for selection in ("auto", "threshold", "peeling"):
        hot_set = run(log, HotConfig(budget="1GiB", selection=selection), tmp_path)
        assert hot_set.layout.num_hot == (50, 400, 7, 900)
        assert hot_set.staging_rows == (0,)
        summary = hot_set.summary
        assert summary["input_share"] == summary["coverage"] == 1.0
        assert summary["intervals"]["input_share"] == [1.0, 1.0]
        assert "all rows are hot" in summary["notes"][0]


def test_every_accessed_row_before_any_that_never_was(tmp_path: Path) -> None:
    features = [FeatureSchema(name="a", num_embeddings=1000, encoded=True)]
    ids = np.random.default_rng(0).integers(0, 500, (2000, 1))
    log = make_log(tmp_path, ids, np.zeros(2000), features=features)
    summary = run(log, HotConfig(budget="19KiB", small_table=1, ring_depth=2), tmp_path).summary
    assert summary["num_rows"] == 500 - int((log.counts[:500] == 0).sum())
    assert summary["coverage"] == 1.0
    assert summary["label_rate"] == {"hot": 0.0, "cold": None}
    assert "every row that the training split accesses is hot" in summary["notes"]


def test_small_tables_are_hot_as_a_whole(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=3000, sizes=(40, 3000, 25))
    config = HotConfig(budget="40KiB", small_table="1KiB", ring_depth=2)
    tables = run(log, config, tmp_path).summary["tables"]
    assert [table["small"] for table in tables] == [True, False, True]
    assert [tables[0]["num_hot"], tables[2]["num_hot"]] == [40, 25]
    tight = run(log, HotConfig(budget="2KiB", small_table="1KiB", ring_depth=2), tmp_path, batch_size=2).summary
    assert not all(tight["tables"][t]["small"] for t in (0, 2))
    assert any("limit was lowered" in note for note in tight["notes"])


def test_a_sample_smaller_than_the_budget_is_filled_up_by_popularity(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=4000, sizes=(3000, 3000), skew=0.7)
    config = HotConfig(
        budget="50KiB", selection="threshold", sample=0.02, sample_min_inputs=0, small_table=1, ring_depth=2
    )
    summary = run(log, config, tmp_path, batch_size=4).summary
    assert summary["num_rows"] > 160  # the sample saw 80 inputs of two lookups
    assert any("every row that the sample saw fits" in note for note in summary["notes"])
    assert all(entry["fits"] for entry in summary["grid"])


def test_the_grid_goes_up_where_the_first_threshold_is_too_much(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=4000, sizes=(500, 700), skew=0.5)
    config = HotConfig(budget="8KiB", selection="threshold", max_threshold=1e-4, small_table=1, ring_depth=2)
    summary = run(log, config, tmp_path, batch_size=8).summary
    grid = summary["grid"]
    assert [entry["threshold"] for entry in grid[-4:]] == [1e-4, 1e-5, 1e-6, 1e-7]
    assert grid[0]["threshold"] > 1e-4
    assert grid[0]["fits"]
    assert not grid[1]["fits"]
    assert summary["threshold"] > 1e-4
    assert any("it went up" in note for note in summary["notes"])
    assert summary["num_rows"] > 0


def test_the_rand_em_box_is_reported_beside_the_exact_count(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=4000, sizes=(30, 5000), skew=0.9)
    config = HotConfig(
        budget="30KiB", selection="threshold", rand_em_chunks=8, rand_em_chunk_rows=64, small_table=1, ring_depth=2
    )
    summary = run(log, config, tmp_path, batch_size=8).summary
    for entry in summary["grid"]:
        ((name, box),) = entry["rand_em"].items()
        assert name == "C1"
        assert box["low"] <= box["exact"] <= box["high"]


def test_tables_of_several_widths_share_one_budget(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=1500, sizes=(300, 500, 200))
    for selection in ("threshold", "peeling"):
        config = HotConfig(budget="16KiB", selection=selection, ring_depth=3, small_table=1)
        hot_set = run(log, config, tmp_path, embedding_dims=[8, 4, 8], batch_size=8)
        summary, widths = hot_set.summary, [row_bytes("rowwise_adagrad", dim) for dim in (4, 8)]
        assert len(hot_set.staging_rows) == len(hot_set.layout.groups) == 2
        assert summary["bytes"] == sum(
            group.num_hot_rows * width for group, width in zip(hot_set.layout.groups, widths, strict=True)
        )
        assert summary["staging_bytes"] == 3 * sum(
            rows * width for rows, width in zip(hot_set.staging_rows, widths, strict=True)
        )
        assert summary["bytes"] + summary["staging_bytes"] <= 16 * 1024


def test_list_columns_and_empty_inputs(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    features = [
        FeatureSchema(name="a", num_embeddings=80, length=3, encoded=True),
        FeatureSchema(name="b", num_embeddings=60, encoded=True),
    ]
    ids = np.concatenate(
        [(random.random((700, 3)) ** 3 * 80).astype(int), (random.random((700, 1)) ** 3 * 60).astype(int)], axis=1
    )
    ids[:, 2] = np.where(random.random(700) < 0.5, -1, ids[:, 2])
    ids[5] = -1
    log = make_log(tmp_path, ids, random.integers(0, 2, 700), features=features)
    for selection in ("threshold", "peeling"):
        config = HotConfig(budget="1900B", selection=selection, ring_depth=2, small_table=1)
        hot_set = run(log, config, tmp_path, batch_size=2)
        hot = hot_lookups(hot_set, log)
        assert hot_set.summary["input_share"] == pytest.approx(hot.all(axis=1).mean())
        assert hot_set.summary["coverage"] == pytest.approx(hot[ids >= 0].mean())
        assert hot_set.staging_rows[0] >= 4  # one input may need that many


@pytest.mark.parametrize("selection", ["auto", "threshold", "peeling"])
def test_too_small_a_budget_names_one_that_works(tmp_path: Path, selection: Any) -> None:
    log = zipf_log(tmp_path, num_inputs=1500)
    config = HotConfig(budget="300B", selection=selection)
    with pytest.raises(BudgetError, match=r"budget = '300B' .* batch_size = 32 and ring_depth = 2") as caught:
        run(log, config, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hot_set").exists()
    named = str(caught.value).split('set budget = "')[1].split('"')[0]
    summary = run(log, HotConfig(budget=named, selection=selection), tmp_path).summary
    assert summary["bytes"] + summary["staging_bytes"] <= parse_bytes(named)


def test_auto_takes_the_deepest_ring_that_leaves_half_to_the_rows(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=1500)

    def summary_of(budget: int, ring_depth: Any) -> dict[str, Any] | None:
        config = HotConfig(budget=budget, selection="threshold", ring_depth=ring_depth, small_table=1)
        try:
            hot_set = run(log, config, tmp_path)
        except BudgetError:
            return None
        assert hot_set.ring_depth == hot_set.summary["ring_depth"]
        return hot_set.summary

    taken = set()
    for budget in (2900, 3500, 4500, 6000, 8000, 12_000, 20_000):
        found = summary_of(budget, "auto")
        of_depth = {depth: summary_of(budget, depth) for depth in range(8, 1, -1)}
        leaves_half = [d for d, one in of_depth.items() if one and one["staging_bytes"] <= budget / 2]
        depth = max(leaves_half, default=2)
        taken.add(depth)
        expected = of_depth[depth]
        assert found is not None
        assert expected is not None
        assert (found["ring_depth"], found["bytes"], found["staging_bytes"]) == (
            depth, expected["bytes"], expected["staging_bytes"]
        )  # fmt: skip
    assert {2, 8} < taken, "the budgets have to cover short and deep rings"
    assert summary_of(2900, 4) is None


def test_mixed_batches_stage_other_rows(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=3000, sizes=(300, 900))
    config = HotConfig(budget="12KiB", selection="threshold", ring_depth=2, small_table=1)
    pure = run(log, config, tmp_path / "pure", batch_size=64)
    mixed = run(log, config, tmp_path / "mixed", batch_size=64, mixed=True)
    assert mixed.mixed
    assert mixed.staging_rows[0] < pure.staging_rows[0]  # some of the inputs of a mixed batch are hot


@pytest.mark.parametrize("selection", ["threshold", "peeling"])
def test_staging_is_near_what_cold_batches_need(tmp_path: Path, selection: Any) -> None:
    log = zipf_log(tmp_path, num_inputs=4000, sizes=(250,) * 6, skew=1.4, encoded=True)
    hot_set = run(log, HotConfig(budget="9KiB", selection=selection, ring_depth=2, small_table=1), tmp_path)
    hot, ids = hot_lookups(hot_set, log), np.asarray(log.ids)
    cold_inputs = np.flatnonzero(~hot.all(axis=1))
    cold_rows = [
        sum(len(np.unique(ids[batch, slot][~hot[batch, slot]])) for slot in range(6))
        for batch in np.array_split(cold_inputs, len(cold_inputs) // 32)
    ]
    assert max(cold_rows) <= 1.1 * hot_set.staging_rows[0]
    assert hot_set.staging_rows[0] <= 1.15 * max(cold_rows) + 6


def test_the_threshold_replaces_a_peeling_whose_ring_costs_more_than_it_wins(tmp_path: Path) -> None:
    """At every budget: never fewer hot inputs than the threshold, among the inputs that the peeling was fitted to."""
    log, taken = zipf_log(tmp_path, num_inputs=1500, sizes=(120, 200, 260), skew=1.0), []
    for budget in range(3200, 9000, 400):
        config = HotConfig(budget=budget, selection="peeling", ring_depth=2, small_table=1)
        summary = run(log, config, tmp_path).summary
        figures = summary["candidates"]
        assert summary["input_share"] == max(one["input_share"] for one in figures.values())
        assert any("peeling was requested" in note for note in summary["notes"]) == (
            summary["selection"] == "threshold"
        )
        taken.append(summary["selection"])
    assert set(taken) == {"threshold", "peeling"}


def test_the_ring_is_not_measured_on_inputs_that_the_peeling_was_fitted_to(tmp_path: Path) -> None:
    """A peeling of few inputs serves all of those: measured on them, the ring would be that of no cold rows."""
    log = zipf_log(tmp_path, num_inputs=4000, sizes=(250,) * 6, skew=1.4, encoded=True)
    config = HotConfig(
        budget="9KiB", selection="peeling", ring_depth=2, small_table=1, sample=0.02, sample_min_inputs=0
    )
    hot_set = run(log, config, tmp_path)
    assert hot_set.summary["selection"] == "peeling"
    hot, ids = hot_lookups(hot_set, log), np.asarray(log.ids)
    cold_inputs = np.flatnonzero(~hot.all(axis=1))
    cold_rows = [
        sum(len(np.unique(ids[batch, slot][~hot[batch, slot]])) for slot in range(6))
        for batch in np.array_split(cold_inputs, len(cold_inputs) // 32)
    ]
    assert max(cold_rows) <= 1.1 * hot_set.staging_rows[0]


@pytest.mark.parametrize("mixed", [False, True])
def test_the_ring_holds_the_rows_of_held_out_batches(tmp_path: Path, mixed: bool) -> None:
    """Every row that training touches is hot; held-out inputs look up other rows, and still fill their batches."""
    random = np.random.default_rng(1)
    ids = np.concatenate([random.integers(0, 200, (3000, 3)), random.integers(200, 2000, (1000, 3))])
    log = make_log(
        tmp_path, ids, random.integers(0, 2, 4000),
        features=[FeatureSchema(name=f"C{slot}", num_embeddings=2000) for slot in range(3)], num_validation=500,
        num_test=500,
    )  # fmt: skip
    hot_set = run(log, HotConfig(budget="96KiB", ring_depth=2, small_table=1), tmp_path, batch_size=128, mixed=mixed)
    assert hot_lookups(hot_set, log).all()
    packed = pack(log, hot_set, tmp_path / "packed", seed=1)
    assert packed.test.num_batches <= 5
    assert packed.validation.num_batches <= 5


def test_held_out_batches_take_any_input(tmp_path: Path) -> None:
    """They are packed in log order, even if training batches are hot or cold: a ring for cold inputs is too large."""
    random = np.random.default_rng(1)
    ids = random.integers(0, 200, (4000, 3))
    fresh = 3000 + np.flatnonzero(random.random(1000) < 0.1)  # one held-out input in ten looks up three unseen rows
    ids[fresh] = random.integers(200, 2000, (len(fresh), 3))
    log = make_log(
        tmp_path, ids, random.integers(0, 2, 4000),
        features=[FeatureSchema(name=f"C{slot}", num_embeddings=2000) for slot in range(3)], num_validation=500,
        num_test=500,
    )  # fmt: skip
    hot_set = run(log, HotConfig(budget="96KiB", ring_depth=2, small_table=1), tmp_path, batch_size=128)
    assert hot_lookups(hot_set, log).all()
    packed = pack(log, hot_set, tmp_path / "packed", seed=1)
    assert packed.test.num_batches == packed.validation.num_batches == 4
    cold_rows = max(*packed.test.most_cold_rows, *packed.validation.most_cold_rows)
    assert cold_rows <= hot_set.staging_rows[0] <= 1.5 * cold_rows


def test_a_held_out_split_of_less_than_a_batch_is_taken_as_it_is(tmp_path: Path) -> None:
    """Twenty test inputs look up what they look up, however many inputs training has; there is no validation."""
    random = np.random.default_rng(1)
    ids = np.concatenate([random.integers(0, 200, (3000, 3)), random.integers(200, 2000, (20, 3))])
    log = make_log(
        tmp_path, ids, random.integers(0, 2, len(ids)),
        features=[FeatureSchema(name=f"C{slot}", num_embeddings=2000) for slot in range(3)], num_test=20,
    )  # fmt: skip
    for mixed in (False, True):
        hot_set = run(
            log, HotConfig(budget="96KiB", ring_depth=2, small_table=1), tmp_path, batch_size=512, mixed=mixed
        )  # fmt: skip
        assert hot_lookups(hot_set, log).all()
        assert 55 <= hot_set.staging_rows[0] <= 1.1 * 60 + 4


def test_peeling_reads_a_part_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = zipf_log(tmp_path, num_inputs=2000)
    monkeypatch.setattr(candidates, "MEMORY_BYTES", 500 * 8 * 4)
    config = HotConfig(budget="10KiB", selection="peeling", ring_depth=2, small_table=1)
    summary = run(log, config, tmp_path).summary
    assert summary["num_fitted_inputs"] == 500
    assert any("500 of 2,000 inputs" in note for note in summary["notes"])


def test_the_plan_holds_what_decides_the_hot_set_and_nothing_else(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=300)
    opened = profile(log, HotConfig(), tmp_path / "profile", seed=1)

    def name(profile_: AccessProfile = opened, config: HotConfig | None = None, **changes: Any) -> str:
        settings = {**SETTINGS, "embedding_dims": [4] * 4, **changes}
        return plan_calibrate(log, profile_, config or HotConfig(), **settings).fingerprint

    different = [
        name(), name(seed=4), name(mixed=True), name(batch_size=33), name(optimizer="sgd"),
        name(embedding_dims=[8] * 4),
        name(config=HotConfig(budget="1MiB")), name(config=HotConfig(ring_depth=5)),
        name(config=HotConfig(peeling_passes=4)), name(config=HotConfig(selection="threshold")),
        name(config=HotConfig(small_table="2MB")), name(config=HotConfig(min_threshold=1e-6)),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert name() == name(config=HotConfig(sample=0.5)) == name(config=HotConfig(budget=512 * 2**20))
    threshold = [name(config=HotConfig(selection="threshold", peeling_passes=passes)) for passes in (3, 4)]
    assert threshold[0] == threshold[1]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=1200)
    config = HotConfig(budget="10KiB", ring_depth=2, sample=0.3, sample_min_inputs=0)
    first, again = (run(log, config, tmp_path / name) for name in ("a", "b"))
    assert first.manifest == again.manifest


def test_refusals(tmp_path: Path) -> None:
    log, other = zipf_log(tmp_path, num_inputs=300), zipf_log(tmp_path, num_inputs=310, name="other")
    opened = profile(other, HotConfig(), tmp_path / "profile", seed=1)
    with pytest.raises(ArtifactError, match=r"another log .*fae profile"):
        calibrate(log, opened, HotConfig(), tmp_path / "hot_set", embedding_dims=[4] * 4, **SETTINGS)
    with pytest.raises(RecipeError, match="optimizer = 'adamw'"):
        run(log, HotConfig(), tmp_path, optimizer="adamw")
    with pytest.raises(RecipeError, match="batch_size = 0"):
        run(log, HotConfig(), tmp_path, batch_size=0)
    with pytest.raises(ArtifactError, match="fae calibrate"):
        HotSet(tmp_path / "nothing")


def test_one_input(tmp_path: Path) -> None:
    log = make_log(tmp_path, [[0, 1]], [1])
    hot_set = run(log, HotConfig(budget="130B", small_table=1, ring_depth=2), tmp_path)
    assert hot_set.summary["bytes"] + hot_set.summary["staging_bytes"] <= 130
    tiny = zipf_log(tmp_path, num_inputs=40, name="tiny")
    config = HotConfig(budget="6KiB", sample=0.05, sample_min_inputs=0, ring_depth=2)
    assert run(tiny, config, tmp_path).summary["candidates"]["peeling"]["judged_on"] == "the sample"


def test_what_a_notebook_shows_of_a_hot_set(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=500)
    hot_set = run(log, HotConfig(budget="1GiB"), tmp_path)
    assert repr(hot_set) == (
        f"HotSet({str(tmp_path / 'hot_set')!r}: 1,357 of 1,357 rows in 4 tables, 26.5 KiB + 0 B of staging, "
        "coverage 100.0 %)"
    )
