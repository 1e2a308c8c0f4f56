"""The compiled loops of pack with the types they are called with, to be compiled before they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fae.artifacts.addressing import Addressing, SlotMap
from fae.core.compiling.argument_types import array_type, number, tuple_type
from fae.pack.classify import apply_ranks, classify_ranks
from fae.pack.cut_kernels import ColdLookups, OpenBatch, SeenRows, cut_batches, list_cold_lookups
from fae.pack.order_kernels import count_buckets, count_hot, place_by_bucket, split_kinds
from fae.pack.sort_kernels import ComposedLists, SortScratch, compose_batches, join_lists


def pack_loops(*, mixed: bool) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each loop with numba's types of its arguments, the one that takes longest first: for ``loop.compile(types)``.

    Parameters
    ----------
    mixed
        Whether batches take any input; else hot and cold ones are told apart.
    """
    numbers, pairs = array_type(np.int64, 1), array_type(np.int64, 2)
    small, ranks = array_type(np.int32, 1), array_type(np.int32, 2)
    flags = array_type(np.bool_, 1)
    addressing = tuple_type(Addressing, tuple_type(SlotMap, *[numbers] * 4), *[numbers] * (len(Addressing._fields) - 1))
    lookups = tuple_type(ColdLookups, numbers, numbers, small)
    members = {"cold_rows": pairs, "long_rows": array_type(np.int32, 3)}
    lists = tuple_type(
        ComposedLists,
        *[members.get(name, pairs if name.endswith("bounds") else ranks) for name in ComposedLists._fields],
    )
    scratch = tuple_type(SortScratch, *[small] * len(SortScratch._fields))
    yield compose_batches, (ranks, numbers, number, number, addressing, scratch, number, lists)
    yield apply_ranks, (ranks, number, number, array_type(np.int32, 1, is_file=True), number, number)
    yield classify_ranks, (ranks, numbers, flags)
    yield count_buckets, (small, numbers)
    yield place_by_bucket, (small, number, numbers, numbers)
    if not mixed:
        yield count_hot, (numbers, flags)
        yield split_kinds, (numbers, flags, numbers, numbers)
    yield list_cold_lookups, (ranks, number, addressing, lookups)
    yield cut_batches, (
        number, number, lookups, number, numbers, tuple_type(SeenRows, numbers, numbers),
        tuple_type(OpenBatch, *[numbers] * 3), numbers,
    )  # fmt: skip
    for joined in (np.int64, np.int32):
        yield join_lists, (array_type(joined, 2), pairs, number, numbers, array_type(joined, 1))
