"""`fae inspect`: what the columns of raw files hold, from a bounded sample, before anything is made of them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fae.core.errors import LogError, RecipeError
from fae.core.progress import say, task
from fae.ingest.config import LogConfig
from fae.ingest.formats import KNOWN_LOGS
from fae.ingest.scratch import Scratch
from fae.ingest.sources import Role, find_sources
from fae.inspect.column_counts import ColumnCounts
from fae.inspect.column_kinds import ColumnGuess, guess_column
from fae.inspect.label_guess import LabelGuess, guess_label
from fae.inspect.raw_format import RawFormat, recognise
from fae.inspect.sampled_tables import Sample, Table, read_sample

DEFAULT_LINES = 200_000
TEST_SHARE = 0.1
"""The last share of the inputs that are read, whose values are looked up among those before."""
_MOST_FILES = 20
"""Files that are looked into unless all lines are wanted: the first, the last and some between."""
_SCRATCH_BYTES = 2**30
_NAMED: dict[Role, str] = {"train": "FILE", "validation": "FILE", "test": "FILE"}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a look at raw files has found.

    Attributes
    ----------
    names
        The files as they were named.
    files, samples
        The files that were looked into, and what was read of each.
    num_files, num_bytes
        Number and bytes of all files.
    shape
        How the files are written.
    columns
        In the order of the files.
    everywhere
        Names of the columns that all files have.
    label
        None where no column looks like one.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]
    samples: tuple[Sample, ...]
    num_files: int
    num_bytes: int
    shape: RawFormat
    columns: tuple[ColumnGuess, ...]
    everywhere: frozenset[str]
    label: LabelGuess | None

    @property
    def lines_read(self) -> int:
        """Inputs that were read."""
        return sum(sample.lines_read for sample in self.samples)

    @property
    def is_whole(self) -> bool:
        """Whether every input of every file was read."""
        return self.num_files == len(self.files) and all(sample.whole for sample in self.samples)

    @property
    def num_lines(self) -> int:
        """Inputs of all files: exact where all were read or the files say it, else estimated."""
        if self.is_whole:
            return self.lines_read
        looked_at = sum(file.stat().st_size for file in self.files)
        return round(sum(sample.total_lines for sample in self.samples) * self.num_bytes / max(1, looked_at))

    @property
    def odd_lines(self) -> int:
        """Lines that are no inputs."""
        return sum(sample.odd_lines for sample in self.samples)


def inspect_files(
    names: Sequence[str], *, most_lines: int | None = DEFAULT_LINES, label: str | None = None
) -> Inspection:
    """Look at raw files: what they are, and what their columns hold.

    Parameters
    ----------
    names
        Files and globs, from the current folder on.
    most_lines
        Inputs to read, over all files; None reads all.
    label
        The label's column, where it is known.

    Raises
    ------
    LogError
        If there is no such file, it is no log, files are written in different ways, or none holds an input.
    RecipeError
        If `label` is no column with labels, or `most_lines` is not positive.
    """
    if most_lines is not None and most_lines < 1:
        raise RecipeError(f"--lines {most_lines} must be a whole number from 1 on, or all")
    paths, num_bytes = _find(names)
    looked_at = paths if most_lines is None else _some(paths)
    shapes = [recognise(path) for path in looked_at]
    _check_alike(looked_at, shapes)
    quota = None if most_lines is None else max(1, most_lines // len(looked_at))
    with tempfile.TemporaryDirectory(prefix="fae-inspect-") as folder:
        scratch = Scratch(Path(folder), _SCRATCH_BYTES)
        reader = _Reader(looked_at, shapes, quota, scratch)
        counts = reader.count()
        samples = reader.samples
        stored = {name: kind for sample in samples for name, kind in sample.stored.items()}
        lists = {name for sample in samples for name in sample.lists}
        refused = {name: why for sample in samples for name, why in sample.refused.items()}
        columns = [
            guess_column(
                name, each.finish(), stored=stored.get(name, ""), is_list=name in lists, num_files=len(looked_at)
            )
            for name, each in counts.items()
        ]
        scratch.close()
    if not sum(sample.lines_read for sample in samples):
        raise LogError(_no_inputs(looked_at, shapes, sum(sample.odd_lines for sample in samples)))
    columns = [
        dataclasses.replace(column, kind="not read", why=refused[column.name]) if column.name in refused else column
        for column in columns
    ]
    columns += [
        ColumnGuess(name=name, kind="not read", values=ColumnCounts(name, Scratch(Path(), 2**20)).finish(), why=why)
        for name, why in refused.items()
        if name not in counts
    ]
    columns = _by_format(shapes[0], columns)
    found = None if shapes[0].name == "taobao" else guess_label(columns, label or _known_label(shapes[0]))
    if found is not None:
        columns = [
            dataclasses.replace(column, kind="label") if column.name == found.name else column for column in columns
        ]
    everywhere = frozenset.intersection(*(frozenset(each.columns) for each in shapes))
    if shapes[0].name == "jsonl":
        everywhere = frozenset(counts)
    return Inspection(
        names=tuple(names), files=tuple(looked_at), samples=tuple(samples), num_files=len(paths), num_bytes=num_bytes,
        shape=shapes[0], columns=tuple(columns), everywhere=everywhere, label=found,
    )  # fmt: skip


def _no_inputs(paths: Sequence[Path], shapes: Sequence[RawFormat], odd_lines: int) -> str:
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and the other files"
    if odd_lines and shapes[0].name == "csv":
        number = len(shapes[0].columns)
        fields = "1 field" if number == 1 else f"{number:,} fields"
        return f"{where}: line 1 has {fields}, and no line behind it has as many; take out what is above the header"
    if odd_lines:
        return f"{where}: none of the {odd_lines:,} lines is a JSON object; write one a line"
    return f"{where} holds no inputs, a header at most; name a file that holds some"


def _find(names: Sequence[str]) -> tuple[list[Path], int]:
    lines: list[str] = []
    config = LogConfig(train=tuple(names), categorical=("any",))
    sources = find_sources(config, Path(), lines=lines, named=_NAMED)
    for line in lines:
        say(f"inspect: {line}")
    return [source.path for source in sources], sum(source.num_bytes for source in sources)


def _some(paths: list[Path]) -> list[Path]:
    if len(paths) <= _MOST_FILES:
        return paths
    places = np.linspace(0, len(paths) - 1, _MOST_FILES).round().astype(int)
    return [paths[place] for place in places]


def _check_alike(paths: Sequence[Path], shapes: Sequence[RawFormat]) -> None:
    first = shapes[0]
    for path, shape in zip(paths, shapes, strict=True):
        if (shape.name, shape.separator, shape.has_header) != (first.name, first.separator, first.has_header):
            raise LogError(
                f"{paths[0]} is {first.describe()}, and {path} is {shape.describe()}; a log is written in one way: "
                "inspect them one by one"
            )
        if not shape.has_header and shape.name == "csv" and len(shape.columns) != len(first.columns):
            raise LogError(
                f"{paths[0]} has {len(first.columns)} fields a line, and {path} has {len(shape.columns)}, and neither "
                "has a header line; inspect them one by one"
            )


class _Reader:
    """Reads a sample of each file, and counts the values of every column."""

    def __init__(self, paths: Sequence[Path], shapes: Sequence[RawFormat], quota: int | None, scratch: Scratch) -> None:
        self._paths, self._shapes, self._quota, self._scratch = paths, shapes, quota, scratch
        self.samples = [Sample() for _ in paths]
        self._counts: dict[str, ColumnCounts] = {}
        self._before = [0, 0]

    def count(self) -> dict[str, ColumnCounts]:
        """Counts of the values of each column, in the order of the files' columns."""
        if self._quota is None:
            for table, share in self._tables():
                self._add(table[0], table[1], is_test=share >= 1 - TEST_SHARE)
            return self._counts
        tables = [table for table, _ in self._tables()]
        # The last tenth of what was read, to the input.
        start = round((1 - TEST_SHARE) * sum(count for _, count, _ in tables))
        at = 0
        for columns, count, _ in tables:
            cut = min(max(start - at, 0), count)
            for first, size, is_test in ((0, cut, False), (cut, count - cut, True)):
                if size:
                    part = {name: array.slice(first, size) for name, array in columns.items()}
                    self._add(part, size, is_test=is_test)
            at += count
        return self._counts

    def _tables(self) -> Iterator[tuple[Table, float]]:
        """Tables, each with how far into all files it begins."""
        sizes = [path.stat().st_size for path in self._paths]
        total, before = max(1, sum(sizes)), 0
        with task("inspect: reading", total, "bytes") as bar:
            for path, shape, sample, size in zip(self._paths, self._shapes, self.samples, sizes, strict=True):
                done = 0.0
                for table in read_sample(path, shape, self._quota, sample):
                    yield table, (before + table[2] * size) / total
                    bar.advance((table[2] - done) * size, f"{sample.lines_read:,} inputs")
                    done = table[2]
                bar.advance((1 - done) * size)
                before += size

    def _add(self, columns: dict[str, Any], count: int, *, is_test: bool) -> None:
        for name, array in columns.items():
            if name not in self._counts:
                self._counts[name] = ColumnCounts(name, self._scratch)
                for place in (False, True):
                    self._counts[name].add_missing(self._before[place], is_test=place)
            self._counts[name].add(array, is_test=is_test)
        for name, each in self._counts.items():
            if name not in columns:
                each.add_missing(count, is_test=is_test)
        self._before[is_test] += count


def _known_label(shape: RawFormat) -> str | None:
    known = KNOWN_LOGS.get(shape.name)
    return None if known is None else known.label or "label"


def _by_format(shape: RawFormat, columns: list[ColumnGuess]) -> list[ColumnGuess]:
    """Kinds that a public log's format says."""
    known = KNOWN_LOGS.get(shape.name)
    if known is None or shape.name == "taobao":
        return columns
    kinds: dict[str, Any] = {**dict.fromkeys(known.categorical, "categorical"), **dict.fromkeys(known.dense, "count")}
    if shape.name == "avazu":
        del kinds["hour"]
    return [
        dataclasses.replace(column, kind=kinds[column.name])
        if column.name in kinds and column.kind not in ("empty", "constant")
        else column
        for column in columns
    ]
