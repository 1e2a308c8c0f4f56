"""The recipe's ``[log]`` table: the raw click log and how to read it. Imports no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fae.core.config import to_table
from fae.core.errors import RecipeError
from fae.core.pooling import Pooling
from fae.ingest.formats import KNOWN_LOGS, KnownLog

Format = Literal["csv", "parquet", "criteo", "criteo_kaggle", "criteo_terabyte", "avazu", "taobao", "columnar"]


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
        Text between the ids of a list column in a text file; Parquet files may have real lists.
    min_frequency
        `LogConfig.min_frequency` for this column alone.
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
        Files or globs, in log order; plain, ``.gz`` or ``.zst``. Relative paths start at the recipe's folder. For
        ``columnar``, `train` is one folder.
    format
        ``csv`` (with a header line), ``parquet``, ``criteo`` (tab-separated, no header: label, 13 counts, 26 ids), or a
        public log: ``criteo_kaggle``, ``criteo_terabyte``, ``avazu``, ``taobao``. Those have their published split,
        unless the recipe sets `test`, `test_fraction` or `validation_fraction`. ``columnar``: a log that ingest or
        ``fae synthetic --columnar`` has written, read in place with its own columns and splits
        (`fae.ingest.existing_log`).
    label
        Column with 0 or 1.
    categorical, dense
        Names of the columns of ``csv`` and ``parquet``; the other formats have fixed columns.
    separator
        Character between the fields of a CSV file.
    test_fraction
        Without `test` files: the last share of the inputs, in log order. Default 0.1.
    validation_fraction
        The last share of the training split, kept out of training for the scheduler and early stopping. Default 0.05.
    min_frequency
        Values seen fewer times than this in the training split share the column's reserved id.
    dense_transform
        ``log1p`` of counts (negative values count as 0) or ``none``; a missing value is 0 in both.
    """

    train: str | tuple[str, ...]
    test: str | tuple[str, ...] = ()
    format: Format = "csv"
    label: str = "label"
    categorical: tuple[str | ColumnConfig, ...] = ()
    dense: tuple[str, ...] = ()
    separator: str = ","
    test_fraction: float | None = None
    validation_fraction: float | None = None
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
        if self.known and (self.categorical or self.dense):
            raise RecipeError(
                f"[log] format = {self.format} has its own columns; leave `categorical` and `dense` out, or read the "
                "file as csv"
            )
        if self.is_columnar:
            self._check_columnar()
        elif not self.known and not self.categorical:
            raise RecipeError("[log] needs `categorical`, the names of the id columns")
        if self.format == "taobao" and not self.has_published_split():
            raise RecipeError(
                "[log] format = taobao makes its own inputs and splits them by user; leave `test`, `test_fraction` and "
                "`validation_fraction` out"
            )
        names = [*self.dense_columns(), *(column.name for column in self.columns()), self.label_column()]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"[log] names the column {name!r} {names.count(name)} times; name each once")

    def _check_columnar(self) -> None:
        if not isinstance(self.train, str) and len(self.train) != 1:
            raise RecipeError(
                f"[log] format = columnar takes one folder, and train names {len(self.train)}; name the log/ of one run"
            )
        decided = {
            "test": self.test or None, "test_fraction": self.test_fraction,
            "validation_fraction": self.validation_fraction,
            "min_frequency": None if self.min_frequency == 1 else self.min_frequency,
        }  # fmt: skip
        for name, value in decided.items():
            if value is not None:
                raise RecipeError(
                    f"[log] {name} = {value!r} was decided when the columnar log was made; leave it out, or make the "
                    "log anew from raw files"
                )

    @property
    def is_columnar(self) -> bool:
        """Whether the log is already in columnar form."""
        return self.format == "columnar"

    @property
    def known(self) -> KnownLog | None:
        """Columns and split of the format, if it is one with fixed columns; else None."""
        return KNOWN_LOGS.get(self.format)

    def columns(self) -> tuple[ColumnConfig, ...]:
        """Every categorical column in full form, in the order of the recipe; may be empty for ``columnar``."""
        if self.known:
            lists = dict(self.known.lists)
            return tuple(
                ColumnConfig(name=name, max_length=lists[name], pooling="none")
                if name in lists
                else ColumnConfig(name=name)
                for name in self.known.categorical
            )
        return tuple(
            column if isinstance(column, ColumnConfig) else ColumnConfig(name=column) for column in self.categorical
        )

    def dense_columns(self) -> tuple[str, ...]:
        """Names of the dense columns."""
        return self.known.dense if self.known else self.dense

    def label_column(self) -> str:
        """Name of the label's column."""
        return (self.known.label if self.known else None) or self.label

    def column_facts(self) -> dict[str, Any]:
        """The settings that a log must share with the one it continues (`fae.artifacts.lineage.check_same_columns`)."""
        columns = [to_table(column) for column in self.columns()]
        return {"columns": columns, "dense_names": self.dense_columns(), "dense_transform": self.dense_transform}

    def has_published_split(self) -> bool:
        """Whether the log is split as in published results on it."""
        chosen = self.test or self.test_fraction is not None or self.validation_fraction is not None
        return self.known is not None and self.known.split is not None and not chosen

    def effective_test_fraction(self) -> float:
        """Share of the inputs kept for the test when there are no test files."""
        return 0.0 if self.test else 0.1 if self.test_fraction is None else self.test_fraction

    def effective_validation_fraction(self) -> float:
        """Share of the training split kept for validation."""
        return 0.05 if self.validation_fraction is None else self.validation_fraction
