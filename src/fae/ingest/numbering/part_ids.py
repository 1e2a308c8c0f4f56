"""The provisional ids of a log that is read, while the rows of ids are in its parts still.

A part has ids of its own vocabularies. Which provisional id each of them is, is in one file of the unfinished log: the
maps of all tables of a part, then those of the next part. So ids are written once, when they are final.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.npy import NpyRows
from fae.ingest.column_config import slot_names
from fae.ingest.numbering.final_ids import damaged_ids
from fae.ingest.numbering.renumbering import SlotMaps
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.resume import PART_MAPS, IngestProgress

Parts = Sequence[tuple[Path, dict[str, Any]]]
"""Folder and facts of each part, in log order."""
UNCHANGED = np.array([-2, -1], np.int32)
"""The end of each map: a missing number and no lookup stay what they are."""


class PartMaps:
    """Where the map of each part and table lies among the maps of all.

    Attributes
    ----------
    columns
        The first column of each table that has a vocabulary.
    firsts
        Where the maps of each part begin, and the end of the last.
    """

    def __init__(self, encoders: Sequence[ColumnEncoder], parts: Parts) -> None:
        self._owners = [encoders.index(encoder.table_encoder) for encoder in encoders]
        self._lengths = [encoder.config.max_length for encoder in encoders]
        self.columns = [
            column
            for column, encoder in enumerate(encoders)
            if encoder.owner is None and encoder.vocabulary is not None
        ]
        self._counts = [[facts["values"][column][0] for column in self.columns] for _, facts in parts]
        sizes = (sum(counts) + len(UNCHANGED) * len(counts) for counts in self._counts)
        self.firsts = [0, *itertools.accumulate(sizes)]

    def of_part(self, part: int, maps: npt.NDArray[np.int32]) -> SlotMaps:
        """What exchanges the ids of a part, from the maps of all parts."""
        begins, at = {}, self.firsts[part]
        for column, count in zip(self.columns, self._counts[part], strict=True):
            begins[column] = at, count
            at += count + len(UNCHANGED)
        slots: list[tuple[int, int, bool]] = []
        for owner, length in zip(self._owners, self._lengths, strict=True):
            begin, known = begins.get(owner, (-1, 0))
            slots += [(begin, known, False)] * length
        return SlotMaps.of_slots(maps, slots)

    def of_column(self, part: int, column: int, maps: npt.NDArray[np.int32]) -> npt.NDArray[np.int32] | None:
        """The map of a part for one column, without its end; None where the column has no vocabulary."""
        if self._owners[column] not in self.columns:
            return None
        place = self.columns.index(self._owners[column])
        begin = self.firsts[part] + sum(self._counts[part][:place]) + len(UNCHANGED) * place
        return maps[begin : begin + self._counts[part][place]]


class PartIds:
    """Reads provisional ids as `NpyRows` reads those of an ``ids.npy``; thread-safe.

    Parameters
    ----------
    maps
        File of the maps of all parts.

    Attributes
    ----------
    dtype, shape, row_bytes
        As those of `NpyRows`.
    firsts
        Where the inputs of each part begin, and their end.
    parts, maps, part_maps
        The parts, and what exchanges their ids: int32, all of it, and where what lies.
    """

    dtype = np.dtype(np.int32)

    def __init__(self, encoders: Sequence[ColumnEncoder], parts: Parts, maps: Path) -> None:
        self.parts = parts
        self.firsts = [0, *itertools.accumulate(facts["num_inputs"] for _, facts in parts)]
        self.shape: tuple[int, ...] = (self.firsts[-1], encoders[-1].slots.stop)
        self.row_bytes = 4 * self.shape[1]
        # Copied on write, which never happens: the compiled loop takes arrays that could be written.
        self.maps: npt.NDArray[np.int32] = np.asarray(np.load(maps, mmap_mode="c"))
        self.part_maps = PartMaps(encoders, parts)
        self._names = slot_names([encoder.config for encoder in encoders])

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """As `NpyRows.read`."""
        rows = np.empty((max(min(stop, len(self)) - start, 0), self.shape[1]), np.int32)
        self.read_into(rows, start)
        return rows

    def read_into(self, rows: npt.NDArray[np.int32], start: int) -> None:
        """Fill contiguous `rows` with the ids from the input `start` on.

        Raises
        ------
        LogError
            If an id of a part has no value: the part was damaged meanwhile.
        """
        part, done = bisect.bisect_right(self.firsts, start) - 1, 0
        while done < len(rows):
            first = start + done - self.firsts[part]
            block = rows[done : done + self.firsts[part + 1] - start - done]
            if len(block):
                with NpyRows(self.parts[part][0] / "ids.npy") as own:
                    own.read_into(block, first)
                if (wrong := self.part_maps.of_part(part, self.maps).exchange(block)) >= 0:
                    raise damaged_ids(self._names[wrong])
            done, part = done + len(block), part + 1

    def __enter__(self) -> PartIds:
        return self

    def __exit__(self, *arguments: object) -> None:
        """Nothing is open between two reads."""


def open_ids(progress: IngestProgress, encoders: Sequence[ColumnEncoder]) -> NpyRows | PartIds:
    """The provisional ids of an unfinished log that is read, wherever they are."""
    if progress.parts_of_ids is None:
        return NpyRows(progress.folder / "ids.npy")
    return PartIds(encoders, progress.parts_of_ids, progress.work / PART_MAPS)
