"""Row loops of the streaming pipeline: compiled loops over all batches of a pass, one worker thread each.

`fae.streaming.staging` starts them with the counters at which they meet, and says which invariants they keep. Each loop
waits for what its next batch needs, works, and raises its own counter; until then no other thread touches what it
works on. The loops of one group:

* gather: host rows -> up[slot], or note where an earlier batch in flight holds them; each has a range of row numbers;
* scatter: down[slot] -> host rows; each has a range of row numbers, so a row's updates stay in order;
* up, down: what a GPU's copy engine does, where the bank is in host memory: up[slot] -> bank, bank -> down[slot].

Position c counts batches with cold rows; its slot is ``c % depth``; `reach_back` is r of the pipeline's invariants.
`longest` and `seed` are delays for tests (`fae.streaming.counters.random_delay`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fae.core.compiled import njit
from fae.core.compiling.prefetch import prefetch, prefetch_row
from fae.streaming.counters import publish, random_delay, reach, reach_all

_AHEAD = 32  # rows between a prefetch and its copy; two threads a core and a mark a row need more than kernels do

PLACE_BITS = 26
"""A mark (uint32) says which batch listed a row last, and where: ``mark = position % 64 << PLACE_BITS | place``.

The low 26 bits are the row's place in the batch's list, the high 6 bits the batch's position modulo 64. If position 70
lists a row at place 5, the row's mark is ``6 << 26 | 5``, that is 0x18000005."""
_POSITION_MASK, _PLACE_MASK = 2 ** (32 - PLACE_BITS) - 1, 2**PLACE_BITS - 1
MOST_SLOTS = _POSITION_MASK


# Written out: numba's own takes half a second more to compile, and so does each assignment of a slice to a slice below.
@njit(cache=True, nogil=True)
def first_not_below(rows, row):
    """The first place of ascending `rows` (int64) whose number is `row` or more; their count where there is none."""
    low, high = 0, rows.size
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


@cache
def gather_loop(width: int, state_width: int) -> Any:
    """The gather loop for rows of `width` floats and their state, for row numbers in ``[low, high)``.

    The loop writes into `locations` (int64 ``[depth, slot_rows]``) the row of the bank where each row is to be read.
    `marks` (uint32, one a host row; see `PLACE_BITS`) say which batch listed a row last. `plan_back` is `reach_back`,
    or 1 where nothing is updated and every row is read from the host. A row that another batch holds is not copied: its
    place in `up` keeps what was there or, for tests, gets NaN (`fill_with_nan`).

    A mark may be left from an earlier pass, or be 64 positions old. But if a batch of this pass lists the row at the
    mark's place, then that batch wrote the mark, and no later batch has overwritten it: the batch found is the last.
    """

    @njit(cache=True, nogil=True)
    def gather(
        counters, own, written_back, low, high, rows, begins, ends, reach_back, plan_back, num_hot_rows, weight, state,
        marks, locations, up, up_state, fill_with_nan, longest, seed,
    ):  # fmt: skip
        depth, slot_rows = locations.shape
        flat_weight, flat_state = weight.reshape(-1), state.reshape(-1)
        for position in range(len(begins)):
            if not reach_all(counters, written_back, position - reach_back + 1):
                return
            seed = random_delay(seed, longest)
            slot, listed = position % depth, rows[begins[position] : ends[position]]
            stamp = (position & _POSITION_MASK) << PLACE_BITS
            first_row, stop = num_hot_rows + slot * slot_rows, first_not_below(listed, high)
            for index in range(first_not_below(listed, low), stop):
                if index + _AHEAD < stop:
                    following = listed[index + _AHEAD] - num_hot_rows
                    prefetch_row(flat_weight, following, width)
                    prefetch_row(flat_state, following, state_width)
                    prefetch(marks, following)
                row, location = listed[index] - num_hot_rows, first_row + index
                if plan_back > 1:
                    # Masks, not remainders, and in the loop itself: a call took as long as all the rest.
                    mark = np.int64(marks[row])
                    marks[row] = np.uint32(stamp | index)
                    age, place = (position - (mark >> PLACE_BITS)) & _POSITION_MASK, mark & _PLACE_MASK
                    if age > 0 and age < plan_back and age <= position:
                        earlier = position - age
                        if begins[earlier] + place < ends[earlier] and rows[begins[earlier] + place] == listed[index]:
                            location = num_hot_rows + earlier % depth * slot_rows + place
                locations[slot, index] = location
                if location == first_row + index:
                    for d in range(width):
                        up[slot, index, d] = weight[row, d]
                    for d in range(state_width):
                        up_state[slot, index, d] = state[row, d]
                elif fill_with_nan:
                    for d in range(width):
                        up[slot, index, d] = np.nan
                    for d in range(state_width):
                        up_state[slot, index, d] = np.nan
            publish(counters, own, position + 1)

    return gather


@cache
def scatter_loop(width: int, state_width: int) -> Any:
    """The scatter loop for rows of `width` floats and their state, for row numbers in ``[low, high)``."""

    @njit(cache=True, nogil=True)
    def scatter(
        counters, own, copied_down, low, high, rows, begins, ends, num_hot_rows, weight, state, down, down_state,
        longest, seed,
    ):  # fmt: skip
        depth = len(down)
        flat_weight, flat_state = weight.reshape(-1), state.reshape(-1)
        for position in range(len(begins)):
            if not reach(counters, copied_down, position + 1):
                return
            seed = random_delay(seed, longest)
            first, slot = begins[position], position % depth
            listed = rows[first : ends[position]]
            stop = first_not_below(listed, high)
            for index in range(first_not_below(listed, low), stop):
                if index + _AHEAD < stop:
                    prefetch_row(flat_weight, listed[index + _AHEAD] - num_hot_rows, width)
                    prefetch_row(flat_state, listed[index + _AHEAD] - num_hot_rows, state_width)
                row = listed[index] - num_hot_rows
                for d in range(width):
                    weight[row, d] = down[slot, index, d]
                for d in range(state_width):
                    state[row, d] = down_state[slot, index, d]
            publish(counters, own, position + 1)

    return scatter


@njit(cache=True, nogil=True)
def up_loop(
    counters, own, gathered, released, begins, ends, num_hot_rows, up, up_state, bank, bank_state,
    fill_with_nan, longest, seed,
):  # fmt: skip
    """Copy the transfer buffer into the slot once no other batch needs the slot any more."""
    depth, slot_rows, width, state_width = up.shape[0], up.shape[1], up.shape[2], up_state.shape[2]
    for position in range(len(begins)):
        if not (reach_all(counters, gathered, position + 1) and reach(counters, released, position)):
            return
        seed = random_delay(seed, longest)
        count, slot = ends[position] - begins[position], position % depth
        first = num_hot_rows + slot * slot_rows
        if fill_with_nan:
            for row in range(first, first + slot_rows):
                for d in range(width):
                    bank[row, d] = np.nan
                for d in range(state_width):
                    bank_state[row, d] = np.nan
        for index in range(count):
            for d in range(width):
                bank[first + index, d] = up[slot, index, d]
            for d in range(state_width):
                bank_state[first + index, d] = up_state[slot, index, d]
        publish(counters, own, position + 1)


@njit(cache=True, nogil=True)
def down_loop(
    counters, own, updated, begins, ends, num_hot_rows, bank, bank_state, down, down_state, longest, seed
):  # fmt: skip
    """Copy the slot into its transfer buffer after the update."""
    depth, slot_rows, width, state_width = down.shape[0], down.shape[1], down.shape[2], down_state.shape[2]
    for position in range(len(begins)):
        if not reach(counters, updated, position + 1):
            return
        seed = random_delay(seed, longest)
        count, slot = ends[position] - begins[position], position % depth
        first = num_hot_rows + slot * slot_rows
        for index in range(count):
            for d in range(width):
                down[slot, index, d] = bank[first + index, d]
            for d in range(state_width):
                down_state[slot, index, d] = bank_state[first + index, d]
        publish(counters, own, position + 1)


@njit(cache=True, nogil=True)
def forward_on_host(locations, first_row, bank, bank_state):
    """Copy the rows of a batch that are elsewhere, and their state, to its own slot of a bank in host memory."""
    for i in range(locations.size):
        origin, place = locations[i], first_row + i
        if origin != place:
            for d in range(bank.shape[1]):
                bank[place, d] = bank[origin, d]
            for d in range(bank_state.shape[1]):
                bank_state[place, d] = bank_state[origin, d]
