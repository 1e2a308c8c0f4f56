"""Batches of chosen inputs, packed in memory without an artifact: for tests and small experiments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fae.artifacts.packed import BatchSet, PackedBatch
from fae.artifacts.row_layout import RowLayout
from fae.pack.compose import Composer
from fae.pack.log_reader import LogInputs


def compose_batch_set(
    ids: npt.NDArray[np.int32],
    dense: npt.NDArray[np.float32],
    labels: npt.NDArray[np.generic],
    groups: Sequence[npt.NDArray[np.int64]],
    layout: RowLayout,
    batch_size: int,
    weights: npt.NDArray[np.float32] | None = None,
) -> BatchSet:
    """Pack chosen groups of inputs as `pack_groups` does, into a `BatchSet` in which no batch counts as hot."""
    bounds = np.cumsum([0, *map(len, groups)]).astype(np.int64)
    positions = np.concatenate([np.zeros(0, np.int64), *groups]).astype(np.int64)
    if len(groups) and max(map(len, groups)) > batch_size:
        raise ValueError(f"a group has {max(map(len, groups))} inputs, a batch holds {batch_size}")
    if len(positions) and not 0 <= positions.min() <= positions.max() < len(labels):
        raise ValueError(f"groups name inputs outside [0, {len(labels)})")
    inputs = LogInputs(
        ids=np.ascontiguousarray(ids, np.int32),
        dense=np.ascontiguousarray(dense, np.float32),
        labels=np.asarray(labels).astype(np.uint8),
        weights=None if weights is None else np.ascontiguousarray(weights, np.float32),
    )
    composer = Composer(layout, inputs.dense.shape[1], batch_size, None, with_addresses=False)
    arrays = composer.compose_groups(inputs, positions, bounds)
    # Read-only like the mapped files, so that compiled loops meet one type of array.
    segments = arrays.segments
    assert segments is not None
    assert arrays.order is not None
    parts: list[npt.NDArray[np.generic]] = [*arrays.order.parts, arrays.dense, arrays.labels]
    for of_groups in (arrays.cold_rows, segments.starts, segments.addresses, segments.long_rows):
        parts.extend(of_groups)
    for array in parts:
        array.setflags(write=False)
    return BatchSet(arrays, 0)


def pack_groups(
    ids: npt.NDArray[np.int32],
    dense: npt.NDArray[np.float32],
    labels: npt.NDArray[np.generic],
    groups: Sequence[npt.NDArray[np.int64]],
    layout: RowLayout,
    batch_size: int,
) -> list[PackedBatch]:
    """Pack chosen groups of inputs as they are, one batch each, in memory; batches are never closed early.

    Parameters
    ----------
    ids
        int32 ``[n, S]``, -1 in unused slots.
    dense
        float32 ``[n, K]``.
    labels
        ``[n]``, 0 or 1.
    groups
        Positions of each batch's inputs, at most `batch_size` a group.

    Raises
    ------
    ValueError
        If a group is too long or names inputs that are not there.
    """
    batches = compose_batch_set(ids, dense, labels, groups, layout, batch_size)
    return [batches.batch(index) for index in range(batches.num_batches)]
