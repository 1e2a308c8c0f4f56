"""Peeling: order rows so that every prefix serves as many whole inputs as it can (Greedy++).

Inputs are hyperedges over rows. A pass removes, again and again, the row with the smallest ``load + live`` (`live`:
inputs still alive that use it), kills its inputs and adds their number to the row's `load`, which carries over to the
next pass (Greedy++ for densest sub-hypergraphs). The row that the last pass removes last is the hottest.

In each pass every input is killed exactly once, by one of its own rows. So no set of rows has more hot inputs than its
loads, divided by the passes, sum to: that is the certificate, `Peeled.bound`.

Memory: 8 bytes an incidence (an input and one of its rows) and about 50 a row. The passes run on one thread, all else
on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fae.calibrate.peel_kernels import incidence_kernel, order_rows_kernel, remove_rows_kernel
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.core.threads import num_threads, run_jobs
from fae.profile.counting import SlotShare, add_accesses, share_slots
from fae.profile.sampling import SampledInputs

INCIDENCE_BYTES = 8
"""Memory of one incidence: an edge's entry and a row's entry, 4 bytes each."""

MEMORY_BYTES = 4 * 2**30
"""Most memory for incidences: 20 million inputs of 26 rows, or all 45 million of Criteo Kaggle, whose 17 small tables
cost nothing. Above it calibrate peels an even subsample, and over-fits it: with half of this, two thirds of 45 million
inputs, peeling was below the threshold on the whole log (``benchmarks/studies/selections.py cost``)."""


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
        if row_bytes.size and row_bytes.min() == row_bytes.max():  # which of equal loads count does not matter
            order = order_of_counts(self.load)[::-1]
        else:
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
    paid = np.flatnonzero(~free).tolist()
    counted: list[Int64] = [np.empty(0, np.int64)] * len(tables)

    def list_rows(table: int) -> None:
        counted[table] = tables.offsets[table] + np.flatnonzero(tables.of_table(sample_counts, table))

    run_jobs([partial(list_rows, table) for table in sorted(paid, key=lambda table: -tables.sizes[table])])
    rows = np.concatenate([*counted, np.empty(0, np.int64)]).astype(np.int64)
    table = np.repeat(np.arange(len(tables), dtype=np.int16), [of_table.size for of_table in counted])
    # Ties are many in a thin sample: of two rows seen once, the one less accessed in the training split goes first.
    by_accesses = order_of_counts(tables.counts[rows])
    rows, table = rows[by_accesses], table[by_accesses]
    vertex = np.full(int(tables.offsets[-1]), -1, np.int32)
    vertex[rows] = np.arange(rows.size, dtype=np.int32)
    edges, num_free = list_edges(tables, inputs, vertex, free)
    del vertex
    # Tables have rows of their own, so threads that list other tables never meet.
    first_slots = np.concatenate([[0], np.cumsum(tables.lengths[paid])]).astype(np.int64).tolist()
    starts, incidence = list_incidence(edges, rows.size, first_slots)
    load, order = np.zeros(rows.size, np.int64), np.arange(rows.size, dtype=np.int32)
    for _ in range(passes):
        peel_once(edges, starts, incidence, load, order)
    hottest = order[::-1]
    return Peeled(
        rows=rows[hottest],
        table=table[hottest],
        load=load[hottest],
        passes=passes,
        num_inputs=len(inputs),
        num_free=num_free,
    )


def order_of_counts(counts: Int64) -> Int64:
    """As ``numpy.argsort(counts, kind="stable")`` of counts that are mostly small, which takes ten times as long.

    numpy sorts numbers of 16 bits by counting. The few that are larger are sorted among themselves.

    >>> order_of_counts(np.array([70_000, 2, 99_999, 70_000, 1])).tolist()
    [4, 1, 0, 3, 2]
    """
    most = np.iinfo(np.uint16).max
    order = np.argsort(np.minimum(counts, most).astype(np.uint16), kind="stable")
    num_small = int(np.count_nonzero(counts < most))
    large = order[num_small:]
    order[num_small:] = large[np.argsort(counts[large], kind="stable")]
    return order


def list_incidence(
    edges: npt.NDArray[np.int32], num_rows: int, first_slots: Sequence[int]
) -> tuple[Int64, npt.NDArray[np.int32]]:
    """List the inputs of each row, ascending.

    Parameters
    ----------
    edges
        int32 ``[n, K]``: rows of each input, -1 where there is none.
    first_slots
        First of the K places of each table; the last entry is K.

    Returns
    -------
    tuple
        int64 ``[num_rows + 1]``, where the inputs of each row begin in the second array, int32.
    """
    starts = np.zeros(num_rows + 2, np.int64)
    add_accesses(edges, np.zeros(edges.shape[1], np.int64), starts[2:], first_slots)
    np.cumsum(starts, out=starts)
    incidence = np.empty(int(starts[-1]), np.int32)

    def fill(shares: list[SlotShare]) -> None:
        for share in shares:
            incidence_kernel(edges, starts, incidence, share.first, share.last, share.part, share.mask)

    run_jobs([partial(fill, shares) for shares in share_slots(first_slots, num_threads())])
    return starts[:-1], incidence


def peel_once(
    edges: npt.NDArray[np.int32],
    starts: Int64,
    incidence: npt.NDArray[np.int32],
    load: Int64,
    order: npt.NDArray[np.int32],
) -> None:
    """One pass: reorder `order`, int32 ``[V]``, by removal, and add each row's kills to its `load`, int64 ``[V]``.

    Ties are broken by the order on entry.
    """
    most = int((load + np.diff(starts)).max(initial=0))
    dtype = np.int32 if most + 2 < 2**31 else np.int64  # half as much to fetch takes 0.8 of the time
    place, first = np.empty((order.size, 2), dtype), np.zeros(most + 2, dtype)
    order_rows_kernel(starts, load, order, place, first)
    remove_rows_kernel(edges, starts, incidence, load, order, place, first, np.ones(len(edges), np.bool_))


def list_edges(
    tables: Tables, inputs: SampledInputs, vertex: npt.NDArray[np.int32], free: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int32], int]:
    """List the different rows of each input: int32 ``[n, K]``, -1 where there is none; and count inputs without any.

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
    slot_first_row = tables.slots.slot_first_row[slots]
    edges = np.empty((len(inputs), slots.size), np.int32)

    def list_block(first: int, ids: npt.NDArray[np.int32], labels: npt.NDArray[np.uint8]) -> int:
        del labels
        part = ids.take(slots, axis=1)
        column = 0
        for table in paid:
            length = int(tables.lengths[table])
            if length > 1:  # the same row twice in one input is one incidence
                of_table = np.sort(part[:, column : column + length], axis=1)
                of_table[:, 1:][of_table[:, 1:] == of_table[:, :-1]] = -1
                part[:, column : column + length] = of_table
            column += length
        found = vertex.take(slot_first_row + np.maximum(part, 0))
        found = np.where(part >= 0, found, -1)
        edges[first : first + len(part)] = found
        return int((found < 0).all(axis=1).sum())

    num_free = sum(inputs.map_blocks(list_block))
    return edges, num_free
