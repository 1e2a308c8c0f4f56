"""What one budget buys: hot rows, coverage, hot inputs with intervals, memory, and the work of a step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchSizes
from fae.calibrate.calibrator import Calibrator, Ranks
from fae.core.seeds import generator
from fae.embedding.memory_plan import MemoryPlan
from fae.pack.in_memory import compose_batch_set
from fae.pack.packed_sizes import SplitSizes, measure_packed
from fae.planning.budgets.planned_hot_set import PlannedHotSet
from fae.planning.budgets.planned_memory import memory_by_placement
from fae.planning.budgets.sampled_shares import Share, sampled_shares
from fae.planning.sample.log_reading import LogReading
from fae.planning.step_work import StepSettings, StepWork
from fae.profile.sampling import sample_without_replacement

if TYPE_CHECKING:
    from fae.run.prepare import PackOptions

EXACT_INPUTS = 24_000_000
"""Inputs of all budgets together whose batches are formed to the last one; of longer logs some batches are formed."""
_SAMPLE_BATCHES = 8
_MOST_SAMPLE_INPUTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class BudgetFigures:
    """What one budget buys.

    Attributes
    ----------
    budget
        In bytes.
    hot_set
        Its hot rows and staging ring.
    hot_bytes, staging_bytes
        Bytes of the hot rows with their state, and of the ring.
    selection
        Which selection chose them.
    coverage, input_share
        Share of lookups that hot rows serve, and of inputs that need no other row.
    splits
        Sizes of the batches that training streams.
    dense_bytes
        Bytes of the dense part on a GPU.
    on_gpu, on_cpu
        Memory of every placement, on a GPU and without one.
    is_memory_exact
        Whether every batch was formed to size buffers, or some.
    packed_bytes
        Bytes of packed batches on the disk.
    work, other_work
        The work of a mean step, and with batches of the other order: of one kind where the recipe mixes them, else
        mixed.
    """

    budget: int
    hot_set: PlannedHotSet
    hot_bytes: int
    staging_bytes: int
    selection: str
    coverage: Share
    input_share: Share
    splits: Sequence[BatchSizes]
    dense_bytes: int
    on_gpu: Mapping[str, MemoryPlan]
    on_cpu: Mapping[str, MemoryPlan]
    is_memory_exact: bool
    packed_bytes: int
    work: StepWork
    other_work: StepWork

    @property
    def num_hot(self) -> int:
        """Hot rows of all tables."""
        return sum(self.hot_set.layout.num_hot)


class BudgetPlanner:
    """Looks at one budget after another.

    Parameters
    ----------
    options
        What the hot set and batches depend on beside the log.
    settings
        What steps depend on beside it.
    dense
        `fae.planning.budgets.planned_memory.dense_part_bytes` on a GPU and on a CPU.
    folder
        For temporary files.
    form_all
        Whether every batch is formed.
    """

    def __init__(
        self, reading: LogReading, calibrator: Calibrator, *, options: PackOptions, settings: StepSettings,
        dense: tuple[int, int], folder: Path, form_all: bool,
    ) -> None:  # fmt: skip
        self._reading, self._log, self.calibrator, self._options = reading, reading.log, calibrator, options
        self._settings, self._dense = settings, dense
        self._folder, self._form_all = folder, form_all

    def at(self, budget: int) -> BudgetFigures:
        """Look at a budget.

        Raises
        ------
        BudgetError
            If it is too small to train.
        """
        summary, ranks = self.calibrator.figures_at(budget)
        options = self._options
        hot_set = PlannedHotSet.from_summary(
            self._log.features, summary, ranks,
            batch_size=options.batch_size, mixed=options.mixed, optimizer=options.optimizer,
        )  # fmt: skip
        coverage, share = self._shares(summary, ranks)
        closed_early = 0.0
        splits: tuple[BatchSizes, ...]
        if self._form_all:
            sizes = self._formed(hot_set)
            splits, packed_bytes = sizes.splits, sizes.num_bytes
            share = Share.exactly(sizes.summary["input_share"])
            closed_early = sizes.summary["padding_share"]
        else:
            splits, packed_bytes = self._some_formed(hot_set)
        sampled = self._sampled_ranks(ranks)

        def work(settings: StepSettings) -> StepWork:
            return StepWork.from_sample(
                settings, sampled, hot_set.layout.num_hot, ring_depth=hot_set.ring_depth, closed_early=closed_early
            )

        return BudgetFigures(
            budget=budget,
            hot_set=hot_set,
            hot_bytes=summary["bytes"],
            staging_bytes=summary["staging_bytes"],
            selection=summary["selection"],
            coverage=coverage,
            input_share=share,
            splits=splits,
            dense_bytes=self._dense[0],
            on_gpu=memory_by_placement(
                hot_set, splits, on_gpu=True, dense=self._dense[0], rounds_dense=self._settings.rounds_dense
            ),
            on_cpu=memory_by_placement(hot_set, splits, on_gpu=False, dense=self._dense[1]),
            is_memory_exact=self._form_all,
            packed_bytes=packed_bytes,
            work=work(self._settings),
            other_work=work(replace(self._settings, mixed=not self._settings.mixed)),
        )

    def works_at(self, figures: BudgetFigures, batch_sizes: Sequence[int]) -> dict[int, StepWork]:
        """The work of a mean step for other batch sizes, under the same hot set and counted in the same sample."""
        _, ranks = self.calibrator.figures_at(figures.budget)
        sampled = self._sampled_ranks(ranks)
        closed_early = 1.0 - figures.work.inputs_per_batch / self._settings.batch_size
        return {
            size: StepWork.from_sample(
                replace(self._settings, batch_size=size), sampled, figures.hot_set.layout.num_hot,
                ring_depth=figures.hot_set.ring_depth, closed_early=closed_early,
            )
            for size in batch_sizes
        }  # fmt: skip

    def _shares(self, summary: Mapping[str, Any], ranks: Ranks) -> tuple[Share, Share]:
        """Coverage and hot-input share of the whole log."""
        if summary["measured_on"] == "every row is hot":
            return Share.exactly(1.0), Share.exactly(1.0)
        if self._reading.is_whole:
            low, high = summary["intervals"]["input_share"]
            share = Share(value=summary["input_share"], low=low, high=high)
            return Share.exactly(summary["coverage"]), share
        return sampled_shares(self._log, self.calibrator, summary, ranks, scale=self._reading.scale)

    def _formed(self, hot_set: PlannedHotSet) -> Any:
        spill = self._folder / "spill"
        spill.mkdir()
        try:
            return measure_packed(self._log, hot_set, spill, seed=self._options.seed)
        finally:
            shutil.rmtree(spill, ignore_errors=True)

    @cached_property
    def _sample(self) -> npt.NDArray[np.int64]:
        """int64: training inputs in random order; where the log is a sample, as many of those held out.

        Batches of the whole log have more cold rows than those that hot rows were chosen by, and fewer than others.
        """
        splits = [self._log.split("train")]
        if not self._reading.is_whole:
            splits.append(self._log.split("validation"))
        slots = max(1, self._log.ids.shape[1])
        wanted = max(_SAMPLE_BATCHES * self._options.batch_size, _MOST_SAMPLE_INPUTS // slots)
        wanted = min([wanted // len(splits), *(stop - start for start, stop in splits if stop > start)])
        random = generator(self._options.seed, "plan", "sample")
        parts = [
            start + sample_without_replacement(random, stop - start, min(wanted, stop - start))
            for start, stop in splits
        ]
        chosen = np.concatenate(parts)
        random.shuffle(chosen)
        return chosen

    @cached_property
    def _sampled_ids(self) -> npt.NDArray[np.int32]:
        order = np.argsort(self._sample)
        found = np.empty((len(order), self._log.ids.shape[1]), np.int32)
        found[order] = self._log.ids[self._sample[order]]
        return found

    def _sampled_ranks(self, ranks: Ranks) -> npt.NDArray[np.int32]:
        """int32 ``[n, S]``: storage ranks that the sample looks up, -1 where a slot is not in use."""
        ids = self._sampled_ids
        if ranks is None:
            return ids
        first = self.calibrator.tables.slots.slot_first_row
        return np.where(ids < 0, np.int32(-1), ranks[np.maximum(ids, 0) + first])

    def _some_formed(self, hot_set: PlannedHotSet) -> tuple[tuple[SplitSizes, ...], int]:
        """Sizes and bytes of packed batches, from some of the training split."""
        size, log = hot_set.batch_size, self._log
        number = min(_SAMPLE_BATCHES, -(-len(self._sample) // size))
        chosen = np.sort(self._sample[: number * size])
        groups = [
            part for part in np.array_split(np.random.default_rng(0).permutation(len(chosen)), number) if len(part)
        ]
        batches = compose_batch_set(
            np.asarray(log.ids[chosen]), np.asarray(log.dense[chosen]), np.asarray(log.labels[chosen]),
            groups, hot_set.layout, max(size, max(map(len, groups))),
        )  # fmt: skip
        slots, dense, weighted = log.ids.shape[1], len(log.dense_names), log.weight is not None
        assert batches.arrays.segments is not None
        cold = float(np.diff(batches.arrays.cold_offsets, axis=0).sum(axis=1).mean())
        segments = float(np.diff(batches.arrays.segments.offsets, axis=0).sum(axis=1).mean())
        found = []
        for name, num_inputs in self._reading.split_sizes.items():
            num_batches = -(-num_inputs // size)
            ordered = name == "train"
            of_batch = size * (4 * slots * (2 if ordered else 1) + 4 * dense + 12 + 4 * weighted) + 8 * cold + 4
            of_batch += 8 * segments * ordered
            found.append(
                SplitSizes(
                    num_batches=num_batches, num_dense=dense, is_weighted=weighted,
                    most_segments=batches.most_segments if ordered else (),
                    most_cold_rows=batches.most_cold_rows, num_bytes=int(num_batches * of_batch),
                )
            )  # fmt: skip
        return tuple(found), sum(split.num_bytes for split in found)
