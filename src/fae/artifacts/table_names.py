"""File names for tables: what a table's vocabulary and rows are called in an exported folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from urllib.parse import quote

_LONGEST_STEM = 150


def file_stems(names: Sequence[str]) -> list[str]:
    """A file name for each table: its own name, with other characters than letters, digits, ``._-~`` as ``%XX``.

    >>> file_stems(["user", "a/b", ".x"])
    ['user', 'a%2Fb', '%2Ex']
    """
    found = []
    for name in names:
        stem = re.sub(r"^\.", "%2E", quote(name, safe=""))
        if len(stem) > _LONGEST_STEM:
            stem = f"{stem[:_LONGEST_STEM]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        found.append(stem)
    return found
