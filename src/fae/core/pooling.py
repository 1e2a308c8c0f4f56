"""How the rows of a list feature become one vector: the names that recipes use and the codes that kernels use."""

from __future__ import annotations

from typing import Literal

Pooling = Literal["sum", "mean", "none"]
"""``sum`` and ``mean`` of the rows, or ``none``: the rows are kept as a sequence."""

POOLING_CODE: dict[Pooling, int] = {"sum": 0, "mean": 1, "none": 2}
