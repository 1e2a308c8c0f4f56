"""Bytes over the wire of the contenders of `ranks`, which are computed from the batches that they train."""

from __future__ import annotations

from typing import Any

import numpy as np

from fae.distributed.slice_plan import REPRODUCIBLE_SLICES
from fae.planning.several_gpus import OWNED_PLACEMENTS

from rank_data import REPRODUCIBLE, Case, is_alone

_MOST_BATCHES = 4


def wire_bytes(name: str, case: Case, data: tuple[Any, Any], world: int, num_weights: int) -> dict[str, float]:
    """What a rank receives for each input of its slice, by kind: the mean over all ranks and some batches.

    ``rows`` are the sums of rows that the other slices look up. Under `spread` and `tiered` they are those of hot rows
    alone: each other row that a slice looks up is ``pulled`` from its owner, and the owner reads the ``sums`` of its
    gradients.

    Parameters
    ----------
    data
        Hot set and packed batches of all ranks; tables of one width.
    num_weights
        Weights of the dense part.
    """
    hot, packed = data
    size, share_of_others = packed.batch_size // world, (world - 1) / world
    if is_alone(name):
        return {}
    if name not in case.placements:  # another system
        vectors = 2 * case.dim * packed.num_slots * share_of_others  # in bfloat16
        return {"vectors": vectors, "gradients": vectors, "dense": 2 * share_of_others * 4 * num_weights / size}
    row, dense = 4 * case.dim / size, (world - 1) * 4 * num_weights / size
    slices = REPRODUCIBLE_SLICES if name.endswith(REPRODUCIBLE) else world
    hot_rows, cold_rows, of_others = mean_rows(hot, packed, slices)
    if case.placements[name] not in OWNED_PLACEMENTS:
        return {"rows": slices * share_of_others * (hot_rows + cold_rows) * row, "dense": dense}
    # Each pair of a slice and a row that another rank owns is pulled once, and its sum is read once.
    rows, own = slices * share_of_others * hot_rows * row, of_others * row
    return {"rows": rows, "pulled": own, "sums": own, "dense": dense}


def mean_rows(hot: Any, packed: Any, world: int) -> tuple[float, float, float]:
    """Different hot and cold rows that a slice looks up, and cold ones of them that another rank owns.

    The owner of a cold row is its number, counted from the first cold row of all tables, modulo the number of ranks.
    """
    (group,) = hot.layout.groups
    counts = []
    for index in range(min(_MOST_BATCHES, packed.train.num_batches)):
        batch = packed.train.batch(index)
        for rank, part in enumerate(np.split(batch.addresses, world)):
            found = np.unique(part[part >= 0])
            is_cold = found >= group.num_hot_rows
            cold = batch.cold_rows[0][found[is_cold] - group.num_hot_rows] - group.num_hot_rows
            counts.append((np.count_nonzero(~is_cold), len(cold), np.count_nonzero(cold % world != rank)))
    hot_rows, cold_rows, of_others = np.mean(counts, axis=0).tolist()
    return hot_rows, cold_rows, of_others
