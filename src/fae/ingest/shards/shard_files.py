"""What a task has read of a shard: arrays of rows, the distinct values in order of first appearance, and facts.

A part is a folder that appears as a whole, by renaming: ``ids.npy`` (ids of the part's own vocabularies),
``dense.npy``, ``labels.npy`` and what else is kept of each input; ``values``, the new values of each table one after
the other; ``counts``, how often each occurs, of each column one after the other; and ``part.json``. Each file has its
checksum there, so that a part that was damaged meanwhile is read anew.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fae.core.npy import HEADER_BYTES, NpyWriter, read_header
from fae.core.whole_files import read_json
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.shards.part_counts import ColumnCounts

FACTS, VALUES, COUNTS, SCRATCH = "part.json", "values", "counts", "scratch"

Checks = Literal["nothing", "ids", "all"]


class PartWriter:
    """A part while it is read.

    Parameters
    ----------
    path
        Where it appears.

    Attributes
    ----------
    folder
        Where it is written: beside its place, by this thread alone.
    state
        JSON values that are kept with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        self.state: dict[str, Any] = {}
        self._writers: list[NpyWriter] = []
        shutil.rmtree(self.folder, ignore_errors=True)
        # Without its parents: where they are gone, others have finished the log while this worker was slow.
        self.folder.mkdir()
        (self.folder / "work").mkdir()

    def open_rows(self, name: str, dtype: npt.DTypeLike, row_shape: tuple[int, ...]) -> NpyWriter:
        """Open the writer of the array of rows ``<name>.npy``."""
        writer = NpyWriter(self.folder / f"{name}.npy", dtype, row_shape, keeps_checksum=True)
        self._writers.append(writer)
        return writer

    def publish(
        self, encoders: Sequence[ColumnEncoder], facts: dict[str, Any], counts: Sequence[ColumnCounts] = ()
    ) -> dict[str, Any]:
        """Write values, counts and facts once all writers are closed, and put the part in its place; return the facts.

        Parameters
        ----------
        counts
            One of each column; none where they are of no use.
        """
        rows = {
            str(writer.path.relative_to(self.folder).with_suffix("")): [
                writer.dtype.str, list(writer.row_shape), writer.num_rows, writer.checksum,
            ]
            for writer in self._writers
        }  # fmt: skip
        values, checksum = [], 0
        with (self.folder / VALUES).open("wb") as file:
            for encoder in encoders:
                begin = file.tell()
                for data in encoder.saved_values(0, encoder.num_values):
                    file.write(data)
                    checksum = zlib.crc32(data, checksum)
                values.append([encoder.num_values, file.tell() - begin])
        if counts:
            data = np.concatenate([own for own, _, _ in counts]).tobytes()
            (self.folder / COUNTS).write_bytes(data)
            facts["counted"] = [[len(own), empty, has_lists] for own, empty, has_lists in counts]
            facts["counts_checksum"] = zlib.crc32(data)
        shutil.rmtree(self.folder / SCRATCH, ignore_errors=True)
        facts |= {"state": self.state, "rows": rows, "values": values, "values_checksum": checksum}
        (self.folder / FACTS).write_text(json.dumps(facts))
        try:
            os.rename(self.folder, self._path)
        except OSError:
            # Another worker was first, with the same bytes; or a damaged part is in the way.
            if read_part(self._path) is None:
                shutil.rmtree(self._path, ignore_errors=True)
                os.rename(self.folder, self._path)
            else:
                self.abandon()
        return facts

    def abandon(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read_part(path: Path, *, checks: Checks = "nothing") -> dict[str, Any] | None:
    """The facts of a part; None where there is none, or it is not what was written.

    Parameters
    ----------
    checks
        Which files are compared with their checksums, byte by byte.
    """
    try:
        facts: dict[str, Any] = read_json(path / FACTS)
        files = [
            (f"{name}.npy", HEADER_BYTES, checksum)
            for name, (_, _, _, checksum) in facts["rows"].items()
            if checks == "all" or name == "ids"
        ]
        if "counted" in facts:
            files.append((COUNTS, 0, facts["counts_checksum"]))
        if checks == "all":
            files.append((VALUES, 0, facts["values_checksum"]))
        for name, first, checksum in () if checks == "nothing" else files:
            if not stat.S_ISREG((path / name).lstat().st_mode) or _checksum(path / name, first) != checksum:
                return None
        for name, (dtype, shape, num_rows, _) in facts["rows"].items() if checks != "nothing" else ():
            # Rows of a shard without inputs may have no header.
            if num_rows and (checks == "all" or name == "ids"):
                with (path / f"{name}.npy").open("rb") as file:
                    if read_header(file) != (np.dtype(dtype), (num_rows, *shape)):
                        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts


def read_counts(path: Path, facts: dict[str, Any]) -> list[npt.NDArray[np.int32]]:
    """The counts of all columns of a part that has them, as `fae.ingest.shards.part_counts.ColumnCounts`.

    Raises
    ------
    OSError, ValueError
        If they are not there.
    """
    sizes = [size for size, _, _ in facts["counted"]]
    found = np.frombuffer(bytearray((path / COUNTS).read_bytes()), np.int32)
    if len(found) != sum(sizes):
        raise ValueError(f"{path / COUNTS} has {len(found)} counts, not {sum(sizes)}")
    return np.split(found, np.cumsum(sizes)[:-1])


def _checksum(path: Path, first: int) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as file:
        file.seek(first)
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum


class SavedValues:
    """The new values of all tables of a part, read by many threads.

    Its file is opened once and closed when nobody has it any more: to open it for each table takes longer than to read.

    Parameters
    ----------
    path, facts
        The part.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self._counts = [count for count, _ in facts["values"]]
        self._begins = [0, *itertools.accumulate(size for _, size in facts["values"])]
        self._file = (path / VALUES).open("rb", buffering=0)

    def read(self, column: int) -> tuple[bytes, int]:
        """Bytes and number of the values of a column's table, for `ColumnEncoder.add_values`."""
        begin, end = self._begins[column], self._begins[column + 1]
        pieces = []
        while begin < end:  # the system reads 2 GiB at once at most
            piece = os.pread(self._file.fileno(), end - begin, begin)
            if not piece:
                raise OSError(f"{self._file.name} is {end - begin} bytes too short")
            pieces.append(piece)
            begin += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), self._counts[column]

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
