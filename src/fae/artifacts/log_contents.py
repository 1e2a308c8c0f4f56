"""Check every input of a columnar log of any maker: what a stage does that reads all of it anyway."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import map_slots
from fae.artifacts.checksums import damaged, is_verified, join_checksums
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.crc_folding import crc32
from fae.core.npy import HEADER_BYTES, NpyRows
from fae.core.progress import task
from fae.core.threads import run_jobs

_STEP_BYTES = 2**20  # read at a time: they stay in a core's second-level cache until they have been looked at
_ROW_INPUTS = 64
_RANGE_BYTES = 16 * 2**20
"""Bytes of a file that one thread checks."""
_checked: set[tuple[object, ...]] = set()
"""Files whose values this process has checked, with what they were when it did."""


class InputCheck:
    """Whether ids and labels are possible ones, a block of inputs at a time: before a compiled loop follows them."""

    def __init__(self, log: ColumnarLog) -> None:
        slots = map_slots(log.features)
        sizes = np.array([feature.num_embeddings for feature in log.features], np.int64)
        self._log, self._slot_table = log, slots.slot_table
        self._sizes = sizes[slots.slot_table].astype(np.int64)

    def ids(self, ids: npt.NDArray[np.int32], where: Callable[[int], int]) -> None:
        """Refuse ids outside their tables.

        Parameters
        ----------
        ids
            int32 ``[b, S]``.
        where
            Position in the log of an input of the block.

        Raises
        ------
        ArtifactError
            If there is one; it names the first.
        """
        if not ids.size or (ids.min() >= -1 and (_most(ids) < self._sizes).all()):
            return
        row, slot = np.argwhere((ids < -1) | (ids >= self._sizes))[0].tolist()
        feature = self._log.features[int(self._slot_table[slot])]
        raise self._damaged(
            "ids.npy",
            f"input {where(row)} has the id {ids[row, slot]} in {feature.name!r}, whose table has "
            f"{feature.num_embeddings} rows",
        )

    def labels(self, labels: npt.NDArray[np.uint8], where: Callable[[int], int]) -> None:
        """Refuse labels other than 0 and 1; as `ids`."""
        labels = labels.reshape(-1)
        if labels.size and labels.max() > 1:
            row = int(np.argmax(labels > 1))
            raise self._damaged("labels.npy", f"input {where(row)} has the label {labels[row]}, expected 0 or 1")

    def dense(self, dense: npt.NDArray[np.float32], where: Callable[[int], int]) -> None:
        """Refuse dense values that are not finite; as `ids`."""
        if dense.size and not (np.isfinite(dense.min()) and np.isfinite(dense.max())):
            row, column = np.argwhere(~np.isfinite(dense))[0].tolist()
            name = self._log.dense_names[column]
            raise self._damaged("dense.npy", f"input {where(row)} has {dense[row, column]} in {name!r}")

    def _damaged(self, name: str, what: str) -> Exception:
        return damaged(self._log.path, name, self._log.command, what)


def _most(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """int32 ``[S]``: the largest id of each slot.

    The numbers of one input are too few for vector instructions, so those of many inputs are taken as one row.
    """
    whole = len(ids) - len(ids) % _ROW_INPUTS
    most: npt.NDArray[np.int32] = ids[whole:].max(axis=0, initial=-1)
    if whole:
        rows = np.ascontiguousarray(ids[:whole]).reshape(whole // _ROW_INPUTS, -1)
        most = np.maximum(most, rows.max(axis=0).reshape(_ROW_INPUTS, -1).max(axis=0))
    return most


class _FileCheck:
    """The check of one file of a log: jobs for ranges of its rows, and what came of them."""

    def __init__(self, log: ColumnarLog, name: str, look: Callable[[Any, Callable[[int], int]], None]) -> None:
        self._log, self._name, self._look = log, f"{name}.npy", look
        self._path = log.path / self._name
        status = self._path.stat()
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        self._known = (*key, log.manifest.fingerprint, log.manifest.digest)
        self._wanted = log.manifest.files.get(self._name, {}).get("crc32", "")
        self._is_verified = is_verified(self._path, self._wanted)
        self._parts: dict[int, tuple[int, int]] = {}  # checksum and bytes of each range
        self._faults: dict[int, Exception] = {}

    def jobs(self) -> list[Callable[[], None]]:
        """What is to be done, in any order; nothing where this process has checked the file."""
        if self._known in _checked:
            return []
        with NpyRows(self._path) as rows:
            count, step = len(rows), max(1, _RANGE_BYTES // max(1, rows.row_bytes))
        return [partial(self._check, start, min(start + step, count)) for start in range(0, count, step)]

    def _check(self, start: int, stop: int) -> None:
        checksum, size = 0, 0
        try:
            with NpyRows(self._path) as rows:
                step = max(1, _STEP_BYTES // max(1, rows.row_bytes))
                buffer = np.empty((step, rows.shape[1]), rows.dtype)
                for first in range(start, stop, step):
                    block = buffer[: min(step, stop - first)]
                    rows.read_into(block, first)
                    if not self._is_verified:
                        checksum = crc32(block, checksum)
                        size += block.nbytes
                    self._look(block, first.__add__)
        except Exception as error:
            self._faults[start] = error
        self._parts[start] = (checksum, size)

    def finish(self) -> None:
        """Raise the error of the first rows that have one; else compare the checksum."""
        if self._faults:
            raise self._faults[min(self._faults)]
        if self._known not in _checked and not self._is_verified:
            with self._path.open("rb") as file:
                header = zlib.crc32(file.read(HEADER_BYTES))
            parts = [(header, HEADER_BYTES), *(self._parts[start] for start in sorted(self._parts))]
            if f"{join_checksums(*zip(*parts, strict=True)):08x}" != self._wanted:
                raise damaged(self._log.path, self._name, self._log.command)
        _checked.add(self._known)


def check_inputs(log: ColumnarLog) -> None:
    """Read all of a log once: compare its arrays with their checksums, and their values with the schema.

    A file that this process has checked is not read again, unless it changed.

    Raises
    ------
    ArtifactError
        If something is damaged; one line names the file and what is wrong.
    """
    check = InputCheck(log)
    files = [_FileCheck(log, *each) for each in (("ids", check.ids), ("dense", check.dense), ("labels", check.labels))]
    jobs = [job for file in files for job in file.jobs()]
    with task("checking the log", len(jobs), "pieces") as progress:

        def counted(job: Callable[[], None]) -> None:
            job()
            progress.advance(1)

        run_jobs([partial(counted, job) for job in jobs])
    for file in files:
        file.finish()
