"""An ingest that was interrupted goes on where it was: what is kept on the disk while a log is made, and when.

Place in the flow: beside ingest. The log grows in ``.<name>.partial``, which becomes the artifact when it is whole;
``.<name>.partial.json`` says how far it is. Behind every raw file a *mark* is set: the rows written, the values new to
the vocabularies since the mark before (one journal, appended), what the splits need. Behind the last file the second
pass begins; it renumbers ids in place, and keeps the rows it is about to change beside it until they are changed.

Invariants: a log that was resumed has the bytes of one that was not; a mark is only believed for the same columns, the
same parents and the same content of the files it covers. A mark between files survives a power failure. What comes
behind the last file survives the death of the process, not of the machine: after another boot that part is done again.
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

from fae.core.files import MANIFEST, being_written, write_json
from fae.core.npy import RowWriter
from fae.ingest.hex_vocabulary import HexVocabulary
from fae.ingest.provisional_ids import Column

ROW_FILES = ("ids", "dense", "labels")
_VALUES_AT_ONCE = 1 << 18
_VERSION = 1


def discard_partial(path: Path) -> None:
    """Remove what an interrupted ingest into `path` has kept."""
    with contextlib.suppress(OSError):
        _progress_file(path).unlink(missing_ok=True)
        being_written(_progress_file(path)).unlink(missing_ok=True)
    shutil.rmtree(_folder(path), ignore_errors=True)


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _progress_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial.json")


def _boot() -> str:
    """Names the time since the machine was started; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Partial:
    """The unfinished log at `path`.

    Parameters
    ----------
    key
        JSON values that shape provisional ids and rows: columns, transforms, parents.
    sources
        One JSON value for each raw file, in log order, that names its content.

    Attributes
    ----------
    folder
        Where the log grows.
    work
        A folder in it for files that are not part of the log.
    num_done
        Raw files that need not be read again.
    state
        Free for the caller: JSON values that are kept with the next mark.
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
        if not self._recall():
            discard_partial(path)
        self.work.mkdir(parents=True, exist_ok=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.work / "scratch", ignore_errors=True)

    def _recall(self) -> bool:
        """Take over what an earlier process left, if it is of this log."""
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return False
        if not isinstance(found, dict) or found.get("version") != _VERSION or found.get("key") != self._key:
            return False
        done = len(found["sources"])
        if found["sources"] != self._sources[:done] or (found["boot"] and found["boot"] != _boot()):
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

    def open_rows(self, name: str, dtype: npt.DTypeLike, width: int | None) -> RowWriter:
        """The writer of one of `ROW_FILES`, behind the rows of the last mark."""
        return RowWriter(self.folder / f"{name}.npy", dtype, width, num_rows=self._rows)

    def restore(self, columns: Sequence[Column]) -> None:
        """Fill fresh vocabularies with the values of all marks, in their order."""
        self._saved = [_num_values(column) for column in columns]
        if not self._marks:
            (self.work / "journal").write_bytes(b"")
            return
        with (self.work / "journal").open("r+b") as journal:
            for mark in self._marks:
                for index, (count, num_bytes) in enumerate(mark):
                    _enter(columns[index], journal.read(num_bytes), count)
            journal.truncate(journal.tell())
        self._saved = [_num_values(column) for column in columns]

    def mark(self, columns: Sequence[Column], writers: Sequence[RowWriter], *, durable: bool) -> None:
        """Another raw file is read: make sure that it need not be read again."""
        entries = []
        with (self.work / "journal").open("ab") as journal:
            for column, first in zip(columns, self._saved, strict=True):
                begin = journal.tell()
                for start in range(first, _num_values(column), _VALUES_AT_ONCE):
                    journal.write(_values(column, start, min(start + _VALUES_AT_ONCE, _num_values(column))))
                entries.append([_num_values(column) - first, journal.tell() - begin])
            journal.flush()
            if durable:
                os.fsync(journal.fileno())
        for writer in writers:
            writer.flush(durable=durable)
        self._saved = [_num_values(column) for column in columns]
        self._rows, self._row_bytes = writers[0].num_rows, [writer.num_bytes for writer in writers]
        self._marks.append(entries)
        self.num_done += 1
        self.save("reading", durable=durable)

    def save(self, phase: str, *, durable: bool = False) -> None:
        """Write how far the log is."""
        self.phase = phase
        facts = {
            "version": _VERSION, "key": self._key, "sources": self._sources[: self.num_done], "phase": phase,
            "boot": "" if durable else _boot(), "rows": self._rows, "row_bytes": self._row_bytes,
            "marks": self._marks, "state": self.state,
        }  # fmt: skip
        write_json(self._file, facts)

    def finish(self) -> None:
        """Everything is in place but the manifest: leave nothing in the folder that is not part of the log."""
        self.save("done")
        shutil.rmtree(self.work)

    def discard(self) -> None:
        """Remove it: the log is whole, or nothing of it is worth keeping."""
        discard_partial(self._path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _num_values(column: Column) -> int:
    return 0 if column.vocabulary is None else column.vocabulary.size


def _values(column: Column, start: int, stop: int) -> bytes:
    """Values ``start .. stop - 1``: keys as they are; text as lengths (int32) before bytes, under their number."""
    vocabulary = column.vocabulary
    if isinstance(vocabulary, HexVocabulary):
        return vocabulary.keys[start:stop].tobytes()
    assert vocabulary is not None
    lengths, text = vocabulary.text(start, stop)
    return np.array([stop - start], np.int64).tobytes() + lengths.tobytes() + text.tobytes()


def _enter(column: Column, data: bytes, count: int) -> None:
    vocabulary = column.vocabulary
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
