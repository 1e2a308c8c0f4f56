"""Lists as dataframes print them, ``[1, 2]`` or ``['a' 'b']``: read them, and notice them where nobody said so."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.readers.line_blocks import shown
from fae.ingest.value_types.value_texts import Place

_MARK = "\x1f"
"""Takes the place of separators, in text that does not have it."""
_BARS = r"^\s*[\[({]\s*[^\s,'\"|]+(?:\s*\|\s*[^\s,'\"|]+)+\s*[\])}]\s*$"
_LOOKED_AT, _SHARE = 1000, 0.95


def read_printed(texts: Any, column: ColumnConfig, locate: Place) -> Any:
    """Lists of items from their printed text.

    A list is in ``[ ]``, ``( )`` or ``{ }``; empty text is an empty list. Items are separated by commas, white space
    or ``|``, one of them in a list, or by the column's `separator` where that is anything else but the default ``|``;
    they may have single or double quotes, and then hold anything.

    Parameters
    ----------
    texts
        Arrow string array ``[n]`` without nulls.

    Returns
    -------
    Arrow array ``[n]`` of lists of strings.

    Raises
    ------
    LogError
        If a text is not a list; it names the first.
    """
    own = column.separator.strip()
    separator = "" if own in ("", ",", "|") else own
    pattern = _item_pattern(separator)
    if not separator and _has(texts, "|"):
        # Bare items between bars, the default separator of lists: no dataframe prints a comma or white space there.
        between = pc.match_substring_regex(texts, pattern=_BARS)
        texts = pc.if_else(between, pc.replace_substring(texts, "|", ","), texts)
    good = pc.match_substring_regex(texts, pattern=_list_pattern(separator))
    good = np.asarray(pc.or_(good, pc.equal(texts, "")))
    cut = np.asarray(pc.match_substring_regex(texts, pattern=r"[\[\s,]\.\.\.[\s,\]]"))
    if not good.all() or cut.any():
        row = int(np.flatnonzero(~good | cut)[0])
        what = "which was cut short when it was printed; write whole lists"
        if not cut[row]:
            what = "expected a list such as [1, 2] or ['a b', 'c']; fix it, or leave brackets out"
        raise LogError(
            f"{locate(row)}: the list column {column.name!r} is {shown(str(texts[row].as_py()).encode())}, {what}"
        )
    bare = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(texts), 1, None)
    bare = pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(bare, 0, -1))
    if _has(bare, "\\") or _has(bare, _MARK):
        return pa.array([_items(text, pattern) for text in bare.to_pylist()], pa.list_(pa.string()))
    # Each item and the separator behind it become the item and a mark; an empty item is left out later.
    marked = pc.replace_substring_regex(bare, pattern=pattern, replacement=rf"\1\2\3{_MARK}")
    return pc.split_pattern(marked, pattern=_MARK)


def _has(texts: Any, part: str) -> bool:
    return bool(pc.any(pc.match_substring(texts, pattern=part)).as_py())


def _between(separator: str) -> str:
    return rf"\s*{re.escape(separator)}\s*" if separator else r"\s*,\s*|\s+"


def _item(separator: str, begin: str) -> str:
    """A quoted or a bare item; each of the three ways is a group that begins with `begin`."""
    bare = r"[^\s,'\"\[\](){}]+"
    if separator:
        first = re.escape(separator[0])
        bare = rf"[^{first}'\"\[\](){{}}\s](?:[^{first}'\"\[\](){{}}]*[^{first}'\"\[\](){{}}\s])?"
    return rf"(?:'{begin}(?:[^'\\]|\\.)*)'|\"{begin}(?:[^\"\\]|\\.)*)\"|{begin}{bare}))"


def _item_pattern(separator: str) -> str:
    return rf"(?s){_item(separator, '(')}(?:{_between(separator)}|$)"


def _list_pattern(separator: str) -> str:
    item = _item(separator, "(?:")
    # One list has one kind of separator: else [New York, Paris] would have three items and nobody would know.
    ways = [rf"(?:\s*{re.escape(separator or ',')}\s*{item})*(?:\s*{re.escape(separator or ',')})?"]
    ways += [] if separator else [rf"(?:\s+{item})*"]
    inside = rf"\s*(?:{item}(?:{'|'.join(ways)}))?\s*"
    return rf"(?s)^\s*(?:\[{inside}\]|\({inside}\)|\{{{inside}\}})\s*$"


def _items(text: str, pattern: str) -> list[str]:
    """The items of one list, with escapes as Python and JSON write them."""
    found = []
    for match in re.finditer(pattern, text):
        single, double, bare = match.groups()
        if bare is not None:
            found.append(bare)
        elif single is not None:
            found.append(_unescaped(f"'{single}'"))
        else:
            found.append(_unescaped(f'"{double}"'))
    return found


def _unescaped(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted[1:-1]
    try:
        value = json.loads(quoted) if quoted[0] == '"' else ast.literal_eval(quoted)
        value.encode()
    except (ValueError, SyntaxError):
        return quoted[1:-1]
    return str(value)


class PrintedLists:
    """Notices text lists that are printed with brackets, in a column whose configuration does not say so.

    It looks at the first 1,000 lists that are not empty text, so what it decides does not depend on how the log is cut
    into chunks.

    Attributes
    ----------
    state
        JSON values, kept with the marks of ingest. ``several``: whether any list had more than one item as it was
        written, missing ones and padding included. ``has_texts``: whether there was any text of lists.
    """

    def __init__(self, column: ColumnConfig) -> None:
        self._column = column
        self.state: dict[str, Any] = {
            "seen": 0, "bracketed": 0, "lists": 0, "example": "", "place": "", "several": False, "has_texts": False,
        }  # fmt: skip

    def start(self, before: Sequence[Mapping[str, Any]] | int, index: int) -> None:
        """Begin inside a log: with the states of all columns, or with a number of lists that were looked at."""
        if isinstance(before, int):
            self.state["seen"] = before
        else:
            self.state = dict(before[index])

    @property
    def is_looking(self) -> bool:
        """Whether more lists are looked at."""
        column = self._column
        return self.state["seen"] < _LOOKED_AT and not column.brackets and column.max_length > 1

    def add(self, texts: Any, locate: Place) -> None:
        """Look at the next text lists of the log: an Arrow string array without nulls. Raises as `finish`."""
        state = self.state
        state["has_texts"] = True
        if not self.is_looking:
            return
        filled = np.flatnonzero(np.asarray(pc.not_equal(texts, "")))[: _LOOKED_AT - state["seen"]]
        part = texts.take(pa.array(filled))
        bracketed = np.asarray(
            pc.match_substring_regex(part, pattern=r"(?s)^(\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\})$"), np.bool_
        )
        # One bare item in brackets may be its name, as in [UNK]; the others are lists for certain.
        lists = bracketed & np.asarray(pc.match_substring_regex(part, pattern=r"""^.(.*[\s,'"].*)?.$"""), np.bool_)
        if not state["lists"] and lists.any():
            row = int(np.flatnonzero(lists)[0])
            state.update(example=shown(part[row].as_py().encode()), place=locate(int(filled[row])))
        state["seen"] += len(part)
        state["bracketed"] += int(bracketed.sum())
        state["lists"] += int(lists.sum())
        if state["seen"] >= _LOOKED_AT:
            self.finish()

    def finish(self) -> None:
        """Judge what was seen.

        Raises
        ------
        LogError
            If nearly all lists are in brackets, and one of them at least is empty or has several items.
        """
        state = self.state
        if state["lists"] and state["bracketed"] >= _SHARE * state["seen"]:
            example = state["example"]
            raise LogError(
                f"{state['place']}: the list column {self._column.name!r} is {example}: its items begin with "
                f"{example[1]} and end with {example[-2]}; set brackets = true for it in [log] categorical"
            )
