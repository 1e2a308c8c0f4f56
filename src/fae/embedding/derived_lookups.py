"""What a GPU derives of a training batch before its lookup: addresses, and its order where buffers have planes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fae.artifacts.stored.order_planes import OrderArrays
from fae.kernels.input_views import InputViews


class DerivedLookups:
    """One buffer for the addresses, and one for the order, of the batch that was looked up last.

    They are for one batch because nothing reads them once its rows are updated, or their gradients summed.

    Attributes
    ----------
    addresses
        int32 ``[B, S]``; -1 where nothing has been derived.
    order
        int32 ``[B * S]``; None where kernels read it in the input buffer.
    """

    def __init__(self, batch_size: int, num_slots: int, device: torch.device) -> None:
        self._shape, self._device = (batch_size, num_slots), device
        self._is_reserved = False
        self.addresses = torch.empty(0, dtype=torch.int32, device=device)
        self.order: Tensor | None = None

    def reserve(self, order: OrderArrays | None) -> bool:
        """Make room for batches of this order; returns whether captured graphs are out of date."""
        if order is None or (self._is_reserved and order.are_planes == (self.order is not None)):
            return False
        is_first, self._is_reserved = not self._is_reserved, True
        if is_first:
            self.addresses = torch.full(self._shape, -1, dtype=torch.int32, device=self._device)
        self.order = torch.zeros_like(self.addresses).view(-1) if order.are_planes else None
        return not is_first

    def views(self, buffer: InputViews) -> InputViews:
        """Views of the input buffer of a training batch with its addresses, and its order as kernels read it."""
        if self.order is None:
            return dataclasses.replace(buffer, addresses=self.addresses, planes=())
        return dataclasses.replace(buffer, addresses=self.addresses, order=self.order)
