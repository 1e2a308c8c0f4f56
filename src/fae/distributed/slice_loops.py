"""The compiled loop that cuts a slice's lookups out of the order of a whole batch, and lists the rows of all slices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.core.compiled import compiled

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]


@compiled
def cut_group(
    order: Int32, starts: Int32, rows: Int32, begin: int, end: int, own_slice: int, slice_lookups: int,
    own_begin: int, addresses: Int32, own_order: Int32, unique_rows: Int32, slice_bits: Bits, own_starts: Int32,
) -> tuple[int, int]:  # fmt: skip
    """Cut one group of one batch; returns how many rows any slice looks up, and how many the own one does.

    Parameters
    ----------
    order
        int32 ``[B * S]``: that of the batch.
    starts, rows
        int32 ``[n]``: first place and address of each of the group's segments.
    begin, end
        The group's part of `order`.
    own_slice, slice_lookups
        Number of the slice; lookups of a slice over all groups, pads too.
    own_begin
        Where the group's part of `own_order` begins.
    addresses
        int32 ``[B / W * S]``, written: address of each lookup of the slice, -1 where there is none.
    own_order
        int32 ``[B / W * S]``, written: its lookups in the order of the batch, numbered within the slice.
    unique_rows, slice_bits
        int32 and uint8 ``[n]``, written: ascending addresses of the rows; bit s where slice s looks the row up.
    own_starts
        int32 ``[n]``, written: place in `own_order` of the first lookup of each row that the slice looks up.
    """
    first_lookup, place = own_slice * slice_lookups, own_begin
    num_rows, num_own, number_of_row, own_of_row = 0, 0, -1, False
    next_segment = 0
    address = np.int32(-1)
    for i in range(begin, end):
        if next_segment < starts.size and i == starts[next_segment]:
            if rows[next_segment] != address:  # else a further segment of a long row
                address = rows[next_segment]
                number_of_row, own_of_row = num_rows, False
                unique_rows[number_of_row], slice_bits[number_of_row] = address, np.uint8(0)
                num_rows += 1
            next_segment += 1
        lookup = np.int64(order[i])
        if number_of_row >= 0:
            slice_bits[number_of_row] |= np.uint8(1 << (lookup // slice_lookups))
        own = lookup - first_lookup
        if 0 <= own < slice_lookups:
            addresses[own] = address
            own_order[place] = np.int32(own)
            if number_of_row >= 0 and not own_of_row:
                own_starts[num_own] = np.int32(place)
                num_own, own_of_row = num_own + 1, True
            place += 1
    return num_rows, num_own
