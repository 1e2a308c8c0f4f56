"""The Triton kernel that derives the addresses of a training batch from its order and segments.

A program takes a block of places of ``order``; where the buffer has planes of it, it joins these, and kernels behind it
read what it joined. It finds by three looks at a few of the starts which segment its first place is in, counts the
segments that start at each of its places, and writes the address of its segment to the lookup of each place, -1 before
the first segment. It is `fae.artifacts.lookup_addresses` on a GPU.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fae.kernels.input_views import InputViews

ADDRESSES = {"places": 256, "num_warps": 2}
"""Places and warps of a program; no result depends on them."""
_SAMPLES = 128  # starts that are looked at together


@triton.jit
def _addresses_kernel(
    words, order, low, high, addresses, field, order_begin, order_end, num_hot_rows,
    PLACES: tl.constexpr, SAMPLES: tl.constexpr, PULLED: tl.constexpr, PLANES: tl.constexpr,
):  # fmt: skip
    begin = order_begin + tl.program_id(0) * PLACES
    place = begin + tl.arange(0, PLACES)
    if PLANES == 0:
        lookup = tl.load(order + place, mask=place < order_end, other=0)
    else:
        lookup = tl.load(low + place, mask=place < order_end, other=0).to(tl.int32) & 0xFFFF
        if PLANES > 1:
            upper = tl.load(high + place, mask=place < order_end, other=0).to(tl.int32) & 0xFFFF
            lookup = lookup | (upper << 16)
        tl.store(order + place, lookup, mask=place < order_end)
    num_segments = tl.load(words + field + 1)
    starts = words + tl.load(words + field + 3)
    rows = words + tl.load(words + field + 4)
    # The number of segments that start before the block is between `before` and `before + unknown`.
    before = num_segments * 0
    unknown = num_segments
    while unknown > 0:
        step = (unknown + SAMPLES - 1) // SAMPLES
        sample = tl.arange(0, SAMPLES) * step
        found = tl.load(starts + before + sample, mask=sample < unknown, other=order_end)
        earlier = tl.sum((found < begin).to(tl.int32), axis=0)
        passed = tl.maximum((earlier - 1) * step + 1, 0)
        unknown = tl.where(earlier > 0, tl.minimum(step - 1, unknown - passed), 0)
        before += passed
    own = before + tl.arange(0, PLACES)
    start = tl.load(starts + own, mask=own < num_segments, other=order_end)
    started = tl.histogram(start - begin, PLACES, mask=start < begin + PLACES)
    segment = before + tl.cumsum(started, axis=0) - 1
    address = tl.load(rows + segment, mask=(segment >= 0) & (place < order_end), other=-1)
    if PULLED:
        address = tl.where(address < num_hot_rows, address, num_hot_rows + segment - tl.load(words + field + 14))
    tl.store(addresses + lookup, address, mask=place < order_end)


def derive_group_addresses(
    inputs: InputViews, field: int, order_begin: int, order_end: int, addresses: Tensor, pulled_from: int | None = None
) -> None:
    """Write the addresses of the lookups of one group, and their `order` where the buffer has planes of it.

    Parameters
    ----------
    field
        First header word of the group.
    order_begin, order_end
        Where the group's part of ``order`` begins and ends.
    addresses
        int32 ``[B, S]``; the group's slots are written.
    pulled_from
        H, where cold rows of a slice are pulled: the k-th of them gets address H + k. None: they keep their addresses.
    """
    places = ADDRESSES["places"]
    low, high = (*inputs.planes, inputs.order, inputs.order)[:2]
    _addresses_kernel[(triton.cdiv(order_end - order_begin, places),)](
        inputs.words, inputs.order, low, high, addresses, field, order_begin, order_end, pulled_from or 0,
        PLACES=places, SAMPLES=_SAMPLES, PULLED=pulled_from is not None, PLANES=len(inputs.planes),
        num_warps=ADDRESSES["num_warps"],
    )  # fmt: skip
