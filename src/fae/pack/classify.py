"""From vocabulary ids to storage ranks, and from ranks to hot and cold inputs: the first step of pack.

An input is hot if and only if every lookup of it has ``rank < num_hot`` of its table; -1 (an unused slot) is no lookup.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import Int64
from fae.core.threads import run_ranges
from fae.pack import input_kernels
from fae.pack.log_reader import plain_view
from fae.pack.rank_tables import RankTables

_LEAST_INPUTS = 8192  # that are worth a thread of their own


class InputCounts(NamedTuple):
    """What is counted of inputs: lookups (unused slots left out) and how many of them the hot set serves, inputs that
    need hot rows only, labels of 1, and labels of 1 of such inputs."""

    lookups: int
    hot_lookups: int
    hot_inputs: int
    clicks: int
    hot_clicks: int


def translate_inputs(ids: npt.NDArray[np.int32], layout: RowLayout) -> npt.NDArray[np.int64]:
    """Find the row number of every lookup, within its slot's group.

    Parameters
    ----------
    ids
        int32 ``[n, S]`` vocabulary ids, -1 in unused slots.

    Returns
    -------
    int64 ``[n, S]``, -1 in unused slots.
    """
    ranks = np.empty(ids.shape, np.int32)
    tables, every = RankTables(layout), np.arange(len(ids))
    input_kernels.read_ranks(
        plain_view(np.ascontiguousarray(ids, np.int32)), every, tables.slots, tables.addresses, ranks
    )
    addressing, num_hot = layout.addressing, layout.addressing.slot_num_hot
    hot_rows = ranks + addressing.table_hot_base[layout.table_of_slot]
    cold_rows = ranks + (addressing.table_cold_base[layout.table_of_slot] - num_hot)
    rows: npt.NDArray[np.int64] = np.where(ranks < 0, -1, np.where(ranks < num_hot, hot_rows, cold_rows))
    return rows


def classify(
    ids: npt.NDArray[np.int32], labels: npt.NDArray[np.uint8], layout: RowLayout
) -> tuple[npt.NDArray[np.bool_], InputCounts]:
    """Tell hot inputs from cold ones, and count.

    Parameters
    ----------
    ids
        int32 ``[n, S]`` vocabulary ids, -1 in unused slots; may be a read-only memory map.
    labels
        uint8 ``[n]``.

    Returns
    -------
    hot
        bool ``[n]``: which inputs are hot.
    counts
        What was counted of all n inputs.
    """
    hot, tables = np.empty(len(ids), np.bool_), RankTables(layout)
    ids, labels, num_hot = plain_view(ids), plain_view(labels), layout.addressing.slot_num_hot
    counts: list[Int64] = []  # appended by several threads: only their sum is used

    def work(start: int, stop: int) -> None:
        found = np.zeros(len(InputCounts._fields), np.int64)
        input_kernels.classify_inputs(
            ids[start:stop], labels[start:stop], tables.slots, tables.addresses, num_hot, hot[start:stop], found
        )
        counts.append(found)

    run_ranges(work, len(ids), min_range=_LEAST_INPUTS)
    return hot, InputCounts(*np.sum(counts, axis=0, dtype=np.int64).reshape(-1).tolist() if counts else [0] * 5)
