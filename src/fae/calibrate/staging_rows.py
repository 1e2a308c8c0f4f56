"""U_cap: how many unique cold rows a batch may have, estimated from probe batches of every split.

The search estimates it for every hot set that it weighs; pack closes a batch early where it would have more, so what is
reserved here is a promise. It is never less than one input can need, and never more than a batch can have or than there
are cold rows. The probe batches do not depend on the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from fae.calibrate.table_facts import Tables
from fae.calibrate.unique_cold_rows import ColdBatches, FixedBatches, num_batches
from fae.core.compiled import Int64
from fae.core.seeds import generator
from fae.core.threads import run_jobs
from fae.profile.sampling import SampledInputs, sample_without_replacement

POOL_BATCHES = 16
"""How many batches of inputs the probe batches are drawn from: enough for all while half of the inputs are cold."""

MARGIN = 1.1
"""Factor on the largest probe: the largest of hundreds of batches is larger than the largest of eight."""


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
        most: Int64 = np.max([probe.staging_rows(num_hot) for probe in self._probes], axis=0)
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
    """

    def __init__(
        self, tables: Tables, inputs: SampledInputs, num_inputs: int, *, batch_size: int, mixed: bool, seed: int
    ) -> None:
        self._tables, self._batch_size = tables, batch_size
        random = generator(seed, "calibrate", "probe")
        size = min(len(inputs), POOL_BATCHES * batch_size)
        pool = inputs.take(sample_without_replacement(random, len(inputs), size))
        order = random.permutation(size)
        self._pool_size, self._inputs_per_pooled = size, num_inputs / max(1, size)
        self._batches: FixedBatches | ColdBatches
        if mixed:
            num_probes = num_batches(size, batch_size)
            self._batches = FixedBatches(tables, pool, order[: num_probes * batch_size].reshape(num_probes, -1))
        else:
            self._batches = ColdBatches(tables, pool, order, batch_size)

    def use_ranks(self, ranks: npt.NDArray[np.int32] | None) -> StagingProbe:
        """A probe of the same inputs under another storage order (int32, flat; None for the identity)."""
        probe = object.__new__(StagingProbe)
        probe.__dict__.update(self.__dict__)
        probe._batches = self._batches.use_ranks(ranks)
        return probe

    def staging_rows(self, num_hot: Int64) -> Int64:
        """int64 ``[groups]``: rows of staging that a batch needs under this hot set."""
        tables = self._tables
        cold_rows = tables.cold_rows(num_hot)
        if not cold_rows.any():
            return cold_rows
        taken, unique = self._batches.unique_cold_rows(num_hot)
        num_taken = self._pool_size if taken is None else taken
        # With fewer inputs than a batch takes, unique rows are scaled up in proportion: rather too many than too few.
        # But no batch has more inputs than there are.
        scale = max(1.0, min(self._batch_size, num_taken * self._inputs_per_pooled) / max(1, num_taken))
        slots = np.bincount(tables.group_of_table, weights=tables.lengths, minlength=len(cold_rows)).astype(np.int64)
        cold_of_table = tables.sizes - num_hot
        one_input = np.bincount(
            tables.group_of_table, weights=np.minimum(cold_of_table, tables.lengths), minlength=len(cold_rows)
        ).astype(np.int64)
        wanted = np.array([math.ceil(MARGIN * scale * rows) for rows in unique.max(axis=0)], np.int64) + slots
        reserved: Int64 = np.minimum(np.maximum(wanted, one_input), cold_rows)
        np.minimum(reserved, self._batch_size * slots, out=reserved)
        return reserved
