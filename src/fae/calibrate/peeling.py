"""Peeling: order rows so that every prefix serves as many whole inputs as it can (Greedy++).

Inputs are hyperedges over rows. A pass removes, again and again, the row with the smallest ``load + live`` (`live`:
inputs still alive that use it), kills its inputs and adds their number to the row's `load`, which carries over to the
next pass (Greedy++ for densest sub-hypergraphs). The row that the last pass removes last is the hottest.

In each pass every input is killed exactly once, by one of its own rows. So no set of rows has more hot inputs than its
loads, divided by the passes, sum to: that is the certificate, `Peeled.bound`.

Memory: 8 bytes an incidence (an input and one of its rows) and about 50 a row. One thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64, njit
from fae.profile.counting import count_kernel
from fae.profile.sampling import SampledInputs

INCIDENCE_BYTES = 8
"""Memory of one incidence: an edge's entry and a row's entry, 4 bytes each."""

MEMORY_BYTES = 4 * 2**30
"""Most memory for incidences: 20 million inputs of 26 rows, or all 45 million of Criteo Kaggle, whose 17 small tables
cost nothing. Above it calibrate peels an even subsample, and over-fits it: with half of this, two thirds of 45 million
inputs, peeling was below the threshold on the whole log (``benchmarks/studies/selections.py cost``)."""


@njit(cache=True, nogil=True)
def incidence_kernel(edges: Any, starts: Any, incidence: Any) -> None:
    """List the inputs of each row: ``incidence[starts[v]:starts[v + 1]]``, ascending.

    On entry ``starts[v + 1]`` is where row v begins; filling moves it to where row v ends.
    """
    for e in range(edges.shape[0]):
        for j in range(edges.shape[1]):
            v = edges[e, j]
            if v >= 0:
                incidence[starts[v + 1]] = e
                starts[v + 1] += 1


@njit(cache=True, nogil=True)
def peel_kernel(edges: Any, starts: Any, incidence: Any, load: Any, order: Any) -> None:
    """One pass: reorder `order` by removal, first removed first, and add each row's kills to its `load`.

    Rows not yet removed are kept sorted by key ``load + live``; ``first[k]`` is where those of key k or more begin.
    Keys only ever fall by one, so a row then changes places with the first row of its key (bucket queue). Ties are
    broken by the order on entry.
    """
    num_rows = order.size
    # Key and position of a row are neighbours: rows come in any order, and each access is a cache miss.
    place = np.empty((num_rows, 2), np.int64)
    most = 0
    for v in range(num_rows):
        place[v, 0] = load[v] + starts[v + 1] - starts[v]
        most = max(most, place[v, 0])
    first = np.zeros(most + 2, np.int64)
    for v in range(num_rows):
        first[place[v, 0] + 1] += 1
    for k in range(1, most + 2):
        first[k] += first[k - 1]
    for i in range(num_rows):
        v = order[i]
        place[v, 1] = first[place[v, 0]]
        first[place[v, 0]] += 1
    for k in range(most + 1, 0, -1):  # the counting sort moved every beginning to the next one
        first[k] = first[k - 1]
    first[0] = 0
    for v in range(num_rows):
        order[place[v, 1]] = v
    alive = np.ones(edges.shape[0], np.bool_)
    for i in range(num_rows):
        v = order[i]
        load[v] = place[v, 0]
        for slot in range(starts[v], starts[v + 1]):
            e = incidence[slot]
            if not alive[e]:
                continue
            alive[e] = False
            for j in range(edges.shape[1]):
                u = edges[e, j]
                if u >= 0 and u != v:
                    key = place[u, 0]
                    front = max(first[key], i + 1)
                    first[key] = front + 1
                    place[u, 0] = key - 1
                    here = place[u, 1]
                    if here != front:
                        other = order[front]
                        order[front] = u
                        order[here] = other
                        place[other, 1] = here
                        place[u, 1] = front


@dataclass(frozen=True, eq=False, kw_only=True)
class Peeled:
    """The rows in the order that the passes found.

    Attributes
    ----------
    rows
        int64 ``[V]``: flat row numbers of the rows that the inputs use, hottest (removed last) first.
    table
        int16 ``[V]``: the table of each of `rows`.
    load
        int64 ``[V]``: kills of each of `rows` over all passes.
    passes
        Number of passes.
    num_inputs, num_free
        Inputs that were peeled; those of them without a row that costs anything, which are always hot.
    """

    rows: Int64
    table: npt.NDArray[np.int16]
    load: Int64
    passes: int
    num_inputs: int
    num_free: int

    def bound(self, row_bytes: Int64, num_bytes: int) -> float:
        """Most hot inputs, as a share, that any set of rows of at most `num_bytes` bytes has among the peeled inputs.

        Parameters
        ----------
        row_bytes
            int64 ``[V]``: bytes of each of `rows`.
        """
        order = np.argsort(-(self.load / row_bytes), kind="stable")
        ends = np.cumsum(row_bytes[order])
        whole = int(np.searchsorted(ends, num_bytes, side="right"))
        total = float(self.load[order[:whole]].sum())
        if whole < order.size:  # rows of different widths: the last one counts in part, as in a fractional knapsack
            room = num_bytes - (int(ends[whole - 1]) if whole else 0)
            total += float(self.load[order[whole]]) * room / float(row_bytes[order[whole]])
        return min(1.0, (self.num_free + total / self.passes) / max(1, self.num_inputs))


def peel(
    tables: Tables, inputs: SampledInputs, sample_counts: Int64, passes: int, free: npt.NDArray[np.bool_]
) -> Peeled:
    """Peel the rows that these inputs use.

    Parameters
    ----------
    sample_counts
        int64, flat: accesses by these inputs (or by more): rows without any are left out.
    free
        bool ``[F]``: tables that are hot as a whole; their rows cost nothing and drop out.
    """
    counted = [
        tables.offsets[t] + np.flatnonzero(tables.of_table(sample_counts, t)) for t in np.flatnonzero(~free).tolist()
    ]
    rows = np.concatenate([*counted, np.empty(0, np.int64)]).astype(np.int64)
    table = np.repeat(np.flatnonzero(~free).astype(np.int16), [of_table.size for of_table in counted])
    # Ties are many in a thin sample: of two rows seen once, the one less accessed in the training split goes first.
    by_accesses = np.argsort(tables.counts[rows], kind="stable")
    rows, table = rows[by_accesses], table[by_accesses]
    vertex = np.full(int(tables.offsets[-1]), -1, np.int32)
    vertex[rows] = np.arange(rows.size, dtype=np.int32)
    edges = list_edges(tables, inputs, vertex, free)
    del vertex
    starts = np.zeros(rows.size + 2, np.int64)
    count_kernel(edges, np.zeros(edges.shape[1], np.int64), starts[2:], 0, edges.shape[1])
    np.cumsum(starts, out=starts)
    incidence = np.empty(int(starts[-1]), np.int32)
    incidence_kernel(edges, starts, incidence)
    starts = starts[:-1]
    load, order = np.zeros(rows.size, np.int64), np.arange(rows.size, dtype=np.int32)
    for _ in range(passes):
        peel_kernel(edges, starts, incidence, load, order)
    hottest = order[::-1]
    return Peeled(
        rows=rows[hottest],
        table=table[hottest],
        load=load[hottest],
        passes=passes,
        num_inputs=len(inputs),
        num_free=int((edges < 0).all(axis=1).sum()),
    )


def list_edges(
    tables: Tables, inputs: SampledInputs, vertex: npt.NDArray[np.int32], free: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """List the different rows of each input: int32 ``[n, K]``, -1 where there is none.

    Parameters
    ----------
    vertex
        int32, flat: the number that each row gets, -1 for rows that drop out.
    free
        bool ``[F]``: tables that drop out.
    """
    paid = np.flatnonzero(~free)
    first_slot = tables.slots.table_first_slot
    slots = np.concatenate([*(np.arange(first_slot[t], first_slot[t + 1]) for t in paid), []])
    slots = slots.astype(np.int64)
    edges = np.empty((len(inputs), slots.size), np.int32)
    done = 0
    for ids, _ in inputs.blocks():
        part = ids[:, slots]
        column = 0
        for table in paid:
            length = int(tables.lengths[table])
            if length > 1:  # the same row twice in one input is one incidence
                of_table = np.sort(part[:, column : column + length], axis=1)
                of_table[:, 1:][of_table[:, 1:] == of_table[:, :-1]] = -1
                part[:, column : column + length] = of_table
            column += length
        found = vertex[tables.slots.slot_first_row[slots] + np.maximum(part, 0)]
        edges[done : done + len(part)] = np.where(part >= 0, found, -1)
        done += len(part)
    return edges
