"""How the rows of a list feature become one vector: the names in recipes and the codes in kernels."""

from __future__ import annotations

from typing import Literal

Pooling = Literal["sum", "mean", "none"]
"""``sum`` or ``mean`` of the rows; ``none`` keeps the rows as a sequence."""

POOLING_CODE: dict[Pooling, int] = {"sum": 0, "mean": 1, "none": 2}
