"""Convert between parsed TOML tables and frozen dataclasses, with errors a person can act on.

Configuration classes live beside their owner and carry their own defaults; this module only checks names and types.
A class may define ``__post_init__`` to check ranges (raising `RecipeError`).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from fae.core.errors import RecipeError

T = TypeVar("T")


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """Hint for an unknown name: its nearest known neighbour, or all known names.

    >>> nearest("budgte", ["budget", "sample"])
    "did you mean 'budget'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)


def from_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from a TOML table.

    Parameters
    ----------
    cls
        A frozen dataclass; its annotations say which types are taken (numbers, text, lists, ``Literal``, nested
        dataclasses, ``X | None``). A field whose name ends in ``_`` is the key without it: ``from_`` is ``from``.
    table
        The parsed table.
    where
        Its name in the recipe, such as ``"[hot]"``, for messages.

    Raises
    ------
    RecipeError
        For an unknown key (naming its nearest neighbour), a missing key or a value of the wrong type.
    """
    fields = {_key(field): field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            raise RecipeError(f"{where} has no key {key!r}; {nearest(key, fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[field.name] = _convert(table[name], hints[field.name], f"{where} {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{where} needs the key {name!r}, which is not there")
    return cls(**values)


def to_table(config: Any) -> dict[str, Any]:
    """The inverse of `from_table`: plain dicts, lists and scalars, as written into manifests and run records."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {_key(field): plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        return value

    return typing.cast("dict[str, Any]", plain(config))


def _key(field: dataclasses.Field[Any]) -> str:
    return field.name.removesuffix("_")


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), where)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            hint_text = nearest(str(value), map(str, choices))
            raise RecipeError(f"{where} = {value!r} is not one of {', '.join(map(str, choices))}; {hint_text}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where} = {value!r} must be a list")
        item = typing.get_args(hint)[0]
        return tuple(_convert(entry, item, f"{where}[{index}]") for index, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} = {value!r} must be a table")
        item = typing.get_args(hint)[1]
        return {str(key): _convert(entry, item, f"{where}.{key}") for key, entry in value.items()}
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} = {value!r} must be a table")
        return from_table(typing.cast(type, hint), value, where)
    return _convert_scalar(value, hint, where)


def _convert_union(value: Any, members: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    for member in members:
        try:
            return _convert(value, member, where)
        except RecipeError:
            # A list or a table can only have been meant as this member: its own message is the useful one.
            if len(members) == 1 or _is_meant_as(value, member):
                raise
    words = " or ".join(dict.fromkeys(_words(member) for member in members))
    raise RecipeError(f"{where} = {value!r} must be {words}")


def _is_meant_as(value: Any, hint: Any) -> bool:
    if isinstance(value, Mapping):
        return dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict
    return isinstance(value, (list, tuple)) and typing.get_origin(hint) is tuple


def _words(hint: Any) -> str:
    """The kind of value that a type hint accepts, in words that follow "must be"."""
    if typing.get_origin(hint) is tuple:
        return "a list"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}.get(hint, "a table")


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, int, float, str) and type(value) is not hint:
        raise RecipeError(f"{where} = {value!r} must be {_words(hint)}")
    # TOML has nan and inf. Neither means anything in a setting, and most range checks would let one of them pass.
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where} = {value!r} must be a finite number")
    return value
