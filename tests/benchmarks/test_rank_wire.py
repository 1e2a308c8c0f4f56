"""Bytes over the wire that the benchmark of several GPUs computes, and the hot rows of its logs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The benchmark's modules by name, imported as the script imports them, and forgotten behind the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = {name: importlib.import_module(name) for name in ("common", "rank_data", "rank_wire")}
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "benchmarks")):
            monkeypatch.delitem(sys.modules, name)
    return found


def packed() -> tuple[Any, Any]:
    """One batch of four inputs with two lookups; rows 0 to 9 are hot, and its cold rows are 10, 11, 14 and 17."""
    addresses = np.array([[0, 10], [0, 11], [1, 12], [0, 13]])  # an address from 10 on counts cold rows of the batch
    batch = SimpleNamespace(addresses=addresses, cold_rows=(np.array([10, 11, 14, 17]),))
    train = SimpleNamespace(num_batches=1, batch=lambda index: batch)
    group = SimpleNamespace(num_hot_rows=10, embedding_dim=8)
    hot = SimpleNamespace(layout=SimpleNamespace(groups=(group,)))
    return hot, SimpleNamespace(train=train, batch_size=4, num_slots=2)


def test_rows_of_slices_and_their_owners(modules: dict[str, ModuleType]) -> None:
    # Slice 0 has hot row 0 and cold rows 0 and 1, of which rank 1 owns the second; slice 1 has hot rows 0 and 1 and
    # cold rows 4 and 7, of which rank 0 owns the first.
    assert modules["rank_wire"].mean_rows(*packed(), 2) == (1.5, 2.0, 1.0)


def test_bytes_of_every_contender(modules: dict[str, ModuleType]) -> None:
    case = modules["rank_data"].Case(placement="spread", one="device", tiered=True, dim=8)
    assert dict(case.placements) == {"one": "device", "ranks": "spread", "tiered ranks": "tiered"}

    def received(name: str) -> dict[str, float]:
        return modules["rank_wire"].wire_bytes(name, case, packed(), 2, 100)

    row, dense = 4 * 8 / 2, 4 * 100 / 2  # a slice has two inputs
    assert received("one") == {}
    of_owners = {"rows": 1.5 * row, "pulled": row, "sums": row, "dense": dense}
    assert received("ranks") == received("tiered ranks") == of_owners
    assert received("model parallel") == {"vectors": 16.0, "gradients": 16.0, "dense": dense}
    for placement, expected in (("tiered", of_owners), ("device", {"rows": 3.5 * row, "dense": dense})):
        case = modules["rank_data"].Case(placement=placement, dim=8)
        assert received("ranks") == expected


def test_workloads_are_those_of_the_paper(modules: dict[str, ModuleType]) -> None:
    cases = modules["rank_data"].CASES
    assert sum(cases["rmc3"].table_rows) == 187_767_399
    assert sorted(cases["rmc2"].table_rows) == sorted(modules["common"].KAGGLE_ROWS)
    assert cases["rmc2"].share == pytest.approx(256 * 2**20 / (33_762_577 * 64))
    assert cases["rmc3"].share == cases["rmc3_spread"].share == pytest.approx(512 * 2**20 / (187_767_399 * 256))
    assert (cases["rmc3"].dim, cases["rmc3"].optimizer) == (64, "sgd")
    assert cases["rmc3"].options("cpu")["model"].top_mlp == (512, 512, 256)
    assert [name for name, case in cases.items() if case.model_parallel] == [
        "device", "adagrad", "dim64", "strong", "spread",
    ]  # fmt: skip


def test_hot_rows_by_the_law_are_the_most_popular(modules: dict[str, ModuleType]) -> None:
    common, rows = modules["common"], (3000, 500, 20)
    hot = common.zipf_hot_rows(rows, 0.1)
    assert sum(hot) == pytest.approx(0.1 * sum(rows), abs=len(rows))
    random = np.random.default_rng(7)
    counts = [
        np.bincount(common.zipf_ids(random.random(3_000_000), size, common.ZIPF_EXPONENT), minlength=size)
        for size in rows
    ]
    limit = np.sort(np.concatenate(counts))[-sum(hot)]
    drawn = [int(np.count_nonzero(each >= limit)) for each in counts]
    assert hot == pytest.approx(drawn, rel=0.05, abs=1)
    assert common.zipf_hot_rows(rows, 1.0) == list(rows)
    assert common.zipf_hot_rows(rows, 0.0) == [0, 0, 0]
