"""Check every input of a columnar log of any maker: what a stage does that reads all of it anyway."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import map_slots
from fae.artifacts.checksums import damaged, is_verified
from fae.artifacts.columnar_log import ColumnarLog
from fae.core.npy import HEADER_BYTES, NpyRows
from fae.core.threads import run_jobs

_STEP_BYTES = 4 * 2**20
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
        if not ids.size or (ids.min() >= -1 and (ids.max(axis=0) < self._sizes).all()):
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


def check_inputs(log: ColumnarLog) -> None:
    """Read all of a log once: compare its arrays with their checksums, and their values with the schema.

    A file that this process has checked is not read again, unless it changed.

    Raises
    ------
    ArtifactError
        If something is damaged; one line names the file and what is wrong.
    """
    check = InputCheck(log)

    def job(name: str, look: Callable[[npt.NDArray[Any], Callable[[int], int]], None]) -> Callable[[], None]:
        def work() -> None:
            path = log.path / f"{name}.npy"
            status = path.stat()
            key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = (*key, log.manifest.fingerprint, log.manifest.digest)
            if known in _checked:
                return
            wanted = log.manifest.files.get(f"{name}.npy", {}).get("crc32", "")
            checksum = None
            if not is_verified(path, wanted):
                with path.open("rb") as file:
                    checksum = zlib.crc32(file.read(HEADER_BYTES))
            with NpyRows(path) as rows:
                step = max(1, _STEP_BYTES // max(1, rows.row_bytes))
                for start in range(0, len(rows), step):
                    block = rows.read(start, start + step)
                    if checksum is not None:
                        checksum = zlib.crc32(block.reshape(-1).view(np.uint8).data, checksum)
                    look(block, start.__add__)
            if checksum is not None and f"{checksum:08x}" != wanted:
                raise damaged(log.path, f"{name}.npy", log.command)
            _checked.add(known)

        return work

    run_jobs([job("ids", check.ids), job("dense", check.dense), job("labels", check.labels)])
