"""How often each id of a part occurs in it: counted where the part is read, so that no pass over all ids need count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, compiled
from fae.core.npy import NpyRows
from fae.ingest.numbering.final_ids import count_ids, damaged_ids
from fae.ingest.provisional_ids import ColumnEncoder

_BLOCK_BYTES = 1 << 20
BYTES_PER_VALUE = 12
"""Memory of counting: for a distinct value of each column, at the most."""

ColumnCounts = tuple[npt.NDArray[np.int32], int, bool]
"""For one column: int32 ``[values + 2]``, the last two for missing numbers and unused slots, as those of
`fae.ingest.numbering.final_ids.count_ids`; inputs without an item; whether any input has two."""


def count_part(ids: Path, encoders: Sequence[ColumnEncoder]) -> list[ColumnCounts]:
    """Count the ids of a part in its ``ids.npy``; no column may be encoded.

    Raises
    ------
    LogError
        If it has an id without a value.
    """
    counts = [np.zeros(encoder.table_encoder.num_values + 2, np.int64) for encoder in encoders]
    empty, has_lists = [0] * len(encoders), [False] * len(encoders)
    with NpyRows(ids) as rows:
        step = max(1, _BLOCK_BYTES // max(1, rows.row_bytes))
        for start in range(0, len(rows), step):
            block = rows.read(start, start + step)
            for index, encoder in enumerate(encoders):
                first, length = encoder.first_slot, encoder.config.max_length
                found = int(count_ids(block, first, length, counts[index]))
                if found < 0:
                    raise damaged_ids(encoder.config.name)
                empty[index] += found
                has_lists[index] |= length > 1 and bool((block[:, first + 1] >= 0).any())
    own = [each.astype(np.int32) for each in counts]
    return list(zip(own, empty, has_lists, strict=True))


@compiled
def add_counts(own: npt.NDArray[np.int32], ids: npt.NDArray[np.int32], counts: Int64) -> bool:
    """Add the counts of a part to those of the log, where `ids` are the log's ids of the part's; False if one is not.

    Parameters
    ----------
    own
        int32 ``[values + 2]``, as in `ColumnCounts`; the last two go to the last two of `counts`.
    """
    known = counts.size - 2
    for value in range(ids.size):
        place = ids[value]
        if place < 0 or place >= known:
            return False
        counts[place] += own[value]
    counts[known] += own[ids.size]
    counts[known + 1] += own[ids.size + 1]
    return True
