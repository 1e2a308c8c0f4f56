"""Check every packed batch, of any maker, before training follows its addresses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import SegmentArrays
from fae.artifacts.checksums import check_contents, damaged
from fae.artifacts.columnar_log import SPLITS
from fae.artifacts.lookup_addresses import are_permutations
from fae.artifacts.mapped_files import MappedFile, RowCheck, ascending, below, check_mapped, within
from fae.artifacts.packed import BatchSet, PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.artifacts.stored.order_planes import OrderArrays, join_planes
from fae.core.compiled import read_only

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
    group_slots = [len(layout.group_slots(group)) for group in range(len(layout.groups))]
    if packed.group_slots not in (None, group_slots):
        raise damaged(
            packed.path, "manifest.json", packed.command,
            f"its groups have {packed.group_slots} slots, and those of the hot set {group_slots}",
        )  # fmt: skip
    files = [file for name in SPLITS for file in _SplitFiles(packed, name, layout, num_inputs).files()]
    mapped = {file.name for file in files}
    others = {name: facts for name, facts in packed.manifest.files.items() if name not in mapped}
    check_contents(packed.path, others, "", command=packed.command)
    for name, what in check_mapped(packed.path, files, packed.manifest.files):
        raise damaged(packed.path, name, packed.command, what)
    _checked.add(key)


class _SplitFiles:
    """The files of one split, and what their rows may be."""

    def __init__(self, packed: PackedDataset, split: str, layout: RowLayout, num_inputs: int) -> None:
        self._packed, self._split, self._layout, self._log_inputs = packed, split, layout, num_inputs
        self._set: BatchSet = getattr(packed, split)
        cold = np.diff(self._set.arrays.cold_offsets, axis=0)
        self._limits = layout.addressing.group_num_hot_rows + cold  # [N, G]: rows that a batch has

    def files(self) -> list[MappedFile]:
        """All but the small ones that say where the lists of the others begin."""
        arrays, num_hot = self._set.arrays, self._set.num_hot_batches
        greatest = float(np.finfo(np.float32).max)
        found = [
            self._file("labels", arrays.labels, within(0, 1)),
            self._file("dense", arrays.dense, within(-greatest, greatest)),
            self._file("inputs", arrays.inputs, within(-1, self._log_inputs - 1)),
        ]
        if arrays.addresses is not None:
            found.append(self._file("addresses", arrays.addresses, self._addresses()))
        if arrays.order is not None:
            fits, is_first = self._order(arrays.order), True
            for name, part in arrays.order.files.items():
                found.append(self._file(name, part, fits if is_first else None))
                is_first = False
        if arrays.weights is not None:
            found.append(self._file("weights", arrays.weights))
        for group, rows in enumerate(arrays.cold_rows):
            there = self._layout.groups[group]
            first = there.num_hot_rows
            fits = ascending(rows, arrays.cold_offsets[:, group], first, first + there.num_cold_rows - 1)
            found.append(self._file(f"cold_rows_{group}", rows, fits))
        for kind, segments, first in (("hot", arrays.hot_segments, 0), ("cold", arrays.segments, num_hot)):
            if segments is not None:
                found += self._segments(kind, segments, self._limits[first : first + len(segments.offsets) - 1])
        return found

    def _file(self, name: str, array: npt.NDArray[Any], fits: RowCheck | None = None) -> MappedFile:
        return MappedFile(f"{self._split}/{name}.npy", array, fits)

    def _addresses(self) -> RowCheck:
        by_slot = self._limits[:, self._layout.addressing.slot_group]

        def fits(first: int, last: int, rows: npt.NDArray[Any]) -> bool:
            return bool(rows.min(initial=-1) >= -1 and (rows.max(axis=1, initial=-1) < by_slot[first:last]).all())

        return fits

    def _order(self, order: OrderArrays) -> RowCheck:
        """Addresses are derived from an order: it must list each lookup once, in the part of its group.

        Planes are checked together, with the rows of the first one.
        """
        size, layout = self._packed.batch_size, self._layout
        places = size * layout.addressing.group_first_slot
        slot_group = layout.addressing.slot_group

        def fits(first: int, last: int, rows: npt.NDArray[Any]) -> bool:
            if order.are_planes:
                joined = np.empty(rows.shape, np.int32)
                join_planes(order[first:last].parts, joined)
                rows = read_only(joined)
            return are_permutations(rows, slot_group, places, np.empty(rows.shape[1], np.bool_))

        return fits

    def _segments(self, kind: str, segments: SegmentArrays, limits: npt.NDArray[np.int64]) -> list[MappedFile]:
        found, place = [], 0
        for group in range(len(segments.starts)):
            begin, place = place, place + self._packed.batch_size * len(self._layout.group_slots(group))
            offsets, long_offsets = segments.offsets[:, group], segments.long_offsets[:, group]
            starts = segments.starts[group]
            found += [
                self._file(f"{kind}_block_starts_{group}", starts, ascending(starts, offsets, begin, place - 1)),
                self._file(
                    f"{kind}_block_addresses_{group}", segments.addresses[group], below(limits[:, group], offsets)
                ),
                self._file(
                    f"{kind}_long_rows_{group}", segments.long_rows[group], are_inside(np.diff(offsets), long_offsets)
                ),
            ]
        return found


def are_inside(counts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> RowCheck:
    """Rows of a first segment and a number of segments: one or more of the `counts` ``[N]`` of their batch."""

    def fits(first: int, last: int, rows: npt.NDArray[Any]) -> bool:
        ends = np.repeat(counts, np.diff(offsets.clip(first, last)))
        return bool(
            rows.min(initial=0) >= 0 and (rows[:, 1] >= 1).all() and (rows.sum(axis=1, dtype=np.int64) <= ends).all()
        )

    return fits
