"""What one of several GPUs takes, by the arithmetic of the training: batches of the group in place of the recipe's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fae.artifacts.batch_arrays import BatchSizes
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.embedding.placements import find_placement
from fae.pack.packed_sizes import SplitSizes
from fae.planning.several_gpus import GpuGroup
from fae.planning.step_work import StepWork, WidthWork
from fae.training.real_inputs import fit_in_memory

if TYPE_CHECKING:
    from fae.planning.budgets.budget_figures import BudgetFigures


def memory_of_gpu(placement: str, figures: BudgetFigures, group: GpuGroup) -> MemoryPlan:
    """What each GPU of a group, and its process on the host, take.

    Parameters
    ----------
    figures
        The budget whose rows are hot, with batches of the recipe.
    """
    base, whole = figures.work, group.whole_work
    splits = [larger_batches(split, base, whole) for split in figures.splits]
    request = MemoryRequest(
        hot_set=replace(
            figures.hot_set, batch_size=whole.settings.batch_size,
            staging_rows=_more_cold_rows(figures.hot_set.staging_rows, base, whole),
        ),
        optimizer=figures.hot_set.optimizer, splits=splits,
        on_gpu=True, dense_bytes=figures.dense_bytes, world=group.gpus, num_hosts=group.hosts,
        shares_host=group.hosts == 1,
        rounds_dense=whole.settings.rounds_dense and fit_in_memory(splits, whole.settings.batch_size),
    )  # fmt: skip
    needs = find_placement(placement).plan(request)
    if group.hosts == 1:
        return needs
    dense = 4 * (1 + group.hosts) * -(-group.dense_weights // group.of_host)  # its part of those of each host
    return replace(needs, device_work=needs.device_work + dense)


def larger_batches(split: BatchSizes, base: StepWork, whole: StepWork) -> BatchSizes:
    """Sizes of a split in batches of `whole`, from those in batches of `base`; the same ones where both are as large.

    The largest batch is taken to have as many rows more than a mean one as it has in `base`. Further segments of rows
    with many lookups, and these rows, grow with the inputs.
    """
    times = whole.settings.batch_size / base.settings.batch_size
    if times == 1:
        return split
    most_segments = tuple(
        (int(large.unique_rows + times * max(0.0, segments - own.unique_rows)), int(times * long_rows))
        for (segments, long_rows), (own, large) in zip(split.most_segments, _widths(base, whole), strict=False)
    )
    return SplitSizes(
        num_batches=-(-split.num_batches // int(times)),
        num_dense=split.num_dense,
        is_weighted=split.is_weighted,
        most_segments=most_segments,
        most_cold_rows=_more_cold_rows(split.most_cold_rows, base, whole),
        num_bytes=0,  # nothing is on a disk
    )


def _more_cold_rows(most: Sequence[int], base: StepWork, whole: StepWork) -> tuple[int, ...]:
    """Most cold rows of a batch of `whole`, by width: as many more as a mean one has, and no more than there are."""
    return tuple(
        min(int(rows + large.unique_cold_rows - own.unique_cold_rows), max(rows, own.num_rows - own.num_hot_rows))
        for rows, (own, large) in zip(most, _widths(base, whole), strict=True)
    )


def _widths(base: StepWork, whole: StepWork) -> list[tuple[WidthWork, WidthWork]]:
    return list(zip(base.widths, whole.widths, strict=True))
