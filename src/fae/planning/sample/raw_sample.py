"""A sample of a raw log: smaller files of the same names, with lines from all parts of the large ones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.readers.dispatch import check_header
from fae.planning.sample.parquet_pieces import count_rows, take_rows_of
from fae.planning.sample.text_pieces import TextPieces, keep_lines, spans_lines, take_pieces, trim_users

if TYPE_CHECKING:
    from fae.ingest.sources import SourceFile

MOST_FILES = 64
"""Files that lines are taken of: at even distances, the first and the last among them."""
PIECES = 64
"""Pieces of all files together: each is a stretch of the log, and intervals follow from how they differ."""


@dataclass(frozen=True, kw_only=True)
class RawSample:
    """A sample of a raw log.

    Attributes
    ----------
    config
        The log's configuration, for the files of the sample.
    share
        Share of the log's text (of Parquet files: rows) that the sample has.
    num_bytes
        Bytes of the sample's files.
    num_files
        Files that it has lines of.
    is_spread, reaches_end
        Whether pieces begin in the middle of files, and whether they come from all parts of them.
    pieces
        Bytes and lines of every piece of text; empty for Parquet files, whose rows are known.
    folder
        Where the files are: a path below it is that of the raw file.
    """

    config: LogConfig
    share: float
    num_bytes: int
    num_files: int
    is_spread: bool
    reaches_end: bool
    pieces: tuple[tuple[int, int], ...]
    folder: Path

    def original(self, error: LogError) -> LogError:
        """An error of the sample's files as one of the raw files."""
        text = str(error).replace(str(self.folder), "")
        return type(error)(re.sub(r", line (\d+)", r", line \1 of the sample that a plan reads", text))


def sample_raw(
    config: LogConfig, sources: Sequence[SourceFile], folder: Path, read_bytes: int, *, from_begin: bool = False
) -> RawSample:
    """Write the files of a sample of about `read_bytes` bytes under `folder`.

    Raises
    ------
    LogError
        If a file cannot be read, or is not what the recipe says, as far as its first lines tell.
    """
    chosen = _chosen(sources)
    is_parquet = config.format == "parquet"
    for source in chosen:
        check_header(config, source.path)
    from_begin = from_begin or (not is_parquet and any(spans_lines(config, source.path) for source in chosen[:1]))
    total = sum(source.num_bytes for source in sources)
    of_chosen = sum(source.num_bytes for source in chosen)
    names: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    taken, whole, pieces, reaches_end = 0.0, 0.0, [], True
    for source in chosen:
        target = folder / str(source.path).lstrip("/")
        target = target.with_name(target.name.removesuffix(target.suffix) if _is_packed(target) else target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        share = source.num_bytes / of_chosen
        number = max(4, round(PIECES * share))
        if is_parquet:
            rows = count_rows(source.path)
            wanted = max(1, round(rows * min(1.0, read_bytes / (3.0 * of_chosen))))
            taken += take_rows_of(source.path, target, config, wanted, number)
            whole += rows
        else:
            found = _take(config, source.path, target, max(1, int(read_bytes * share)), number, from_begin)
            taken, whole = taken + found.num_bytes, whole + found.total_bytes
            pieces += found.sizes
            reaches_end = reaches_end and found.reaches_end
        names[source.role].append(str(target))
    share = taken / whole * of_chosen / total
    return RawSample(
        config=_config_of(config, names, share),
        share=share,
        num_bytes=sum(Path(name).stat().st_size for role in names.values() for name in role),
        num_files=len(chosen),
        is_spread=not from_begin and not is_parquet,
        reaches_end=reaches_end,
        pieces=tuple(pieces),
        folder=folder,
    )


def _take(config: LogConfig, path: Path, target: Path, quota: int, number: int, from_begin: bool) -> TextPieces:
    trim = trim_users if config.format == "taobao" else keep_lines
    with target.open("wb") as file:
        return take_pieces(path, file, quota, number, trim, from_begin=from_begin)


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() in (".gz", ".zst")


def _chosen(sources: Sequence[SourceFile]) -> list[SourceFile]:
    """At most `MOST_FILES` of the files, of each role the first and the last among them."""
    found: list[SourceFile] = []
    for role in ("train", "validation", "test"):
        of_role = [source for source in sources if source.role == role]
        most = max(2, MOST_FILES * len(of_role) // len(sources)) if of_role else 0
        if len(of_role) > most:
            of_role = [of_role[index * (len(of_role) - 1) // (most - 1)] for index in range(most)]
        found += of_role
    return found


def _config_of(config: LogConfig, names: dict[str, list[str]], share: float) -> LogConfig:
    """The configuration for the sample: its files, and rare values by the number that the sample has of them."""

    def scaled(minimum: int) -> int:
        return max(1, round(minimum * share))

    categorical = tuple(
        dataclasses.replace(column, min_frequency=scaled(column.min_frequency))
        if isinstance(column, ColumnConfig) and column.min_frequency is not None
        else column
        for column in config.categorical
    )
    return dataclasses.replace(
        config, train=tuple(names["train"]), validation=tuple(names["validation"]), test=tuple(names["test"]),
        categorical=categorical, min_frequency=scaled(config.min_frequency),
    )  # fmt: skip
