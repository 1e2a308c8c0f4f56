"""Recipes: one TOML file that says everything about a run.

Every table of a recipe is the configuration class of its owner (`LogConfig`, `ModelConfig`, `HotConfig`,
`TrainConfig`); this module knows none of their keys, and imports nothing heavy.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fae.core.config import check_path, from_table, nearest
from fae.core.errors import RecipeError
from fae.core.files import PROCESS_FAULTS, read_advice
from fae.core.printable import brief
from fae.core.text_files import read_text, reason_of
from fae.ingest.config import LogConfig
from fae.models.config import DLRMConfig, ModelConfig, model_config
from fae.profile.config import HotConfig
from fae.training.config import TrainConfig

if TYPE_CHECKING:
    from fae.artifacts.columnar_log import FeatureSchema

_SECTIONS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "log": partial(from_table, LogConfig, where="[log]"),
    "model": model_config,
    "hot": partial(from_table, HotConfig, where="[hot]"),
    "train": partial(from_table, TrainConfig, where="[train]"),
}
_MOST_DIGITS = 100_000
_KINDS: dict[str, type] = {"log": LogConfig, "model": ModelConfig, "hot": HotConfig, "train": TrainConfig}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run is told.

    Attributes
    ----------
    base
        Folder that relative file names in ``[log]`` start from: the folder of the recipe file.
    """

    log: LogConfig
    model: ModelConfig = field(default_factory=DLRMConfig)
    hot: HotConfig = field(default_factory=HotConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    base: Path = Path()

    def __post_init__(self) -> None:
        for name, read in _SECTIONS.items():
            part = getattr(self, name)
            if isinstance(part, Mapping):  # as in a recipe
                object.__setattr__(self, name, read(part))
            elif not isinstance(part, _KINDS[name]):
                raise RecipeError(f"the recipe's {name} = {brief(part)} must be a {_KINDS[name].__name__} or a table")
        object.__setattr__(self, "base", Path(self.base))

    @property
    def mixed(self) -> bool:
        """Whether batches mix hot and cold inputs."""
        return self.train.order == "shuffled"

    def check_model(self, features: Sequence[FeatureSchema] | None = None) -> None:
        """Refuse a log that the model cannot take, before hours are spent on it. `RunFolder.run` calls this.

        Parameters
        ----------
        features
            Features of a log that is columnar already; None takes the columns that the recipe names.

        Raises
        ------
        RecipeError
            As `ModelConfig.check`; if ``[train] group_by`` names no column of single values.
        """
        if features is None:
            columns = [(each.name, each.max_length, each.pooling) for each in self.log.categorical_columns()]
            tables = {each.name: each.table or each.name for each in self.log.categorical_columns()}
        else:
            from fae.artifacts.columnar_log import feature_tables, model_features

            parts = model_features(features)
            columns = [(each.name, each.length, each.pooling) for each in parts]
            tables = {
                each.name: features[table].name for each, table in zip(parts, feature_tables(features), strict=True)
            }
        if self.train.group_by is not None:
            self._check_group(self.train.group_by, {name: length for name, length, _ in columns})
        model = self.model.with_parts(tables)
        model.check({name: length if pooling == "none" else 1 for name, length, pooling in columns})

    @staticmethod
    def _check_group(name: str, lengths: Mapping[str, int]) -> None:
        if name not in lengths:
            raise RecipeError(
                f"[train] group_by = {brief(name)} is no categorical column of the log, which has {', '.join(lengths)}"
            )
        if lengths[name] > 1:
            raise RecipeError(f"[train] group_by = {brief(name)} is a column of lists; a group is one value an input")

    def check_dims(self, tables: Mapping[str, str]) -> None:
        """Refuse ``[model] embedding_dims`` that name a column which the log does not have, or has no table of its own.

        Parameters
        ----------
        tables
            From the name of each column to that of its table.

        Raises
        ------
        RecipeError
            It names the first such column, and the nearest of the names, or the table.
        """
        names = list(tables)
        for name in self.model.embedding_dims:
            if tables.get(name, name) != name:
                raise RecipeError(
                    f"[model] embedding_dims names {name!r}, which has no table of its own: it shares that of "
                    f"{tables[name]!r}; name that one"
                )
            if name not in names:
                raise RecipeError(
                    f"[model] embedding_dims names {name!r}, no categorical column; {nearest(name, names)}"
                )


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path
        The TOML file.
    overrides
        ``"section.key=value"`` texts that replace single values, as ``--set`` takes them.

    Raises
    ------
    RecipeError
        If the file is missing, is not TOML, or holds a key or a value that is not allowed.
    """
    path = Path(path)
    check_path(str(path), "recipe")
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {path}; start from one in recipes/, or try `fae demo`") from None
    except (OSError, ValueError) as error:
        advice = f"; {read_advice(error)}" if isinstance(error, OSError) and error.errno in PROCESS_FAULTS else ""
        raise RecipeError(f"cannot read the recipe {path}: {reason_of(error)}{advice}") from None
    tables = _parse_toml(text, f"{path} is not valid TOML")
    for override in (overrides,) if isinstance(overrides, str) else overrides:
        _apply_override(tables, override)
    try:
        base = path.resolve().parent if path.is_file() else Path.cwd()  # a pipe has no folder
    except OSError as error:
        raise RecipeError(f"cannot find the folder of the recipe {path}: {reason_of(error)}") from None
    return parse_recipe(tables, base=base)


def _parse_toml(text: str, fault: str) -> dict[str, Any]:
    before = sys.get_int_max_str_digits()
    try:
        # So that the key of a number that is far too long is known, which is then refused.
        sys.set_int_max_str_digits(_MOST_DIGITS)
        return tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{fault}: a value is nested too deeply") from None
    except ValueError as error:
        raise RecipeError(f"{fault}: {str(error)[:200]}") from error
    finally:
        sys.set_int_max_str_digits(before)


def parse_recipe(tables: Mapping[str, Any], *, base: Path) -> Recipe:
    """Build a recipe from parsed tables; see `load_recipe`."""
    for name, table in tables.items():
        if name not in _SECTIONS:
            raise RecipeError(f"the recipe has a section [{brief(name)[1:-1]}]; {nearest(name, _SECTIONS)}")
        if not isinstance(table, Mapping):
            raise RecipeError(f"the recipe's {name} = {brief(table)} must be a section, [{name}]")
    if "log" not in tables:
        raise RecipeError("the recipe has no section [log], which says where the click log is; see recipes/frappe.toml")
    parts: dict[str, Any] = {name: read(tables.get(name, {})) for name, read in _SECTIONS.items()}
    parts["train"] = parts["train"].with_dense_share(parts["model"].dense_share)
    recipe = Recipe(**parts, base=base)
    if not recipe.log.is_columnar:  # the columns of an existing log are checked when it is opened
        recipe.check_dims({column.name: column.table or column.name for column in recipe.log.categorical_columns()})
    return recipe


def _apply_override(tables: dict[str, Any], override: str) -> None:
    target, equals, text = override.partition("=")
    section, dot, key = target.strip().partition(".")
    told = f"--set {brief(override)}"
    if not (equals and dot and key):
        raise RecipeError(f"{told} must look like section.key=value, such as hot.budget=64MiB")
    try:
        value = _parse_toml(f"value = {text}", told)["value"]
    except RecipeError as error:
        if not isinstance(error.__cause__, tomllib.TOMLDecodeError):
            raise
        value = text.strip()  # bare words are text, so that quotes need no escaping in a shell
    table = tables.setdefault(section, {})
    if not isinstance(table, dict):
        raise RecipeError(f"{told}: the recipe's {section} is not a section")
    table[key.strip()] = value
