"""Replace provisional ids by final ones in place, so that a kill at any moment can be recovered from.

It works through ``ids.npy`` in steps. Before the rows of a step change, they are copied to an undo file with their
position; after a kill they are first put back. The undo file is two int64 and rows: ``[kept, start]``, then the copied
rows. `start` is the first row whose ids are still provisional; `kept` is the position of the copied rows, or -1 if they
do not count. Example: ``[4096, 4096]`` and 4096 rows: rows 4096 to 8191 may be half changed and must be put back.

The file ``provisional`` beside it has the crc32 of every step's provisional ids, and ``numbered`` that of the final ids
of every step that is done (uint32): `restore_ids` finds damage in any row and in the undo file.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.core.compiled import compiled
from fae.core.npy import NpyRows
from fae.core.progress import task
from fae.core.threads import run_ranges
from fae.ingest.final_ids import damaged_ids

_CACHED_ROWS = 1024
_HEAD = 2  # int64 numbers at the start of the undo file


@dataclass(frozen=True, kw_only=True)
class SlotNumbering:
    """The final ids of one feature.

    Attributes
    ----------
    slots
        Slots of the feature in a row of ids.
    encoded
        Provisional ids are the log's own numbers; those beyond `final` get the reserved id.
    final
        As `fae.ingest.final_ids.Numbering.final`.
    name
        Name of the feature, for errors.
    """

    slots: slice
    encoded: bool
    final: npt.NDArray[np.int32]
    name: str = ""


@compiled
def renumber_slots(
    ids: npt.NDArray[np.int32], first: int, stop: int, encoded: bool, final: npt.NDArray[np.int32]
) -> bool:
    """Replace ids by final ones in slots ``[first, stop)``; the last two entries of `final` are for -2 and -1.

    Returns whether every id is in `final`; it stops at the first that is not.
    """
    known = final.size - 2
    for row in range(ids.shape[0]):
        for slot in range(first, stop):
            value = ids[row, slot]
            if value >= known and encoded:
                value = np.int32(known)
            elif value < -2 or value >= known:
                return False
            ids[row, slot] = final[value]
    return True


def _step_rows(ids: NpyRows, step_bytes: int) -> int:
    return max(1, step_bytes // (4 * ids.shape[1]))


def _checksum(rows: npt.NDArray[np.int32]) -> int:
    return zlib.crc32(rows.reshape(-1).view(np.uint8).data)


def step_checksums(ids: NpyRows, *, step_bytes: int) -> npt.NDArray[np.uint32]:
    """crc32 of the rows of every step, uint32."""
    step = _step_rows(ids, step_bytes)
    checksums = np.zeros(-(-len(ids) // step), np.uint32)

    def work(first: int, stop: int) -> None:
        for index in range(first, stop):
            checksums[index] = _checksum(ids.read(index * step, (index + 1) * step))

    run_ranges(work, len(checksums))
    return checksums


def restore_ids(ids: NpyRows, work: Path, *, step_bytes: int) -> bool:
    """Put the rows of an interrupted step back; return whether all rows are what an earlier process left.

    Parameters
    ----------
    work
        Folder of the files ``undo``, ``provisional`` and ``numbered``.
    """
    step = _step_rows(ids, step_bytes)
    expected = np.frombuffer((work / "provisional").read_bytes(), np.uint32).copy()
    undo, numbered = work / "undo", work / "numbered"
    data = undo.read_bytes() if undo.exists() else b""
    kept, start = map(int, np.frombuffer(data, np.int64, _HEAD)) if len(data) >= 8 * _HEAD else (-1, 0)
    done = start // step if start < len(ids) else len(expected)
    finals = np.frombuffer(numbered.read_bytes()[: 4 * len(expected)], np.uint32) if numbered.exists() else expected[:0]
    if start < 0 or (start % step and start != len(ids)) or kept not in (-1, start) or len(finals) < done:
        return False
    expected[:done] = finals[:done]
    if kept >= 0:
        rows = data[8 * _HEAD :][: ids.row_bytes * min(step, len(ids) - kept)]
        if done >= len(expected) or zlib.crc32(rows) != expected[done]:
            return False
        ids.write(kept, np.frombuffer(rows, np.int32).reshape(-1, ids.shape[1]))
    return np.array_equal(step_checksums(ids, step_bytes=step_bytes), expected)


def renumber(ids: NpyRows, numberings: Sequence[SlotNumbering], undo: Path, *, step_bytes: int) -> None:
    """Renumber all rows of `ids`; continue from the state in the file `undo` if an earlier process left one.

    Raises
    ------
    LogError
        If an id is beyond its table.
    """
    damaged: set[str] = set()
    step = _step_rows(ids, step_bytes)
    undo.touch()
    numbered = undo.with_name("numbered")
    numbered.touch()
    with undo.open("r+b", buffering=0) as file, numbered.open("r+b", buffering=0) as checksums:
        start = _put_back(ids, file)
        checksums.seek(4 * (start // step))
        with task("ingest: numbering by popularity", len(ids)) as progress:
            progress.find(start)
            while start < len(ids):
                rows = ids.read(start, start + step)
                # In this order, the head is true between any two of these writes.
                _write_head(file, -1, start)
                _write_all(file, rows.tobytes())
                _write_head(file, start, start)

                def work(first: int, last: int, rows: npt.NDArray[np.int32] = rows) -> None:
                    # Few rows at a time stay in cache while all features pass over them.
                    for begin in range(first, last, _CACHED_ROWS):
                        part = rows[begin : min(begin + _CACHED_ROWS, last)]
                        for this in numberings:
                            if not renumber_slots(part, this.slots.start, this.slots.stop, this.encoded, this.final):
                                damaged.add(this.name)

                run_ranges(work, len(rows), min_range=_CACHED_ROWS)
                if damaged:
                    raise damaged_ids(min(damaged))
                ids.write(start, rows)
                _write_all(checksums, np.array([_checksum(rows)], np.uint32).tobytes())
                start += len(rows)
                progress.advance(len(rows))
            _write_head(file, -1, start)


def _write_head(file: FileIO, kept: int, start: int) -> None:
    """Write the first two numbers of the undo file."""
    file.seek(0)
    _write_all(file, np.array([kept, start], np.int64).tobytes())


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) :]


def _put_back(ids: NpyRows, file: FileIO) -> int:
    """Restore the rows of an interrupted step; return the first row whose ids are provisional."""
    data = file.read()
    if len(data) < 8 * _HEAD:
        return 0
    kept, start = map(int, np.frombuffer(data, np.int64, _HEAD))
    if kept >= 0:
        rows = np.frombuffer(data, np.int32, offset=8 * _HEAD).reshape(-1, ids.shape[1])
        ids.write(kept, rows[: len(ids) - kept])
    return start
