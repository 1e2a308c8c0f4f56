"""How ranks end: which errors every rank has, which one it only suffers from, and the status that says so."""

from __future__ import annotations

from fae.core.errors import RankError

LOST_STATUS = 76
"""Exit status of a rank that another one, or the launcher, speaks for."""


class CommonFault(RankError):
    """An error that every rank finds at the same place: rank 0 alone says it."""


class LostRank(RankError):
    """Another rank is gone, or speaks for this one: this one ends without a word."""
