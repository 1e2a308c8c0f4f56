"""Read raw files in the format of a finished log, and encode them with its vocabulary, chunk by chunk.

The format, the columns and their settings come from the log's own manifest, so the recipe may be gone. Labels are not
needed. Inputs come in the order of the files and their lines.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.errors import LogError
from fae.core.progress import say, task
from fae.ingest.chunk_encoding import encode_rows
from fae.ingest.dense.dense_rules import dense_rules
from fae.ingest.readers.chunk import Chunk, CriteoChunk, NoInputsError
from fae.ingest.readers.dispatch import check_header, read_chunks
from fae.ingest.scored.encoded_inputs import EncodedInputs
from fae.ingest.scored.known_columns import KnownColumn
from fae.ingest.scored.scored_log import log_settings, reading_settings
from fae.ingest.sources import Role, find_sources, passing_over_empty
from fae.ingest.value_types.type_classes import check_types

_NAMED: dict[Role, str] = {"train": "FILE", "validation": "FILE", "test": "FILE"}


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
        found = find_sources(self.config, Path(), lines=lines, named=_NAMED)
        # A shell may have expanded a pattern, behind which a part may be empty.
        several = len(files) > 1
        self.sources = [dataclasses.replace(source, from_pattern=several or source.from_pattern) for source in found]
        for line in lines:
            say(line)
        self._keep, self._labelled = tuple(keep), labelled
        self._reading = reading_settings(self.config, self._keep)
        self._kept_schema: Any = None
        self._rules = dense_rules(self.config, log.manifest.summary.get("dense_constants"))
        self._types, self._log = log.manifest.summary.get("value_types"), log.path

    def stream(self, columns: Sequence[KnownColumn]) -> Generator[EncodedInputs, None, None]:
        """Yield all inputs as the run's ids, chunk by chunk.

        Raises
        ------
        LogError
            If a file cannot be read, is not what the log's settings say, or changed while it was read.
        """
        try:
            yield from self._stream(columns)
        except LogError as error:
            if "[log]" not in str(error):
                raise
            # What the readers advise is for a recipe, and there is none here.
            raise LogError(f"{error} (files to score are read as [log] of the run says)") from error

    def _stream(self, columns: Sequence[KnownColumn]) -> Generator[EncodedInputs, None, None]:
        config, labelled = self._reading, self._labelled or self.config.label_column() in self._keep
        for source in self.sources:
            with contextlib.suppress(NoInputsError):  # a part behind a pattern may be empty
                check_header(config, source.path, labelled=labelled)
        check_types(self.config, [source.path for source in self.sources], known=self._types, known_log=self._log)
        with task("reading and scoring", sum(source.num_bytes for source in self.sources), "bytes") as progress:
            for source in self.sources:
                is_empty = True
                with (
                    passing_over_empty(source),
                    closing(read_chunks(config, source.path, labelled=labelled)) as chunks,
                ):
                    for chunk in chunks:
                        yield self._encode(chunk, columns, source.path)
                        progress.advance(chunk.raw_bytes)
                        is_empty = False
                if is_empty:
                    say(f"{source.path} holds no inputs and is passed over")
                source.check_unchanged()

    def _encode(self, chunk: Chunk | CriteoChunk, columns: Sequence[KnownColumn], path: Path) -> EncodedInputs:
        kept = self._kept(chunk, path) if self._keep else None
        if isinstance(chunk, Chunk):
            own = chunk.categorical[: len(columns)]
            chunk = dataclasses.replace(chunk, categorical=own, label=chunk.label if self._labelled else None)
        rows = encode_rows(self.config, chunk, columns, self._rules)
        return EncodedInputs(ids=rows.ids, dense=rows.dense, labels=rows.labels, weights=rows.weights, kept=kept)

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
        # A column that is a part of a time has the time here, and none that is kept is one.
        columns = self._reading.categorical_columns()
        place = next(i for i, column in enumerate(columns) if column.name == name and column.from_ is None)
        column = _decoded(chunk.categorical[place])
        if self.config.format == "avazu" and name == "hour":  # the reader has split it into day and hour
            return pc.binary_join_element_wise(chunk.days, column, "")
        return column


def _decoded(array: Any) -> Any:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _types(schema: Any) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
