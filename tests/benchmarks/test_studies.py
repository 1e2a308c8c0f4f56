"""The studies: cells that are kept between runs, and the helpers whose mistakes would look like findings."""

from __future__ import annotations

import doctest
import importlib
import mmap
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import FeatureSchema
from fae.calibrate.table_facts import Tables

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks/studies"), str(ROOT / "benchmarks")]
rand_em_box, sampled_counts, study = (
    importlib.import_module(name) for name in ("rand_em_box", "sampled_counts", "study")
)


@pytest.mark.parametrize("name", ["tables", "selections"])
def test_examples_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


def test_a_cell_has_its_commit_and_is_measured_once(tmp_path: Path) -> None:
    calls: list[str] = []

    def work() -> dict[str, Any]:
        calls.append("a")
        return {"figure": len(calls)}

    for _ in range(2):
        cells = study.open_cells(tmp_path / "some.json", {"inputs": (1, 2)})
        assert study.measured(cells, "a", work)["figure"] == 1
    assert calls == ["a"]
    assert {"commit", "load_before"} <= cells["a"].keys()
    assert {"command", "commit", "machine", "versions"} <= cells.record.keys()


def test_peak_memory_counts_what_was_held_in_between() -> None:
    with study.PeakMemory() as memory:
        # Of a map: the process may hold freed memory by now (`keep_freed_memory`), which would be given out anew.
        held = mmap.mmap(-1, 40 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        np.frombuffer(held, np.uint8)[:] = 1
        time.sleep(0.5)  # it looks a hundred times a second, where the machine lets it
        held.close()
        rest = np.ones(2**20, np.uint8)
    assert 38 * 2**20 < memory.bytes < 60 * 2**20
    assert rest.all()


def test_the_papers_pick_knows_only_the_sample() -> None:
    features = [FeatureSchema(name=name, num_embeddings=size) for name, size in (("a", 4), ("b", 3), ("c", 2))]
    tables = Tables(features, np.array([9, 5, 5, 1, 10, 6, 4, 15, 5]), [1, 1, 1], "sgd")  # 4 bytes a row
    sample = np.array([0, 3, 1, 0, 2, 2, 0, 1, 0])

    def picked(num_bytes: int, small: tuple[int, ...] = (), seed: int = 0) -> list[int]:
        hot = sampled_counts.picked_by_sample(tables, sample, small, num_bytes, np.random.default_rng(seed))
        return np.flatnonzero(hot).tolist()

    assert picked(4) == [7]  # all sampled accesses of its table
    assert picked(11) == [1, 7]  # 3 of 4
    assert {tuple(picked(12, seed=seed)) for seed in range(20)} == {(1, 4, 7), (1, 5, 7)}  # equals: by lot, not by id
    assert picked(10**6) == [1, 2, 4, 5, 7]  # never one that the sample did not see
    assert picked(12, small=(2,)) == [1, 7, 8]


def test_three_skews_are_what_they_are_called() -> None:
    for kind in rand_em_box.SKEWS:
        shares = rand_em_box.popularity(kind, 5000)
        assert shares.sum() == pytest.approx(1)
        assert np.all(np.diff(shares) <= 0)
    assert rand_em_box.popularity("step", 5000)[:100].sum() == pytest.approx(0.9)
    deviation = np.log(rand_em_box.popularity("lognormal", 5000)).std()
    assert deviation == pytest.approx(2.5, rel=0.01)


def test_orders_are_permutations_and_arrival_leans_to_popularity() -> None:
    shares, random = rand_em_box.popularity("zipf", 4000), np.random.default_rng(1)
    for order in rand_em_box.ORDERS:
        rows = rand_em_box.rows_in_order(order, shares, random)
        assert np.array_equal(np.sort(rows), np.arange(4000))
        counts = rand_em_box.distinct_counts(rows)
        assert np.count_nonzero(counts >= 4000 - 40 + 1) == 40  # exactly a share of 1e-2
        hot_places = np.flatnonzero(rows < 40).mean()
        expected = {"popularity": (0, 20), "shuffled": (1400, 2600), "arrival": (20, 400)}[order]
        assert expected[0] <= hot_places <= expected[1]


def test_coverage_of_a_few_draws() -> None:
    found = rand_em_box.cover("step", "popularity", "shipped", 2, seed=1)["by_hot_share"]
    assert [entry["hot_rows"] for entry in found] == [835_159, 83_516, 8_352, 835, 84]
    for entry in found:
        misses = entry["interval_below_truth"] + entry["interval_above_truth"]
        assert entry["coverage"] == pytest.approx(1 - misses / 2)
        assert sum(entry["methods"].values()) == 2
