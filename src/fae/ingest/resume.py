"""Keep what ingest has done on the disk, so that an interrupted ingest continues where it was.

The log grows in the folder ``.<name>.partial``, which becomes the artifact when it is complete;
``.<name>.partial.json`` records how far it is. A *mark* is set after every raw file: the number of rows written, the
values that are new in the vocabularies since the last mark (appended to one journal), and the state of the splits.
After the last file the second pass begins. It renumbers ids in place, and first copies the rows that it is about to
change.

A resumed log has the same bytes as one made without interruption. A mark is only used for the same columns, the same
parents and the same content of the files it covers. A mark between files survives a power failure. Work after the last
file survives the death of the process but not of the machine: after a reboot that part is done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fae.core.files import MANIFEST, temporary_path
from fae.core.npy import NpyWriter
from fae.core.whole_files import write_json
from fae.ingest.hex_vocabulary import HexVocabulary
from fae.ingest.provisional_ids import ColumnEncoder

ROW_FILES = ("ids", "dense", "labels")
_VALUES_AT_ONCE = 1 << 18
_VERSION = 1


def discard_progress(path: Path) -> None:
    """Remove what an interrupted ingest of the log `path` has kept."""
    with contextlib.suppress(OSError):
        _progress_file(path).unlink(missing_ok=True)
        temporary_path(_progress_file(path)).unlink(missing_ok=True)
    shutil.rmtree(_folder(path), ignore_errors=True)


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _progress_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial.json")


def _boot_id() -> str:
    """An id of this run of the machine, new after a reboot; empty if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class IngestProgress:
    """The unfinished log at `path`, and how far it is.

    Parameters
    ----------
    key
        JSON values that decide provisional ids and rows: columns, transforms, parents.
    sources
        One JSON value for each raw file, in log order, that identifies its content.

    Attributes
    ----------
    folder
        Folder in which the log grows.
    work
        Folder inside it for files that are not part of the log.
    num_done
        Raw files that need not be read again.
    state
        JSON values of the caller, kept with the next mark.
    phase
        ``reading``, ``numbering`` or ``done``.
    """

    def __init__(self, path: Path, key: Any, sources: Sequence[Any]) -> None:
        self._path, self._file = path, _progress_file(path)
        self._key, self._sources = json.loads(json.dumps(key)), json.loads(json.dumps(list(sources)))
        self.folder = _folder(path)
        self.work = self.folder / "work"
        self.num_done = 0
        self.phase = "reading"
        self.state: dict[str, Any] = {}
        self._marks: list[list[list[int]]] = []
        self._rows = 0
        self._row_bytes: list[int] = []
        self._saved: list[int] = []
        if not self._load():
            discard_progress(path)
        self.work.mkdir(parents=True, exist_ok=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.work / "scratch", ignore_errors=True)

    def _load(self) -> bool:
        """Load what an earlier process kept; return whether there is anything of this log."""
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return False
        if not isinstance(found, dict) or found.get("version") != _VERSION or found.get("key") != self._key:
            return False
        done = len(found["sources"])
        if found["sources"] != self._sources[:done] or (found["boot"] and found["boot"] != _boot_id()):
            return False
        if found["phase"] != "reading" and done != len(self._sources):
            return False
        needed = sum(size for mark in found["marks"] for _, size in mark)
        if found["phase"] == "reading" and _size(self.work / "journal") < needed:
            return False
        for name, num_bytes in zip(ROW_FILES, found["row_bytes"], strict=True):
            if _size(self.folder / f"{name}.npy") < num_bytes:
                return False
        self.num_done, self.phase, self.state = done, found["phase"], found["state"]
        self._marks, self._rows, self._row_bytes = found["marks"], found["rows"], found["row_bytes"]
        return True

    def open_rows(self, name: str, dtype: npt.DTypeLike, row_shape: tuple[int, ...]) -> NpyWriter:
        """Open the writer of one of `ROW_FILES`, positioned behind the rows of the last mark."""
        return NpyWriter(self.folder / f"{name}.npy", dtype, row_shape, num_rows=self._rows)

    def restore(self, encoders: Sequence[ColumnEncoder]) -> None:
        """Fill new vocabularies with the values of all marks, in their order."""
        self._saved = [_num_values(encoder) for encoder in encoders]
        if not self._marks:
            (self.work / "journal").write_bytes(b"")
            return
        with (self.work / "journal").open("r+b") as journal:
            for mark in self._marks:
                for index, (count, num_bytes) in enumerate(mark):
                    _add_values(encoders[index], journal.read(num_bytes), count)
            journal.truncate(journal.tell())
        self._saved = [_num_values(encoder) for encoder in encoders]

    def mark(self, encoders: Sequence[ColumnEncoder], writers: Sequence[NpyWriter], *, durable: bool) -> None:
        """Set a mark: another raw file is read and need not be read again.

        `durable` waits until everything is on the disk.
        """
        entries = []
        with (self.work / "journal").open("ab") as journal:
            for encoder, first in zip(encoders, self._saved, strict=True):
                begin = journal.tell()
                for start in range(first, _num_values(encoder), _VALUES_AT_ONCE):
                    journal.write(_values(encoder, start, min(start + _VALUES_AT_ONCE, _num_values(encoder))))
                entries.append([_num_values(encoder) - first, journal.tell() - begin])
            journal.flush()
            if durable:
                os.fsync(journal.fileno())
        if durable:
            for writer in writers:
                writer.sync()
        self._saved = [_num_values(encoder) for encoder in encoders]
        self._rows, self._row_bytes = writers[0].num_rows, [writer.num_bytes for writer in writers]
        self._marks.append(entries)
        self.num_done += 1
        self.save("reading", durable=durable)

    def save(self, phase: str, *, durable: bool = False) -> None:
        """Write to the disk how far the log is."""
        self.phase = phase
        facts = {
            "version": _VERSION, "key": self._key, "sources": self._sources[: self.num_done], "phase": phase,
            "boot": "" if durable else _boot_id(), "rows": self._rows, "row_bytes": self._row_bytes,
            "marks": self._marks, "state": self.state,
        }  # fmt: skip
        write_json(self._file, facts)

    def finish(self) -> None:
        """Record that only the manifest is missing, and remove everything that is not part of the log."""
        self.save("done")
        shutil.rmtree(self.work)

    def discard(self) -> None:
        """Remove everything that was kept: the log is complete, or was refused."""
        discard_progress(self._path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _num_values(encoder: ColumnEncoder) -> int:
    return 0 if encoder.vocabulary is None else encoder.vocabulary.size


def _values(encoder: ColumnEncoder, start: int, stop: int) -> bytes:
    """Values ``start .. stop - 1`` as bytes for the journal.

    Keys are int64. Text is the number of values (int64), the length of each (int32), and their bytes.
    """
    vocabulary = encoder.vocabulary
    if isinstance(vocabulary, HexVocabulary):
        return vocabulary.keys[start:stop].tobytes()
    assert vocabulary is not None
    lengths, text = vocabulary.text(start, stop)
    return np.array([stop - start], np.int64).tobytes() + lengths.tobytes() + text.tobytes()


def _add_values(encoder: ColumnEncoder, data: bytes, count: int) -> None:
    """Add values from the journal to a vocabulary; the inverse of `_values`."""
    vocabulary = encoder.vocabulary
    if vocabulary is None or not count:
        return
    if isinstance(vocabulary, HexVocabulary):
        keys = np.frombuffer(data, np.int64)
        for start in range(0, count, _VALUES_AT_ONCE):
            part = keys[start : start + _VALUES_AT_ONCE]
            vocabulary.encode_keys(part, np.empty(len(part), np.int32))
        return
    at = 0
    while at < len(data):
        number = int(np.frombuffer(data, np.int64, 1, at)[0])
        offsets = np.zeros(number + 1, np.int32)
        np.cumsum(np.frombuffer(data, np.int32, number, at + 8), out=offsets[1:])
        at += 8 + 4 * number
        text = pa.py_buffer(data[at : at + int(offsets[-1])])
        vocabulary.encode(pa.StringArray.from_buffers(number, pa.py_buffer(offsets), text))
        at += int(offsets[-1])
