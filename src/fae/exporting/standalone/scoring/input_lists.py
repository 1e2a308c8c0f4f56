"""The items of a list column, by the rules in schema.json: which are kept, and in which slot each one is."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from fae.exporting.standalone.scoring.input_text import (
    InputError,
    is_list_type,
    is_text_type,
    plain_values,
    to_text,
)

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?i:nan|inf|infinity)|"
_BARS = re.compile(r"\s*[\[({]\s*[^\s,'\"|]+(?:\s*\|\s*[^\s,'\"|]+)+\s*[\])}]\s*")


class KeptItems(NamedTuple):
    """Items of some inputs, flat: Arrow strings, and of each the number of its input and its slot there."""

    values: Any
    rows: list[int]
    slots: list[int]


def kept_items(array: Any, feature: Mapping[str, Any], missing: Sequence[str]) -> KeptItems:
    """The last `length` items of every input's list, in order; missing ones and padding are left out before that.

    Raises
    ------
    InputError
        For values that are no lists, and items that have no text.
    """
    name = str(feature["name"])
    array = plain_values(array)
    if not is_list_type(array.type):
        array = split_text(array, feature, missing)
    elif is_list_type(array.type.value_type):
        raise InputError(f"column {name!r} holds lists of lists; one list an input is expected")
    if not pa.types.is_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    size, places = len(array), pc.indices_nonzero(array.is_valid())
    array = array.take(places)  # lists that are null may hide items
    values = to_text(array.flatten(), name, missing)
    parents = places.take(pc.list_parent_indices(array)).to_pylist()
    if feature["weight_separator"]:
        values = _without_weights(values, feature, missing)
    texts = values.to_pylist()
    present = [at for at, text in enumerate(texts) if text and text != feature["padding"]]
    length, counts = int(feature["length"]), [0] * size
    for at in present:
        counts[parents[at]] += 1
    passed = [0] * size
    kept, rows, slots = [], [], []
    for at in present:
        row = parents[at]
        slot = passed[row] - max(counts[row] - length, 0)
        passed[row] += 1
        if slot >= 0:
            kept.append(texts[at])
            rows.append(row)
            slots.append(slot)
    return KeptItems(pa.array(kept, pa.string()), rows, slots)


def split_text(array: Any, feature: Mapping[str, Any], missing: Sequence[str]) -> Any:
    """Arrow array ``[n]`` of lists of strings, of an array of text or other scalars.

    Raises
    ------
    InputError
        For text that is no printed list where the feature says that it is.
    """
    from_text = is_text_type(array.type)
    text = to_text(array, str(feature["name"]), missing)
    if not from_text:
        return pa.array([[each] for each in text.to_pylist()], pa.list_(pa.string()))
    if feature["brackets"]:
        return pa.array([_printed(each, feature) for each in text.to_pylist()], pa.list_(pa.string()))
    return pc.split_pattern(text, pattern=feature["separator"])


def _without_weights(values: Any, feature: Mapping[str, Any], missing: Sequence[str]) -> Any:
    """Items without the last `weight_separator` and the number behind it."""
    pattern = re.compile(rf"(?s)(.*){re.escape(feature['weight_separator'])}\s*(?:{_NUMBER})\s*")
    found = []
    for text in values.to_pylist():
        match = pattern.fullmatch(text)
        if match is None and feature["weight_separator"] in text:
            raise InputError(
                f"the item {text!r} of {feature['name']!r} has no number behind {feature['weight_separator']!r}"
            )
        found.append(text if match is None else match[1])
    return to_text(pa.array(found, pa.string()), str(feature["name"]), missing)


def _printed(text: str, feature: Mapping[str, Any]) -> list[str]:
    """The items of a list as dataframes print it: ``[1, 2]``, ``['a' 'b']``, ``[1 | 2]``."""
    if not text:
        return []
    own = feature["separator"].strip()
    separator = "" if own in ("", ",", "|") else own
    if not separator and _BARS.fullmatch(text):
        text = text.replace("|", ",")
    inner = text.strip()
    if inner[:1] + inner[-1:] not in ("[]", "()", "{}") or len(inner) < 2:
        raise InputError(f"the list column {feature['name']!r} is {text!r}, expected a list such as [1, 2]")
    inner = inner[1:-1].strip()
    bare = r"[^\s,'\"\[\](){}]+"
    if separator:
        first = re.escape(separator[0])
        bare = rf"[^{first}'\"\[\](){{}}\s](?:[^{first}'\"\[\](){{}}]*[^{first}'\"\[\](){{}}\s])?"
    between = rf"\s*{re.escape(separator)}\s*" if separator else r"\s*,\s*|\s+"
    item = re.compile(rf"(?s)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|{bare})(?:{between}|$)")
    found, at = [], 0
    while at < len(inner):
        match = item.match(inner, at)
        if match is None or match[1] == "...":
            raise InputError(f"the list column {feature['name']!r} is {text!r}, expected a list such as [1, 2]")
        found.append(_unquoted(match[1]))
        at = match.end()
    return found


def _unquoted(item: str) -> str:
    if item[0] not in "'\"":
        return item
    if "\\" not in item:
        return item[1:-1]
    try:
        return str(json.loads(item) if item[0] == '"' else ast.literal_eval(item))
    except (ValueError, SyntaxError):
        return item[1:-1]
