"""The compiled loops of the peeling: list the inputs of each row, order rows by their keys, remove them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fae.core.compiled import njit
from fae.core.compiling.prefetch import prefetch

_AHEAD = 8
"""How far ahead inputs and their rows are fetched: twice as many rows ahead of the one that is removed its first input,
as many ahead the rows of that one, and twice as many ahead within the inputs of a row. A pass takes 0.7 of the time
without it for 684,000 inputs of 8 rows, 0.8 for 3.4 million (a core of a Xeon)."""

_U = np.uint64
"""Rows are unsigned where they index: numba counts a negative index from the end, and a signed one is looked at for
that each time. A pass takes 0.85 of the time."""


@njit(cache=True, nogil=True)
def incidence_kernel(
    edges: Any, starts: Any, incidence: Any, first_slot: int, last_slot: int, part: int, mask: int
) -> None:
    """List the inputs of each row: ``incidence[starts[v]:starts[v + 1]]``, ascending.

    On entry ``starts[v + 1]`` is where row v begins; filling moves it to where row v ends. Which rows are listed:
    as `fae.profile.counting.count_kernel` takes it.
    """
    for e in range(edges.shape[0]):
        for j in range(first_slot, last_slot):
            v = edges[e, j]
            if v >= 0 and (v >> 3) & mask == part:
                incidence[starts[v + 1]] = e
                starts[v + 1] += 1


@njit(cache=True, nogil=True)
def order_rows_kernel(starts: Any, load: Any, order: Any, place: Any, first: Any) -> None:
    """Sort `order` by key ``load + live``, ties as they were on entry: a counting sort.

    Parameters
    ----------
    place
        int32 or int64 ``[V, 2]``, filled: key of each row, and its position in `order`. They are neighbours in memory
        because rows come in any order, and each access is a cache miss.
    first
        The same type, ``[largest key + 2]``, 0 on entry, filled: where the rows of each key or more begin.
    """
    for v in range(order.size):
        key = load[v] + starts[v + 1] - starts[v]
        place[v, 0] = key
        first[key + 1] += 1
    for k in range(1, first.size):
        first[k] += first[k - 1]
    for i in range(order.size):
        v = order[i]
        key = place[v, 0]
        place[v, 1] = first[key]
        first[key] += 1
    for k in range(first.size - 1, 0, -1):  # the counting sort moved every beginning to the next one
        first[k] = first[k - 1]
    first[0] = 0
    for v in range(order.size):
        order[place[v, 1]] = v


@njit(cache=True, nogil=True)
def remove_rows_kernel(
    edges: Any, starts: Any, incidence: Any, load: Any, order: Any, place: Any, first: Any, alive: Any
) -> None:
    """One pass: reorder `order` by removal, first removed first, and add each row's kills to its `load`.

    Rows not yet removed are kept sorted by key ``load + live``; ``first[k]`` is where those of key k or more begin.
    Keys only ever fall by one, so a row then changes places with the first row of its key (bucket queue).

    The working arrays are the caller's: allocating them here takes a second more to compile.

    Parameters
    ----------
    place, first
        As `order_rows_kernel` left them.
    alive
        bool, one for each input, True on entry.
    """
    num_rows, num_listed, width = order.size, incidence.size, edges.shape[1]
    for i in range(num_rows):
        # What is fetched ahead may have moved when its turn comes: that costs time and nothing else.
        if i + 2 * _AHEAD < num_rows:
            slot = starts[_U(order[_U(i + 2 * _AHEAD)])]
            if slot < num_listed:
                prefetch(edges, np.int64(incidence[_U(slot)]))
        if i + _AHEAD < num_rows:
            slot = starts[_U(order[_U(i + _AHEAD)])]
            if slot < num_listed:
                e = _U(incidence[_U(slot)])
                if alive[e]:
                    for j in range(width):
                        u = edges[e, _U(j)]
                        if u >= 0:
                            prefetch(place, np.int64(u))
        v = order[_U(i)]
        load[_U(v)] = place[_U(v), 0]
        stop = starts[_U(v) + _U(1)]
        for slot in range(starts[_U(v)], stop):
            if slot + 2 * _AHEAD < stop:
                ahead = np.int64(incidence[_U(slot + 2 * _AHEAD)])
                prefetch(edges, ahead)
                prefetch(alive, ahead)
            e = _U(incidence[_U(slot)])
            if not alive[e]:
                continue
            alive[e] = False
            for j in range(width):
                u = edges[e, _U(j)]
                if u >= 0 and u != v:
                    row = _U(u)
                    key, here = place[row, 0], place[row, 1]
                    front = max(first[_U(key)], i + 1)
                    first[_U(key)] = front + 1
                    # Where the row is the first of its key it changes places with itself.
                    other = order[_U(front)]
                    place[row, 0] = key - 1
                    order[_U(front)] = u
                    order[_U(here)] = other
                    place[_U(other), 1] = here
                    place[row, 1] = front
