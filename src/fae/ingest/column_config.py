"""One column of the recipe that needs more than its name, categorical or dense. Imports no library."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fae.core.config import check_fields, nearest, to_table, without_defaults
from fae.core.errors import RecipeError
from fae.core.pooling import Pooling

_MAX_LENGTH = 100_000
"""Longest list of one input: a row of ids is reserved for every input, so a longer one would fill the disk."""

Part = Literal["hour", "weekday", "day", "month"]
_LATER_KEYS: dict[str, Any] = {
    "padding": None, "weight_separator": "", "brackets": False, "table": None, "from": None, "part": None, "zone": None,
}  # fmt: skip
"""Keys that logs made before them do not name, and their defaults: a log that leaves them out keeps its fingerprint."""


@dataclass(frozen=True, kw_only=True)
class ColumnConfig:
    """One categorical column that needs more than its name.

    Attributes
    ----------
    name
        Name of the column in the log.
    encoded
        The values are already whole numbers 0 .. n-1, and are kept as vocabulary ids.
    max_length
        Ids kept per input: 1 is a plain column, more a list column (the last `max_length` ids are kept).
    pooling
        How the rows of a list become one vector; ``"none"`` keeps the sequence.
    separator
        Text between the ids of a list column in a text file; Parquet and JSON files may have real lists.
    brackets
        The lists of a text file are written as dataframes print them, ``[1, 2]`` or ``['a', 'b']``: the brackets
        around a list and the quotes around its items are taken off. The items are separated by ``,`` or white space.
    padding
        Text of the item that fills up short lists, such as ``"0"``; it is left out of lists before `max_length` is
        applied, and has no id.
    weight_separator
        Text between an item and its weight, such as ``":"`` in ``i7:0.5``; the weight is left out. Empty: none.
    table
        Name of another categorical column whose table this one shares: one vocabulary, one table, accesses of both.
    min_frequency
        `LogConfig.min_frequency` for this column alone.
    from_
        `from` in a recipe: name of the log's column of times, a `part` of which this column is.
    part
        ``hour`` (0 to 23), ``weekday`` (0 is Monday, 6 Sunday), ``day`` (of the month, 1 to 31) or ``month`` (1 to 12).
    zone
        Time zone in which the part is taken, such as ``"Europe/Berlin"``; left out, UTC.
    """

    name: str
    encoded: bool = False
    max_length: int = 1
    pooling: Pooling = "sum"
    separator: str = "|"
    brackets: bool = False
    padding: str | None = None
    weight_separator: str = ""
    table: str | None = None
    min_frequency: int | None = None
    from_: str | None = None
    part: Part | None = None
    zone: str | None = None

    def __post_init__(self) -> None:
        where = f"[log] categorical {self.name}:"
        check_fields(self, where if isinstance(self.name, str) else "[log] categorical")
        if not 1 <= self.max_length <= _MAX_LENGTH:
            raise RecipeError(f"{where} max_length = {self.max_length} must be from 1 to {_MAX_LENGTH:,}")
        if self.min_frequency is not None and self.min_frequency < 1:
            raise RecipeError(f"{where} min_frequency = {self.min_frequency} must be 1 or more")
        if not self.separator:
            raise RecipeError(f"{where} separator must not be empty")
        if self.max_length == 1:
            for key in ("brackets", "padding", "weight_separator"):
                if getattr(self, key) != _LATER_KEYS[key]:
                    raise RecipeError(f"{where} {key} is for list columns; set max_length above 1, or leave it out")
        if self.weight_separator and self.weight_separator == self.separator:
            raise RecipeError(f"{where} weight_separator = {self.weight_separator!r} is its separator too; correct one")
        if self.table == self.name:
            raise RecipeError(f"{where} table = {self.table!r} is its own name; leave it out")
        self._check_part(where)

    def _check_part(self, where: str) -> None:
        if self.part is None and self.from_ is not None:
            raise RecipeError(
                f'{where} from = {self.from_!r} needs the part of the time: part = "hour", "weekday", "day" or "month"'
            )
        if self.part is not None and self.from_ is None:
            raise RecipeError(
                f'{where} part = {self.part!r} needs the column of times that it is taken from: from = "timestamp"'
            )
        if self.part is not None and self.max_length > 1:
            raise RecipeError(
                f"{where} max_length = {self.max_length} and part = {self.part!r}: a time has one; keep one"
            )
        if self.zone is None:
            return
        if self.part is None:
            raise RecipeError(
                f"{where} zone = {self.zone!r} is for a part of a time; add from and part, or leave it out"
            )
        import zoneinfo  # rarely needed, and reads many files

        if self.zone not in zoneinfo.available_timezones():
            hint = nearest(self.zone, zoneinfo.available_timezones())
            raise RecipeError(f"{where} zone = {self.zone!r} is no time zone that this system knows; {hint}")

    @property
    def source(self) -> str:
        """Name of the log's column that is read for this one."""
        return self.name if self.from_ is None else self.from_

    def to_parameters(self) -> dict[str, Any]:
        """The table that goes into the fingerprint of a log."""
        return without_defaults(to_table(self), _LATER_KEYS)


DenseTransform = Literal["log1p", "signed_log1p", "standardize", "none"]
_LATER_DENSE_KEYS: dict[str, Any] = {"transform": None, "clip": None, "clip_quantiles": None}


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """One dense column that needs more than its name.

    Attributes
    ----------
    name
        Name of the column in the log.
    transform
        `LogConfig.dense_transform` for this column alone.
    clip, clip_quantiles
        `LogConfig.dense_clip` and `LogConfig.dense_clip_quantiles` for this column alone.
    """

    name: str
    transform: DenseTransform | None = None
    clip: tuple[float, ...] | None = None
    clip_quantiles: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        where = f"[log] dense {self.name}:"
        check_fields(self, where if isinstance(self.name, str) else "[log] dense")
        check_ends(where, "clip", self.clip, self.clip_quantiles)

    def to_entry(self) -> str | dict[str, Any]:
        """Its name where that says all, else its table: its entry in the parameters of a log."""
        table = without_defaults(to_table(self), _LATER_DENSE_KEYS)
        return self.name if len(table) == 1 else table


def check_ends(where: str, name: str, clip: Sequence[float] | None, quantiles: Sequence[float] | None) -> None:
    """Refuse ends of clipped numbers that are none.

    Raises
    ------
    RecipeError
        If there are not two, the first is not below the second, both are set, or quantiles are not within 0 and 1.
    """
    for key, ends in ((name, clip), (f"{name}_quantiles", quantiles)):
        if ends is None:
            continue
        shown = f"{where} {key} = {list(ends)}"
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise RecipeError(f"{shown} must be two numbers, the lower one first: [low, high]")
        if key != name and (ends[0] < 0 or ends[1] > 1):
            raise RecipeError(f"{shown} must be shares from 0 to 1, such as [0.01, 0.99]")
    if clip is not None and quantiles is not None:
        raise RecipeError(f"{where} has both {name} and {name}_quantiles; keep one of them")


def tables_of(columns: Sequence[ColumnConfig]) -> list[int]:
    """Number of each column's table, for columns in slot order: a column that shares a table is behind its owner.

    >>> tables_of([ColumnConfig(name="a"), ColumnConfig(name="b", table="a"), ColumnConfig(name="c")])
    [0, 0, 1]
    """
    return [number - 1 for number in itertools.accumulate(int(column.table is None) for column in columns)]


def columns_of_tables(columns: Sequence[ColumnConfig]) -> list[list[int]]:
    """Places of the columns of each table, for columns in slot order."""
    members: list[list[int]] = []
    for index, column in enumerate(columns):
        if column.table is None:
            members.append([])
        members[-1].append(index)
    return members


def slot_names(columns: Sequence[ColumnConfig]) -> list[str]:
    """The column of each slot of a row of ids.

    >>> slot_names([ColumnConfig(name="user"), ColumnConfig(name="items", max_length=2, pooling="sum")])
    ['user', 'items', 'items']
    """
    return [column.name for column in columns for _ in range(column.max_length)]


def in_slot_order(columns: Sequence[ColumnConfig]) -> tuple[ColumnConfig, ...]:
    """The columns in their order, but those that share a table directly behind the one that it is named by.

    >>> columns = [ColumnConfig(name="b", table="a"), ColumnConfig(name="c"), ColumnConfig(name="a")]
    >>> [column.name for column in in_slot_order(columns)]
    ['c', 'a', 'b']
    """
    members: dict[str, list[ColumnConfig]] = {column.name: [column] for column in columns if column.table is None}
    for column in columns:
        if column.table is not None:
            members[column.table].append(column)
    return tuple(itertools.chain.from_iterable(members.values()))
