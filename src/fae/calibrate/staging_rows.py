"""U_cap: how many unique cold rows a batch may have, estimated from probe batches of every split.

The search estimates it for every hot set that it weighs; pack closes a batch early where it would have more, so what is
reserved here is a promise. It is never less than one input can need, and never more than a batch can have or than there
are cold rows. The probe batches do not depend on the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64, njit
from fae.core.seeds import generator
from fae.core.threads import run_jobs, run_ranges
from fae.profile.counting import count_hot_lookups
from fae.profile.sampling import SampledInputs, sample_without_replacement

PROBE_BATCHES = 8
"""Most probe batches; the largest of them counts."""

POOL_BATCHES = 16
"""How many batches of inputs the probe batches are drawn from: enough for all while half of the inputs are cold."""

MARGIN = 1.1
"""Factor on the largest probe: the largest of hundreds of batches is larger than the largest of eight."""


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


class StagingProbes:
    """Estimates U_cap of a hot set for several splits: what the largest of them needs.

    Held-out inputs look up rows that training never saw, and these go through the same ring. On a budget that held
    every row that training touches, a ring for training alone had 26 rows, and a test batch of 32,768 inputs was closed
    after some hundred of them and padded to its full size: 60,000 inputs took 12 GB.
    """

    def __init__(self, probes: Sequence[StagingProbe]) -> None:
        self._probes = tuple(probes)

    def use_ranks(self, ranks: npt.NDArray[np.int32] | None) -> StagingProbes:
        """Probes of the same inputs under another storage order, as `StagingProbe.use_ranks`."""
        probes: list[StagingProbe] = list(self._probes)

        def use(index: int) -> None:
            probes[index] = self._probes[index].use_ranks(ranks)

        run_jobs([partial(use, index) for index in range(len(probes))])
        return StagingProbes(probes)

    def staging_rows(self, num_hot: Int64) -> Int64:
        """int64 ``[groups]``: rows of staging that a batch of any split needs under this hot set."""
        needs: list[Int64] = [num_hot] * len(self._probes)

        def estimate(index: int) -> None:
            needs[index] = self._probes[index].staging_rows(num_hot)

        run_jobs([partial(estimate, index) for index in range(len(needs))])
        most: Int64 = np.max(needs, axis=0)
        return most


class StagingProbe:
    """Estimates U_cap of a hot set for the batches of one split.

    Parameters
    ----------
    inputs
        Inputs that probe batches are drawn from; not the sample that a peeling was fitted to.
    num_inputs
        Inputs that batches will be made of.
    mixed
        Whether batches take any input (else a batch with cold lookups takes only inputs that are not hot).

    Attributes
    ----------
    ranks
        int32 ``[n, S]``: storage ranks of the n inputs that probe batches are drawn from, in the order of batches.
    inputs_per_probed
        `num_inputs` for each of these n.
    """

    def __init__(
        self, tables: Tables, inputs: SampledInputs, num_inputs: int, *, batch_size: int, mixed: bool, seed: int
    ) -> None:
        self._tables, self._batch_size, self._mixed = tables, batch_size, mixed
        random = generator(seed, "calibrate", "probe")
        size = min(len(inputs), POOL_BATCHES * batch_size)
        pool = inputs.take(sample_without_replacement(random, len(inputs), size))
        self._ids = pool.block(0, size)[0][random.permutation(size)]
        self.inputs_per_probed = num_inputs / max(1, size)
        self.ranks = self._ids
        self._slot_group = tables.group_of_table[tables.slots.slot_table]

    def use_ranks(self, ranks: npt.NDArray[np.int32] | None) -> StagingProbe:
        """A probe of the same inputs under another storage order (int32, flat; None for the identity)."""
        probe = object.__new__(StagingProbe)
        probe.__dict__.update(self.__dict__)
        probe.ranks = self._ids
        if ranks is not None:
            probe.ranks = np.where(
                self._ids >= 0, ranks[self._tables.slots.slot_first_row + np.maximum(self._ids, 0)], -1
            )
        return probe

    def staging_rows(self, num_hot: Int64) -> Int64:
        """int64 ``[groups]``: rows of staging that a batch needs under this hot set."""
        tables = self._tables
        cold_rows = tables.cold_rows(num_hot)
        if not cold_rows.any():
            return cold_rows
        slot_num_hot = num_hot[tables.slots.slot_table]
        chosen = self._inputs_taken(slot_num_hot)
        # With fewer inputs than a batch takes, unique rows are scaled up in proportion: rather too many than too few.
        # But no batch has more inputs than there are.
        available = len(chosen) * self.inputs_per_probed
        scale = max(1.0, min(self._batch_size, available) / max(1, len(chosen)))
        num_probes = max(1, min(PROBE_BATCHES, len(chosen) // self._batch_size))
        batches = chosen[: num_probes * self._batch_size].reshape(num_probes, -1)
        unique = np.zeros((num_probes, len(cold_rows)), np.int64)
        marks = np.zeros((num_probes, -(-int(tables.sizes.sum()) // 8)), np.uint8)
        run_ranges(
            lambda start, stop: unique_rows_kernel(
                self.ranks, batches, slot_num_hot, tables.slots.slot_first_row, self._slot_group, marks, unique, start,
                stop,
            ),
            num_probes,
        )  # fmt: skip
        most = unique.max(axis=0)
        slots = np.bincount(tables.group_of_table, weights=tables.lengths, minlength=len(cold_rows)).astype(np.int64)
        cold_of_table = tables.sizes - num_hot
        one_input = np.bincount(
            tables.group_of_table, weights=np.minimum(cold_of_table, tables.lengths), minlength=len(cold_rows)
        ).astype(np.int64)
        wanted = np.array([math.ceil(MARGIN * scale * rows) for rows in most], np.int64) + slots
        reserved: Int64 = np.minimum(np.maximum(wanted, one_input), cold_rows)
        np.minimum(reserved, self._batch_size * slots, out=reserved)
        return reserved

    def _inputs_taken(self, slot_num_hot: Int64) -> Int64:
        """int64: inputs of the pool that batches with cold rows take."""
        if self._mixed:
            return np.arange(len(self.ranks))
        lookups, hot_lookups = count_hot_lookups(self.ranks, self._tables.slots, None, slot_num_hot)
        return np.flatnonzero(hot_lookups < lookups)
