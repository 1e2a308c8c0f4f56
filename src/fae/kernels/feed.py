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
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.packing.dataset import BatchSet, PackedBatch

_ALIGN = 32  # words: pieces begin on a multiple of 128 bytes
_MANY_WORDS = 2**17  # from here on several threads copy faster than one

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
        buffer: npt.NDArray[np.int32] = words.numpy()
        header = buffer[: group_field(self.num_groups)]
        header[0] = packed.num_inputs
        header[1:2].view(np.float32)[0] = rate

        def put(place: int, array: npt.NDArray[Any]) -> int:
            """Copy an array's bytes to a place; returns where the next one may begin."""
            values = array.reshape(-1).view(np.int32)
            end = place + values.size
            if values.size < _MANY_WORDS:
                buffer[place:end] = values  # the cheapest call there is; one thread
            else:
                words[place:end].copy_(torch.from_numpy(values))
            return -(-end // _ALIGN) * _ALIGN

        put(self._addresses, packed.addresses)
        put(self._dense, packed.dense)
        put(self._labels, packed.labels)
        end = self._order if packed.order is None else put(self._order, packed.order)
        for group in range(self.num_groups):
            field = 8 + 8 * group
            header[field] = shifts[group]
            if packed.blocks:
                blocks = packed.blocks[group]
                after_starts = put(end, blocks.starts)
                after_addresses = put(after_starts, blocks.addresses)
                header[field + 1 : field + 6] = (
                    blocks.starts.size, len(blocks.long_rows), end, after_starts, after_addresses,
                )  # fmt: skip
                end = put(after_addresses, blocks.long_rows)
            if self.with_cold_lists:
                header[field + 6] = end // 2
                end = put(end, packed.cold_rows[group])
        return end
