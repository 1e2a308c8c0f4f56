"""Read raw files in the format of a finished log, and encode them with its vocabulary, chunk by chunk.

The format, the columns and their settings come from the log's own manifest, so the recipe may be gone. Labels are not
needed. Inputs come in the order of the files and their lines.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.config import from_table, nearest
from fae.core.errors import ArtifactError, LogError, RecipeError
from fae.core.progress import say, task
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.first_pass import encode_rows
from fae.ingest.formats import CRITEO_FORMATS, KNOWN_LOGS
from fae.ingest.readers.chunk import Chunk, CriteoChunk, NoInputsError
from fae.ingest.readers.dispatch import check_header, read_chunks
from fae.ingest.scored.known_columns import KnownColumn
from fae.ingest.sources import Role, SourceFile, find_sources, passing_over_empty
from fae.ingest.value_types.type_classes import check_types

_DECIDED = (
    "train", "test", "test_fraction", "validation_fraction", "split", "split_by", "split_seed", "time",
)  # fmt: skip
"""Settings that say which inputs a log has and in which split: not those of the files to score."""
_NAMED: dict[Role, str] = {"train": "FILE", "test": "FILE"}


@dataclass(frozen=True, kw_only=True)
class ScoredLog(LogConfig):
    """The settings of a finished log, for files that are to be scored.

    Attributes
    ----------
    kept
        Columns that are read beside the log's own, to be copied into the result.
    """

    kept: tuple[str, ...] = ()

    def copied_columns(self) -> tuple[str, ...]:
        """Those kept that are no categorical columns of the log."""
        return self.kept

    def categorical_columns(self) -> tuple[ColumnConfig, ...]:
        """The log's columns, then those kept."""
        return (*super().categorical_columns(), *(ColumnConfig(name=name) for name in self.kept))


class RawInputs:
    """Raw files that are to be scored by a finished run.

    Parameters
    ----------
    log
        The run's columnar log.
    files
        Names and globs, in order, from the current folder on.
    keep
        Columns to copy as they are read.
    labelled
        Whether labels, and weights where the log has them, are read.

    Attributes
    ----------
    config
        The settings that the files are read by.
    sources
        The files.

    Raises
    ------
    ArtifactError
        If the log was not made from raw files.
    LogError
        If a file is missing or empty, or the log's format cannot be scored.
    RecipeError
        If `keep` names a column twice, or of a format whose columns have no text.
    """

    def __init__(
        self, log: ColumnarLog, files: Sequence[str], *, keep: Sequence[str] = (), labelled: bool = False
    ) -> None:
        self.config = log_settings(log, files, labelled=labelled)
        lines: list[str] = []
        self.sources: list[SourceFile] = find_sources(self.config, Path(), lines=lines, named=_NAMED)
        for line in lines:
            say(line)
        self._keep, self._labelled = tuple(keep), labelled
        self._reading = _with_kept(self.config, self._keep)
        self._kept_schema: Any = None

    def stream(self, columns: Sequence[KnownColumn]) -> Generator[EncodedInputs, None, None]:
        """Yield all inputs as the run's ids, chunk by chunk.

        Raises
        ------
        LogError
            If a file cannot be read, is not what the log's settings say, or changed while it was read.
        """
        config, labelled = self._reading, self._labelled or self.config.label_column() in self._keep
        for source in self.sources:
            with contextlib.suppress(NoInputsError):  # a part behind a pattern may be empty
                check_header(config, source.path, labelled=labelled)
        check_types(self.config, [source.path for source in self.sources])
        with task("reading and scoring", sum(source.num_bytes for source in self.sources), "bytes") as progress:
            for source in self.sources:
                with (
                    passing_over_empty(source),
                    closing(read_chunks(config, source.path, labelled=labelled)) as chunks,
                ):
                    for chunk in chunks:
                        yield self._encode(chunk, columns, source.path)
                        progress.advance(chunk.raw_bytes)
                source.check_unchanged()

    def _encode(self, chunk: Chunk | CriteoChunk, columns: Sequence[KnownColumn], path: Path) -> EncodedInputs:
        kept = self._kept(chunk, path) if self._keep else None
        if isinstance(chunk, Chunk):
            own = chunk.categorical[: len(columns)]
            chunk = dataclasses.replace(chunk, categorical=own, label=chunk.label if self._labelled else None)
        rows = encode_rows(self.config, chunk, columns)
        return EncodedInputs(ids=rows.ids, dense=rows.dense, labels=rows.labels, kept=kept)

    def _kept(self, chunk: Chunk | CriteoChunk, path: Path) -> Any:
        """The kept columns as a table, of one type in all files."""
        table = pa.table({name: self._kept_column(chunk, name) for name in self._keep})
        self._kept_schema = self._kept_schema or table.schema
        try:
            return table.cast(self._kept_schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise LogError(
                f"{path}: the columns of --keep are {_types(table.schema)}, and in the files before they are "
                f"{_types(self._kept_schema)} ({error}); score the files one by one"
            ) from error

    def _kept_column(self, chunk: Chunk | CriteoChunk, name: str) -> Any:
        assert isinstance(chunk, Chunk)
        if name == self.config.label_column():
            return _decoded(chunk.label)
        names = [column.name for column in self._reading.categorical_columns()]
        column = _decoded(chunk.categorical[names.index(name)])
        if self.config.format == "avazu" and name == "hour":  # the reader has split it into day and hour
            return pc.binary_join_element_wise(chunk.days, column, "")
        return column


@dataclass(frozen=True, kw_only=True)
class EncodedInputs:
    """Some consecutive inputs, n of them, as numbers of a finished run.

    Attributes
    ----------
    ids
        int32 ``[n, S]``: the run's ids, -1 in unused slots.
    dense
        float32 ``[n, K]``, transformed as the run's log is.
    labels
        uint8 ``[n]``; None where they are not read.
    kept
        Arrow table of the kept columns, n rows; None where none are kept.
    """

    ids: npt.NDArray[np.int32]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8] | None
    kept: Any

    def part(self, start: int, stop: int) -> EncodedInputs:
        """Inputs ``[start, stop)``, as views."""
        return EncodedInputs(
            ids=self.ids[start:stop],
            dense=self.dense[start:stop],
            labels=None if self.labels is None else self.labels[start:stop],
            kept=None if self.kept is None else self.kept.slice(start, stop - start),
        )


def log_settings(log: ColumnarLog, files: Sequence[str], *, labelled: bool) -> LogConfig:
    """The ``[log]`` settings that a log was made with, for other files; without weights where labels are not read.

    Raises
    ------
    ArtifactError
        If the log was not made from raw files.
    LogError
        If its format has no line for each input.
    """
    table = dict(log.manifest.parameters)
    if "format" not in table or not any(name.startswith("vocabulary/") for name in log.manifest.files):
        raise ArtifactError(
            f"{log.path} was not made from raw files (fae synthetic --columnar has no text), so there are no values to "
            "look up; score files of a run whose log came from `fae ingest`"
        )
    if table["format"] == "taobao":
        raise LogError(
            f"{log.path} is of format taobao, whose inputs are sampled from the behaviour of users, so a file has no "
            "line for each input to score; score files of a run over csv, parquet or jsonl with list columns"
        )
    known = {field.name for field in dataclasses.fields(LogConfig)} - {*_DECIDED, *(() if labelled else ("weight",))}
    table = {key: value for key, value in table.items() if key in known}
    if table["format"] in KNOWN_LOGS:  # its columns are fixed, and a recipe may not name them
        table = {key: value for key, value in table.items() if key not in ("categorical", "dense")}
    return from_table(LogConfig, {**table, "train": list(files), "test_fraction": 0.0}, f"{log.path}:")


def _with_kept(config: LogConfig, keep: Sequence[str]) -> LogConfig:
    for name in keep:
        if keep.count(name) > 1:
            raise RecipeError(f"--keep names {name!r} {keep.count(name)} times; name each column once")
    if keep and config.format in CRITEO_FORMATS:
        raise RecipeError(
            f"--keep {','.join(keep)}: files of format {config.format} have no named columns; leave it out"
        )
    own = [config.label_column(), *(column.name for column in config.categorical_columns())]
    if config.columns:
        for name in keep:
            if name not in config.columns:
                raise RecipeError(f"--keep {name!r} is no column of the files; {nearest(name, config.columns)}")
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(LogConfig)}
    return ScoredLog(**fields, kept=tuple(name for name in keep if name not in own))


def _decoded(array: Any) -> Any:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _types(schema: Any) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
