"""Raw columns of JSON objects, one an input, as schema.json describes them: text, lists of text, and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from fae.exporting.standalone.scoring.input_lists import split_text
from fae.exporting.standalone.scoring.input_numbers import SPACES
from fae.exporting.standalone.scoring.input_text import InputError

Columns = dict[str, Any]
"""Columns of some inputs by name, Arrow arrays ``[n]``; of text that is dense too `numbers_of` names the numbers."""


def numbers_of(name: str) -> str:
    """Name of the numbers of a column that is text too, and whose numbers cannot be told from its text."""
    return f"\0{name}"


def wanted_names(schema: Mapping[str, Any]) -> list[str]:
    """Names of the raw columns, each once, dense ones first."""
    found = [each["column"] for each in (*schema["dense"], *schema["features"])]
    return list(dict.fromkeys(found))


def columns_of_objects(objects: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> Columns:
    """Raw columns of JSON objects, one an input; a key that is left out is a missing value.

    Raises
    ------
    InputError
        For a value that no column can hold.
    """
    missing, decimal = schema["input"]["missing"], schema["input"]["decimal"]
    lists = {each["column"]: each for each in schema["features"] if each["length"] > 1}
    ids = {each["column"] for each in schema["features"] if each["part"] is None}
    texts = {each["column"] for each in schema["features"]}
    dense = {each["column"] for each in schema["dense"]}
    nan_is_missing = any(word.lower() == "nan" for word in missing)
    found: Columns = {}
    for name in wanted_names(schema):
        values = [each.get(name) for each in objects]
        if nan_is_missing:
            values = list(map(_without_nan, values))
        if name in dense:
            key = numbers_of(name) if name in texts else name
            found[key] = _converted(name, values, partial(_json_number, missing=missing, decimal=decimal), pa.float64())
        if name in lists and any(isinstance(value, list) for value in values):
            convert = partial(_json_list, feature=lists[name], missing=missing)
            found[name] = _converted(name, values, convert, pa.list_(pa.string()))
        elif name in texts:
            found[name] = _converted(name, values, _json_text if name in ids else _json_scalar, pa.string())
    return found


def _converted(name: str, values: Sequence[Any], convert: Callable[[Any], Any], kind: Any) -> Any:
    converted = []
    for row, value in enumerate(values):
        try:
            converted.append(convert(value))
        except (InputError, ValueError, OverflowError) as error:
            raise InputError(f"input {row + 1}: {name!r} is {_brief(value)}, {error}") from None
    try:
        return pa.array(converted, kind)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise InputError(f"{name!r}: {' '.join(str(error).split())}") from None


def _brief(value: Any) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):
        return "a value that is too long to show"
    return text if len(text) <= 60 else text[:60] + "..."


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_without_nan, value))
    return None if isinstance(value, float) and value != value else value


def _json_text(value: Any) -> str | None:
    """Text of a value that is looked up."""
    if isinstance(value, float) and not (abs(value) <= 2.0**53 and value == int(value)):
        raise InputError("expected text or a whole number")
    return _json_scalar(value)


def _json_scalar(value: Any) -> str | None:
    """Text of any scalar; that of a time may have a fraction."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if abs(value) <= 2.0**53 and value == int(value) else repr(value)
    raise InputError("expected text or a whole number")


def _json_list(value: Any, feature: Mapping[str, Any], missing: Sequence[str]) -> list[str | None] | None:
    if isinstance(value, list):
        return [_json_text(item) for item in value]
    text = _json_text(value)
    if text is None:
        return None
    found: list[str | None] = split_text(pa.array([text], pa.string()), feature, missing)[0].as_py()
    return found


def _json_number(value: Any, missing: Sequence[str], decimal: str) -> float | None:
    if value is None or isinstance(value, (int, float)):
        return None if value is None else float(value)
    if not isinstance(value, str):
        raise InputError("expected a number")
    if value == "" or value in missing:
        return None
    text = value.strip(SPACES)
    if decimal == ",":
        text = text.replace(".", "x").replace(",", ".")
    if not text.isascii() or "_" in text or text != text.strip():
        raise InputError("expected a number")
    try:
        return float(text)
    except ValueError:
        raise InputError("expected a number") from None
