"""What a recipe's ``[log]`` table may say. Read by `fae.data.ingest`; imports no library, so ``--help`` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fae.core.errors import RecipeError

Pooling = Literal["sum", "mean", "none"]


@dataclass(frozen=True, kw_only=True)
class ColumnConfig:
    """One categorical column that needs more than its name.

    Attributes
    ----------
    name
        Its name in the log.
    encoded
        The values are whole numbers 0 .. n-1 already and are kept as vocabulary ids.
    max_length
        Ids kept per input: 1 is a plain column, more a list column (the last `max_length` ids are kept).
    pooling
        How the rows of a list become one vector; ``"none"`` keeps the sequence.
    separator
        Between the ids of a list column in a text file; Parquet files may have real lists.
    min_frequency
        Overrides the log's for this column.
    """

    name: str
    encoded: bool = False
    max_length: int = 1
    pooling: Pooling = "sum"
    separator: str = "|"
    min_frequency: int | None = None

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise RecipeError(f"[log] categorical {self.name}: max_length = {self.max_length} must be 1 or more")
        if self.min_frequency is not None and self.min_frequency < 1:
            raise RecipeError(f"[log] categorical {self.name}: min_frequency = {self.min_frequency} must be 1 or more")
        if not self.separator:
            raise RecipeError(f"[log] categorical {self.name}: separator must not be empty")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """The raw click log and how to read it.

    Attributes
    ----------
    train, test
        Files or globs, in log order; plain, ``.gz`` or ``.zst``. Relative paths are taken from the recipe's folder.
    format
        ``csv`` (with a header line), ``parquet``, or ``criteo`` (tab-separated, no header: label, 13 counts, 26 ids).
    label
        Column with 0 or 1.
    categorical, dense
        Columns, by name. ``criteo`` has its own.
    separator
        Between the fields of a CSV file.
    test_fraction
        Without `test` files: the last share of the inputs, in log order. Default 0.1.
    validation_fraction
        The last share of the training split, kept out of training for the scheduler and early stopping.
    min_frequency
        Values seen fewer times than this in the training split share the column's reserved id.
    dense_transform
        ``log1p`` of counts (negative values count as 0) or ``none``; a missing value is 0 in both.
    """

    train: str | tuple[str, ...]
    test: str | tuple[str, ...] = ()
    format: Literal["csv", "parquet", "criteo"] = "csv"
    label: str = "label"
    categorical: tuple[str | ColumnConfig, ...] = ()
    dense: tuple[str, ...] = ()
    separator: str = ","
    test_fraction: float | None = None
    validation_fraction: float = 0.05
    min_frequency: int = 1
    dense_transform: Literal["log1p", "none"] = "log1p"

    def __post_init__(self) -> None:
        for name, value in (("test_fraction", self.test_fraction), ("validation_fraction", self.validation_fraction)):
            if value is not None and not 0 <= value < 1:
                raise RecipeError(f"[log] {name} = {value} must be at least 0 and less than 1")
        if self.test and self.test_fraction is not None:
            raise RecipeError("[log] has both `test` files and `test_fraction`; keep one of them")
        if self.min_frequency < 1:
            raise RecipeError(f"[log] min_frequency = {self.min_frequency} must be 1 or more")
        if self.format == "criteo" and (self.categorical or self.dense):
            raise RecipeError("[log] format = criteo has its own columns; leave `categorical` and `dense` out")
        if self.format != "criteo" and not self.categorical:
            raise RecipeError("[log] needs `categorical`, the names of the id columns")
        names = [*self.dense, *(column.name for column in self.columns()), self.label]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"[log] names the column {name!r} {names.count(name)} times; name each once")

    def columns(self) -> tuple[ColumnConfig, ...]:
        """Every categorical column in full form, in the order of the recipe."""
        if self.format == "criteo":
            return tuple(ColumnConfig(name=f"C{index}") for index in range(1, 27))
        return tuple(
            column if isinstance(column, ColumnConfig) else ColumnConfig(name=column) for column in self.categorical
        )

    def dense_columns(self) -> tuple[str, ...]:
        """Names of the dense columns."""
        return tuple(f"I{index}" for index in range(1, 14)) if self.format == "criteo" else self.dense

    def effective_test_fraction(self) -> float:
        """Share of the inputs kept for the test when there are no test files."""
        return 0.0 if self.test else 0.1 if self.test_fraction is None else self.test_fraction
