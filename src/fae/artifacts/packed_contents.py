"""Check every packed batch, of any maker, before training follows its addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import SegmentArrays
from fae.artifacts.checksums import check_contents, damaged
from fae.artifacts.columnar_log import SPLITS
from fae.artifacts.packed import BatchSet, PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.core.threads import run_ranges

_STEP_BYTES = 4 * 2**20
_checked: set[tuple[str, str, int]] = set()


def check_batches(packed: PackedDataset, layout: RowLayout, *, num_inputs: int) -> None:
    """Read all packed batches once: compare them with their checksums, and every address with the layout.

    Batches that this process has checked are not read again.

    Parameters
    ----------
    layout
        That of the hot set that they were packed for.
    num_inputs
        Inputs of the log.

    Raises
    ------
    ArtifactError
        If something is damaged; one line names the file and what is wrong.
    """
    status = (packed.path / "manifest.json").stat()
    key = (str(packed.path.resolve()), packed.manifest.digest, status.st_ctime_ns)
    if key in _checked:
        return
    if (packed.num_slots, len(packed.train.arrays.cold_rows)) != (layout.num_slots, len(layout.groups)):
        raise damaged(
            packed.path, "manifest.json", packed.command,
            f"it has {packed.num_slots} slots, and the hot set {layout.num_slots}",
        )  # fmt: skip
    check_contents(packed.path, packed.manifest.files, "", command=packed.command)
    for name in SPLITS:
        _Check(packed, name, layout, num_inputs).work()
    _checked.add(key)


class _Check:
    def __init__(self, packed: PackedDataset, split: str, layout: RowLayout, num_inputs: int) -> None:
        self._packed, self._split, self._layout, self._log_inputs = packed, split, layout, num_inputs
        self._set: BatchSet = getattr(packed, split)
        self._hot_rows = layout.addressing.group_num_hot_rows
        self._cold = np.diff(self._set.arrays.cold_offsets, axis=0)  # [N, G]

    def work(self) -> None:
        arrays, batch_size, num_slots = self._set.arrays, self._packed.batch_size, self._packed.num_slots
        limits = self._hot_rows + self._cold  # [N, G]
        by_slot = limits[:, self._layout.addressing.slot_group]
        self._blocks("addresses", arrays.addresses, lambda a, b, part: (
            part.min(initial=-1) >= -1 and bool((part.max(axis=1, initial=-1) < by_slot[a:b]).all())
        ))  # fmt: skip
        if arrays.order is not None:
            self._range("order", arrays.order, 0, batch_size * num_slots - 1)
        self._range("labels", arrays.labels, 0, 1)
        limit = float(np.finfo(np.float32).max)
        self._range("dense", arrays.dense, -limit, limit)
        self._range("inputs", arrays.inputs, -1, self._log_inputs - 1)
        for group, rows in enumerate(arrays.cold_rows):
            there = self._layout.groups[group]
            first = there.num_hot_rows
            self._range(f"cold_rows_{group}", rows, first, first + there.num_cold_rows - 1)
            falls = np.flatnonzero(np.diff(rows) <= 0) + 1
            if not np.isin(falls, arrays.cold_offsets[:, group]).all():
                raise self._damaged(f"cold_rows_{group}")
        num_hot = self._set.num_hot_batches
        for kind, segments, first in (("hot", arrays.hot_segments, 0), ("cold", arrays.segments, num_hot)):
            if segments is not None:
                self._segments(kind, segments, limits[first : first + len(segments.offsets) - 1])

    def _segments(self, kind: str, segments: SegmentArrays, limits: npt.NDArray[np.int64]) -> None:
        place = 0
        for group in range(len(segments.starts)):
            begin, place = place, place + self._packed.batch_size * len(self._layout.group_slots(group))
            counts = np.diff(segments.offsets[:, group])
            self._range(f"{kind}_block_starts_{group}", segments.starts[group], begin, place - 1)
            falls = np.flatnonzero(np.diff(segments.starts[group]) <= 0) + 1
            if not np.isin(falls, segments.offsets[:, group]).all():
                raise self._damaged(f"{kind}_block_starts_{group}")
            addresses, most = segments.addresses[group], limits[:, group]
            step = max(1, _STEP_BYTES // (16 * max(1, int(counts.max(initial=1)))))
            for first in range(0, len(counts), step):
                a, b = segments.offsets[[first, min(first + step, len(counts))], group].tolist()
                part = addresses[a:b]
                each = np.repeat(most[first : first + step], counts[first : first + step])
                if part.size and (part.min() < 0 or (part >= each).any()):
                    raise self._damaged(f"{kind}_block_addresses_{group}")
            long_counts = np.diff(segments.long_offsets[:, group])
            rows = segments.long_rows[group].astype(np.int64)
            ends = np.repeat(counts, long_counts)
            if rows.size and (rows.min() < 0 or (rows[:, 1] < 1).any() or (rows.sum(axis=1) > ends).any()):
                raise self._damaged(f"{kind}_long_rows_{group}")

    def _range(self, name: str, array: npt.NDArray[Any], low: float, high: float) -> None:
        def fits(a: int, b: int, part: npt.NDArray[Any]) -> bool:
            del a, b
            return not part.size or bool(part.min() >= low and part.max() <= high)  # false for NaN, too

        self._blocks(name, array, fits)

    def _blocks(self, name: str, array: npt.NDArray[Any], fits: Callable[[int, int, npt.NDArray[Any]], bool]) -> None:
        """Check an array a few megabytes at a time, on all threads."""
        step = max(1, _STEP_BYTES // max(1, array.nbytes // max(1, len(array))))

        def work(start: int, stop: int) -> None:
            for first in range(start, stop, step):
                last = min(first + step, stop)
                if not fits(first, last, array[first:last]):
                    raise self._damaged(name)

        run_ranges(work, len(array))

    def _damaged(self, name: str) -> Exception:
        return damaged(
            self._packed.path, f"{self._split}/{name}.npy", self._packed.command, "it has values out of their range"
        )
