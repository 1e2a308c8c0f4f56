"""The feed: one contiguous block of int32 words that holds all that a GPU needs to know of one batch.

Place in the flow: `FeedLayout.fill` copies a packed batch into a pinned buffer; one copy brings it to the device; every
kernel of the step reads it there through `FeedViews`. Invariant: what varies in size stands behind what does not, and
the header says where, so a batch is one copy of exactly its own bytes and the same graph serves all batches.

Words of the header: 0 real inputs; 1 learning rate of the rows (float32 bits; Adam's bias correction is in it); then
eight for each group from `group_field` on: shift of cold addresses, blocks, long rows, offsets of block starts, block
addresses, long rows (in words) and of the cold list (in units of two words), one spare.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fae.packing.dataset import BatchSet, PackedBatch

_ALIGN = 32  # words: pieces begin on a multiple of 128 bytes

# Packed arrays are read-only views of files; they are only ever read here.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)


def group_field(group: int) -> int:
    """First header word of a group."""
    return 8 + 8 * group


def _aligned(words: int) -> int:
    return -(-words // _ALIGN) * _ALIGN


@dataclass(frozen=True)
class FeedViews:
    """A feed on the device, cut into tensors that share its memory.

    Attributes
    ----------
    words, longs
        All of it, as int32 and as int64.
    addresses
        int32 ``[B, S]``.
    dense
        float32 ``[B, K]``.
    labels
        float32 ``[B]``.
    order
        int32 ``[B * S]``; meaningless in batches that are not trained.
    """

    words: Tensor
    longs: Tensor
    addresses: Tensor
    dense: Tensor
    labels: Tensor
    order: Tensor


class FeedLayout:
    """Where things stand in the feeds of batches of one shape.

    Parameters
    ----------
    with_cold_lists
        Whether the batch's lists of cold rows come along (every row is on the device).
    """

    def __init__(
        self, *, batch_size: int, num_slots: int, num_dense: int, num_groups: int, with_cold_lists: bool
    ) -> None:
        self.batch_size, self.num_slots, self.num_dense, self.num_groups = batch_size, num_slots, num_dense, num_groups
        self.with_cold_lists = with_cold_lists
        self._addresses = _aligned(group_field(num_groups))
        self._dense = _aligned(self._addresses + batch_size * num_slots)
        self._labels = _aligned(self._dense + batch_size * num_dense)
        self._order = _aligned(self._labels + batch_size)

    def num_words(self, batches: BatchSet) -> int:
        """Words that the largest of these batches may take."""
        words = self._order + _aligned(self.batch_size * self.num_slots)
        for blocks, long_rows in batches.most_blocks:
            words += 2 * _aligned(blocks) + _aligned(2 * long_rows)
        if self.with_cold_lists:
            words += sum(_aligned(2 * rows) for rows in batches.most_cold_rows)
        return words

    def views(self, words: Tensor) -> FeedViews:
        """Cut a buffer (int32) of `num_words` or more."""
        size, slots, dense = self.batch_size, self.num_slots, self.num_dense
        order = words[self._order : self._order + size * slots]
        return FeedViews(
            words=words,
            longs=words[: len(words) // 2 * 2].view(torch.int64),
            addresses=words[self._addresses : self._addresses + size * slots].view(size, slots),
            dense=words[self._dense : self._dense + size * dense].view(torch.float32).view(size, dense),
            labels=words[self._labels : self._labels + size].view(torch.float32),
            order=order,
        )

    def fill(self, words: Tensor, packed: PackedBatch, *, shifts: Sequence[int], rate: float) -> int:
        """Write a batch into a host buffer (int32); returns how many words of it the device needs.

        Parameters
        ----------
        shifts
            Per group: what is added to a cold address.
        rate
            Learning rate of the rows in this step.
        """
        size, slots = self.batch_size, self.num_slots
        header = np.zeros(group_field(self.num_groups), np.int32)
        header[0] = packed.num_inputs
        header[1:2] = np.array([rate], np.float32).view(np.int32)
        words[self._addresses : self._addresses + size * slots].copy_(_tensor(packed.addresses))
        words[self._dense : self._dense + size * self.num_dense].copy_(_tensor(packed.dense))
        words[self._labels : self._labels + size].copy_(_tensor(packed.labels))
        end = self._order
        if packed.order is not None:
            words[end : end + size * slots].copy_(_tensor(packed.order))
            end = _aligned(end + size * slots)

        def put(array: np.ndarray) -> int:
            nonlocal end
            place = end
            values = _tensor(array)
            words[place : place + len(values)].copy_(values)
            end = _aligned(place + len(values))
            return place

        for group in range(self.num_groups):
            field = group_field(group)
            header[field] = shifts[group]
            if packed.blocks:
                blocks = packed.blocks[group]
                header[field + 1], header[field + 2] = len(blocks.starts), len(blocks.long_rows)
                header[field + 3], header[field + 4] = put(blocks.starts), put(blocks.addresses)
                header[field + 5] = put(blocks.long_rows)
            if self.with_cold_lists:
                header[field + 6] = put(packed.cold_rows[group]) // 2
        words[: len(header)].copy_(torch.from_numpy(header))
        return end


def _tensor(array: np.ndarray) -> Tensor:
    """The bytes of an array as int32 words, without a copy."""
    return torch.from_numpy(array.reshape(-1).view(np.int32))
