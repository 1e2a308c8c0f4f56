"""The files of one split of an artifact ``packed``, mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays, SegmentArrays
from fae.artifacts.checksums import damaged
from fae.artifacts.schema import Fields, open_array
from fae.artifacts.stored.order_planes import OrderArrays, plane_types


@dataclass(frozen=True, kw_only=True)
class SplitShape:
    """What the summary says of all splits.

    Attributes
    ----------
    batch_size, num_slots, num_dense, num_groups, group_slots, weighted
        As in `fae.artifacts.packed.PackedDataset`; G.
    format_version
        That of the artifact.
    """

    batch_size: int
    num_slots: int
    num_dense: int
    num_groups: int
    group_slots: list[int] | None
    weighted: bool
    format_version: int


def open_split(path: Path, command: str, split: str, fields: Fields, shape: SplitShape) -> tuple[BatchArrays, int]:
    """Map the arrays of a split; returns them and how many of its batches are hot.

    Parameters
    ----------
    fields
        What the summary says of the split.

    Raises
    ------
    ArtifactError
        If something is missing or damaged.
    """
    num_batches, batch_size, num_groups = fields.whole("num_batches"), shape.batch_size, shape.num_groups
    num_lookups = batch_size * shape.num_slots
    num_hot = fields.whole("num_hot_batches", 0, num_batches)
    groups = range(num_groups)

    def mapped(name: str, kind: npt.DTypeLike, *wanted: int | None) -> Any:
        # A plain view of the map: slicing np.memmap itself costs several times more.
        return np.asarray(open_array(path, f"{split}/{name}.npy", kind, wanted, command))

    def offsets(name: str, size: int, *parts: tuple[npt.NDArray[Any], ...]) -> Any:
        array = mapped(name, np.int64, size + 1, num_groups)
        ends = np.array([[len(each) for each in part] for part in parts], np.int64)
        if array[0].any() or (np.diff(array, axis=0) < 0).any() or (array[-1] != ends).any():
            raise damaged(path, f"{split}/{name}.npy", command, "its lists do not follow each other")
        return array

    def lists(name: str, kind: npt.DTypeLike, *entry: int) -> tuple[Any, ...]:
        return tuple(mapped(f"{name}_{group}", kind, None, *entry) for group in groups)

    def read_order() -> OrderArrays:
        types = {"order": np.int32} if shape.format_version < 4 else plane_types(num_lookups)
        return OrderArrays(tuple(mapped(name, kind, num_batches, num_lookups) for name, kind in types.items()))

    def read_segments(kind: str, size: int) -> SegmentArrays | None:
        if split != "train":
            return None
        starts, addresses = lists(f"{kind}_block_starts", np.int32), lists(f"{kind}_block_addresses", np.int32)
        long_rows = lists(f"{kind}_long_rows", np.int32, 2)
        return SegmentArrays(
            starts=starts,
            addresses=addresses,
            offsets=offsets(f"{kind}_block_offsets", size, starts, addresses),
            long_rows=long_rows,
            long_offsets=offsets(f"{kind}_long_offsets", size, long_rows),
        )

    num_inputs = mapped("num_inputs", np.int32, num_batches)
    total = fields.whole("num_inputs")
    if num_batches and (num_inputs.min() < 1 or num_inputs.max() > batch_size or int(num_inputs.sum()) != total):
        raise damaged(path, f"{split}/num_inputs.npy", command, f"it has other sizes than {total} inputs")
    cold_rows = lists("cold_rows", np.int64)
    cold_offsets = offsets("cold_offsets", num_batches, cold_rows)
    if cold_offsets[num_hot].any():
        raise damaged(path, f"{split}/cold_offsets.npy", command, "hot batches have cold rows")

    is_ordered, slots = split == "train", shape.group_slots
    has_addresses = slots is None or not is_ordered
    arrays = BatchArrays(
        addresses=mapped("addresses", np.int32, num_batches, batch_size, shape.num_slots) if has_addresses else None,
        order=read_order() if is_ordered else None,
        dense=mapped("dense", np.float32, num_batches, batch_size, shape.num_dense),
        labels=mapped("labels", np.float32, num_batches, batch_size),
        num_inputs=num_inputs,
        inputs=mapped("inputs", np.int64, num_batches, batch_size),
        weights=mapped("weights", np.float32, num_batches, batch_size) if shape.weighted else None,
        cold_rows=cold_rows,
        cold_offsets=cold_offsets,
        segments=read_segments("cold", num_batches - num_hot),
        hot_segments=read_segments("hot", num_hot),
        group_places=None if slots is None else batch_size * np.cumsum([0, *slots]),
    )
    return arrays, num_hot
