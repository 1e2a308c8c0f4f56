"""The largest hot set whose rows and staging ring fit the budget.

What the search returns fits: ``bytes + ring_depth * sum(staging_rows * row bytes) <= budget``. Where it may choose the
depth of the ring it takes the deepest that leaves `ROWS_SHARE` of the budget to the hot rows, else the shallowest.

The ring shrinks while the hot set grows, so a large hot set may fit where a small one does not, and bisecting over
"fits" would be wrong. The ring is therefore measured at fixed *anchors*, eight for each doubling of the hot set's
bytes; from one anchor to the next it stays what it is at the first. Between two anchors a larger hot set costs more, so
walking the anchors downwards from the budget finds the largest hot set of all that fit. The anchors do not depend on
the budget: hot sets of growing budgets stay nested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fae.calibrate.nested_sets import NestedSets
from fae.calibrate.staging_rows import StagingProbe, StagingProbes
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64

_FIRST_ANCHOR_BYTES = 64
_ANCHORS_PER_DOUBLING = 8
_LAST_ANCHOR = 8 * 50

ROWS_SHARE = 0.5
"""A ring that takes more than the other half of the budget costs more hot rows than its last slot is worth."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HotSetFit:
    """A hot set that fits the budget.

    Attributes
    ----------
    num_hot
        int64 ``[F]``: hot rows of each table.
    staging_rows
        int64 ``[groups]``: U_cap, most unique cold rows of a batch.
    ring_depth
        Slots of the ring.
    bytes, staging_bytes
        Bytes of the hot rows, and of the whole ring.
    """

    num_hot: Int64
    staging_rows: Int64
    ring_depth: int
    bytes: int
    staging_bytes: int


class BudgetSearch:
    """Finds the largest of some nested hot sets that fits a budget together with its ring.

    Parameters
    ----------
    sets
        The nested hot sets.
    probe
        Estimates staging rows, in the storage order of `sets`.
    ring_depths
        Depths that the ring may have, the deepest first.
    """

    def __init__(
        self, tables: Tables, sets: NestedSets, probe: StagingProbe | StagingProbes, ring_depths: Sequence[int]
    ) -> None:
        self._tables, self._sets, self._probe, self._ring_depths = tables, sets, probe, tuple(ring_depths)
        self._at_anchors: dict[int, tuple[Int64, int]] = {}
        self._staging: dict[int, Int64] = {}

    def staging_rows(self, num_bytes: int) -> Int64:
        """int64 ``[groups]``: U_cap reserved for the hot set of `num_bytes` bytes."""
        # Where the sets grow in large steps, one of them may be the largest for several anchors; the last set is so for
        # all anchors above it. Sets grow with the anchors, so the last anchor of this set is found by bisection.
        anchor = anchor_below(num_bytes)
        last = max(anchor, _LAST_ANCHOR)
        while anchor < last:
            middle = (anchor + last + 1) // 2
            if self._hot_set(middle)[1] <= num_bytes:
                anchor = middle
            else:
                last = middle - 1
        return self._at_anchor(anchor)

    def ring_bytes(self, staging_rows: Int64, depth: int | None = None) -> int:
        """Bytes of a ring whose `depth` slots (None: as few as may be) hold `staging_rows` rows of each group."""
        return (depth or self._ring_depths[-1]) * int((staging_rows * self._tables.group_row_bytes).sum())

    def largest(self, budget_bytes: int) -> HotSetFit | None:
        """The largest hot set that fits `budget_bytes`, or None."""
        fit = None
        for depth in self._ring_depths:
            fit = self._largest(budget_bytes, depth)
            if fit is not None and fit.staging_bytes <= (1 - ROWS_SHARE) * budget_bytes:
                break
        return fit

    def _largest(self, budget_bytes: int, depth: int) -> HotSetFit | None:
        if self._tables.total_bytes <= budget_bytes:
            return self._fit(self._tables.sizes.copy(), np.zeros(len(self._tables.group_row_bytes), np.int64), depth)
        for anchor in range(anchor_below(budget_bytes), -2, -1):
            staging_rows = self._at_anchor(anchor)
            room = min(budget_bytes - self.ring_bytes(staging_rows, depth), anchor_bytes(anchor + 1) - 1)
            if room < self._hot_set(anchor)[1]:
                continue
            return self._fit(self._sets.largest(room), staging_rows, depth)
        return None

    def smallest_need(self) -> tuple[int, int]:
        """``(bytes, ring bytes)``: the smallest budget that any hot set fits, and the ring's part of it."""
        needs = [(self._tables.total_bytes, 0)]
        for anchor in range(-1, anchor_below(self._tables.total_bytes) + 1):
            ring_bytes = self.ring_bytes(self._at_anchor(anchor))
            needs.append((self._hot_set(anchor)[1] + ring_bytes, ring_bytes))
        return min(needs)

    def _at_anchor(self, anchor: int) -> Int64:
        if anchor not in self._staging:
            self._staging[anchor] = self._probe.staging_rows(self._hot_set(anchor)[0])
        return self._staging[anchor]

    def _hot_set(self, anchor: int) -> tuple[Int64, int]:
        """Hot rows of each table in the largest hot set of an anchor, and their bytes."""
        if anchor not in self._at_anchors:
            num_hot = self._sets.largest(anchor_bytes(anchor))
            self._at_anchors[anchor] = num_hot, self._tables.bytes(num_hot)
        return self._at_anchors[anchor]

    def _fit(self, num_hot: Int64, staging_rows: Int64, depth: int) -> HotSetFit:
        # The hot set at the anchor below may have left more cold rows than this one.
        staging_rows = np.minimum(staging_rows, self._tables.cold_rows(num_hot))
        return HotSetFit(
            num_hot=num_hot,
            staging_rows=staging_rows,
            ring_depth=depth,
            bytes=self._tables.bytes(num_hot),
            staging_bytes=self.ring_bytes(staging_rows, depth),
        )


def anchor_bytes(anchor: int) -> int:
    """Bytes of an anchor; number -1 is the empty hot set."""
    return 0 if anchor < 0 else math.floor(_FIRST_ANCHOR_BYTES * 2 ** (anchor / _ANCHORS_PER_DOUBLING))


def anchor_below(num_bytes: int) -> int:
    """Number of the largest anchor of at most `num_bytes` bytes.

    >>> anchor_below(63), anchor_below(64), anchor_below(127), anchor_below(128)
    (-1, 0, 7, 8)
    """
    if num_bytes < _FIRST_ANCHOR_BYTES:
        return -1
    anchor = math.floor(_ANCHORS_PER_DOUBLING * math.log2(num_bytes / _FIRST_ANCHOR_BYTES)) + 1
    while anchor_bytes(anchor) > num_bytes:
        anchor -= 1
    return anchor
