"""Which lookup writes where: the shape of one group's lookups and of its pooled output.

Each feature of a group owns a contiguous range of columns of the group's output ``[B, W]``, in feature order: D columns
where it is pooled, ``length * D`` where its sequence is kept (``pooling = "none"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.core.pooling import POOLING_CODE, Pooling


@dataclass(frozen=True, kw_only=True)
class GroupGeometry:
    """Shape of the lookups of all features of one embedding_dim.

    Attributes
    ----------
    embedding_dim
        D.
    num_slots
        S: slots an input has over *all* groups (the width of a batch's addresses).
    slots
        int64 ``[s]``: this group's slots, ascending.
    first_slot, length, pooling, column
        int64 ``[f]`` per feature of the group: first slot, number of slots, `POOLING_CODE`, first output column.
    width
        W: columns of the output.
    order_start
        Slots of all groups before this one; the group's part of a batch's ``order`` begins at B times this.
    """

    embedding_dim: int
    num_slots: int
    slots: npt.NDArray[np.int64]
    first_slot: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    pooling: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    width: int
    order_start: int

    @property
    def is_flat(self) -> bool:
        """Whether lookup ``b * S + s`` is row ``b * S + s`` of the output seen as ``[B * S, D]`` (the common case)."""
        pooled_lists = (self.length > 1) & (self.pooling != POOLING_CODE["none"])
        return len(self.slots) == self.num_slots and not pooled_lists.any()

    @property
    def lookup_pieces(self) -> npt.NDArray[np.int64]:
        """int64 ``[p, 2]``: the independent parts of a lookup, each as ``(feature, first slot within the feature)``.

        Every slot of an unpooled feature is one part, a pooled feature is one part as a whole.
        """
        parts = np.where(self.pooling == POOLING_CODE["none"], self.length, 1)
        shares = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        return np.stack([np.repeat(np.arange(len(parts)), parts), shares], 1)

    @property
    def slot_column(self) -> npt.NDArray[np.int64]:
        """int64 ``[S]``: first output column of each slot's lookup, -1 for slots of other groups."""
        columns = np.full(self.num_slots, -1, np.int64)
        for first, length, pooling, column in zip(self.first_slot, self.length, self.pooling, self.column, strict=True):
            step = self.embedding_dim if pooling == POOLING_CODE["none"] else 0
            columns[first : first + length] = column + step * np.arange(length)
        return columns

    @property
    def slot_feature(self) -> npt.NDArray[np.int64]:
        """int64 ``[S]``: index within the group of each slot's feature, -1 for slots of other groups."""
        features = np.full(self.num_slots, -1, np.int64)
        for index, (first, length) in enumerate(zip(self.first_slot, self.length, strict=True)):
            features[first : first + length] = index
        return features


def group_geometries(
    lengths: Sequence[int], poolings: Sequence[Pooling], embedding_dims: Sequence[int]
) -> tuple[GroupGeometry, ...]:
    """Geometry of each group, by ascending embedding_dim, for features given in slot order.

    >>> small, large = group_geometries([1, 3, 2], ["sum", "mean", "none"], [16, 16, 8])
    >>> small.width, large.width, large.slots.tolist(), large.order_start
    (16, 32, [0, 1, 2, 3], 2)
    >>> small.lookup_pieces.tolist(), large.lookup_pieces.tolist()
    ([[0, 0], [0, 1]], [[0, 0], [1, 0]])
    """
    first = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    geometries, slots_before = [], 0
    for dim in sorted(set(embedding_dims)):
        members = [feature for feature, d in enumerate(embedding_dims) if d == dim]
        widths = [dim * (lengths[feature] if poolings[feature] == "none" else 1) for feature in members]
        slots = np.concatenate([np.arange(first[feature], first[feature + 1]) for feature in members])
        geometries.append(
            GroupGeometry(
                embedding_dim=dim,
                num_slots=int(first[-1]),
                slots=slots,
                first_slot=first[members],
                length=np.array([lengths[feature] for feature in members], np.int64),
                pooling=np.array([POOLING_CODE[poolings[feature]] for feature in members], np.int64),
                column=np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64),
                width=int(sum(widths)),
                order_start=slots_before,
            )
        )
        slots_before += len(slots)
    return tuple(geometries)
