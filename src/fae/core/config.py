"""Convert between parsed TOML tables and frozen dataclasses, with errors a person can act on.

Configuration classes live beside their owner and carry their own defaults; this module only checks names and types.
A class may define ``__post_init__`` to check ranges (raising `RecipeError`).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from fae.core.errors import RecipeError
from fae.core.printable import brief

T = TypeVar("T")


_MOST_NAMES, _SHOWN_NAMES, _LONGEST_COMPARED = 24, 3, 100
"""Up to 24 names are all listed, of more only three; longer ones are not compared, which would take long."""
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes; Linux takes no longer ones."""
_LARGEST = 2**63
"""Whole numbers stay below it: compiled loops and files hold 64 bits."""


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """Hint for an unknown name: its nearest known neighbour, or the known names; of very many the first few.

    >>> nearest("budgte", ["budget", "sample"])
    "did you mean 'budget'?"
    >>> nearest("x", [f"column {number}" for number in range(1500)])
    'known: column 0, column 1, column 2 and 1,497 more'
    """
    names = [str(name) for name in known]
    alike = [name for name in names if name.strip().casefold() == word.strip().casefold()]
    if alike:
        return f"did you mean {alike[0]!r}?"
    if len(word) <= _LONGEST_COMPARED:
        short = sorted(name for name in names if len(name) <= _LONGEST_COMPARED)
        close = difflib.get_close_matches(word.lower(), short, n=1, cutoff=0.6)
        if close:
            return f"did you mean {close[0]!r}?"
    shown = sorted(names) if len(names) <= _MOST_NAMES else names[:_SHOWN_NAMES]
    more = f" and {len(names) - len(shown):,} more" if len(shown) < len(names) else ""
    return "known: " + ", ".join(name if len(name) <= _LONGEST_COMPARED else f"{name[:60]}..." for name in shown) + more


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
    hints = _hints(typing.cast(typing.Hashable, cls))
    for key in table:
        if key not in fields:
            raise RecipeError(f"{where} has no key {brief(key)}; {nearest(str(key), fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[field.name] = _convert(table[name], hints[field.name], f"{where} {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{where} needs the key {name!r}, which is not there")
    return cls(**values)


def check_fields(config: Any, where: str) -> None:
    """Convert the values of a frozen dataclass to the types of its fields, for its ``__post_init__``.

    So a configuration that is made in Python takes what a recipe takes, lists and tables among them, and also paths
    and numpy's numbers; what it does not take is refused with the message that a recipe gets.

    Parameters
    ----------
    where
        Name of its table in a recipe, such as ``"[hot]"``, for messages.

    Raises
    ------
    RecipeError
        For a value of the wrong type.
    """
    hints = _hints(typing.cast(typing.Hashable, type(config)))
    for field in dataclasses.fields(config):
        if field.init:
            value = getattr(config, field.name)
            object.__setattr__(config, field.name, _convert(value, hints[field.name], f"{where} {_key(field)}"))


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


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
        if not isinstance(value, str) or value not in choices:
            hint_text = nearest(str(value) if isinstance(value, str) else brief(value), map(str, choices))
            raise RecipeError(f"{where} = {brief(value)} is not one of {', '.join(map(str, choices))}; {hint_text}")
        return str(value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where} = {brief(value)} must be a list")
        item = typing.get_args(hint)[0]
        return tuple(_convert(entry, item, f"{where}[{index}]") for index, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} = {brief(value)} must be a table")
        item = typing.get_args(hint)[1]
        return {str(key): _convert(entry, item, f"{where}.{key}") for key, entry in value.items()}
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} = {brief(value)} must be a table")
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
    raise RecipeError(f"{where} = {brief(value)} must be {words}")


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
    is_truth = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # numpy's too
    if hint is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    kinds = {bool: bool, int: numbers.Integral, float: numbers.Real, str: str}
    if hint in kinds and (is_truth is not (hint is bool) or not (is_truth or isinstance(value, kinds[hint]))):
        raise RecipeError(f"{where} = {brief(value)} must be {_words(hint)}")
    if hint is int and not -_LARGEST < value < _LARGEST:
        raise RecipeError(f"{where} = {brief(value)} must be a whole number of less than 64 bits")
    try:
        value = hint(value) if hint in kinds else value
    except OverflowError:
        raise RecipeError(f"{where} = {brief(value)} must be a finite number") from None
    # TOML has nan and inf. Neither means anything in a setting, and most range checks would let one of them pass.
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where} = {value!r} must be a finite number")
    return value


def check_path(name: str, where: str) -> None:
    """Refuse a name of a file or a folder that no system can look up, before anything tries to.

    Raises
    ------
    RecipeError
        For one that is too long, holds a NUL character, or starts at the home folder of a user who has none.
    """
    told = f"{where} {brief(name)}"
    if "\0" in name:
        raise RecipeError(f"{told} holds a NUL character, which no name can; correct it")
    part = max(name.split("/"), key=lambda part: len(os.fsencode(part)))
    # A pattern may be longer than the names that it matches.
    if (len(os.fsencode(part)) > _LONGEST_NAME and not set(part) & set("*?[")) or len(name) > _LONGEST_PATH:
        raise RecipeError(
            f"{told} is longer than a name can be ({_LONGEST_NAME} bytes, {_LONGEST_PATH} with its folders); correct it"
        )
    if name.startswith("~") and os.path.expanduser(name).startswith("~"):
        raise RecipeError(f"{told}: {name.split('/')[0]} has no home folder here; write the path in full")


def check_folder(path: str | os.PathLike[str], where: str) -> None:
    """`check_path` for a folder to write to, whose name must also be UTF-8, as libraries encode it.

    Raises
    ------
    RecipeError
        As `check_path`; also for a name in another encoding.
    """
    name = os.fspath(path)
    check_path(name, where)
    try:
        is_utf8 = os.fsencode(name) == name.encode()
    except UnicodeEncodeError:
        is_utf8 = False
    if not is_utf8:
        raise RecipeError(f"{where} {brief(name)} is not UTF-8 (or the locale is not); choose a name that is")


def without_defaults(table: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `table` without the keys of `later` that have their default there.

    >>> without_defaults({"name": "a", "table": None, "padding": "0"}, {"table": None, "padding": None})
    {'name': 'a', 'padding': '0'}
    """
    return {key: value for key, value in table.items() if key not in later or value != later[key]}
