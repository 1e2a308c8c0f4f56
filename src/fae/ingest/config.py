"""The recipe's ``[log]`` table: the raw click log and how to read it. Imports no library."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fae.core.config import check_fields, check_path, nearest, to_table, without_defaults
from fae.core.errors import RecipeError
from fae.ingest.column_config import ColumnConfig, DenseConfig, DenseTransform, check_ends, in_slot_order
from fae.ingest.formats import CRITEO_FORMATS, KNOWN_LOGS, KnownLog

Format = Literal[
    "csv", "parquet", "jsonl", "criteo", "criteo_kaggle", "criteo_terabyte", "avazu", "taobao", "columnar"
]  # fmt: skip
_LATER_KEYS: dict[str, Any] = {
    "columns": [], "quote": '"', "escape": "", "decimal": ".", "missing": [], "label_map": {}, "label_threshold": None,
    "weight": None, "time": None, "split": "order", "split_by": None, "split_seed": 0, "dense_clip": None,
    "dense_clip_quantiles": None, "validation": [],
}  # fmt: skip
"""Keys that logs made before them do not name, and their defaults: a log that leaves them out keeps its fingerprint."""
_TEXT_KEYS = ("columns", "quote", "escape", "decimal")
_ROW_KEYS = (
    "label_map", "label_threshold", "weight", "time", "split", "split_by", "split_seed", "missing", "dense_clip",
    "dense_clip_quantiles",
)  # fmt: skip
_FREE_KEYS = ("label_map", "label_threshold", "weight", "time", "split_by", "missing")
_MAX_FREQUENCY = 2**62


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """The raw click log and how to read it.

    Attributes
    ----------
    train, test
        Files or globs, in log order; plain, ``.gz`` or ``.zst``. Relative paths start at the recipe's folder. For
        ``columnar``, `train` is one folder.
    validation
        Files of the validation split, as `train`; in the place of `validation_fraction`.
    format
        ``csv`` (with a header line, or `columns`), ``parquet``, ``jsonl`` (one JSON object a line), ``criteo``
        (tab-separated, no header: label, 13 counts, 26 ids), or a public log: ``criteo_kaggle``, ``criteo_terabyte``,
        ``avazu``, ``taobao``. Those have their published split, unless the recipe sets `test`, `test_fraction`,
        `validation`, `validation_fraction` or `split`. ``columnar``: a log that ingest or ``fae synthetic --columnar``
        has written, read in place with its own columns and splits (`fae.ingest.existing_log`).
    columns
        Names of the fields of CSV files that have no header line, in order; line 1 is then an input.
    label
        Column with 0 or 1.
    label_map
        What other labels mean: a table from text to 0 or 1, such as ``{ click = 1, noclick = 0 }``. Any other value is
        an error.
    label_threshold
        For labels that are numbers (ratings, counts): a label is 1 where the number is at least this, else 0.
    weight
        Column with the weight of each input, a positive number or 0: loss and metrics are weighted means.
    categorical, dense
        Names of the columns of ``csv``, ``parquet`` and ``jsonl``; the other formats have fixed columns. A name may be
        in both. A column that is in no file but in the name of a folder, ``day=1``, can be categorical.
    missing
        Words that mean a missing value, beside the empty field, such as ``["NULL", "NA"]``; of ids and of numbers.
    separator
        Text between the fields of a CSV file.
    quote, escape
        Character around values of a CSV file that hold separators or line ends, and character before one that is meant
        as it is; empty: none.
    decimal
        The decimal point of numbers in a CSV file.
    time
        Column that orders the log, a number, a date or text that sorts by time: inputs are sorted by it, those of one
        time in log order, so the splits are the last in time.
    split, split_seed
        ``order``: validation and test are the last inputs. ``random``: they are drawn by `split_seed`.
    split_by
        With ``split = "random"``: a column of the log, and inputs with one value of it are in one split.
    test_fraction
        Without `test` files: the last share of the inputs, in log order. Default 0.1.
    validation_fraction
        The last share of the training split, kept out of training for the scheduler and early stopping. Default 0.05.
    min_frequency
        Values seen fewer times than this in the training split share the column's reserved id.
    dense_transform
        ``log1p`` of counts (negative values count as 0), ``signed_log1p`` (``sign(x) log(1 + |x|)``), ``standardize``
        (``(x - mean) / deviation``, both of the training split) or ``none``; a missing value becomes 0 in all.
    dense_clip
        ``[low, high]``: dense values are raised to the first and lowered to the second before the transform.
    dense_clip_quantiles
        The same with quantiles of the training split, such as ``[0.01, 0.99]``.
    """

    train: str | tuple[str, ...]
    test: str | tuple[str, ...] = ()
    validation: str | tuple[str, ...] = ()
    format: Format = "csv"
    columns: tuple[str, ...] = ()
    label: str = "label"
    label_map: dict[str, int] = field(default_factory=dict)
    label_threshold: float | None = None
    weight: str | None = None
    categorical: tuple[str | ColumnConfig, ...] = ()
    dense: tuple[str | DenseConfig, ...] = ()
    missing: tuple[str, ...] = ()
    separator: str = ","
    quote: str = '"'
    escape: str = ""
    decimal: Literal[".", ","] = "."
    time: str | None = None
    split: Literal["order", "random"] = "order"
    split_by: str | None = None
    split_seed: int = 0
    test_fraction: float | None = None
    validation_fraction: float | None = None
    min_frequency: int = 1
    dense_transform: DenseTransform = "log1p"
    dense_clip: tuple[float, ...] | None = None
    dense_clip_quantiles: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "[log]")
        for role in ("train", "validation", "test"):
            names = getattr(self, role)
            for name in (names,) if isinstance(names, str) else names:
                check_path(name, f"[log] {role} =")
        for name, value in (("test_fraction", self.test_fraction), ("validation_fraction", self.validation_fraction)):
            if value is not None and not 0 <= value < 1:
                raise RecipeError(f"[log] {name} = {value} must be at least 0 and less than 1")
        if self.test and self.test_fraction is not None:
            raise RecipeError("[log] has both `test` files and `test_fraction`; keep one of them")
        if self.validation and self.validation_fraction is not None:
            raise RecipeError("[log] has both `validation` files and `validation_fraction`; keep one of them")
        if not 1 <= self.min_frequency <= _MAX_FREQUENCY:
            raise RecipeError(f"[log] min_frequency = {self.min_frequency} must be from 1 to {_MAX_FREQUENCY}")
        check_ends("[log]", "dense_clip", self.dense_clip, self.dense_clip_quantiles)
        self._check_text()
        self._check_labels()
        self._check_split()
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
                "[log] format = taobao makes its own inputs and splits them by user; leave `test`, `test_fraction`, "
                "`validation`, `validation_fraction`, `split` and `time` out"
            )
        if self.known:
            self._refuse(
                _FREE_KEYS, f"is for logs of your own, and format = {self.format} says how its files are written"
            )
        self._check_names()

    def _check_names(self) -> None:
        label, dense = self.label_column(), self.dense_columns()
        categorical = _named_columns(self.categorical)
        names = [column.name for column in categorical]
        others = [name for name in (self.weight, self.time, self.split_by) if name is not None]
        for group in ([label, *dense], [label, *names], self.columns, *([label, name] for name in others)):
            for name in group:
                if group.count(name) > 1:
                    raise RecipeError(f"[log] names the column {name!r} {group.count(name)} times; name each once")
        # Other columns may be in the name of a folder, ``day=1``.
        for name in (label, *dense) if self.columns else ():
            if name not in self.columns:
                raise RecipeError(f"[log] columns does not have {name!r}; {nearest(name, self.columns)}")
        by_name = {column.name: column for column in categorical}
        for column in categorical:
            shared = column if column.table is None else by_name.get(column.table)
            if shared is None:
                raise RecipeError(
                    f"[log] categorical {column.name}: table = {column.table!r} is no categorical column; "
                    f"{nearest(str(column.table), by_name)}"
                )
            if shared.table is not None and shared is not column:
                raise RecipeError(
                    f"[log] categorical {column.name}: table = {shared.name!r}, which itself has table = "
                    f"{shared.table!r}; name that one"
                )
            if column is not shared:
                self._check_shared(column, shared)

    @staticmethod
    def _check_shared(column: ColumnConfig, owner: ColumnConfig) -> None:
        where = f"[log] categorical {column.name}:"
        if column.encoded != owner.encoded:
            raise RecipeError(
                f"{where} encoded = {str(column.encoded).lower()}, and {owner.name!r}, whose table it shares, has "
                f"{str(owner.encoded).lower()}; set both to one"
            )
        if column.min_frequency not in (None, owner.min_frequency):
            raise RecipeError(
                f"{where} min_frequency = {column.min_frequency} counts for the whole table; set it of {owner.name!r}, "
                "whose table it shares"
            )

    def _check_text(self) -> None:
        for key in ("quote", "escape"):
            value = getattr(self, key)
            if len(value) > 1 or not value.isascii():
                raise RecipeError(f"[log] {key} = {value!r} must be one ASCII character, or empty for none")
        if not self.separator or "\n" in self.separator or "\r" in self.separator:
            raise RecipeError(f"[log] separator = {self.separator!r} must be text without line ends")
        marks = [mark for mark in (self.separator, self.quote, self.escape) if mark]
        if len(set(marks)) < len(marks):
            raise RecipeError(
                f"[log] separator = {self.separator!r}, quote = {self.quote!r} and escape = {self.escape!r} must differ"
            )
        if self.format != "csv":
            self._refuse(_TEXT_KEYS, f"is for format = csv, and this is {self.format}")

    def _check_labels(self) -> None:
        if self.label_map and self.label_threshold is not None:
            raise RecipeError("[log] has both `label_map` and `label_threshold`; keep one of them")
        for value, meaning in self.label_map.items():
            if meaning not in (0, 1):
                raise RecipeError(f"[log] label_map.{value} = {meaning} must be 0 or 1")

    def _check_split(self) -> None:
        if self.split == "order":
            for key in ("split_by", "split_seed"):
                if getattr(self, key) != _LATER_KEYS[key]:
                    raise RecipeError(f'[log] {key} needs split = "random"; set that, or leave {key} out')
        elif self.validation and (self.test or self.test_fraction == 0):
            raise RecipeError(
                '[log] split = "random" has nothing to draw where `validation` files are named and '
                f"{'`test` files too' if self.test else 'test_fraction = 0'}; leave split out"
            )

    def _refuse(self, keys: Sequence[str], why: str) -> None:
        table = to_table(self)
        for key in keys:
            if table[key] != _LATER_KEYS[key]:
                raise RecipeError(f"[log] {key} = {table[key]!r} {why}; leave it out")

    def _check_columnar(self) -> None:
        if not isinstance(self.train, str) and len(self.train) != 1:
            raise RecipeError(
                f"[log] format = columnar takes one folder, and train names {len(self.train)}; name the log/ of one run"
            )
        decided = {
            "test": self.test or None, "validation": self.validation or None, "test_fraction": self.test_fraction,
            "validation_fraction": self.validation_fraction,
            "min_frequency": None if self.min_frequency == 1 else self.min_frequency,
        }  # fmt: skip
        for name, value in decided.items():
            if value is not None:
                raise RecipeError(
                    f"[log] {name} = {value!r} was decided when the columnar log was made; leave it out, or make the "
                    "log anew from raw files"
                )
        self._refuse(_ROW_KEYS, "was decided when the columnar log was made")

    @property
    def is_columnar(self) -> bool:
        """Whether the log is already in columnar form."""
        return self.format == "columnar"

    @property
    def known(self) -> KnownLog | None:
        """Columns and split of the format, if it is one with fixed columns; else None."""
        return KNOWN_LOGS.get(self.format)

    def categorical_columns(self) -> tuple[ColumnConfig, ...]:
        """Every categorical column in full form, in the order of slots; may be empty for ``columnar``.

        That is the recipe's order, with the columns that share a table behind the one that it is named by.
        """
        return _known_columns(self.known) if self.known else in_slot_order(_named_columns(self.categorical))

    def copied_columns(self) -> tuple[str, ...]:
        """Names of columns that are read as they are and need hold no ids: none in ingest."""
        return ()

    def dense_columns(self) -> tuple[str, ...]:
        """Names of the dense columns."""
        return tuple(column.name for column in self.dense_settings())

    def dense_settings(self) -> tuple[DenseConfig, ...]:
        """Every dense column in full form, as the recipe names it: what it leaves out, the log's own settings say."""
        columns = self.known.dense if self.known else self.dense
        return tuple(column if isinstance(column, DenseConfig) else _plain_dense(column) for column in columns)

    def label_column(self) -> str:
        """Name of the label's column."""
        return (self.known.label if self.known else None) or self.label

    def wanted_columns(self, *, labelled: bool = True) -> tuple[str, ...]:
        """Names of all columns that are read, each once: label, dense, categorical, weight, time and split key.

        Only dense and categorical ones where files are read without labels.
        """
        features = (*self.dense_columns(), *(column.source for column in self.categorical_columns()))
        others = (self.weight, self.time, self.split_by)
        names = (self.label_column(), *features, *others) if labelled else features
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def column_facts(self) -> dict[str, Any]:
        """The settings that a log must share with the one it continues (`fae.artifacts.lineage.check_same_columns`)."""
        columns = [column.to_parameters() for column in self.categorical_columns()]
        settings = {
            "dense": [column.to_entry() for column in self.dense_settings()], "dense_clip": self.dense_clip,
            "dense_clip_quantiles": self.dense_clip_quantiles,
        }  # fmt: skip
        return {
            "columns": columns, "dense_names": self.dense_columns(), "dense_transform": self.dense_transform,
            "dense_settings": settings,
        }  # fmt: skip

    def to_parameters(self) -> dict[str, Any]:
        """The table that goes into the fingerprint of a log."""
        table = without_defaults(to_table(self), _LATER_KEYS)
        table["categorical"] = [column.to_parameters() for column in self.categorical_columns()]
        if self.format in CRITEO_FORMATS and self.dense_transform == "signed_log1p":
            # Earlier code did not transform these counts: its logs are other logs, under other fingerprints.
            table["criteo_counts"] = "signed_log1p"
        return table

    def has_published_split(self) -> bool:
        """Whether the log is split as in published results on it."""
        chosen = self.test or self.test_fraction is not None
        chosen = chosen or self.validation or self.validation_fraction is not None
        chosen = chosen or self.split != "order" or self.time is not None
        return self.known is not None and self.known.split is not None and not chosen

    def effective_test_fraction(self) -> float:
        """Share of the inputs kept for the test when there are no test files."""
        return 0.0 if self.test else 0.1 if self.test_fraction is None else self.test_fraction

    def effective_validation_fraction(self) -> float:
        """Share of the training split kept for validation when there are no validation files."""
        if self.validation:
            return 0.0
        return 0.05 if self.validation_fraction is None else self.validation_fraction


def _named_columns(categorical: Sequence[str | ColumnConfig]) -> list[ColumnConfig]:
    """The columns that a recipe names, in its order."""
    return [column if isinstance(column, ColumnConfig) else _plain_column(column) for column in categorical]


# Columns are wanted for every chunk of a log, and making one checks all its settings.
@functools.cache
def _plain_column(name: str) -> ColumnConfig:
    return ColumnConfig(name=name)


@functools.cache
def _plain_dense(name: str) -> DenseConfig:
    return DenseConfig(name=name)


@functools.cache
def _known_columns(known: KnownLog) -> tuple[ColumnConfig, ...]:
    lists = dict(known.lists)
    return tuple(
        ColumnConfig(name=name, max_length=lists[name], pooling="none") if name in lists else ColumnConfig(name=name)
        for name in known.categorical
    )
