"""What holds of every hot set: it fits its budget, and those of growing budgets are nested."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.hot_set import HotSet
from fae.calibrate.calibrate import calibrate
from fae.core.errors import BudgetError
from fae.core.optimizers import OPTIMIZERS, row_bytes
from fae.profile.config import HotConfig
from fae.profile.profile import profile

from logs import make_log


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A small skewed log with list columns, unused slots and rows that are never accessed, and settings for it."""
    num_tables = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 60), min_size=num_tables, max_size=num_tables))
    lengths = draw(st.lists(st.integers(1, 3), min_size=num_tables, max_size=num_tables))
    return {
        "sizes": sizes,
        "lengths": lengths,
        "dims": draw(st.lists(st.sampled_from([1, 4]), min_size=num_tables, max_size=num_tables)),
        "num_inputs": draw(st.integers(1, 120)),
        "skew": draw(st.sampled_from([1.0, 2.0, 5.0])),
        "unused": draw(st.sampled_from([0.0, 0.2, 0.95])),
        "seed": draw(st.integers(0, 50)),
        "sample": draw(st.sampled_from([0.3, 1.0])),
        "selection": draw(st.sampled_from(["threshold", "peeling", "auto"])),
        "ring_depth": draw(st.sampled_from([2, 4])),
        "small_table": draw(st.sampled_from([1, 100, 10**6])),
        "batch_size": draw(st.sampled_from([1, 8, 500])),
        "mixed": draw(st.booleans()),
        "optimizer": draw(st.sampled_from(OPTIMIZERS)),
    }


def build(case: dict[str, Any], folder: Path) -> ColumnarLog:
    random = np.random.default_rng(case["seed"])
    columns, features = [], []
    for table, (size, length) in enumerate(zip(case["sizes"], case["lengths"], strict=True)):
        ids = (random.random((case["num_inputs"], length)) ** case["skew"] * size).astype(np.int64)
        ids[random.random(ids.shape) < case["unused"]] = -1
        columns.append(-np.sort(-ids, axis=1) if length > 1 else ids)  # unused slots come last
        features.append(FeatureSchema(name=f"C{table}", num_embeddings=size, length=length, encoded=True))
    return make_log(folder, np.concatenate(columns, axis=1), random.integers(0, 2, case["num_inputs"]), None, features)


def run(case: dict[str, Any], log: ColumnarLog, folder: Path, budget: int, **changes: Any) -> HotSet | None:
    config = HotConfig(
        budget=budget, sample=case["sample"], sample_min_inputs=0, **{
            name: changes.get(name, case[name]) for name in ("selection", "ring_depth", "small_table")
        },
    )  # fmt: skip
    opened = profile(log, config, folder / "profile", seed=1)
    try:
        return calibrate(
            log, opened, config, folder / f"hot_{budget}", embedding_dims=case["dims"], optimizer=case["optimizer"],
            batch_size=case["batch_size"], mixed=case["mixed"], seed=1,
        )  # fmt: skip
    except BudgetError:
        return None


def hot_ids(hot_set: HotSet, table: int) -> set[int]:
    layout = hot_set.layout
    ranks = layout.ranks[table]
    order = np.arange(layout.features[table].num_embeddings) if ranks is None else np.asarray(ranks)
    return set(np.flatnonzero(order < layout.num_hot[table]).tolist())


relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(case=cases(), share=st.floats(0.01, 1.2))
def test_budget_is_kept_and_no_unaccessed_row_is_hot(case: dict[str, Any], share: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = build(case, folder)
        widths = [row_bytes(case["optimizer"], dim) for dim in case["dims"]]
        total = sum(size * width for size, width in zip(case["sizes"], widths, strict=True))
        budget = max(1, int(share * total))
        hot_set = run(case, log, folder, budget)
        if hot_set is None:
            assert budget < total
            return
        summary, layout = hot_set.summary, hot_set.layout
        of_group = [row_bytes(case["optimizer"], group.embedding_dim) for group in layout.groups]
        hot_bytes = sum(group.num_hot_rows * width for group, width in zip(layout.groups, of_group, strict=True))
        ring = case["ring_depth"] * sum(r * width for r, width in zip(hot_set.staging_rows, of_group, strict=True))
        assert (summary["bytes"], summary["staging_bytes"]) == (hot_bytes, ring)
        assert hot_bytes + ring <= budget
        assert sum(entry["num_hot"] for entry in summary["tables"]) == summary["num_rows"]
        for table, entry in enumerate(summary["tables"]):
            ids = hot_ids(hot_set, table)
            assert len(ids) == entry["num_hot"]
            accessed = log.counts[log.table_offsets[table] : log.table_offsets[table + 1]] > 0
            if not (entry["small"] or budget >= total):
                assert all(accessed[row] for row in ids)
        # One input's cold rows always fit one slot of the ring.
        for group, rows in zip(layout.groups, hot_set.staging_rows, strict=True):
            longest = sum(min(case["lengths"][t], case["sizes"][t] - layout.num_hot[t]) for t in group.tables)
            assert min(longest, group.num_cold_rows) <= rows <= group.num_cold_rows
        start, stop = log.split("train")
        hot = np.ones((stop - start, layout.num_slots), bool)
        for slot, table in enumerate(layout.table_of_slot.tolist()):
            ids_of_slot = np.asarray(log.ids[:, slot])
            hot[:, slot] = np.isin(ids_of_slot, [-1, *hot_ids(hot_set, table)])
        low, high = summary["intervals"]["input_share"]
        assert 0 <= low <= summary["input_share"] <= high <= 1
        if case["sample"] == 1.0:
            assert summary["input_share"] == hot.all(axis=1).mean()
            if summary["bound"] is not None:
                assert all(one["input_share"] <= summary["bound"] + 1e-9 for one in summary["candidates"].values())
            rivals = [
                one["input_share"]
                for name, one in summary["candidates"].items()
                if name == summary["selection"] or case["selection"] != "threshold"
            ]
            assert summary["input_share"] == max(rivals, default=1.0)


@relaxed
@given(case=cases(), shares=st.lists(st.floats(0.02, 1.1), min_size=2, max_size=4))
def test_hot_sets_of_growing_budgets_are_nested(case: dict[str, Any], shares: list[float]) -> None:
    # The peeling's order depends on which small tables are free, so its small-table limit is off; the ring is on.
    peeling = case["selection"] == "peeling"
    changes = {"selection": "peeling" if peeling else "threshold"} | ({"small_table": 1} if peeling else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = build(case, folder)
        total = sum(
            size * row_bytes(case["optimizer"], dim) for size, dim in zip(case["sizes"], case["dims"], strict=True)
        )
        before: list[set[int]] = [set() for _ in case["sizes"]]
        fitted = False
        for share in sorted(shares):
            hot_set = run(case, log, folder, max(1, int(share * total)), **changes)
            assert not (fitted and hot_set is None)
            # Only hot sets of one storage order are nested; where the peeling's ring costs too much, the other is used.
            if hot_set is None or hot_set.summary["selection"] != changes["selection"]:
                continue
            fitted = True
            now = [hot_ids(hot_set, table) for table in range(len(case["sizes"]))]
            assert all(small <= large for small, large in zip(before, now, strict=True))
            before = now
