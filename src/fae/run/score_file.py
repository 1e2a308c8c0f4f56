"""The file of scores that ``fae predict`` writes: Parquet or CSV, whole or not at all, one line an input.

Kept columns come first, as they were read, and then ``score``, float64: the probability of label 1. A file is only
replaced where the same command would have written it: a Parquet file by its metadata, a CSV file by its header.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import cannot_write, sync_folder, temporary_path

SCORE = "score"
_MARK = b"fae.checkpoint"
"""Key of the Parquet metadata: the fingerprint of the checkpoint that scored."""
_ROWS_PER_GROUP = 1 << 17
_SUFFIXES = (".parquet", ".csv")


class ScoreFile:
    """Writes scores under a temporary name; `close` renames it. As a context manager it closes or discards.

    Parameters
    ----------
    path
        Its suffix, ``.parquet`` or ``.csv``, says the format. The folder is made.
    keep
        Names of the kept columns.
    checkpoint
        Fingerprint of the checkpoint that scores, for the metadata of a Parquet file.

    Raises
    ------
    RecipeError
        If the suffix is another one, or a kept column is called ``score``.
    ArtifactError
        If the path cannot be written, or has a file that no ``fae predict`` wrote.
    """

    def __init__(self, path: Path, keep: Sequence[str], checkpoint: str) -> None:
        if path.suffix not in _SUFFIXES:
            raise RecipeError(f"--out {path} must end in {' or '.join(_SUFFIXES)}, which says the format")
        if SCORE in keep:
            raise RecipeError(f"--keep names {SCORE!r}, which is the name of the scores; leave it out")
        self.path, self._temporary = path, temporary_path(path)
        self._keep, self._checkpoint = tuple(keep), checkpoint
        self._schema: Any = None
        self._waiting: list[Any] = []
        self._num_waiting = 0
        self._writer: Any = None
        try:
            self._check_replaceable()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(self._temporary, path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _check_replaceable(self) -> None:
        if not self.path.exists() and not self.path.is_symlink():
            return
        if not self.path.is_file() or not self._is_ours():
            # The same command with other kept columns has another first line.
            is_csv = self.path.suffix == ".csv" and self.path.is_file()
            ours = f" (whose first line is {_csv_header((*self._keep, SCORE)).decode()})" if is_csv else ""
            raise ArtifactError(
                f"{self.path} is there and was not written by this command{ours}; move it away, or choose another --out"
            )

    def _is_ours(self) -> bool:
        if self.path.suffix == ".csv":
            with self.path.open("rb") as file:
                return file.readline(1 << 20).rstrip(b"\r\n") == _csv_header((*self._keep, SCORE))
        try:
            return _MARK in (pq.read_schema(self.path).metadata or {})
        except pa.ArrowException:
            return False

    def write(self, kept: Any, scores: npt.NDArray[np.float64]) -> None:
        """Append rows: an Arrow table of the kept columns (None without any), and their scores ``[n]``.

        Raises
        ------
        ArtifactError
            If it cannot be written.
        """
        columns = dict(zip(self._keep, kept.columns, strict=True)) if self._keep else {}
        self._waiting.append(pa.table({**columns, SCORE: pa.array(scores)}))
        self._num_waiting += len(scores)
        if self._num_waiting >= _ROWS_PER_GROUP:
            self._write_waiting()

    def _write_waiting(self) -> None:
        table = pa.concat_tables(self._waiting)
        self._waiting, self._num_waiting = [], 0
        try:
            if self._writer is None:
                self._schema = table.schema.with_metadata({_MARK: self._checkpoint.encode()})
                self._writer = self._open()
            self._writer.write_table(table)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            types = ", ".join(f"{field.name} {field.type}" for field in table.schema if field.name in self._keep)
            raise RecipeError(
                f"--keep: columns of types {types} cannot be written as {self.path.suffix} ({error}); write .parquet, "
                "or leave the column out"
            ) from error

    def _open(self) -> Any:
        if self.path.suffix == ".csv":
            self._file.write(_csv_header(self._schema.names) + b"\n")
            return _CsvWriter(self._file)
        return pq.ParquetWriter(self._file, self._schema, compression="zstd")

    def close(self) -> None:
        """Finish the file under its own name.

        Raises
        ------
        ArtifactError
            If it cannot be written.
        """
        if self._waiting:
            self._write_waiting()
        try:
            if self._writer is not None:
                self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._temporary.replace(self.path)
            self._file.close()
            sync_folder(self.path.parent)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError, pa.ArrowException):
            if self._writer is not None:
                self._writer.close()
        self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> ScoreFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if not self._file.closed:
                self.discard()


class _CsvWriter:
    """Writes tables as CSV, with quotes only where a value needs them (pyarrow's writer quotes every text)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write_table(self, table: Any) -> None:
        columns = [_csv_values(column.combine_chunks()) for column in table.columns]
        lines = pc.binary_join_element_wise(*columns, ",") if len(columns) > 1 else columns[0]
        self._file.write("".join(line + "\n" for line in lines.to_pylist()).encode())

    def close(self) -> None:
        self._file.flush()


def _csv_values(column: Any) -> Any:
    text = column.cast(pa.string()).fill_null("")
    special = pc.match_substring_regex(text, '[",\r\n]')
    if not pc.any(special, min_count=0).as_py():
        return text
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(special, quoted, text)


def _open_locked(temporary: Path, path: Path) -> BinaryIO:
    """Open an empty file under its temporary name; refused where another process is writing it."""
    file = os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have renamed it between our opening and our lock.
        is_ours = temporary.exists() and os.path.samestat(os.fstat(file.fileno()), temporary.stat())
    except BlockingIOError:
        is_ours = False
    except OSError:  # a disk without locks
        is_ours = True
    if not is_ours:
        file.close()
        raise ArtifactError(f"another process is writing {path}; wait for it, or choose another --out")
    file.truncate()
    return file


def _csv_header(names: Sequence[str]) -> bytes:
    """The header line, without its end; names are quoted where they must be."""
    return ",".join('"' + n.replace('"', '""') + '"' if set(n) & set(',"\r\n') else n for n in names).encode()


def scored_by(path: Path) -> str | None:
    """Fingerprint of the checkpoint that wrote a file of scores; "" for a CSV file, which does not say; else None."""
    try:
        if path.suffix == ".csv":
            with path.open("rb") as file:
                header = file.readline(1 << 20).rstrip(b"\r\n")
            return "" if header == _csv_header((SCORE,)) or header.endswith(b"," + _csv_header((SCORE,))) else None
        if path.suffix == ".parquet":
            mark = (pq.read_schema(path).metadata or {}).get(_MARK)
            return None if mark is None else mark.decode()
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        pass
    return None
