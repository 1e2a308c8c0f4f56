"""U_cap: how many unique cold rows a batch may bring, from probe batches drawn from every split.

Place in the flow: the search asks it for every hot set that it weighs; pack closes a batch early where it would bring
more, so what is reserved here is a promise. Invariants: it is never less than one input can need, never more than a
batch can bring or than there are cold rows; the probe batches do not depend on the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fae.core.seeds import generator
from fae.popularity.sampling import Inputs, sample_without_replacement
from fae.popularity.tables import IntArray, Tables

PROBE_BATCHES = 8
"""Probe batches at most; the largest of them counts."""

POOL_BATCHES = 16
"""Inputs that probe batches are drawn from, in batches: enough for all probes while half of the inputs are cold."""

MARGIN = 1.1
"""Reserved beyond the largest probe: the largest of hundreds of batches lies above the largest of eight."""


class StagingProbes:
    """Estimates U_cap of a hot set for several splits: what the largest needs.

    Inputs that are held out bring rows that training never saw, and they are streamed through the same ring. Where a
    budget holds all that training touches, a ring for training alone held 26 rows, and a test batch of 32,768 inputs
    was closed after some hundred of them, padded to its full size: 60,000 inputs took 12 GB.
    """

    def __init__(self, probes: Sequence[StagingProbe]) -> None:
        self._probes = tuple(probes)

    def use_ranks(self, ranks: npt.NDArray[np.int32] | None) -> StagingProbes:
        """As `StagingProbe.use_ranks`."""
        return StagingProbes([probe.use_ranks(ranks) for probe in self._probes])

    def staging_rows(self, num_hot: IntArray) -> IntArray:
        """As `StagingProbe.staging_rows`."""
        most: IntArray = np.max([probe.staging_rows(num_hot) for probe in self._probes], axis=0)
        return most


class StagingProbe:
    """Estimates U_cap of a hot set for the batches of one split.

    Parameters
    ----------
    inputs
        What probe batches are drawn from; not the sample that a peeling was fitted to.
    num_inputs
        Inputs that batches will be made of.
    mixed
        Whether batches take any input (else a batch with cold lookups takes only inputs that are not hot).
    """

    def __init__(
        self, tables: Tables, inputs: Inputs, num_inputs: int, *, batch_size: int, mixed: bool, seed: int
    ) -> None:
        self._tables, self._batch_size, self._mixed = tables, batch_size, mixed
        random = generator(seed, "calibrate", "probe")
        size = min(len(inputs), POOL_BATCHES * batch_size)
        pool = inputs.take(sample_without_replacement(random, len(inputs), size))
        self._ids = pool.block(0, size)[0][random.permutation(size)]
        self._inputs_per_probed = num_inputs / max(1, size)
        self._ranks = self._ids

    def use_ranks(self, ranks: npt.NDArray[np.int32] | None) -> StagingProbe:
        """A probe of the same inputs under another storage order (int32, flat; None for the identity)."""
        probe = object.__new__(StagingProbe)
        probe.__dict__.update(self.__dict__)
        probe._ranks = self._ids
        if ranks is not None:
            probe._ranks = np.where(self._ids >= 0, ranks[self._tables.slot_offsets + np.maximum(self._ids, 0)], -1)
        return probe

    def staging_rows(self, num_hot: IntArray) -> IntArray:
        """int64 ``[groups]``: rows of staging that a batch needs under this hot set."""
        tables = self._tables
        cold_rows = tables.cold_rows(num_hot)
        if not cold_rows.any():
            return cold_rows
        cold = self._ranks >= num_hot[tables.table_of_slot]
        chosen = np.arange(len(cold)) if self._mixed else np.flatnonzero(cold.any(axis=1))
        # With fewer inputs than a batch takes, unique rows are scaled up in proportion: too many, never too few. But
        # no batch has more inputs than there are.
        available = len(chosen) * self._inputs_per_probed
        scale = max(1.0, min(self._batch_size, available) / max(1, len(chosen)))
        num_probes = max(1, min(PROBE_BATCHES, len(chosen) // self._batch_size))
        most = np.zeros(len(cold_rows), np.int64)
        for probe in range(num_probes):
            batch = chosen[probe * self._batch_size : (probe + 1) * self._batch_size]
            most = np.maximum(most, self._unique_cold_rows(self._ranks[batch], cold[batch]))
        slots = np.bincount(tables.group_of_table, weights=tables.lengths, minlength=len(cold_rows)).astype(np.int64)
        cold_of_table = tables.sizes - num_hot
        one_input = np.bincount(
            tables.group_of_table, weights=np.minimum(cold_of_table, tables.lengths), minlength=len(cold_rows)
        ).astype(np.int64)
        wanted = np.array([math.ceil(MARGIN * scale * rows) for rows in most], np.int64) + slots
        reserved: IntArray = np.minimum(np.maximum(wanted, one_input), cold_rows)
        np.minimum(reserved, self._batch_size * slots, out=reserved)
        return reserved

    def _unique_cold_rows(self, ranks: npt.NDArray[np.int32], cold: npt.NDArray[np.bool_]) -> IntArray:
        tables = self._tables
        which, slot = np.nonzero(cold)
        rows = np.unique(tables.slot_offsets[slot] + ranks[which, slot])
        table = np.searchsorted(tables.offsets, rows, side="right") - 1
        rows_of_group: IntArray = np.bincount(tables.group_of_table[table], minlength=len(tables.group_row_bytes))
        return rows_of_group
