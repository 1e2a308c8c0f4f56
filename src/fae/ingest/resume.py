"""Keep what ingest has done on the disk, so that an interrupted ingest continues where it was.

The log grows in the folder ``.<name>.partial``, which becomes the artifact when it is complete;
``.<name>.partial.json`` records how far it is. While the log is read, the folder ``work/parts`` has a part for each
shard that is read (`fae.ingest.shards.shard_files`). When all are joined, the record has the number of rows, and a
journal the values of all vocabularies. Then the second pass begins. It writes final ids to a file of their own
(`fae.ingest.numbering.renumbering`); the provisional ones are in the parts until then, or in ``ids.npy`` where the log
is ordered.

A resumed log has the same bytes as one made without interruption. What was kept is only used for the same columns, the
same parents and the same content of the file or files that it covers, and only if every byte of it is still what was
written: parts, rows, journal and record have checksums, and so has every step of the second pass. Anything else in the
folder is removed. After a power failure, what reached the disk is used, and what did not is found by its checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.checksums import file_checksum, join_checksums, remember_written
from fae.core.errors import ArtifactError
from fae.core.npy import HEADER_BYTES, NpyWriter
from fae.core.progress import say
from fae.core.threads import run_jobs
from fae.core.whole_files import read_json, write_durably
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.shards.kept_parts import KeptParts
from fae.ingest.shards.unfinished_paths import discard_progress, progress_file, unfinished_folder

FINAL_IDS, RENUMBERED = "final.npy", "renumbered.npy"
"""In the folder ``work``: the final id of each provisional one, of all tables; and the final ids of all rows."""
PART_MAPS = "part_maps.npy"
"""In the folder ``work``: the provisional ids of each part's own ids (`fae.ingest.numbering.part_ids`)."""
_VERSION = 5


class _Damaged(Exception):
    """What was kept is not what was written; the text names the file."""


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
    parts
        What was read of shards.
    parts_of_ids
        Folder and facts of each part in log order, where the rows of ids are in the parts of a log that is read; None
        where they are in ``ids.npy``.
    is_read
        Whether all rows are written, or are in parts, so that no raw file need be read again.
    is_at_end
        Whether this process has all parts of the log, written or not.
    state
        JSON values of the caller, kept with the next mark.
    phase
        ``reading``, ``numbering`` or ``done``.
    files
        In phase ``done``: the files of the log with their checksums, as for its manifest.

    Raises
    ------
    ArtifactError
        If something that ingest did not make is in the place of its folder.
    """

    def __init__(self, path: Path, key: Any, sources: Sequence[Any]) -> None:
        self._path, self._file = path, progress_file(path)
        self._key, self._sources = _digest(key), [_digest(source) for source in sources]
        self.folder = unfinished_folder(path)
        self.work = self.folder / "work"
        self.parts = KeptParts(self.work / "parts", self._sources)
        self.parts_of_ids: list[tuple[Path, dict[str, Any]]] | None = None
        self.is_read = self.is_at_end = False
        self.phase = "reading"
        self.state: dict[str, Any] = {}
        self.files: dict[str, dict[str, Any]] = {}
        self._row_files: dict[str, list[int]] = {}  # name: bytes, checksum of the rows, of the header
        self._journal = [0, 0]  # bytes, checksum
        self._kept: dict[str, list[Any]] = {}  # whole files of the second pass: bytes, checksum
        if not self._load():
            discard_progress(path)
        if not self.folder.is_dir() and self.folder.exists():
            raise ArtifactError(
                f"{self.folder} is no folder, and ingest keeps there what it has read; move it away, or choose another "
                "folder with --out"
            )
        self.work.mkdir(parents=True, exist_ok=True)
        self._remove_others()
        if self.parts_of_ids is not None:
            self.parts.drop_rows(self.parts_of_ids, but="ids")
        if self.phase == "reading" and not self.is_read:
            self.parts.check(self._say_damaged)

    def _load(self) -> bool:
        """Load and check what an earlier process kept; return whether there is anything of this log."""
        try:
            found = read_json(self._file)
            if not isinstance(found, dict):
                raise ValueError("no object")
            if found.get("version") != _VERSION and type(found.get("version")) is int:
                return False  # of another version of FAE
            if found.pop("digest", "") != _digest(found):
                raise ValueError("its digest does not match")
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            self._say_damaged(self._file.name)
            return False
        if found["key"] != self._key:
            return False
        if not found["is_read"]:
            return all(
                folder.is_dir() and not folder.is_symlink() for folder in (self.folder, self.work, self.parts.folder)
            )
        if found["sources"] != self._sources_digest():
            return False
        self.is_read = self.is_at_end = True
        self.phase, self.state, self.files = found["phase"], found["state"], found["files"]
        self._row_files, self._journal = found["row_files"], found["journal"]
        self._kept = found["kept"]
        try:
            self._check()
        except (_Damaged, OSError, ValueError) as error:
            self._say_damaged(str(error) or "a file")
            self.is_read, self.is_at_end, self.parts_of_ids = False, False, None
            self.phase, self.state, self.files = "reading", {}, {}
            self._row_files, self._journal, self._kept = {}, [0, 0], {}
            return False
        return True

    def _say_damaged(self, what: str, how: str = "reading the log anew") -> None:
        say(f"ingest: what an interrupted ingest has kept in {self.folder} is damaged or was changed ({what}); {how}")

    def _check(self) -> None:
        """Compare everything that was kept with its checksums."""
        _require(self.folder, stat.S_ISDIR)
        if self.phase == "done":
            self._take_final_ids()
            wanted = [(name, facts["bytes"], facts["crc32"], 0) for name, facts in self.files.items()]
        elif self.phase == "numbering":
            rows = [
                (f"{name}.npy", size, f"{checksum:08x}", HEADER_BYTES)
                for name, (size, checksum, _) in self._row_files.items()
            ]
            kept = {**self._kept, "work/journal": self._journal}
            wanted = [*rows, *((name, size, f"{checksum:08x}", 0) for name, (size, checksum) in kept.items())]
        else:
            wanted = [
                (f"{name}.npy", size, f"{checksum:08x}", HEADER_BYTES)
                for name, (size, checksum, _) in self._row_files.items()
            ]
            kept = {**self._kept, "work/journal": self._journal}
            wanted += [(name, size, f"{checksum:08x}", 0) for name, (size, checksum) in kept.items()]
        if self.phase != "done":
            _require(self.work, stat.S_ISDIR)

        def job(name: str, size: int, checksum: str, first: int) -> Callable[[], None]:
            def check() -> None:
                path = self.folder / name
                _require(path.parent, stat.S_ISDIR)
                _require(path, stat.S_ISREG)
                there = path.stat().st_size
                if there < size or (there > size and self.phase != "reading"):
                    raise _Damaged(name)
                if file_checksum(path, first, size) != checksum:
                    raise _Damaged(name)

            return check

        run_jobs([job(*each) for each in wanted])
        if self.phase != "done" and "parts" in self.state:
            self.parts_of_ids = self.parts.with_ids(self.state["parts"])
            if self.parts_of_ids is None:
                raise _Damaged(self.parts.folder.name)
        for name, (_, _, header) in self._row_files.items() if self.phase != "done" else ():
            if _header_checksum(self.folder / f"{name}.npy") != header:
                raise _Damaged(f"{name}.npy")
        if self.phase == "numbering":
            for name in (RENUMBERED, "numbered"):
                if os.path.lexists(self.work / name):
                    _require(self.work / name, stat.S_ISREG)

    def _remove_others(self) -> None:
        """Remove what is not part of what was kept: links, and what a killed process left half written."""
        rows = {f"{name}.npy" for name in self._row_files}
        expected = {
            "reading": {*rows, *self._kept, "work/journal"} if self.is_read else set(),
            "numbering": {*rows, *self._kept, "work/journal", f"work/{RENUMBERED}", "work/numbered"},
            "done": set(self.files),
        }[self.phase]
        folders = {str(Path(name).parent) for name in expected} | ({"work"} if self.phase != "done" else set())
        has_parts = self.phase != "done" and not (self.is_read and self.parts_of_ids is None)
        parts = () if not has_parts else (str(self.parts.folder.relative_to(self.folder)),)
        for place, names, leaves in os.walk(self.folder):
            for name in (*names, *leaves):
                path = Path(place) / name
                known = str(path.relative_to(self.folder))
                if path.is_dir() and not path.is_symlink():
                    if known not in folders and known not in parts:
                        with contextlib.suppress(FileNotFoundError):  # a process that still runs removes its own files
                            shutil.rmtree(path)
                elif known not in expected:
                    path.unlink(missing_ok=True)
            kept = [Path(place) / name for name in names]
            names[:] = [path.name for path in kept if path.is_dir() and str(path.relative_to(self.folder)) not in parts]

    @property
    def has_anything(self) -> bool:
        """Whether anything of the log is read."""
        return self.is_read or self.parts.count > 0

    def describe(self) -> str:
        """What is read, for messages."""
        return "all of the log is read" if self.is_read else self.parts.describe()

    def keep_parts(self) -> None:
        """Record that parts are kept from now on."""
        self.parts.folder.mkdir(exist_ok=True)
        self.save("reading")

    def open_rows(self, name: str, dtype: npt.DTypeLike, row_shape: tuple[int, ...]) -> NpyWriter:
        """Open the writer of the array of rows ``<name>.npy``; what the log does not keep is named ``work/<name>``."""
        return NpyWriter(self.folder / f"{name}.npy", dtype, row_shape)

    @property
    def row_names(self) -> list[str]:
        """Names of the arrays of rows, as `open_rows` takes them, once they are written."""
        return list(self._row_files)

    def replace_rows(self, written: Mapping[str, NpyWriter], *, dropped: Sequence[str] | None = None) -> None:
        """Put arrays of rows that were written anew in the place of the old ones, and drop others.

        A process that is killed in here leaves rows that do not have their checksums, and the log is read anew.

        Parameters
        ----------
        written
            From the name of an array to its closed writer; its rows are on the disk.
        dropped
            Names of the arrays to drop; None drops all others.
        """
        for name, writer in written.items():
            writer.path.replace(self.folder / f"{name}.npy")
        dropped = [name for name in self._row_files if name not in written] if dropped is None else dropped
        self._row_files |= {name: self._facts_of(name, writer) for name, writer in written.items()}
        self._row_files = {name: facts for name, facts in self._row_files.items() if name not in dropped}
        self.save("reading")
        for name in dropped:
            (self.folder / f"{name}.npy").unlink(missing_ok=True)

    def _facts_of(self, name: str, writer: NpyWriter) -> list[int]:
        """Bytes, crc32 of the rows and of the header of a closed writer's file, which is in its place."""
        return [writer.num_bytes, writer.checksum, _header_checksum(self.folder / f"{name}.npy")]

    def restore(self, encoders: Sequence[ColumnEncoder]) -> None:
        """Fill new vocabularies with the values of a log that is read."""
        with (self.work / "journal").open("rb") as journal:
            head = np.frombuffer(journal.read(16 * len(encoders)), np.int64).reshape(-1, 2)
            for encoder, (count, num_bytes) in zip(encoders, head.tolist(), strict=True):
                encoder.restore_values(journal.read(num_bytes), count)

    def keep_ids_of(
        self, parts: Sequence[tuple[Path, dict[str, Any]]], facts_checksums: Sequence[str], maps: tuple[int, int]
    ) -> None:
        """Leave the rows of ids in these parts when the log is marked as read.

        Parameters
        ----------
        facts_checksums
            Hex crc32 of the facts of each.
        maps
            Bytes and crc32 of `PART_MAPS`.
        """
        self.parts_of_ids = [*parts]
        names = (path.name for path, _ in parts)
        self.state["parts"] = [[*each] for each in zip(names, facts_checksums, strict=True)]
        self._kept[f"work/{PART_MAPS}"] = [*maps]

    def mark_read(self, encoders: Sequence[ColumnEncoder], writers: Sequence[NpyWriter]) -> None:
        """Record that all rows are written, and the values of all vocabularies."""
        checksum, head = 0, np.zeros((len(encoders), 2), np.int64)
        with (self.work / "journal").open("wb") as journal:
            journal.write(head.tobytes())
            for index, encoder in enumerate(encoders):
                begin = journal.tell()
                for data in encoder.saved_values(0, encoder.num_values):
                    journal.write(data)
                    checksum = zlib.crc32(data, checksum)
                head[index] = encoder.num_values, journal.tell() - begin
            size = journal.tell()
            journal.seek(0)
            journal.write(head.tobytes())
        sizes = [head.nbytes, size - head.nbytes]
        self._journal = [size, join_checksums([zlib.crc32(head.tobytes()), checksum], sizes)]
        names = [str(writer.path.relative_to(self.folder).with_suffix("")) for writer in writers]
        self._row_files = {name: self._facts_of(name, writer) for name, writer in zip(names, writers, strict=True)}
        self.is_read = True
        self.save("reading")

    def begin_numbering(self) -> None:
        """Record that everything but the final ids is written; later processes continue with the second pass."""
        for name in (RENUMBERED, "numbered"):
            (self.work / name).unlink(missing_ok=True)
        for name in ("counts.npy", f"work/{FINAL_IDS}"):
            self._kept[name] = [(self.folder / name).stat().st_size, int(file_checksum(self.folder / name), 16)]
        self.save("numbering")

    def save(self, phase: str) -> None:
        """Write to the disk how far the log is."""
        self.phase = phase
        facts = {
            "version": _VERSION, "key": self._key, "sources": self._sources_digest(), "is_read": self.is_read,
            "phase": phase, "row_files": self._row_files,
            "journal": self._journal, "kept": self._kept, "files": self.files,
            "state": self.state,
        }  # fmt: skip
        write_durably(self._file, json.dumps({**facts, "digest": _digest(facts)}))

    def finish(self, ids_checksum: int, others: Mapping[str, Sequence[int]]) -> None:
        """Record that only the manifest is missing, and remove everything that is not part of the log.

        Parameters
        ----------
        ids_checksum
            crc32 of the final ids.
        others
            Bytes and crc32 of each file that was written beside them.
        """
        kept = {**self._kept, **others}
        header = _header_checksum(self.work / RENUMBERED)
        self._row_files["ids"] = [(self.work / RENUMBERED).stat().st_size, ids_checksum, header]
        checksums = {
            f"{name}.npy": join_checksums([header, rows], [HEADER_BYTES, size - HEADER_BYTES])
            for name, (size, rows, header) in self._row_files.items()
        }
        checksums |= {name: checksum for name, (_, checksum) in kept.items()}
        sizes = {f"{name}.npy": size for name, (size, _, _) in self._row_files.items()}
        sizes |= {name: size for name, (size, _) in kept.items()}
        self.files.update({
            name: {"bytes": sizes[name], "crc32": f"{checksums[name]:08x}"}
            for name in sorted(checksums) if not name.startswith("work/")
        })  # fmt: skip
        self.save("done")
        self._take_final_ids()
        self.parts.remove()
        self._remove_others()
        remember_written(self.folder, self.files)

    def _take_final_ids(self) -> None:
        """Put the final ids into the place of the provisional ones."""
        with contextlib.suppress(FileNotFoundError):
            (self.work / RENUMBERED).replace(self.folder / "ids.npy")

    def discard(self) -> None:
        """Remove everything that was kept: the log is complete, or was refused."""
        self.parts.wait()
        discard_progress(self._path)

    def _sources_digest(self) -> str:
        return hashlib.blake2b("".join(self._sources).encode(), digest_size=16).hexdigest()


def _digest(value: Any) -> str:
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _header_checksum(path: Path) -> int:
    with path.open("rb") as file:
        return zlib.crc32(file.read(HEADER_BYTES))


def _require(path: Path, kind: Callable[[int], bool]) -> None:
    if not kind(path.lstat().st_mode):
        raise _Damaged(path.name)
