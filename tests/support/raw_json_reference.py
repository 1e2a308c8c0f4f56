"""What a log of JSON lines means, in plain Python; see `raw_log_reference`."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from raw_log_reference import (
    Form,
    Input,
    Refused,
    Unsure,
    items_of,
    label_of,
    number_of,
    refuse_other_kinds,
    whole_of,
)


def read_jsonl(data: bytes, form: Form) -> list[Input]:
    """Inputs of one JSON object a line."""
    refuse_other_kinds(data)
    inputs = []
    for raw in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if not raw.strip(b" \t\r"):
            continue
        try:
            row = json.loads(
                raw.decode(), parse_float=_Decimal, parse_int=_Whole, parse_constant=_Constant,
                object_pairs_hook=lambda pairs: _object(pairs, form),
            )  # fmt: skip
        except UnicodeDecodeError as error:
            raise Refused("not UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise Refused(f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise Refused("no object")
        inputs.append(_json_input(row, form))
    if not inputs:
        raise Refused("no inputs")
    return inputs


class _Decimal(str):
    """A JSON number with a point or an exponent, as written."""


class _Whole(str):
    """A JSON whole number, as written."""


class _Constant(str):
    """NaN, Infinity or -Infinity."""


def _object(pairs: list[tuple[str, Any]], form: Form) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if any(names.count(name) > 1 for name in form.wanted):
        raise Refused("a key twice")
    return dict(pairs)


def _json_input(row: dict[str, Any], form: Form) -> Input:
    found: Input = {form.label: _json_label(row.get(form.label), form)}
    for name in form.dense:
        value = row.get(name)
        if isinstance(value, bool):
            raise Unsure("a boolean number")
        if isinstance(value, (dict, list)):
            raise Refused("nested number")
        found[name] = None if value is None else number_of(str(value), form)
    for name in form.plain:
        text = _json_text(row.get(name), form.missing)
        found[name] = "" if text in form.missing else text
    for name in form.encoded:
        found[name] = whole_of(without_missing(_json_text(row.get(name), form.missing), form))
    for name in form.lists:
        value = row.get(name)
        if isinstance(value, list):
            items = [_json_text(item, form.missing) for item in value]
            found[name] = [item for item in items if item and item not in form.missing]
        else:
            found[name] = items_of(_json_text(value), form)
    return found


def without_missing(text: str, form: Form) -> str:
    """The text, empty where it is a word for a missing value."""
    return "" if text in form.missing else text


def _json_text(value: Any, missing: tuple[str, ...] = ()) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        raise Refused("nested value")
    if isinstance(value, _Constant):
        if value == "NaN" and any(word.lower() == "nan" for word in missing):
            return ""
        raise Refused(f"{value} as an id")
    if isinstance(value, (_Decimal, _Whole)):
        number = float(value)
        if isinstance(value, _Whole):
            if str(value) == "-0" or abs(int(value)) >= 2**63:
                raise Unsure("a whole number that JSON readers differ in")
            return str(int(value))
        if not math.isfinite(number) or number != math.floor(number) or abs(number) > 2**53:
            raise Refused(f"a fraction as an id: {value}")
        return str(int(number))
    text: str = value
    if re.search("[\ud800-\udfff]", text):
        raise Refused("a lone surrogate")
    return text


def _json_label(value: Any, form: Form) -> int:
    if isinstance(value, (dict, list)):
        raise Refused("nested label")
    if value is None:
        if form.label_map and "" in form.label_map:
            return form.label_map[""]
        raise Refused("no label")
    if isinstance(value, bool):
        return label_of(str(value).lower(), form)
    if isinstance(value, (_Decimal, _Whole)) and not form.label_map and form.label_threshold is None:
        if float(value) in (0.0, 1.0):
            if str(value) not in ("0", "1", "0.0", "1.0"):
                raise Unsure("a label of another form")
            return int(float(value))
        raise Refused(f"label {value}")
    if isinstance(value, (_Decimal, _Whole)) and any(_same_number(word, value) for word in form.missing):
        raise Refused("a word for missing")
    return label_of(_json_text(value, form.missing) if form.label_map else str(value), form)


def _same_number(word: str, value: str) -> bool:
    """Numbers are compared with words for missing as numbers: 7.0 is missing where 7 is."""
    try:
        return float(word) == float(value)
    except ValueError:
        return False
