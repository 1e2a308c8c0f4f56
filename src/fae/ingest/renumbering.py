"""Provisional into final ids, in place, in a way that a kill in the middle does not spoil.

Place in the flow: the last part of ingest. Works through ``ids.npy`` in steps. Before the rows of a step are changed
they are kept in a file beside, with where they stand; after a kill they are put back first. Invariant: whenever the
process dies, that file says from which row on ids are still provisional, once its rows are put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.core.npy import RowFile
from fae.core.progress import task
from fae.core.threads import run_ranges
from fae.ingest.vocabulary import compiled

_CACHED_ROWS = 1024
_HEAD = 2


@dataclass(frozen=True, kw_only=True)
class SlotNumbering:
    """The final ids of one feature.

    Attributes
    ----------
    slots
        Its slots in a row of ids.
    encoded
        Provisional ids are numbers of the log, of which large ones are unknown.
    final
        As in `fae.ingest.final_ids.Numbering`.
    """

    slots: slice
    encoded: bool
    final: npt.NDArray[np.int32]


@compiled
def renumber_slots(
    ids: npt.NDArray[np.int32], first: int, stop: int, encoded: bool, final: npt.NDArray[np.int32]
) -> None:
    """Replace ids by final ones in slots ``[first, stop)``; the last two entries of `final` answer for -2 and -1."""
    known = final.size - 2
    for row in range(ids.shape[0]):
        for slot in range(first, stop):
            value = ids[row, slot]
            ids[row, slot] = final[known if encoded and value >= known else value]


def renumber(ids: RowFile, numberings: Sequence[SlotNumbering], undo: Path, *, step_bytes: int) -> None:
    """Renumber all rows of `ids`, going on where an earlier process has left `undo`, or from the beginning."""
    step = max(1, step_bytes // (4 * ids.shape[1]))
    undo.touch()
    with undo.open("r+b", buffering=0) as file:
        start = _put_back(ids, file)
        with task("ingest: numbering by popularity", len(ids)) as progress:
            progress.advance(start)
            while start < len(ids):
                rows = ids.read(start, start + step)
                # In this order: what the head says is true between any two of these writes.
                _write_head(file, -1, start)
                _write_all(file, rows.tobytes())
                _write_head(file, start, start)

                def work(first: int, last: int, rows: npt.NDArray[np.int32] = rows) -> None:
                    # Few rows at a time: the features pass over them one after the other, so they stay in cache.
                    for begin in range(first, last, _CACHED_ROWS):
                        part = rows[begin : min(begin + _CACHED_ROWS, last)]
                        for this in numberings:
                            renumber_slots(part, this.slots.start, this.slots.stop, this.encoded, this.final)

                run_ranges(work, len(rows), min_range=_CACHED_ROWS)
                ids.write(start, rows)
                start += len(rows)
                progress.advance(len(rows))
            _write_head(file, -1, start)


def _write_head(file: FileIO, kept: int, start: int) -> None:
    """`kept`: first of the rows that follow in the file, -1 if they do not count; `start`: first provisional row."""
    file.seek(0)
    _write_all(file, np.array([kept, start], np.int64).tobytes())


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) :]


def _put_back(ids: RowFile, file: FileIO) -> int:
    data = file.read()
    if len(data) < 8 * _HEAD:
        return 0
    kept, start = map(int, np.frombuffer(data, np.int64, _HEAD))
    if kept >= 0:
        rows = np.frombuffer(data, np.int32, offset=8 * _HEAD).reshape(-1, ids.shape[1])
        ids.write(kept, rows[: len(ids) - kept])
    return start
