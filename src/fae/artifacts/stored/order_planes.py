"""The order of the lookups of many batches, as it is stored: in planes of two bytes and one byte, or as int32.

A lookup ``b * S + s`` is below B * S, so its upper 8 bits are 0 in all but huge batches, and its upper 16 in small
ones. What is 0 is not stored: less goes to a GPU, where the kernel that derives addresses joins the planes
(`fae.kernels.triton_addresses`). On a CPU a batch's planes are joined when it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]

_LOW_LOOKUPS, _SHORT_LOOKUPS = 2**16, 2**24
"""Lookups of a batch up to which the low plane is all, and up to which the high one has a byte a lookup."""


def plane_types(num_lookups: int) -> dict[str, type[np.unsignedinteger[Any]]]:
    """Name and type of the planes of batches of that many lookups, low one first.

    >>> [list(plane_types(count).values()) for count in (2**16, 2**16 + 1)] == [[np.uint16], [np.uint16, np.uint8]]
    True
    """
    types: dict[str, type[np.unsignedinteger[Any]]] = {"order_low": np.uint16}
    if num_lookups > _LOW_LOOKUPS:
        types["order_high"] = np.uint8 if num_lookups <= _SHORT_LOOKUPS else np.uint16
    return types


def order_bytes(num_lookups: int) -> int:
    """Bytes of a batch's planes."""
    return num_lookups * sum(np.dtype(kind).itemsize for kind in plane_types(num_lookups).values())


@dataclass(frozen=True)
class OrderArrays:
    """The order of N batches of B * S lookups.

    Attributes
    ----------
    parts
        ``[N, B * S]``: the planes that `plane_types` names; or one array, int32, as in formats 2 and 3.
    """

    parts: tuple[npt.NDArray[Any], ...]

    @classmethod
    def split(cls, orders: Int32, out: OrderArrays | None = None) -> OrderArrays:
        """The planes of int32 ``[N, B * S]``, in new arrays or in those of `out`."""
        if out is None:
            out = cls.empty(*orders.shape)
        for shift, part in zip((0, 16), out.parts, strict=False):
            np.right_shift(orders, shift, out=part, casting="unsafe")
        return out

    @classmethod
    def empty(cls, num_batches: int, num_lookups: int) -> OrderArrays:
        """Planes of that many batches, not filled."""
        return cls(tuple(np.empty((num_batches, num_lookups), kind) for kind in plane_types(num_lookups).values()))

    @property
    def are_planes(self) -> bool:
        """Whether there are planes."""
        return self.parts[0].dtype != np.int32

    @property
    def num_lookups(self) -> int:
        """B * S."""
        return int(self.parts[0].shape[1])

    @property
    def files(self) -> dict[str, npt.NDArray[Any]]:
        """The parts by their names on the disk."""
        names = tuple(plane_types(self.num_lookups)) if self.are_planes else ("order",)
        return dict(zip(names, self.parts, strict=True))

    def __getitem__(self, batches: slice) -> OrderArrays:
        return OrderArrays(tuple(part[batches] for part in self.parts))

    def of_batch(self, index: int) -> Int32:
        """int32 ``[B * S]``: that of one batch, read-only; a new array where there are planes."""
        if not self.are_planes:
            order: Int32 = self.parts[0][index]
        else:
            order = np.empty(self.num_lookups, np.int32)
            self.join(index, 0, order.size, order)
        order.flags.writeable = False
        return order

    def join(self, index: int, first: int, last: int, out: Int32) -> None:
        """Write the places ``[first, last)`` of a batch's order to `out`, int32 ``[B * S]``, from planes."""
        join_planes(tuple(part[index, first:last] for part in self.parts), out[first:last])

    def read_only(self) -> OrderArrays:
        """The same memory, as it is in mapped files: loops would be compiled again for another type."""
        parts = tuple(part.view() for part in self.parts)
        for part in parts:
            part.flags.writeable = False
        return OrderArrays(parts)


def join_planes(planes: tuple[npt.NDArray[Any], ...], out: Int32) -> None:
    """Fill `out` with the lookups of planes of its shape."""
    if len(planes) == 1:
        out[...] = planes[0]
        return
    low, high = planes
    out[...] = high
    np.left_shift(out, 16, out=out)
    np.bitwise_or(out, low, out=out)
