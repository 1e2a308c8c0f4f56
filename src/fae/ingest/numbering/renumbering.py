"""Replace provisional ids by final ones on all threads, so that a kill at any moment can be recovered from.

It works through ``ids.npy`` in steps and writes the final ids to another file, which takes its place when all are done:
the provisional ids stay as they are until then. The file ``numbered`` beside it has two uint32 for each step: 1 where
the step is done, and the crc32 of its final ids. After a kill only the steps are done whose final ids are not there, or
are not what was written.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.artifacts.checksums import join_checksums
from fae.core.compiled import Int64, compiled
from fae.core.npy import NpyRows, NpyWriter
from fae.core.progress import task
from fae.core.threads import run_jobs
from fae.ingest.numbering.final_ids import damaged_ids
from fae.ingest.numbering.id_blocks import IdRows

STEP_BYTES = 4 * 2**20
"""Bytes of ``ids.npy`` in one step."""
_FACT_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class SlotMaps:
    """For each slot of a row, the new ids of its old ones.

    Attributes
    ----------
    ids
        int32: the maps of all tables, one behind the other. The map of a table has a new id for each old one, and two
        more: for -2 (a missing number) and for -1 (no lookup).
    begin
        int64 ``[S]``: where the map of each slot begins in `ids`; -1 if its ids stay as they are.
    size
        int64 ``[S]``: number of old ids of each slot's table.
    encoded
        bool ``[S]``: old ids are the log's own numbers; those beyond the table get the new id of -2.
    """

    ids: npt.NDArray[np.int32]
    begin: Int64
    size: Int64
    encoded: npt.NDArray[np.bool_]

    @classmethod
    def of_slots(cls, ids: npt.NDArray[np.int32], slots: Sequence[tuple[int, int, bool]]) -> SlotMaps:
        """From `begin`, `size` and `encoded` of each slot."""
        return cls(
            ids=ids,
            begin=np.array([begin for begin, _, _ in slots], np.int64),
            size=np.array([size for _, size, _ in slots], np.int64),
            encoded=np.array([encoded for _, _, encoded in slots], np.bool_),
        )

    def exchange(self, rows: npt.NDArray[np.int32]) -> int:
        """Replace all ids in ``rows [n, S]``; returns the first slot that has an id beyond its table, -1 if none."""
        return int(exchange_ids(rows, self.begin, self.size, self.encoded, self.ids))


@compiled
def exchange_ids(
    rows: npt.NDArray[np.int32],
    begin: Int64,
    size: Int64,
    encoded: npt.NDArray[np.bool_],
    ids: npt.NDArray[np.int32],
) -> int:
    """See `SlotMaps`. One call for all slots of many rows: short calls of many threads wait for one another."""
    for row in range(rows.shape[0]):
        for slot in range(rows.shape[1]):
            if begin[slot] < 0:
                continue
            value, known = np.int64(rows[row, slot]), size[slot]
            if value >= known and encoded[slot]:
                value = known
            elif value < -2 or value >= known:
                return slot
            elif value < 0:
                value += known + 2
            rows[row, slot] = ids[begin[slot] + value]
    return -1


class Renumbering:
    """The file of final ids while it is written.

    Parameters
    ----------
    ids
        Provisional ids.
    path
        The file of final ids; it and the file `numbered` are made where they are not there.
    """

    def __init__(self, ids: IdRows, path: Path, numbered: Path) -> None:
        self._ids, self._path, self._numbered = ids, path, numbered
        self._step = max(1, STEP_BYTES // max(1, ids.row_bytes))
        self._num_steps = -(-len(ids) // self._step)
        self._checksums = np.zeros((self._num_steps, 2), np.uint32)

    def run(self, maps: SlotMaps, names: Sequence[str], *, beside: Sequence[Callable[[], None]] = ()) -> int:
        """Write all final ids; continue what an earlier process left. Returns the crc32 of their bytes.

        Parameters
        ----------
        names
            The column of each slot, for errors.
        beside
            Other jobs to be done at the same time, begun first.

        Raises
        ------
        LogError
            If an id is beyond its table.
        """
        done = self._done_steps()
        if not done.any():
            self._begin()
        with (
            NpyRows(self._path, writable=True) as finals,
            self._numbered.open("r+b", buffering=0) as file,
            task("ingest: numbering by popularity", len(self._ids)) as bar,
        ):
            bar.find(int(sum(self._num_rows(index) for index in np.flatnonzero(done).tolist())))

            def job(index: int) -> None:
                rows = self._ids.read(index * self._step, (index + 1) * self._step)
                wrong = maps.exchange(rows)
                if wrong >= 0:
                    raise damaged_ids(names[wrong])
                finals.write(index * self._step, rows)
                finals.start_write_back(index * self._step, len(rows))
                self._checksums[index] = 1, zlib.crc32(rows.reshape(-1).view(np.uint8).data)
                os.pwrite(file.fileno(), self._checksums[index].tobytes(), _FACT_BYTES * index)
                bar.advance(len(rows))

            run_jobs([*beside, *(partial(job, index) for index in np.flatnonzero(~done).tolist())])
        sizes = [self._num_rows(index) * self._ids.row_bytes for index in range(self._num_steps)]
        return join_checksums(self._checksums[:, 1].tolist(), sizes)

    def _num_rows(self, index: int) -> int:
        return min(self._step, len(self._ids) - index * self._step)

    def _begin(self) -> None:
        """Make both files without content."""
        self._numbered.write_bytes(b"")
        with NpyWriter(self._path, np.int32, (int(self._ids.shape[1]),)) as writer:
            writer.num_rows = len(self._ids)
        os.truncate(self._path, writer.num_bytes)

    def _done_steps(self) -> npt.NDArray[np.bool_]:
        """bool for each step: whether its final ids are there, byte by byte."""
        done = np.zeros(self._num_steps, np.bool_)
        try:
            facts = self._numbered.read_bytes()[: _FACT_BYTES * self._num_steps]
            found = np.frombuffer(facts, np.uint32, 2 * (len(facts) // _FACT_BYTES)).reshape(-1, 2)
            finals = NpyRows(self._path)
        except (OSError, ValueError):
            return done

        def job(index: int) -> None:
            rows = finals.read(index * self._step, (index + 1) * self._step)
            done[index] = zlib.crc32(rows.reshape(-1).view(np.uint8).data) == found[index, 1]

        with finals:
            if finals.dtype != np.int32 or finals.shape != self._ids.shape:
                return done
            with contextlib.suppress(OSError):  # cut off: it is written anew
                run_jobs([partial(job, index) for index in np.flatnonzero(found[:, 0] == 1).tolist()])
        self._checksums[: len(found)] = found
        return done
