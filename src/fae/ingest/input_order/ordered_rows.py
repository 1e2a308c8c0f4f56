"""Bring the rows of a log that was read into the order that ``[log] time`` and ``split`` say, before it is counted.

The first pass keeps a key of each input beside its rows. Where the order is another than that of the files, every array
of rows is written anew beside the old one and then takes its place. Memory is some 40 bytes an input and a window of
rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.npy import NpyRows, NpyWriter
from fae.core.progress import Task, task
from fae.ingest.config import LogConfig
from fae.ingest.input_order.split_draws import drawn_by_number, drawn_by_value, parts_of_files, value_draws
from fae.ingest.input_order.time_keys import TimeKeys
from fae.ingest.resume import IngestProgress
from fae.ingest.shards.shard_files import PartWriter
from fae.ingest.splits import SplitFinder, Splits, joined_ranges, nothing_to_train, split_ranges

TIME_ROWS, DRAW_ROWS = "work/time", "work/draw"
_BLOCK = 1 << 20
_WINDOW_BYTES, _STEP_BYTES = 128 * 2**20, 8 * 2**20

Order = npt.NDArray[np.int64]


class OrderKeys:
    """Keeps the keys of the inputs while a shard is read."""

    def __init__(self, config: LogConfig, part: PartWriter, files: ExitStack) -> None:
        self._config, self._part, self._files = config, part, files
        self._times = TimeKeys(config, part.state.get("time")) if config.time else None
        self._time_rows: NpyWriter | None = None
        self._draw_rows: NpyWriter | None = None
        if config.split_by:
            self._draw_rows = files.enter_context(part.open_rows(DRAW_ROWS, np.uint64, ()))

    def _open_times(self, times: TimeKeys) -> NpyWriter:
        rows = self._files.enter_context(self._part.open_rows(TIME_ROWS, np.int64, (times.width,)))
        self._time_rows = rows
        return rows

    def add(self, chunk: Any) -> None:
        """Keep the keys of the next chunk."""
        if self._times is not None:
            keys = self._times.keys(chunk.time, chunk.locate)
            rows = self._time_rows or self._open_times(self._times)
            rows.append(keys)
            self._part.state["time"] = self._times.state
        if self._draw_rows is not None:
            self._draw_rows.append(value_draws(chunk.split_key, self._config, chunk.locate))


def order_inputs(config: LogConfig, finder: SplitFinder, progress: IngestProgress) -> Splits:
    """Put all rows of a log that is read to its end into their order; return its splits.

    What there is to say of it is in ``state["order_notes"]`` of `progress`.

    Raises
    ------
    LogError
        If nothing is left to train on.
    """
    if not is_ordered(config):
        return finder.splits()
    if "ranges" in progress.state:
        ranges: Splits = progress.state["ranges"]
        return ranges
    finder.require_inputs()
    order, ranges, notes = _find_order(config, finder, progress)
    progress.state["ranges"], progress.state["order_notes"] = ranges, notes
    if (order[1:] > order[:-1]).all():
        return ranges
    names = [name for name in progress.row_names if name not in (TIME_ROWS, DRAW_ROWS)]
    with task("ingest: ordering the log", len(names) * len(order), "rows") as bar:
        written = [_write_in_order(progress, name, order, bar) for name in names]
    progress.replace_rows(dict(zip(names, written, strict=True)))
    return ranges


def is_ordered(config: LogConfig) -> bool:
    """Whether the order of the log's inputs may be another than that of its files."""
    return config.time is not None or config.split == "random"


def _find_order(config: LogConfig, finder: SplitFinder, progress: IngestProgress) -> tuple[Order, Splits, list[str]]:
    num_inputs, sizes = finder.num_inputs, finder.role_sizes
    if config.split == "random":
        if config.split_by:
            with NpyRows(progress.folder / f"{DRAW_ROWS}.npy") as rows:
                parts = drawn_by_value(config, rows.read(0, num_inputs)[:, 0], sizes)
        else:
            parts = drawn_by_number(config, sizes)
    else:
        parts = parts_of_files(sizes)
    notes: list[str] = []
    keys: tuple[npt.NDArray[Any], ...] = ()
    if config.time:
        times = TimeKeys(config, progress.state["time"])
        with NpyRows(progress.folder / f"{TIME_ROWS}.npy") as rows:
            keys = times.numbers_of(rows.read(0, num_inputs))
        notes = _time_notes(config, keys, sizes)
        if times.state["kind"] == "text":
            notes.append(
                f"the times {config.time!r} are text such as {times.state.get('first') or 'words'}, and are compared "
                "byte by byte; if that is not their order, write them as numbers or as 2024-01-31 08:05:00"
            )
    order: Order = np.lexsort((*keys[::-1], parts)).astype(np.int64, copy=False)
    if config.split == "random":
        ends = np.cumsum(np.bincount(parts, minlength=3)).tolist()
        ranges = {"train": [0, ends[0]], "validation": [ends[0], ends[1]], "test": [ends[1], ends[2]]}
        if not ends[0]:
            raise nothing_to_train(config, num_inputs)
        return order, ranges, notes
    return order, _ranges_by_time(config, keys, order, sizes), notes


def _ranges_by_time(config: LogConfig, keys: Sequence[npt.NDArray[Any]], order: Order, sizes: Sequence[int]) -> Splits:
    """Ranges by fraction whose borders are moved to the first input of their time, where that leaves inputs before it.

    So a time is in one split, as far as the inputs of the train files go.
    """
    num_train, num_validation, num_test = sizes
    ranges = split_ranges(config, *sizes)

    def first_of_time(at: int) -> int:
        if not 0 < at < num_train:
            return at
        time, stop = [column[order[at]] for column in keys], at
        while stop > 0:
            block = order[max(stop - _BLOCK, 0) : stop]
            other = np.any([column[block] != value for column, value in zip(keys, time, strict=True)], axis=0)
            if other.any():
                return stop - len(block) + int(np.flatnonzero(other)[-1]) + 1
            stop -= len(block)
        return at

    test = num_train if config.test else first_of_time(ranges["test"][0])
    train = int(test - int(test * config.effective_validation_fraction() + 0.5))
    train = first_of_time(train) if train < test else test
    return joined_ranges(config, train, test, num_train, num_validation, num_test)


def _time_notes(config: LogConfig, keys: Sequence[npt.NDArray[Any]], sizes: Sequence[int]) -> list[str]:
    ends = [0, *itertools.accumulate(sizes)]
    late = sum(_num_late([column[start:stop] for column in keys]) for start, stop in itertools.pairwise(ends))
    if not late:
        return []
    return [
        f"{late:,} of {len(keys[0]):,} inputs are earlier than one before them, so the log is sorted by {config.time!r}"
    ]


def _num_late(keys: Sequence[npt.NDArray[Any]]) -> int:
    """Number of inputs whose time is earlier than that of some input before them."""
    if not len(keys[0]):
        return 0
    if len(keys) == 1:
        rank = keys[0]
    else:
        order = np.lexsort(tuple(keys[::-1]))
        changes = np.any([column[order[1:]] != column[order[:-1]] for column in keys], axis=0)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.concatenate([[0], np.cumsum(changes)])
    return int(np.count_nonzero(rank < np.maximum.accumulate(rank)))


def _write_in_order(progress: IngestProgress, name: str, order: Order, bar: Task) -> NpyWriter:
    """Write the array of rows `name` in the order of `order` to a file beside it; return its closed writer."""
    path = progress.folder / f"{name}.npy"
    with NpyRows(path) as rows:
        shape = () if rows.is_flat else (int(rows.shape[1]),)
        window = max(1, _WINDOW_BYTES // max(1, rows.row_bytes))
        step = max(1, _STEP_BYTES // max(1, rows.row_bytes))
        with NpyWriter(progress.work / f"ordered_{path.name}", rows.dtype, shape, keeps_checksum=True) as writer:
            for first in range(0, len(order), window):
                writer.append(_gather(rows, order[first : first + window], step))
                bar.advance(min(window, len(order) - first))
            writer.sync()
    return writer


def _gather(rows: NpyRows, wanted: Order, step: int) -> npt.NDArray[Any]:
    """The wanted rows, read in the order of the file: only the parts of it that hold some."""
    places = np.argsort(wanted, kind="stable")
    ascending = wanted[places]
    result = np.empty((len(wanted), int(rows.shape[1])), rows.dtype)
    at = 0
    while at < len(wanted):
        start = int(ascending[at])
        stop = int(np.searchsorted(ascending, start + step))
        block = rows.read(start, int(ascending[stop - 1]) + 1)
        result[places[at:stop]] = block[ascending[at:stop] - start]
        at = stop
    return result
