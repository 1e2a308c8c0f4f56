"""Notice text that ingest cannot take for what it is: dates in other spellings, numbers with signs of money.

Dates whose day and month cannot be told apart by one value (``3/4/2024``) are not guessed at, so all such spellings are
told to people, who know which one it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_DAY_NAME = "((mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +)?"
_ZONE = "( ?(z|utc|gmt|[+-][0-9]{2}:?[0-9]{2}))?"
_CLOCK = rf"([ T,:]+[0-9]{{1,2}}:[0-9]{{2}}(:[0-9]{{2}}([.,][0-9]+)?)?( ?[ap]\.?m\.?)?{_ZONE})?"
_DATES = (
    rf"(?i)^[0-9]{{1,2}}/[0-9]{{1,2}}/([0-9]{{2}}|[0-9]{{4}}){_CLOCK}$",
    rf"(?i)^[0-9]{{1,2}}[.-][0-9]{{1,2}}[.-][0-9]{{4}}{_CLOCK}$",
    rf"(?i)^[0-9]{{4}}[/.][0-9]{{1,2}}[/.][0-9]{{1,2}}{_CLOCK}$",
    rf"(?i)^{_DAY_NAME}([0-9]{{1,2}}[ /-])?{_MONTH}[a-z]*[ /,.-]+[0-9]{{1,4}}\b.{{0,24}}$",
    rf"(?i)^[0-9]{{8}}t[0-9]{{4}}([0-9]{{2}})?{_ZONE}$",
)
_MARKED_NUMBER = r"^[+-]?[$€£¥]? ?[+-]?[0-9][0-9.,]* ?[%$€£¥]?$"
_MOST = 0.9
_LOOKED_AT = 2000


def is_other_date(texts: Any) -> bool:
    """Whether nearly all texts of an Arrow array are dates or times that ingest does not read."""
    return any(_share(texts, pattern) > _MOST for pattern in _DATES)


def is_marked_number(texts: Any) -> bool:
    """Whether nearly all texts are numbers with a sign of money, a percent sign or commas between thousands."""
    return _share(texts, _MARKED_NUMBER) > _MOST and _share(texts, r"[$€£¥%]|[0-9],[0-9]{3}") > _MOST / 3


def _share(texts: Any, pattern: str) -> float:
    head = texts.slice(0, _LOOKED_AT)
    return float(np.mean(np.asarray(pc.match_substring_regex(head, pattern)))) if len(head) else 0.0
