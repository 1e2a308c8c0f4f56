"""The lanes of the streaming pipeline: compiled loops over all batches of a pass, one thread each.

Place in the flow: `fae.embedding.pipeline` starts them with the counters at which they meet and says which invariants
they keep; each loop waits for what its next batch needs, works, and raises its own counter. All of one group:

* plan: which rows another batch in flight holds -> locations[position % ring];
* gather: host rows -> up[slot], a stretch of the batch's list each;
* scatter: down[slot] -> host rows, those of one range of row numbers each, so a row's updates stay in order;
* up, down: the copy engine where the bank is in host memory: up[slot] -> bank, bank -> down[slot].

Position c counts batches with cold rows; its slot is ``c % depth``; `reach_back` is r of the pipeline's invariants.
Invariant: what a loop touches is its own until it
raises its counter. `longest` and `seed` are delays for tests (`fae.core.counters.dawdle`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit

from fae.core.counters import dawdle, publish, reach, reach_all
from fae.core.prefetch import prefetch
from fae.kernels.forwarding import find_forwards, list_locations

_AHEAD = 16  # rows between asking for one and copying it, as in `fae.kernels.cpu`


@njit(cache=True, nogil=True)
def plan_lane(
    counters, own, free, first, step, rows, begins, ends, depth, reach_back, num_hot_rows, locations, longest, seed
):  # fmt: skip
    """Positions first, first + step, ...: `locations` (int64 ``[ring, slot_rows]``) is free after `free`."""
    ring, slot_rows = locations.shape
    sources, scratch = np.empty(slot_rows, np.int32), np.empty((2, slot_rows + 1), np.int32)
    for position in range(first, len(begins), step):
        if not reach(counters, free, position - ring + 1):
            return
        seed = dawdle(seed, longest)
        listed = rows[begins[position] : ends[position]]
        source = sources[: len(listed)]
        source[:] = -1
        for earlier in range(position - 1, max(-1, position - reach_back), -1):  # the latest first
            find_forwards(listed, rows[begins[earlier] : ends[earlier]], earlier % depth * slot_rows, source, scratch)
        list_locations(
            source, num_hot_rows, num_hot_rows + position % depth * slot_rows, locations[position % ring]
        )  # fmt: skip
        publish(counters, own, position + 1)


@cache
def gather_lane(width: int, state_width: int) -> Any:
    """The loop for rows of so many floats: part `part` of `parts` of each list."""

    @njit(cache=True, nogil=True)
    def gather(
        counters, own, written_back, part, parts, rows, begins, ends, reach_back, num_hot_rows, weight, state, up,
        up_state, longest, seed,
    ):  # fmt: skip
        depth = len(up)
        for position in range(len(begins)):
            if not reach_all(counters, written_back, position - reach_back + 1):
                return
            seed = dawdle(seed, longest)
            first, count, slot = begins[position], ends[position] - begins[position], position % depth
            stop = first + count * (part + 1) // parts
            for index in range(first + count * part // parts, stop):
                if index + _AHEAD < stop:
                    prefetch(weight, rows[index + _AHEAD] - num_hot_rows)
                    if state_width > 0:
                        prefetch(state, rows[index + _AHEAD] - num_hot_rows)
                row, place = rows[index] - num_hot_rows, index - first
                for d in range(width):
                    up[slot, place, d] = weight[row, d]
                for d in range(state_width):
                    up_state[slot, place, d] = state[row, d]
            publish(counters, own, position + 1)

    return gather


@cache
def scatter_lane(width: int, state_width: int) -> Any:
    """The loop for rows of so many floats: row numbers in ``[low, high)``."""

    @njit(cache=True, nogil=True)
    def scatter(
        counters, own, departed, low, high, rows, begins, ends, num_hot_rows, weight, state, down, down_state,
        longest, seed,
    ):  # fmt: skip
        depth = len(down)
        for position in range(len(begins)):
            if not reach(counters, departed, position + 1):
                return
            seed = dawdle(seed, longest)
            first, slot = begins[position], position % depth
            listed = rows[first : ends[position]]
            stop = np.searchsorted(listed, high)
            for index in range(np.searchsorted(listed, low), stop):
                if index + _AHEAD < stop:
                    prefetch(weight, listed[index + _AHEAD] - num_hot_rows)
                    if state_width > 0:
                        prefetch(state, listed[index + _AHEAD] - num_hot_rows)
                row = listed[index] - num_hot_rows
                for d in range(width):
                    weight[row, d] = down[slot, index, d]
                for d in range(state_width):
                    state[row, d] = down_state[slot, index, d]
            publish(counters, own, position + 1)

    return scatter


@njit(cache=True, nogil=True)
def poison_forwarded(locations, first_row, values):
    """NaN into the rows of a batch (`values`) that are to be read elsewhere."""
    for i in range(locations.size):
        if locations[i] != first_row + i:
            values[i] = np.nan


@njit(cache=True, nogil=True)
def up_lane(
    counters, own, gathered, planned, released, begins, ends, num_hot_rows, locations, up, up_state, bank, bank_state,
    poison, longest, seed,
):  # fmt: skip
    """The transfer buffer into the slot, once no other batch needs the slot any more."""
    depth, slot_rows = up.shape[0], up.shape[1]
    for position in range(len(begins)):
        if not (
            reach_all(counters, gathered, position + 1)
            and reach(counters, planned[position % planned.size], position + 1)
            and reach(counters, released, position)
        ):
            return
        seed = dawdle(seed, longest)
        count, slot = ends[position] - begins[position], position % depth
        first = num_hot_rows + slot * slot_rows
        if poison:
            bank[first : first + slot_rows] = np.nan
            bank_state[first : first + slot_rows] = np.nan
        bank[first : first + count] = up[slot, :count]
        bank_state[first : first + count] = up_state[slot, :count]
        if poison:
            listed = locations[position % len(locations), :count]
            poison_forwarded(listed, first, bank[first : first + count])
            poison_forwarded(listed, first, bank_state[first : first + count])
        publish(counters, own, position + 1)


@njit(cache=True, nogil=True)
def down_lane(
    counters, own, updated, begins, ends, num_hot_rows, bank, bank_state, down, down_state, longest, seed
):  # fmt: skip
    """The slot into its transfer buffer after the update."""
    depth, slot_rows = down.shape[0], down.shape[1]
    for position in range(len(begins)):
        if not reach(counters, updated, position + 1):
            return
        seed = dawdle(seed, longest)
        count, slot = ends[position] - begins[position], position % depth
        first = num_hot_rows + slot * slot_rows
        down[slot, :count] = bank[first : first + count]
        down_state[slot, :count] = bank_state[first : first + count]
        publish(counters, own, position + 1)


@njit(cache=True, nogil=True)
def forward_on_host(locations, first_row, bank, bank_state):
    """Copy the rows of a batch that are elsewhere, and their state, to its own slot of a bank in host memory."""
    for i in range(locations.size):
        origin, place = locations[i], first_row + i
        if origin != place:
            bank[place] = bank[origin]
            bank_state[place] = bank_state[origin]
