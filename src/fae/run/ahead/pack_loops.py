"""The compiled loops of pack with the types they are called with, to be compiled before they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fae.artifacts.addressing import Addressing, SlotMap
from fae.artifacts.crc_folding import can_fold, fold_blocks
from fae.core.compiling.argument_types import array_type, number, tuple_type, types
from fae.pack.cut_kernels import ColdLookups, OpenBatch, SeenRows, cut_batches
from fae.pack.input_kernels import LoopColumns, classify_inputs, gather_columns, read_block, read_ranks
from fae.pack.order_kernels import count_buckets, count_hot, place_by_bucket, split_kinds
from fae.pack.sort_kernels import ComposedLists, compose_batches, join_lists
from fae.pack.table_sort import SortScratch


def pack_loops(*, mixed: bool) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each loop with numba's types of its arguments, the one that takes longest first: for ``loop.compile(types)``.

    Parameters
    ----------
    mixed
        Whether batches take any input; else hot and cold ones are told apart.
    """
    numbers, pairs = array_type(np.int64, 1), array_type(np.int64, 2)
    small, ranks = array_type(np.int32, 1), array_type(np.int32, 2)
    real, flags = array_type(np.float32, 2), array_type(np.bool_, 1)
    ids, labels = array_type(np.int32, 2, is_file=True), array_type(np.uint8, 1, is_file=True)
    addressing = tuple_type(Addressing, tuple_type(SlotMap, *[numbers] * 4), *[numbers] * (len(Addressing._fields) - 1))
    lookups = tuple_type(ColdLookups, numbers, numbers, small)
    members = {"cold_rows": pairs, "long_rows": array_type(np.int32, 3)}
    lists = tuple_type(
        ComposedLists,
        *[members.get(name, pairs if name.endswith("bounds") else ranks) for name in ComposedLists._fields],
    )
    members = {"columns": ranks, "counters": ranks}
    wide = ("pairs", "other_pairs", "hot_lookups", "least_rank", "largest_rank")
    scratch = tuple_type(
        SortScratch, *[members.get(name, numbers if name in wide else small) for name in SortScratch._fields]
    )
    columns = tuple_type(
        LoopColumns, array_type(np.float32, 2, is_file=True), labels, array_type(np.int64, 1, is_file=True),
        array_type(np.float32, 1, is_file=True),
    )  # fmt: skip
    yield compose_batches, (ranks, numbers, number, number, addressing, scratch, number, lists)
    yield classify_inputs, (ids, labels, numbers, numbers, numbers, flags, numbers)
    yield count_buckets, (number, number, types.uint64, numbers)
    yield place_by_bucket, (number, number, number, types.uint64, numbers, numbers)
    if not mixed:
        yield count_hot, (numbers, flags)
        yield split_kinds, (numbers, flags, numbers, numbers)
        yield read_ranks, (ids, numbers, numbers, numbers, ranks)
    yield read_block, (ids, numbers, numbers, numbers, addressing, ranks, lookups)
    yield cut_batches, (
        number, number, lookups, number, numbers, tuple_type(SeenRows, numbers, numbers),
        tuple_type(OpenBatch, *[numbers] * 3), numbers,
    )  # fmt: skip
    yield gather_columns, (
        columns, number, numbers, numbers, number, number, array_type(np.float32, 3), real, pairs, real,
    )  # fmt: skip
    if can_fold():
        yield fold_blocks, (array_type(np.uint64, 1), array_type(np.uint8, 1, is_file=True))
    for joined in (np.int64, np.int32):
        yield join_lists, (array_type(joined, 2), pairs, number, numbers, array_type(joined, 1))
