"""The Triton kernel that derives the addresses of a training batch from its order and segments.

A program takes a few segments: it writes the address of each to the lookups from its start to the start of the next
one, and -1 to a share of the lookups that are none, which come before the first segment. Every lookup of the group is
written once, by one program; it is `fae.artifacts.lookup_addresses` on a GPU.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fae.kernels.input_views import InputViews

ADDRESSES = {"segments": 64, "at_once": 8, "num_warps": 1}
"""Segments of a program, lookups of each that are read together, warps; no result depends on them."""
_PADS = 256  # lookups that are none, which a program writes together
_PLACES = 4096  # of `order` for each program, at least one program: they share the lookups that are none


@triton.jit
def _addresses_kernel(
    words, order, addresses, field, order_begin, order_end,
    SEGMENTS: tl.constexpr, AT_ONCE: tl.constexpr, PADS: tl.constexpr,
):  # fmt: skip
    num_segments = tl.load(words + field + 1)
    starts = words + tl.load(words + field + 3)
    first_start = tl.load(starts, mask=num_segments > 0, other=order_end)
    for first in range(order_begin + tl.program_id(0) * PADS, first_start, tl.num_programs(0) * PADS):
        place = first + tl.arange(0, PADS)
        lookup = tl.load(order + place, mask=place < first_start, other=0)
        tl.store(addresses + lookup, tl.full((PADS,), -1, tl.int32), mask=place < first_start)
    segment = tl.program_id(0) * SEGMENTS + tl.arange(0, SEGMENTS)
    exists = segment < num_segments
    start = tl.load(starts + segment, mask=exists, other=0)
    end = tl.load(starts + segment + 1, mask=segment + 1 < num_segments, other=order_end)
    end = tl.where(exists, end, start)
    address = tl.load(words + tl.load(words + field + 4) + segment, mask=exists, other=-1)
    of_places = address[:, None] + tl.zeros((SEGMENTS, AT_ONCE), tl.int32)
    longest = tl.max(end - start, axis=0)
    for done in range(0, longest, AT_ONCE):  # loads of many lookups before the first store, so that their waits overlap
        place = start[:, None] + done + tl.arange(0, AT_ONCE)[None, :]
        inside = place < end[:, None]
        lookup = tl.load(order + place, mask=inside, other=0)
        tl.store(addresses + lookup, of_places, mask=inside)


def derive_group_addresses(
    inputs: InputViews, field: int, order_begin: int, order_end: int, most_segments: int, addresses: Tensor
) -> None:
    """Write the addresses of the lookups of one group.

    Parameters
    ----------
    field
        First header word of the group.
    order_begin, order_end
        Where the group's part of ``order`` begins and ends.
    most_segments
        Most segments that a batch of the group may have.
    addresses
        int32 ``[B, S]``; the group's slots are written.
    """
    programs = max(triton.cdiv(most_segments, ADDRESSES["segments"]), triton.cdiv(order_end - order_begin, _PLACES))
    _addresses_kernel[(programs,)](
        inputs.words, inputs.order, addresses, field, order_begin, order_end,
        SEGMENTS=ADDRESSES["segments"], AT_ONCE=ADDRESSES["at_once"], PADS=_PADS, num_warps=ADDRESSES["num_warps"],
    )  # fmt: skip
