"""What callbacks to other programs share: whether these are installed, and which figures they are given."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from fae.core.errors import RecipeError

_METRICS = ("auc", "log_loss", "accuracy", "normalized_entropy", "label_rate")


def require_extra(module: str, *, what: str) -> None:
    """Refuse to begin where a library that is not part of FAE is missing.

    Raises
    ------
    RecipeError
        It says how to install the library.
    """
    if importlib.util.find_spec(module) is None:
        raise RecipeError(
            f"{what} needs {module}, which is not installed here; `pip install {module}`, or in a clone of FAE "
            f"`pip install -e '.[{module}]'`"
        )


def figures(values: Mapping[str, Any], names: tuple[str, ...] | None = None) -> dict[str, float]:
    """Those of the values that are numbers; `names` are the keys to take, None takes the metrics of a split.

    >>> figures({"auc": None, "log_loss": 0.5, "bins": []})
    {'log_loss': 0.5}
    """
    found = {name: values[name] for name in names or _METRICS if values.get(name) is not None}
    calibration = values.get("calibration") if names is None else None
    if calibration:
        found |= {f"calibration_{key}": calibration[key] for key in ("ratio", "expected_error") if calibration[key]}
    group = values.get("group_auc") if names is None else None
    if group and group["auc"] is not None:
        found["group_auc"] = group["auc"]
    return found
