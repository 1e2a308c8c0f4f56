"""Where a batch's cold rows are read: the marks of the gather loop find what dictionaries find."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.streaming.counters import new_counters
from fae.streaming.row_loops import gather_loop

NUM_HOT = 7
EVERYTHING = (0, np.iinfo(np.int64).max)


class Gathered:
    """A host table, its marks, and what the gather loop makes of lists of its rows."""

    def __init__(self, num_rows, depth, slot_rows):
        self.depth, self.slot_rows = depth, slot_rows
        self.weight = np.arange(2.0 * num_rows, dtype=np.float32).reshape(num_rows, 2)
        self.state = -self.weight[:, :1].copy()
        self.marks = np.zeros(num_rows, np.uint32)

    def run(self, lists, reach_back, plan_back, ranges=(EVERYTHING,)):
        """Locations of every position's rows, and what the buffer holds for them."""
        ends = np.cumsum([len(rows) for rows in lists])
        begins = ends - [len(rows) for rows in lists]
        flat = np.concatenate([*lists, []]).astype(np.int64)
        flat.setflags(write=False)
        locations, copied = [], []
        counters = new_counters(len(ranges) + 1, 0, 0)
        counters[1, 0] = len(lists)  # everything is written back
        for position in range(len(lists)):  # one at a time: the slots of a ring are written again
            of_slot = np.full((self.depth, self.slot_rows), -1, np.int64)
            up, up_state = (np.full((self.depth, self.slot_rows, width), np.nan, np.float32) for width in (2, 1))
            # Marks and positions continue: the loop runs over all lists up to here, and the last one is checked.
            kept = self.marks.copy()
            for part, (low, high) in enumerate(ranges):
                gather_loop(2, 1)(
                    counters, 2 + part, np.array([1]), low, high, flat, begins[: position + 1], ends[: position + 1],
                    reach_back, plan_back, NUM_HOT, self.weight, self.state, self.marks, of_slot, up, up_state,
                    False, 0, 1,
                )  # fmt: skip
            if position + 1 < len(lists):
                self.marks[:] = kept
            slot, count = position % self.depth, len(lists[position])
            locations.append(of_slot[slot, :count].tolist())
            copied.append(np.concatenate([up[slot, :count], up_state[slot, :count]], axis=1))
        return locations, copied

    def expected(self, lists, plan_back):
        """The same by dictionaries: the place in the latest of the batches in flight, else the batch's own."""
        found = []
        for position, rows in enumerate(lists):
            own = NUM_HOT + position % self.depth * self.slot_rows
            where = []
            for place, row in enumerate(rows.tolist()):
                where.append(own + place)
                for earlier in range(position - 1, max(-1, position - plan_back), -1):
                    if row in lists[earlier].tolist():
                        first = NUM_HOT + earlier % self.depth * self.slot_rows
                        where[-1] = first + lists[earlier].tolist().index(row)
                        break
            found.append(where)
        return found

    def check(self, lists, reach_back, plan_back, **more):
        locations, copied = self.run(lists, reach_back, plan_back, **more)
        assert locations == self.expected(lists, plan_back)
        for position, rows in enumerate(lists):
            own = NUM_HOT + position % self.depth * self.slot_rows
            for place, row in enumerate(rows.tolist()):
                if locations[position][place] == own + place:
                    assert copied[position][place].tolist() == [
                        *self.weight[row - NUM_HOT].tolist(), *self.state[row - NUM_HOT].tolist(),
                    ]  # fmt: skip
                elif position < self.depth:  # the first in its slot
                    assert np.isnan(copied[position][place]).all(), "the host's row is old and must not be copied"


rows = st.sets(st.integers(NUM_HOT, NUM_HOT + 30), max_size=12).map(lambda some: np.array(sorted(some), np.int64))


@settings(deadline=None, max_examples=60)
@given(passes=st.lists(st.lists(rows, max_size=9), min_size=1, max_size=3), depth=st.integers(2, 6))
def test_pass_after_pass_whatever_marks_were_left(passes, depth):
    table = Gathered(31, depth, 12)
    for lists in passes:
        table.check(lists, depth, depth)


@pytest.mark.parametrize("plan_back", [1, 3, 7])
def test_many_positions_go_round_the_marks(plan_back):
    """A mark has its position modulo 64: a mark 64 positions old must not be taken for a new one."""
    random = np.random.default_rng(plan_back)
    table = Gathered(400, 8, 8)
    lists = [np.unique(NUM_HOT + random.integers(0, 400, 6)) for _ in range(150)]
    lists[64 + 2], lists[128 + 2] = lists[2].copy(), lists[2].copy()  # the same rows at the same places
    table.check(lists, 7, plan_back)


@pytest.mark.parametrize("count", [63, 64, 65, 128])
def test_the_end_of_a_pass_is_not_before_the_beginning_of_the_next(count):
    """The last of 64 batches is, modulo 64, one before the first; it has no slot in another pass."""
    table = Gathered(20, 4, 4)
    lists = [np.array([NUM_HOT + 3, NUM_HOT + 5])] * count
    for _ in range(2):
        table.check(lists, 4, 4)


def test_ranges_share_the_rows():
    random = np.random.default_rng(5)
    lists = [np.unique(NUM_HOT + (60 * random.random(20) ** 2).astype(np.int64)) for _ in range(12)]
    cuts = [0, NUM_HOT + 5, NUM_HOT + 20, NUM_HOT + 20, EVERYTHING[1]]
    table = Gathered(60, 12, 20)  # as many slots as lists: here one range runs after the other
    table.check(lists, 4, 4, ranges=list(pairwise(cuts)))


def test_marks_of_another_pass_that_happen_to_fit():
    """Row 9 was at place 0 of batch 1 before; now batch 1 lists another row there, and row 9 is read from the host."""
    table = Gathered(10, 4, 4)
    table.check([np.array([8]), np.array([9]), np.array([10])], 4, 4)
    table.check([np.array([8]), np.array([11]), np.array([9, 11])], 4, 4)


def test_nan_fills_the_place_of_a_row_that_is_read_elsewhere():
    rows = np.array([8, 9, 10, 9, 10, 11], np.int64)
    rows.setflags(write=False)
    begins, ends = np.array([0, 3]), np.array([3, 6])
    weight, state = np.ones((20, 2), np.float32), np.ones((20, 1), np.float32)
    up, up_state = np.zeros((4, 4, 2), np.float32), np.zeros((4, 4, 1), np.float32)
    counters, locations = new_counters(2, 0, 0), np.zeros((4, 4), np.int64)
    counters[1, 0] = 2
    gather_loop(2, 1)(
        counters, 2, np.array([1]), *EVERYTHING, rows, begins, ends, 4, 4, NUM_HOT, weight, state,
        np.zeros(20, np.uint32), locations, up, up_state, True, 0, 1,
    )  # fmt: skip
    assert locations[1, :3].tolist() == [NUM_HOT + 1, NUM_HOT + 2, NUM_HOT + 4 + 2]
    for values in (up, up_state):
        assert np.isnan(values[1, :2]).all()
        assert (values[0, :3] == 1).all()
        assert (values[1, 2] == 1).all()
