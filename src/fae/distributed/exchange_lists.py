"""The exchange list of a packed batch: its rows, and which slices look each of them up.

A batch has S slices; rank r of W has the r-th S / W of them. The list is the same on every rank, so sizes and places of
everything that is exchanged follow from it, and nothing is requested at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.distributed.tree_sum import slices_of_rank

Bits = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
_MOST_SLICES = 8


@dataclass(frozen=True)
class ExchangeList:
    """The rows of one batch.

    Attributes
    ----------
    unique_rows
        Shape ``[U]``, int32, ascending: addresses of the rows.
    slice_bits
        Shape ``[U]``, uint8: bit s is set where slice s looks the row up.
    num_slices
        S, at most 8.

    Raises
    ------
    ValueError
        If they do not fit together.
    """

    unique_rows: npt.NDArray[np.int32]
    slice_bits: Bits
    num_slices: int

    def __post_init__(self) -> None:
        rows, bits = self.unique_rows, self.slice_bits
        if not 1 <= self.num_slices <= _MOST_SLICES:
            raise ValueError(f"{self.num_slices} slices must be from 1 to {_MOST_SLICES}")
        if rows.ndim != 1 or rows.shape != bits.shape or rows.dtype != np.int32 or bits.dtype != np.uint8:
            raise ValueError("unique_rows must be int32 and slice_bits uint8, of one length")
        if np.any(np.diff(rows) <= 0):
            raise ValueError("unique_rows must be ascending")
        if np.any(bits == 0) or np.any(bits >> np.uint8(self.num_slices - 1) > 1):
            raise ValueError(f"slice_bits must have bits of slices 0 to {self.num_slices - 1}, at least one")

    def __len__(self) -> int:
        return len(self.unique_rows)

    def places_of_slice(self, number: int) -> Places:
        """Places in the list of the rows that a slice looks up, ascending: its k-th sum belongs to the k-th of them."""
        return np.flatnonzero(self.slice_bits >> np.uint8(number) & np.uint8(1))

    def bits_of_rank(self, rank: int, world: int) -> Bits:
        """``slice_bits`` of the slices of one rank alone, its first slice in bit 0."""
        each = slices_of_rank(self.num_slices, world)
        return self.slice_bits >> np.uint8(rank * each) & np.uint8(2**each - 1)

    def places_of_rank(self, rank: int, world: int) -> Places:
        """Places in the list of the rows that any slice of a rank looks up, ascending."""
        return np.flatnonzero(self.bits_of_rank(rank, world))

    def most_rows_of_a_rank(self, world: int) -> int:
        """The most rows that a rank looks up: the size of its buffer."""
        return max(len(self.places_of_rank(rank, world)) for rank in range(world))
