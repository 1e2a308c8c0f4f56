"""Parse and print byte sizes and counts as people write them: ``"512MiB"``, ``"1.5 GB"``, ``4096``.

`parse_bytes` accepts everything that `format_bytes` prints.
"""

from __future__ import annotations

import re

from fae.core.errors import RecipeError
from fae.core.printable import brief

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_MOST_BYTES, _MOST_DIGITS = 2**63, 20
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(text: str | int, *, what: str = "size") -> int:
    """Turn a size into bytes.

    Parameters
    ----------
    text
        An integer (bytes) or text such as ``"512MiB"``, ``"0.5 GB"``; units are case-insensitive.
    what
        The name of the value, for the error message.

    Raises
    ------
    RecipeError
        If the text is not a size, or is not positive.

    Examples
    --------
    >>> parse_bytes("512MiB"), parse_bytes("1.5 kB"), parse_bytes(4096)
    (536870912, 1500, 4096)
    """
    told = f"{what} = {brief(text)}"
    is_number = isinstance(text, int) and not isinstance(text, bool)
    match = _SIZE.fullmatch(str(text)) if isinstance(text, str) or (is_number and abs(text) < _MOST_BYTES) else None
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if isinstance(text, int) and text >= _MOST_BYTES:
        raise RecipeError(f"{told} is more than any memory has; write a size such as 512MiB")
    if match is None or unit is None:
        raise RecipeError(f"{told} is not a size; write a positive number with a unit, such as 512MiB or 2GB")
    number = match.group(1).lstrip("0") or "0"
    # More digits than any size has: int refuses thousands of them, and a float of hundreds is infinite.
    is_long = len(number.partition(".")[0]) > _MOST_DIGITS
    value = float("inf") if is_long else (float(number) if "." in number else int(number)) * unit
    if value >= _MOST_BYTES:
        raise RecipeError(f"{told} is more than any memory has; write a size such as 512MiB")
    if int(value) <= 0:
        raise RecipeError(f"{told} must be more than zero; write a size such as 512MiB")
    return int(value)


def format_bytes(count: int) -> str:
    """Print bytes for people, in binary units.

    >>> format_bytes(512 * 2**20), format_bytes(999), format_bytes(1536), format_bytes(2**20 - 1)
    ('512.0 MiB', '999 B', '1.5 KiB', '1.0 MiB')
    """
    value = float(count)
    if value < 1024:
        return f"{int(value)} B"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if round(value, 1) < 1024:  # never "1024.0 KiB"
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def format_count(count: int | float) -> str:
    """Print a count with thousands separators.

    >>> format_count(33762577)
    '33,762,577'
    """
    return f"{count:,.0f}"


def format_duration(seconds: float) -> str:
    """A span of time in at most two units.

    Examples
    --------
    >>> [format_duration(seconds) for seconds in (0.4, 47, 200, 5400, 200000)]
    ['0.4 s', '47 s', '3 min 20 s', '1 h 30 min', '2 d 8 h']
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(round(seconds) // 60)} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
