"""The file of scores that ``fae predict`` writes: Parquet or CSV, whole or not at all, one line an input.

Kept columns come first, as they were read, and then ``score``, float64: the probability of label 1. A file is only
replaced where the same command would have written it: a Parquet file by its metadata, a CSV file by its header.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import cannot_write, temporary_path

SCORE = "score"
_MARK = b"fae.checkpoint"
"""Key of the Parquet metadata: the fingerprint of the checkpoint that scored."""
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
        self._writer: Any = None
        try:
            self._check_replaceable()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        except OSError as error:
            raise cannot_write(path, error) from error

    def _check_replaceable(self) -> None:
        if not self.path.exists() and not self.path.is_symlink():
            return
        if not self.path.is_file() or not self._is_ours():
            raise ArtifactError(
                f"{self.path} is there and was not written by this command; move it away, or choose another --out"
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
        table = pa.table({**columns, SCORE: pa.array(scores)})
        try:
            if self._writer is None:
                self._schema = table.schema.with_metadata({_MARK: self._checkpoint.encode()})
                self._writer = self._open()
            self._writer.write_table(table)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _open(self) -> Any:
        if self.path.suffix == ".csv":
            # A header of our own: pyarrow's is quoted.
            file = self._temporary.open("wb")
            file.write(_csv_header(self._schema.names) + b"\n")
            options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
            return _CsvFile(file, pyarrow.csv.CSVWriter(file, self._schema, write_options=options))
        return pq.ParquetWriter(self._temporary, self._schema, compression="zstd")

    def close(self) -> None:
        """Finish the file under its own name.

        Raises
        ------
        ArtifactError
            If it cannot be written.
        """
        try:
            if self._writer is not None:
                self._writer.close()
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
            self._temporary.replace(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def discard(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> ScoreFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if self._temporary.exists():
                self.discard()


class _CsvFile:
    """A CSV writer and the file that it writes to, closed together."""

    def __init__(self, file: Any, writer: Any) -> None:
        self._file, self._writer = file, writer

    def write_table(self, table: Any) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def _csv_header(names: Sequence[str]) -> bytes:
    """The header line, without its end; names are quoted where they must be."""
    return ",".join('"' + n.replace('"', '""') + '"' if set(n) & set(',"\r\n') else n for n in names).encode()
