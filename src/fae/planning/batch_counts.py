"""Count what batches look up: lookups, different rows and different cold rows of each width, in a mean batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import group_by_dim, map_slots
from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.packed import PackedBatch
from fae.artifacts.row_layout import RowLayout

MOST_BATCHES = 4
"""Batches of a sample, or of packed ones, that are counted: their means differ by less than a per cent."""


def packed_counts(batch: PackedBatch, layout: RowLayout) -> npt.NDArray[np.float64]:
    """Lookups and different rows of a batch, float64 ``[2, groups]``."""
    counts, addresses = np.zeros((2, len(layout.groups))), batch.addresses
    for group, segments in enumerate(batch.segments):
        counts[0, group] = np.count_nonzero(addresses[:, layout.group_slots(group)] >= 0)
        used = segments.addresses[segments.addresses >= 0]
        counts[1, group] = np.count_nonzero(np.diff(used)) + bool(len(used))
    return counts


def counts_of_batch(
    features: Sequence[FeatureSchema],
    dims: Sequence[int],
    ranks: npt.NDArray[np.int32],
    num_hot: npt.NDArray[np.int64],
    size: int,
) -> npt.NDArray[np.float64]:
    """Lookups, different rows and different cold rows of a mean batch, float64 ``[3, widths]``.

    Parameters
    ----------
    dims
        Width D of each table.
    ranks
        int32 ``[n, S]``: storage ranks of sampled inputs, -1 where a slot is not in use.
    num_hot
        int64: hot rows of each table.
    size
        Inputs of a batch.
    """
    whole = min(MOST_BATCHES, len(ranks) // size)
    if whole:
        parts = [ranks[index * size : (index + 1) * size] for index in range(whole)]
        found: npt.NDArray[np.float64] = np.mean([_counts(features, dims, part, num_hot) for part in parts], axis=0)
        return found
    counts = _counts(features, dims, ranks, num_hot)
    if len(ranks) < 2:
        return counts * (size / max(1, len(ranks)))
    # Different rows grow as a power of the number of inputs (Heaps' law): the power is that of the sample's halves.
    half = _counts(features, dims, ranks[: len(ranks) // 2], num_hot)
    growth, doubled = size / len(ranks), math.log(len(ranks) / (len(ranks) // 2))
    power = np.log(np.maximum(counts, 1) / np.maximum(half, 1)) / doubled
    power[0] = 1.0
    group = group_by_dim(dims)
    sizes = np.array([feature.num_embeddings for feature in features])
    rows = np.array([np.bincount(group, weights=part) for part in (sizes, sizes - num_hot)])
    counts = counts * growth ** np.clip(power, 0.0, 1.0)
    counts[1:] = np.minimum(counts[1:], rows)
    return counts


def _counts(
    features: Sequence[FeatureSchema], dims: Sequence[int], ranks: npt.NDArray[np.int32], num_hot: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    slots, of_table = map_slots(features), group_by_dim(dims)
    slot_group, slot_hot = of_table[slots.slot_table], num_hot[slots.slot_table]
    counts = np.zeros((3, int(of_table.max()) + 1))
    marks = np.zeros(slots.num_rows, np.bool_)
    used = ranks >= 0
    rows = ranks + slots.slot_first_row
    cold = ranks >= slot_hot
    for group in range(counts.shape[1]):
        mine = slot_group == group
        counts[0, group] = np.count_nonzero(used[:, mine])
        for line, chosen in ((1, used & mine), (2, cold & mine)):
            marks[:] = False
            marks[rows[chosen]] = True
            counts[line, group] = np.count_nonzero(marks)
    return counts
