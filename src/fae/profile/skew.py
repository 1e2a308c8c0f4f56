"""How skewed the accesses of a table are: which share its hottest rows take, at a few points.

The run record keeps these curves, so that a report needs no artifact. Every point is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CURVE_POINTS = 60
"""Most points of a curve, at even distances on a logarithmic axis, where 60 cannot be told from the whole curve."""


def skew_curve(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Compute which share of a table's accesses its hottest rows take.

    Sorts only counts that are not descending already (vocabulary ids mostly are), and sums without another array as
    long as the table: the largest tables have tens of millions of rows.

    Parameters
    ----------
    counts
        ``[num_embeddings]``: accesses of each row, in any order; may be a memory map.

    Returns
    -------
    dict
        ``accesses`` and ``num_accessed_rows``; ``rows``, ascending from 1, and ``share``: the share of all accesses
        that this many hottest rows take. Both are empty where there is no access. JSON values.

    Examples
    --------
    >>> skew_curve(np.array([1, 5, 0, 4]))
    {'accesses': 10, 'num_accessed_rows': 3, 'rows': [1, 2, 3, 4], 'share': [0.5, 0.9, 1.0, 1.0]}
    """
    accesses, accessed = int(counts.sum()), int(np.count_nonzero(counts))
    if not accesses:
        return {"accesses": 0, "num_accessed_rows": 0, "rows": [], "share": []}
    if not bool(np.all(counts[:-1] >= counts[1:])):
        counts = np.sort(counts)[::-1]
    rows = np.unique(np.geomspace(1, len(counts), CURVE_POINTS).round().astype(np.int64))
    of_piece = np.add.reduceat(counts[: rows[-1]], np.concatenate([[0], rows[:-1]]))
    return {
        "accesses": accesses,
        "num_accessed_rows": accessed,
        "rows": rows.tolist(),
        "share": [round(float(share), 6) for share in np.cumsum(of_piece) / accesses],
    }
