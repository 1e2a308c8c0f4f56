"""Addresses of a batch's lookups from its order and segments: what training batches do not store.

``order`` lists the lookups of a group by address, those that are none first, and a segment says which address the
places have from its start to the start of the next one. So ``addresses[order[i]]`` is the address of the segment in
which place i lies, and -1 where i lies before the first one of its group. A GPU does the same in
`fae.kernels.triton_addresses`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import Segments
from fae.core.compiled import Int64, compiled
from fae.core.threads import run_ranges

Int32 = npt.NDArray[np.int32]

_MIN_PLACES = 2**15
"""Places of a thread: waking one for fewer costs more than it saves."""


@compiled
def write_addresses(order: Int32, starts: Int32, rows: Int32, end: int, first: int, last: int, flat: Int32) -> None:
    """Write the addresses of the places ``[first, last)`` of one group.

    Parameters
    ----------
    order
        int32 ``[B * S]``: that of the batch.
    starts, rows
        int32 ``[n]``: first place and address of each of the group's segments.
    end
        Where the group's part of `order` ends.
    flat
        int32 ``[B * S]``: the addresses, lookup by lookup.
    """
    segment = np.searchsorted(starts, first, side="right") - 1
    place = first
    while place < last:
        stop = min(int(starts[segment + 1]) if segment + 1 < starts.size else end, last)
        address = rows[segment] if segment >= 0 else np.int32(-1)
        for i in range(place, stop):
            flat[order[i]] = address
        place = stop
        segment += 1


def derive_addresses(order: Int32, segments: Sequence[Segments], group_places: Int64, out: Int32) -> None:
    """Fill `out` with the addresses of a batch, on all threads.

    Parameters
    ----------
    order, segments
        Those of the batch.
    group_places
        int64 ``[G + 1]``: where each group's part of `order` begins.
    out
        int32 ``[B, S]``.
    """
    flat, bounds = out.reshape(-1), group_places.tolist()

    def work(start: int, stop: int) -> None:
        for group, own in enumerate(segments):
            first, last = max(start, bounds[group]), min(stop, bounds[group + 1])
            if first < last:
                write_addresses(order, own.starts, own.addresses, bounds[group + 1], first, last, flat)

    run_ranges(work, order.size, min_range=_MIN_PLACES)


@compiled
def are_permutations(orders: Int32, slot_group: Int64, group_places: Int64, has: npt.NDArray[np.bool_]) -> bool:
    """Whether each order lists every lookup of each group once, in the group's part.

    Parameters
    ----------
    orders
        int32 ``[n, B * S]``.
    slot_group
        int64 ``[S]``: group of each slot.
    group_places
        As `derive_addresses` takes it.
    has
        bool ``[B * S]``: scratch.
    """
    num_lookups, num_slots = orders.shape[1], slot_group.size
    for n in range(orders.shape[0]):
        order = orders[n]
        has[:] = False
        for group in range(group_places.size - 1):
            for i in range(group_places[group], group_places[group + 1]):
                lookup = order[i]
                if lookup < 0 or lookup >= num_lookups or has[lookup]:
                    return False
                if group_places.size > 2 and slot_group[lookup % num_slots] != group:
                    return False
                has[lookup] = True
    return True
