"""Probe batches and the unique cold rows that each has under a hot set.

Where batches take any input, their inputs are known before any hot set is: the different rows of each batch are listed
once, and a hot set, a prefix of every table's storage order, is answered by a binary search a table. Where a batch
takes only inputs with a cold lookup, the hot set decides which inputs these are, and they are read for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64, njit
from fae.core.threads import run_jobs, run_ranges
from fae.profile.counting import count_hot_lookups
from fae.profile.sampling import SampledInputs

PROBE_BATCHES = 8
"""Most probe batches; the largest of them counts."""

_TABLE_BIT = 32
"""A key is ``batch and table << 32 | rank``: ranks are int32."""


@njit(cache=True, nogil=True)
def mark_rows_kernel(ids: Any, slot_first_bit: Any, marks: Any) -> None:
    """Set the bit ``slot_first_bit[s] + ids[b, s]`` of `marks` (uint8) for every lookup; -1 is skipped."""
    for b in range(ids.shape[0]):
        for s in range(ids.shape[1]):
            row = ids[b, s]
            if row >= 0:
                bit = slot_first_bit[s] + row
                marks[bit >> 3] |= np.uint8(1 << (bit & 7))


@njit(cache=True, nogil=True)
def unique_rows_kernel(
    ranks: Any, batches: Any, slot_num_hot: Any, slot_first_row: Any, slot_group: Any, marks: Any, unique: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Count the unique cold rows of the batches ``[start, stop)``, by group.

    Rows are marked by a bit each because sorting the lookups of eight batches of 32,768 inputs with 43 slots takes up
    to a second, and a calibration with its other budgets does this 500 times.

    Parameters
    ----------
    batches
        int64 ``[batches, batch size]``: the inputs of each batch.
    marks
        uint8 ``[batches, rows of all tables / 8]``, 0 on entry: one bit a row, set where the batch looks it up.
    unique
        int64 ``[batches, groups]``, 0 on entry, filled.
    """
    for batch in range(start, stop):
        marked, found = marks[batch], unique[batch]
        for b in batches[batch]:
            for s in range(ranks.shape[1]):
                if ranks[b, s] >= slot_num_hot[s]:
                    row = slot_first_row[s] + ranks[b, s]
                    bit = np.uint8(1 << (row & 7))
                    if not marked[row >> 3] & bit:
                        marked[row >> 3] |= bit
                        found[slot_group[s]] += 1


class FixedBatches:
    """Batches that take any input, by their different rows.

    Parameters
    ----------
    inputs
        The inputs that the batches are made of.
    batches
        int64 ``[batches, batch size]``: places of each batch's inputs among them, in any order.
    """

    def __init__(self, tables: Tables, inputs: SampledInputs, batches: Int64) -> None:
        self._tables = tables
        groups = len(tables.group_row_bytes)
        self._in_group = (tables.group_of_table[:, None] == np.arange(groups)).astype(np.int64)
        bytes_of_table = -(-tables.sizes // 8)
        first_bit = np.concatenate([[0], 8 * np.cumsum(bytes_of_table)]).astype(np.int64)
        keys: list[Int64] = [np.empty(0, np.int64)] * len(batches)

        def list_rows(batch: int) -> None:
            ids = inputs.take(np.sort(batches[batch])).block(0, batches.shape[1])[0]
            marks = np.zeros(int(bytes_of_table.sum()), np.uint8)
            mark_rows_kernel(ids, first_bit[:-1][tables.slots.slot_table], marks)
            found = _set_bits(marks)
            starts = found.searchsorted(first_bit)
            base = self._first_keys(batch) - first_bit[:-1]
            keys[batch] = found + np.repeat(base, np.diff(starts))

        run_jobs([partial(list_rows, batch) for batch in range(len(batches))])
        self._join(keys)

    def use_ranks(self, ranks: npt.NDArray[np.int32] | None) -> FixedBatches:
        """The same batches, listed by ids, under another storage order."""
        if ranks is None:
            return self
        other = object.__new__(FixedBatches)
        other.__dict__.update(self.__dict__)
        found = list(self._keys)
        mask = (1 << _TABLE_BIT) - 1

        def rank(batch: int) -> None:
            keys, base = self._keys[batch], self._first_keys(batch)
            num_rows = np.diff(np.append(keys.searchsorted(base), keys.size))
            rows = (keys & mask) + np.repeat(self._tables.offsets[:-1], num_rows)
            found[batch] = np.repeat(base, num_rows) + ranks.take(rows)
            found[batch].sort()

        run_jobs([partial(rank, batch) for batch in range(len(self._keys))])
        other._join(found)
        return other

    def unique_cold_rows(self, num_hot: Int64) -> tuple[None, Int64]:
        """None for "all inputs that there are", and int64 ``[batches, groups]``: unique cold rows of each batch."""
        first_cold = self._sorted.searchsorted((self._bases + num_hot).reshape(-1))
        cold = (self._ends - first_cold).reshape(self._bases.shape)
        return None, cold @ self._in_group

    def _first_keys(self, batch: int) -> Int64:
        """int64 ``[F]``: the key of rank 0 of each table."""
        num_tables = len(self._tables)
        return np.arange(batch * num_tables, (batch + 1) * num_tables, dtype=np.int64) << _TABLE_BIT

    def _join(self, keys: Sequence[Int64]) -> None:
        """Keep the keys of all batches in one array: one search answers for all."""
        self._sorted = np.concatenate(keys)
        self._keys = np.split(self._sorted, np.cumsum([of_batch.size for of_batch in keys])[:-1])
        self._bases = np.stack([self._first_keys(batch) for batch in range(len(keys))])
        self._ends = self._sorted.searchsorted(self._bases.reshape(-1) + (1 << _TABLE_BIT))


def _set_bits(marks: npt.NDArray[np.uint8]) -> Int64:
    """Numbers of the bits that are set, ascending.

    >>> _set_bits(np.array([0, 5, 128], np.uint8)).tolist()
    [8, 10, 23]
    """
    used = np.flatnonzero(marks)
    found = np.flatnonzero(np.unpackbits(marks[used], bitorder="little"))
    bits: Int64 = (used[found >> 3] << 3) + (found & 7)
    return bits


class ColdBatches:
    """Batches of inputs that have a cold lookup, in the order of a pool of inputs.

    Parameters
    ----------
    inputs
        The pool.
    order
        int64 ``[n]``: places of its inputs in the order of batches.
    """

    def __init__(self, tables: Tables, inputs: SampledInputs, order: Int64, batch_size: int) -> None:
        self._tables, self._batch_size = tables, batch_size
        self._ids = inputs.block(0, len(order))[0][order]
        self._ranks = self._ids
        self._slot_group = tables.group_of_table[tables.slots.slot_table]

    def use_ranks(self, ranks: npt.NDArray[np.int32] | None) -> ColdBatches:
        """The same pool under another storage order."""
        other = object.__new__(ColdBatches)
        other.__dict__.update(self.__dict__)
        other._ranks = self._ids
        if ranks is not None:
            other._ranks = np.empty_like(self._ids)

            def rank(start: int, stop: int) -> None:
                ids = self._ids[start:stop]
                found = ranks.take(self._tables.slots.slot_first_row + np.maximum(ids, 0))
                other._ranks[start:stop] = np.where(ids >= 0, found, -1)

            run_ranges(rank, len(self._ids), min_range=1024)
        return other

    def unique_cold_rows(self, num_hot: Int64) -> tuple[int, Int64]:
        """Inputs of the pool with a cold lookup, and int64 ``[batches, groups]``: unique cold rows of each batch."""
        tables = self._tables
        slot_num_hot = num_hot[tables.slots.slot_table]
        lookups, hot_lookups = count_hot_lookups(self._ranks, tables.slots, None, slot_num_hot)
        chosen = np.flatnonzero(hot_lookups < lookups)
        num_probes = num_batches(len(chosen), self._batch_size)
        batches = chosen[: num_probes * self._batch_size].reshape(num_probes, -1)
        unique = np.zeros((num_probes, len(tables.group_row_bytes)), np.int64)
        marks = np.zeros((num_probes, -(-int(tables.sizes.sum()) // 8)), np.uint8)

        def count(start: int, stop: int) -> None:
            unique_rows_kernel(
                self._ranks, batches, slot_num_hot, tables.slots.slot_first_row, self._slot_group, marks, unique, start,
                stop,
            )  # fmt: skip

        run_ranges(count, num_probes)
        return len(chosen), unique


def num_batches(num_inputs: int, batch_size: int) -> int:
    """How many probe batches are made of inputs: whole ones, but at least one."""
    return max(1, min(PROBE_BATCHES, num_inputs // batch_size))
