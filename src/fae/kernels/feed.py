"""The feed: one contiguous block of int32 words that holds all that a GPU needs to know of one batch.

Place in the flow: `FeedLayout.fill` copies a packed batch into a pinned buffer; one copy brings it to the device; every
kernel of the step reads it there through `FeedViews`. Invariant: what varies in size stands behind what does not, and
the header says where, so a batch is one copy of exactly its own bytes and the same graph serves all batches.

Words of the header: 0 real inputs; 1 learning rate of the rows (float32 bits; Adam's bias correction is in it); then
eight for each group from `group_field` on: shift of cold addresses, blocks, long rows, offsets of block starts, block
addresses, long rows (in words) and of the cold list (in units of two words), one spare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from fae.packing.dataset import BatchSet, PackedBatch

_ALIGN = 32  # words: pieces begin on a multiple of 128 bytes


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
        order = _NO_WORDS if packed.order is None else packed.order
        _copy_fixed(
            buffer, _words(packed.addresses), self._addresses, _words(packed.dense), self._dense,
            _words(packed.labels), self._labels, _words(order), self._order,
        )  # fmt: skip
        end = self._order if packed.order is None else _aligned(self._order + order.size)
        for group in range(self.num_groups):
            header[group_field(group)] = shifts[group]
            starts = addresses = long_rows = cold_rows = _NO_WORDS
            if packed.blocks:
                blocks = packed.blocks[group]
                starts, addresses, long_rows = blocks.starts, blocks.addresses, _words(blocks.long_rows)
            if self.with_cold_lists:
                cold_rows = _words(packed.cold_rows[group])
            end = _copy_lists(buffer, group_field(group), starts, addresses, long_rows, cold_rows, end)
        return end


_NO_WORDS = np.empty(0, np.int32)
_NO_WORDS.setflags(write=False)  # the type that arrays of packed batches have


def _words(array: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The bytes of an array as int32 words, without a copy."""
    return array.reshape(-1).view(np.int32)


# One call that releases the GIL for all of a batch: with a dozen threads about, every return to Python is a wait.
@njit(cache=True, nogil=True)
def _copy_fixed(buffer, addresses, at_addresses, dense, at_dense, labels, at_labels, order, at_order):
    buffer[at_addresses : at_addresses + addresses.size] = addresses
    buffer[at_dense : at_dense + dense.size] = dense
    buffer[at_labels : at_labels + labels.size] = labels
    buffer[at_order : at_order + order.size] = order


@njit(cache=True, nogil=True)
def _copy_lists(buffer, field, starts, addresses, long_rows, cold_rows, end):
    """A group's lists behind `end`, and where they stand into the header; returns the new end."""
    buffer[field + 1], buffer[field + 2] = starts.size, long_rows.size // 2
    buffer[field + 3] = end
    buffer[end : end + starts.size] = starts
    end = (end + starts.size + _ALIGN - 1) // _ALIGN * _ALIGN
    buffer[field + 4] = end
    buffer[end : end + addresses.size] = addresses
    end = (end + addresses.size + _ALIGN - 1) // _ALIGN * _ALIGN
    buffer[field + 5] = end
    buffer[end : end + long_rows.size] = long_rows
    end = (end + long_rows.size + _ALIGN - 1) // _ALIGN * _ALIGN
    buffer[field + 6] = end // 2
    buffer[end : end + cold_rows.size] = cold_rows
    return (end + cold_rows.size + _ALIGN - 1) // _ALIGN * _ALIGN
