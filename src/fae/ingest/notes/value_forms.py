"""Do two sets of values differ by the way they are written alone: ``9.0`` for ``9``, spaces, case, zeros in front?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BLANK = r"[\s\x{00a0}\x{200b}\x{feff}]+"
FORMS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("spaces around them", lambda values: _replaced(_replaced(values, f"^{_BLANK}", ""), f"{_BLANK}$", "")),
    ("quotes around them", lambda values: _replaced(values, r"""^b?["'](.*)["']$""", r"\1")),
    ("forms of one Unicode character", lambda values: pc.utf8_normalize(values, form="NFKC")),
    ("upper and lower case", pc.utf8_lower),
    ("`9.0` for `9`", lambda values: _replaced(values, r"^([+-]?\d+)\.0*$", r"\1")),
    ("zeros in front", lambda values: _replaced(values, r"^0+([0-9a-z])", r"\1")),
)
"""Ways in which one value is written differently, and what takes the difference off, in this order."""


def _replaced(values: Any, pattern: str, replacement: str) -> Any:
    return pc.replace_substring_regex(values, pattern=pattern, replacement=replacement)


def plain_forms(values: Any, *, without: str = "") -> Any:
    """Each value of an Arrow string array without the differences that `FORMS` names; those of `without` stay."""
    for name, taken_off in FORMS:
        if name != without:
            values = taken_off(values)
    return values


def differing_forms(value: str, other: str) -> list[str]:
    """Names of `FORMS` by which two texts differ; none if they differ by more, or are the same.

    >>> differing_forms(" U7", "u7"), differing_forms("9.0", "9"), differing_forms("a", "b")
    (['spaces around them', 'upper and lower case'], ['`9.0` for `9`'], [])
    """
    both = pa.array([value, other], pa.string())
    first, second = plain_forms(both).to_pylist()
    if first != second:
        return []
    found = []
    for name, _ in FORMS:
        first, second = plain_forms(both, without=name).to_pylist()
        if first != second:
            found.append(name)
    return found


def same_but_for_form(values: Any, known: Iterable[Any]) -> list[tuple[str, str]]:
    """Pairs of a value and the known value that differs from it by its form alone, one a value, in their order.

    Parameters
    ----------
    values
        Arrow string array, none of them in `known`.
    known
        Arrow string arrays, read one by one until every value is found.
    """
    plain = plain_forms(values)
    found: dict[int, str] = {}
    for part in known:
        places = np.asarray(pc.index_in(plain, value_set=plain_forms(part)).fill_null(-1))
        for index in np.flatnonzero(places >= 0).tolist():
            found.setdefault(index, part[int(places[index])].as_py())
        if len(found) == len(values):
            break
    return [(values[index].as_py(), found[index]) for index in sorted(found)]
