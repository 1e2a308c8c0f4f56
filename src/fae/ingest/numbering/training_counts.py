"""Count how often each provisional id occurs in the training split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64
from fae.core.progress import Task, task
from fae.core.threads import run_jobs
from fae.ingest.numbering.final_ids import count_ids, damaged_ids
from fae.ingest.numbering.id_blocks import IdRows, id_blocks
from fae.ingest.numbering.part_ids import PartIds
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.shards.part_counts import add_counts
from fae.ingest.shards.shard_files import read_counts

_BYTES_AT_ONCE = 64 * 2**20
"""Counts of parts that are in memory at once, but for those of one part that has more."""


class _Found(NamedTuple):
    """For each column: inputs without a value, and whether any input has two items."""

    empty: list[int]
    has_lists: list[bool]


def count_training(
    encoders: Sequence[ColumnEncoder], ids: IdRows, num_training: int, counts: Sequence[Int64]
) -> tuple[list[int], list[bool]]:
    """Fill `counts`; return for each column how many inputs have no value, and whether any has two items.

    Parts that are in the training split as a whole were counted when they were read.

    Parameters
    ----------
    counts
        int64 ``[values + 2]`` of each column, all zero: see `fae.ingest.numbering.final_ids.count_ids`.

    Raises
    ------
    LogError
        If an id has no value: what was written was damaged meanwhile.
    """
    found = _Found([0] * len(encoders), [False] * len(encoders))
    with task("ingest: counting", num_training) as progress:
        counted: list[int] = []
        if isinstance(ids, PartIds):
            counted = [
                part
                for part, (_, facts) in enumerate(ids.parts)
                if "counted" in facts and ids.firsts[part + 1] <= num_training
            ]
            _add_parts(encoders, ids, counted, counts, found, progress)
        for start, stop in _between(ids, counted, num_training):
            _count_rows(encoders, ids, start, stop, counts, found, progress)
    for index, encoder in enumerate(encoders):
        if encoder.config.max_length == 1 and encoder.missing_id != -1:
            found.empty[index] = int(counts[index][encoder.missing_id])
    return found.empty, found.has_lists


def _between(ids: IdRows, counted: Sequence[int], num_training: int) -> Iterator[tuple[int, int]]:
    """The ranges of training inputs that are in none of these parts."""
    taken = [(ids.firsts[part], ids.firsts[part + 1]) for part in counted] if isinstance(ids, PartIds) else []
    for (_, start), (stop, _) in pairwise([(0, 0), *taken, (num_training, num_training)]):
        if start < stop:
            yield start, stop


def _groups(ids: PartIds, parts: Sequence[int]) -> Iterator[list[int]]:
    """The parts in groups whose counts are `_BYTES_AT_ONCE` at most, or one."""
    group: list[int] = []
    num_bytes = 0
    for part in parts:
        own = 4 * sum(size for size, _, _ in ids.parts[part][1]["counted"])
        if group and num_bytes + own > _BYTES_AT_ONCE:
            yield group
            group, num_bytes = [], 0
        group.append(part)
        num_bytes += own
    if group:
        yield group


def _add_parts(
    encoders: Sequence[ColumnEncoder],
    ids: PartIds,
    parts: Sequence[int],
    counts: Sequence[Int64],
    found: _Found,
    progress: Task,
) -> None:
    for group in _groups(ids, parts):
        own: dict[int, list[npt.NDArray[np.int32]]] = {}

        def read(part: int, own: dict[int, list[npt.NDArray[np.int32]]] = own) -> Callable[[], None]:
            def work() -> None:
                own[part] = read_counts(*ids.parts[part])

            return work

        def add(
            column: int, group: Sequence[int] = group, own: dict[int, list[npt.NDArray[np.int32]]] = own
        ) -> Callable[[], None]:
            def work() -> None:
                for part in group:
                    of_part = ids.part_maps.of_column(part, column, ids.maps)
                    if of_part is None or not add_counts(own[part][column], of_part, counts[column]):
                        raise damaged_ids(encoders[column].config.name)

            return work

        run_jobs([read(part) for part in group])
        run_jobs([add(column) for column in range(len(encoders))])
        for part in group:
            for column, (_, empty, has_lists) in enumerate(ids.parts[part][1]["counted"]):
                found.empty[column] += empty
                found.has_lists[column] |= has_lists
        progress.advance(sum(ids.firsts[part + 1] - ids.firsts[part] for part in group))


def _count_rows(
    encoders: Sequence[ColumnEncoder],
    ids: IdRows,
    start: int,
    stop: int,
    counts: Sequence[Int64],
    found: _Found,
    progress: Task,
) -> None:
    for rows in id_blocks(ids, start, stop):

        def job(index: int, rows: npt.NDArray[np.int32] = rows) -> Callable[[], None]:
            def work() -> None:
                config, first = encoders[index].config, encoders[index].first_slot
                empty = int(count_ids(rows, first, config.max_length, counts[index]))
                if empty < 0:
                    raise damaged_ids(config.name)
                found.empty[index] += empty
                if config.max_length > 1 and not found.has_lists[index]:
                    found.has_lists[index] = bool((rows[:, first + 1] >= 0).any())

            return work

        run_jobs([job(index) for index in range(len(encoders))])
        progress.advance(len(rows))
