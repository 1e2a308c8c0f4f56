"""Packed batches, opened for training: memory-mapped arrays, one view per batch.

Invariant: what a batch hands out are read-only views of the files; nothing is copied, checked or translated at run
time. The bytes are described in ``format.md`` beside this file. Does not choose the order of batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import SPLITS
from fae.artifacts.manifest import Manifest, read_manifest

KIND = "packed"
FORMAT_VERSION = 2
COMMAND = "fae pack RECIPE.toml"


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The lookups of one group in blocks: every row's stretch of `order`, cut every `SEGMENT_LOOKUPS` from its start.

    What a GPU sums in parallel and yet in a fixed order (decision 45).

    Attributes
    ----------
    starts
        int32 ``[n]``: place in `order` of each block's first lookup; a block ends where the next begins, the last one
        at the end of the group's part.
    addresses
        int32 ``[n]``: ascending.
    long_rows
        int32 ``[m, 2]``: rows of more than one block, as first block and number of blocks.
    """

    starts: npt.NDArray[np.int32]
    addresses: npt.NDArray[np.int32]
    long_rows: npt.NDArray[np.int32]


class PackedBatch:
    """One batch of at most B inputs; every array is a read-only view, cut when it is first asked for.

    Attributes
    ----------
    num_inputs
        Real inputs; they stand first.
    has_cold_rows
        Whether any lookup needs a row from the host.
    """

    def __init__(
        self, arrays: BatchArrays, index: int, *, num_inputs: int, has_cold_rows: bool, num_hot_batches: int
    ) -> None:
        self._arrays, self._index, self._num_hot_batches = arrays, index, num_hot_batches
        self.num_inputs, self.has_cold_rows = num_inputs, has_cold_rows

    @cached_property
    def addresses(self) -> npt.NDArray[np.int32]:
        """int32 ``[B, S]``: ``a < H`` is the hot row with that number, ``a >= H`` entry ``a - H`` of `cold_rows`.

        `cold_rows` of the slot's group; -1 is no lookup. Padded inputs are all -1.
        """
        found: npt.NDArray[np.int32] = self._arrays.addresses[self._index]
        return found

    @property
    def is_ordered(self) -> bool:
        """Whether there is an `order`."""
        return self._arrays.order is not None

    @cached_property
    def order(self) -> npt.NDArray[np.int32] | None:
        """int32 ``[B * S]``: lookups ``b * S + s``, group by group, sorted by address, ties by lookup, pads first.

        None outside the training split.
        """
        order = self._arrays.order
        return None if order is None else order[self._index]

    @cached_property
    def dense(self) -> npt.NDArray[np.float32]:
        """float32 ``[B, K]``, 0 in padded inputs."""
        found: npt.NDArray[np.float32] = self._arrays.dense[self._index]
        return found

    @cached_property
    def labels(self) -> npt.NDArray[np.float32]:
        """float32 ``[B]``, 0 in padded inputs."""
        found: npt.NDArray[np.float32] = self._arrays.labels[self._index]
        return found

    @cached_property
    def cold_rows(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Per group, int64 ``[U]``: ascending row numbers (``>= H``), each once."""
        offsets = self._arrays.cold_offsets
        begin, end = offsets[self._index].tolist(), offsets[self._index + 1].tolist()
        return tuple(rows[begin[g] : end[g]] for g, rows in enumerate(self._arrays.cold_rows))

    @cached_property
    def segments(self) -> tuple[Segments, ...]:
        """Per group; empty outside the training split."""
        hot, others = self._arrays.hot_segments, self._arrays.segments
        if others is None:
            return ()
        if hot is not None and self._index < self._num_hot_batches:
            return hot.batch(self._index)
        return others.batch(self._index - self._num_hot_batches)


@dataclass(frozen=True, kw_only=True)
class SegmentArrays:
    """The `Segments` of n batches, G groups.

    Attributes
    ----------
    starts, addresses
        Per group, int32: the lists of all batches, one behind the other.
    offsets
        int64 ``[n + 1, G]``: where each batch's blocks begin.
    long_rows, long_offsets
        Likewise, int32 ``[*, 2]`` and int64 ``[n + 1, G]``.
    """

    starts: tuple[npt.NDArray[np.int32], ...]
    addresses: tuple[npt.NDArray[np.int32], ...]
    offsets: npt.NDArray[np.int64]
    long_rows: tuple[npt.NDArray[np.int32], ...]
    long_offsets: npt.NDArray[np.int64]

    def batch(self, index: int) -> tuple[Segments, ...]:
        """Segments of batch `index`, per group."""
        begin, end = self.offsets[index].tolist(), self.offsets[index + 1].tolist()
        long_begin, long_end = self.long_offsets[index].tolist(), self.long_offsets[index + 1].tolist()
        return tuple(
            Segments(
                starts=self.starts[g][begin[g] : end[g]],
                addresses=self.addresses[g][begin[g] : end[g]],
                long_rows=self.long_rows[g][long_begin[g] : long_end[g]],
            )
            for g in range(len(begin))
        )

    @property
    def most(self) -> npt.NDArray[np.int64]:
        """int64 ``[2, G]``: most blocks, and most rows of more than one block, of a batch."""
        return np.stack([np.diff(part, axis=0).max(axis=0, initial=0) for part in (self.offsets, self.long_offsets)])


@dataclass(frozen=True, kw_only=True)
class ColdLists:
    """The cold rows of one group in n batches.

    Attributes
    ----------
    rows
        int64: ascending within a batch, each once; read-only.
    begins, ends
        int64 ``[n]``: where each batch's rows stand in `rows`.
    """

    rows: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchArrays:
    """The arrays of one split, N batches of B inputs, as they stand in its files.

    Attributes
    ----------
    addresses, order, dense, labels
        As in `PackedBatch`, with N in front; `order` is None outside the training split.
    num_inputs
        int32 ``[N]``.
    inputs
        int64 ``[N, B]``: index in the columnar log of each packed input, -1 in padding.
    cold_rows
        Per group, int64: the lists of all batches, one behind the other.
    cold_offsets
        int64 ``[N + 1, G]``: where each batch's list begins.
    blocks, hot_segments
        Of the cold (or all) batches, and of the hot ones that stand before them; None outside the training split.
    """

    addresses: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32] | None
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    num_inputs: npt.NDArray[np.int32]
    inputs: npt.NDArray[np.int64]
    cold_rows: tuple[npt.NDArray[np.int64], ...]
    cold_offsets: npt.NDArray[np.int64]
    segments: SegmentArrays | None = None
    hot_segments: SegmentArrays | None = None


class BatchSet:
    """The batches of one split.

    Parameters
    ----------
    arrays
        What they are made of, mapped or in memory.
    num_hot_batches
        Batches ``[0, num_hot_batches)`` hold only hot inputs.

    Attributes
    ----------
    arrays
        As given: for compiled loops over many batches.
    batch
        Function of a batch's number, from 0, to its `PackedBatch`; an `IndexError` outside ``[0, num_batches)``.
    """

    def __init__(self, arrays: BatchArrays, num_hot_batches: int) -> None:
        self.arrays = arrays
        self._sizes: list[int] = arrays.num_inputs.tolist()
        self.num_batches = len(self._sizes)
        self.num_hot_batches = num_hot_batches
        self.num_inputs = sum(self._sizes)
        # A placement and the feeds ask for the same batch one after the other.
        self.batch = lru_cache(maxsize=64)(self._batch)

    @property
    def inputs(self) -> npt.NDArray[np.int64]:
        """int64 ``[num_batches, B]``: index in the columnar log of each packed input, -1 in padding."""
        return self.arrays.inputs

    def _batch(self, index: int) -> PackedBatch:
        if not 0 <= index < self.num_batches:
            raise IndexError(f"batch {index} of {self.num_batches}")
        return PackedBatch(
            self.arrays, index, num_inputs=self._sizes[index], has_cold_rows=self._are_cold[index],
            num_hot_batches=self.num_hot_batches,
        )  # fmt: skip

    def cold_lists(self, numbers: npt.NDArray[np.int64]) -> tuple[ColdLists, ...]:
        """Cold rows of these batches, per group."""
        lists = []
        for group, rows in enumerate(self.arrays.cold_rows):
            view = rows.view()
            view.setflags(write=False)  # one type for compiled loops, whether mapped or in memory
            offsets = self.arrays.cold_offsets[:, group]
            lists.append(ColdLists(rows=view, begins=offsets[numbers], ends=offsets[numbers + 1]))
        return tuple(lists)

    @cached_property
    def has_cold_rows(self) -> npt.NDArray[np.bool_]:
        """bool ``[num_batches]``: which batches need any row from the host."""
        return np.asarray(np.diff(self.arrays.cold_offsets, axis=0).any(axis=1))

    @cached_property
    def _are_cold(self) -> list[bool]:
        are_cold: list[bool] = self.has_cold_rows.tolist()
        return are_cold

    @property
    def num_dense(self) -> int:
        """K."""
        return int(self.arrays.dense.shape[2])

    @property
    def most_segments(self) -> tuple[tuple[int, int], ...]:
        """Per group: most blocks, and most rows of more than one block, that a batch has; empty without blocks."""
        parts = [part.most for part in (self.arrays.hot_segments, self.arrays.segments) if part is not None]
        return tuple((int(blocks), int(rows)) for blocks, rows in np.max(parts, axis=0).T) if parts else ()

    @property
    def most_cold_rows(self) -> tuple[int, ...]:
        """Per group: most unique cold rows that a batch has."""
        return tuple(np.diff(self.arrays.cold_offsets, axis=0).max(axis=0, initial=0).tolist())


class PackedDataset:
    """An opened ``packed`` artifact.

    Parameters
    ----------
    path
        Its folder.
    command
        The command that makes it, named in errors.

    Attributes
    ----------
    manifest
        With the `summary` of what packing found.
    train, validation, test
        `BatchSet` of each split; a split without inputs has no batches.
    batch_size, num_slots, num_dense
        B, S and K.
    mixed
        Whether training batches ignore hotness (order = "shuffled").

    Raises
    ------
    ArtifactError
        If it is missing, damaged or of another format.
    """

    def __init__(self, path: Path, *, command: str = COMMAND) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        summary: dict[str, Any] = self.manifest.summary
        self.summary = summary
        self.batch_size: int = summary["batch_size"]
        self.num_slots: int = summary["num_slots"]
        self.num_dense: int = summary["num_dense"]
        self.mixed: bool = summary["mixed"]
        self.train, self.validation, self.test = (self._open(name) for name in SPLITS)

    def _open(self, split: str) -> BatchSet:
        def mapped(name: str) -> Any:
            # A plain view of the map: slicing np.memmap itself costs several times more.
            return np.asarray(np.load(self.path / split / f"{name}.npy", mmap_mode="r"))

        groups = range(self.summary["num_groups"])

        def read_segments(kind: str) -> SegmentArrays | None:
            if split != "train":
                return None
            return SegmentArrays(
                starts=tuple(mapped(f"{kind}_block_starts_{group}") for group in groups),
                addresses=tuple(mapped(f"{kind}_block_addresses_{group}") for group in groups),
                offsets=mapped(f"{kind}_block_offsets"),
                long_rows=tuple(mapped(f"{kind}_long_rows_{group}") for group in groups),
                long_offsets=mapped(f"{kind}_long_offsets"),
            )

        arrays = BatchArrays(
            addresses=mapped("addresses"),
            order=mapped("order") if split == "train" else None,
            dense=mapped("dense"),
            labels=mapped("labels"),
            num_inputs=mapped("num_inputs"),
            inputs=mapped("inputs"),
            cold_rows=tuple(mapped(f"cold_rows_{group}") for group in groups),
            cold_offsets=mapped("cold_offsets"),
            segments=read_segments("cold"),
            hot_segments=read_segments("hot"),
        )
        return BatchSet(arrays, self.summary["splits"][split]["num_hot_batches"])
