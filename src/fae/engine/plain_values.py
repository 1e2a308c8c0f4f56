"""Shards and results as JSON: plain values and frozen dataclasses, written so that the same value is read back.

What JSON has no form for is an object with one key that begins with ``$``. No pickle: a folder that others can write to
must not run code, so a dataclass is made only from the package that the caller names.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from pathlib import Path, PurePath
from typing import Any


def to_plain(value: Any) -> Any:
    """The JSON form of a value: None, bool, int, float, str, bytes, `Path`, list, tuple, dict, frozen dataclass.

    >>> to_plain({"parts": (1, float("inf")), "file": Path("a.npy")})
    {'parts': {'$tuple': [1, {'$float': 'inf'}]}, 'file': {'$path': 'a.npy'}}

    Raises
    ------
    TypeError
        For any other value, numpy's numbers included.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is list:
        return [to_plain(item) for item in value]
    if kind is tuple:
        return {"$tuple": [to_plain(item) for item in value]}
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: to_plain(item) for key, item in value.items()}
        return {"$items": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    if isinstance(value, PurePath):
        return {"$path": str(value)}
    if kind is bytes:
        return {"$bytes": value.hex()}
    if dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(kind) if field.init}
        return {"$class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    raise TypeError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be handed to or from a task: use plain values (None, bool, "
        "int, float, str, bytes, Path, list, tuple, dict) or a frozen dataclass of them"
    )


def from_plain(value: Any, package: str) -> Any:
    """The value of a JSON form.

    Parameters
    ----------
    package
        Top-level package from whose modules dataclasses may be made.

    Raises
    ------
    ValueError
        If it is no such form.
    """
    if isinstance(value, list):
        return [from_plain(item, package) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), "")
    if not mark.startswith("$"):
        return {key: from_plain(item, package) for key, item in value.items()}
    inner = value[mark]
    if mark == "$float":
        return float(inner)
    if mark == "$path":
        return Path(inner)
    if mark == "$bytes":
        return bytes.fromhex(inner)
    if mark == "$tuple":
        return tuple(from_plain(item, package) for item in inner)
    if mark == "$items":
        return {from_plain(key, package): from_plain(item, package) for key, item in inner}
    if mark == "$class":
        fields = {name: from_plain(item, package) for name, item in value["fields"].items()}
        return _dataclass_of(inner, package)(**fields)
    raise ValueError(f"{mark} is no form of a value")


def _dataclass_of(name: str, package: str) -> Any:
    module, _, path = name.partition(":")
    if module.split(".")[0] != package:
        raise ValueError(f"{name} is not of the package {package}")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise ValueError(f"{name} is no dataclass")
    return found
