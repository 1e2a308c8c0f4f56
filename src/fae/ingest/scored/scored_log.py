"""The ``[log]`` settings of a finished log, taken from its manifest, for files that are to be scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.config import from_table, nearest
from fae.core.errors import ArtifactError, LogError, RecipeError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.formats import CRITEO_FORMATS, KNOWN_LOGS

_DECIDED = (
    "train", "validation", "test", "test_fraction", "validation_fraction", "split", "split_by", "split_seed", "time",
)  # fmt: skip
"""Settings that say which inputs a log has and in which split: not those of the files to score."""


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


def reading_settings(config: LogConfig, keep: Sequence[str]) -> LogConfig:
    """The same settings with columns to copy.

    Raises
    ------
    RecipeError
        If `keep` names a column twice, one that is not there, or one of a format whose columns have no names.
    """
    for name in keep:
        if keep.count(name) > 1:
            raise RecipeError(f"--keep names {name!r} {keep.count(name)} times; name each column once")
    if keep and config.format in CRITEO_FORMATS:
        raise RecipeError(
            f"--keep {','.join(keep)}: files of format {config.format} have no named columns; leave it out"
        )
    columns = [column.name for column in config.categorical_columns() if column.from_ is None]
    own = [config.label_column(), *columns]
    if config.columns:
        for name in keep:
            if name not in config.columns:
                raise RecipeError(f"--keep {name!r} is no column of the files; {nearest(name, config.columns)}")
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(LogConfig)}
    return ScoredLog(**fields, kept=tuple(name for name in keep if name not in own))
