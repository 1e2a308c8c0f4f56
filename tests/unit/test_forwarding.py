"""Merging sorted lists of cold rows: quarters in turns find what sets find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.kernels.forwarding import find_forwards, list_locations

lists = st.sets(st.integers(0, 60), max_size=40).map(lambda rows: np.array(sorted(rows), np.int64))


def found(rows, latest_first, slot_rows):
    """Staging row of the latest earlier batch that lists each row, by the code and by dictionaries."""
    source, scratch = np.full(len(rows), -1, np.int32), np.empty((2, len(rows) + 1), np.int32)
    for slot, earlier in enumerate(latest_first):
        find_forwards(rows, earlier, slot * slot_rows, source, scratch)
    expected = []
    for row in rows.tolist():
        holders = [
            slot * slot_rows + earlier.tolist().index(row)
            for slot, earlier in enumerate(latest_first)
            if row in earlier.tolist()
        ]
        expected.append(holders[0] if holders else -1)
    return source, expected


@settings(deadline=None, max_examples=150)
@given(rows=lists, latest_first=st.lists(lists, max_size=3))
def test_small_lists(rows, latest_first):
    source, expected = found(rows, latest_first, 100)
    assert source.tolist() == expected


@pytest.mark.parametrize("spread", [400, 900, 5000])
@pytest.mark.parametrize("skew", [1.0, 3.0])
def test_long_lists_whose_quarters_differ(spread, skew):
    random = np.random.default_rng(spread)
    rows, *others = (np.unique((spread * random.random(size) ** skew).astype(np.int64)) for size in (700, 500, 900))
    source, expected = found(rows, others, 1000)
    assert source.tolist() == expected
    locations = np.zeros(len(rows), np.int64)
    list_locations(source, 7, 5000, locations)
    assert locations.tolist() == [7 + row if row >= 0 else 5000 + place for place, row in enumerate(expected)]
