"""Bits of missing dense values, counted for each split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fae.core.npy import NpyRows, NpyWriter
from fae.ingest.notes import dense_facts
from fae.ingest.notes.dense_facts import DenseFacts, count_missing, num_missing_bytes, pack_missing


@pytest.mark.parametrize("num_dense", [0, 1, 8, 9, 20])
def test_missing_values_are_counted_as_numpy_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_dense: int
) -> None:
    monkeypatch.setattr(dense_facts, "_ROWS_AT_ONCE", 7)
    missing = np.random.default_rng(num_dense).random((50, num_dense)) < 0.3
    with NpyWriter(tmp_path / "missing.npy", np.uint8, (num_missing_bytes(num_dense),)) as file:
        file.append(pack_missing(missing[:31]))
        file.append(pack_missing(missing[31:]))
    splits = {"train": (0, 33), "validation": (33, 33), "test": (33, 50)}
    with NpyRows(tmp_path / "missing.npy") as rows:
        found = count_missing(rows, splits, num_dense)
    assert found == {name: missing[start:stop].sum(axis=0).tolist() for name, (start, stop) in splits.items()}


def test_facts_continue_from_what_was_kept() -> None:
    facts = DenseFacts(2)
    facts.add(np.array([1, 0]), np.array([3.0, 0.5]))
    continued = DenseFacts(2, dict(facts.state))
    continued.add(np.array([2, 5]), np.array([1.0, 9.5]))
    assert continued.state == {"vanished": [3, 5], "largest": [3.0, 9.5]}
    assert facts.state == {"vanished": [1, 0], "largest": [3.0, 0.5]}
