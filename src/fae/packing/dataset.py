"""Packed batches, opened for training: memory-mapped arrays, one view per batch.

Invariant: what a batch hands out are read-only views of the files; nothing is copied, checked or translated at run
time. The bytes are described in ``format.md`` beside this file. Does not choose the order of batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.artifact import Manifest, read_manifest

KIND = "packed"
FORMAT_VERSION = 1
COMMAND = "fae pack RECIPE.toml"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """One batch of at most B inputs; every array is a read-only view.

    Attributes
    ----------
    addresses
        int32 ``[B, S]``: ``a < H`` is the hot row with that number, ``a >= H`` is entry ``a - H`` of `cold_rows` of
        the slot's group, -1 is no lookup. Padded inputs are all -1.
    order
        int32 ``[B * S]``: lookups ``b * S + s``, group by group, within a group sorted by address, ties by lookup,
        pads first; None outside the training split.
    dense
        float32 ``[B, K]``, 0 in padded inputs.
    labels
        float32 ``[B]``, 0 in padded inputs.
    num_inputs
        Real inputs; they stand first.
    cold_rows
        Per group, int64 ``[U]``: ascending row numbers (``>= H``), each once.
    """

    addresses: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32] | None
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    num_inputs: int
    cold_rows: tuple[npt.NDArray[np.int64], ...]

    @property
    def has_cold_rows(self) -> bool:
        """Whether any lookup needs a row from the host."""
        return any(len(rows) for rows in self.cold_rows)


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
    """

    addresses: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32] | None
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    num_inputs: npt.NDArray[np.int32]
    inputs: npt.NDArray[np.int64]
    cold_rows: tuple[npt.NDArray[np.int64], ...]
    cold_offsets: npt.NDArray[np.int64]


class BatchSet:
    """The batches of one split.

    Parameters
    ----------
    arrays
        What they are made of, mapped or in memory.
    num_hot_batches
        Batches ``[0, num_hot_batches)`` hold only hot inputs.
    """

    def __init__(self, arrays: BatchArrays, num_hot_batches: int) -> None:
        self._arrays = arrays
        self._sizes: list[int] = arrays.num_inputs.tolist()
        self.num_batches = len(self._sizes)
        self.num_hot_batches = num_hot_batches
        self.num_inputs = sum(self._sizes)

    @property
    def inputs(self) -> npt.NDArray[np.int64]:
        """int64 ``[num_batches, B]``: index in the columnar log of each packed input, -1 in padding."""
        return self._arrays.inputs

    def batch(self, index: int) -> PackedBatch:
        """Batch `index`, from 0; an `IndexError` outside ``[0, num_batches)``."""
        if not 0 <= index < self.num_batches:
            raise IndexError(f"batch {index} of {self.num_batches}")
        arrays = self._arrays
        begin, end = arrays.cold_offsets[index].tolist(), arrays.cold_offsets[index + 1].tolist()
        return PackedBatch(
            addresses=arrays.addresses[index],
            order=None if arrays.order is None else arrays.order[index],
            dense=arrays.dense[index],
            labels=arrays.labels[index],
            num_inputs=self._sizes[index],
            cold_rows=tuple(rows[begin[g] : end[g]] for g, rows in enumerate(arrays.cold_rows)),
        )


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

        arrays = BatchArrays(
            addresses=mapped("addresses"),
            order=mapped("order") if split == "train" else None,
            dense=mapped("dense"),
            labels=mapped("labels"),
            num_inputs=mapped("num_inputs"),
            inputs=mapped("inputs"),
            cold_rows=tuple(mapped(f"cold_rows_{group}") for group in range(self.summary["num_groups"])),
            cold_offsets=mapped("cold_offsets"),
        )
        return BatchSet(arrays, self.summary["splits"][split]["num_hot_batches"])
