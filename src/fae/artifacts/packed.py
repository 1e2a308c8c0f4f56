"""Packed batches, opened for training: memory-mapped arrays, one view per batch.

A batch hands out read-only views of the files; nothing is copied, checked or translated at run time. The bytes are
described in ``formats/packed.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays, SegmentArrays, Segments
from fae.artifacts.checksums import damaged
from fae.artifacts.columnar_log import MOST_ROWS, SPLITS
from fae.artifacts.lookup_addresses import derive_addresses
from fae.artifacts.manifest import Manifest, fingerprint, read_manifest
from fae.artifacts.schema import Fields, open_array
from fae.core.compiled import read_only
from fae.core.units import format_count

KIND = "packed"
FORMAT_VERSION = 3
OLDER_VERSIONS = (2,)
"""Formats that are read too, and train the same bytes: 2 stores the addresses of the training split."""
COMMAND = "fae pack RECIPE.toml"


class PackedBatch:
    """One batch of at most B inputs; every array is a read-only view, made when it is first read.

    Attributes
    ----------
    num_inputs
        Real inputs; they come first, the others are padding.
    has_cold_rows
        Whether any lookup needs a row from the host.
    """

    def __init__(
        self, arrays: BatchArrays, index: int, *, num_inputs: int, has_cold_rows: bool, num_hot_batches: int
    ) -> None:
        self._arrays, self._index, self._num_hot_batches = arrays, index, num_hot_batches
        self.num_inputs, self.has_cold_rows = num_inputs, has_cold_rows

    def __repr__(self) -> str:
        batch_size, num_slots = self._arrays.shape
        cold = format_count(sum(map(len, self.cold_rows))) if self.has_cold_rows else "no"
        return f"PackedBatch({self.num_inputs} of {batch_size} inputs, {num_slots} slots, {cold} cold rows)"

    @property
    def addresses(self) -> npt.NDArray[np.int32]:
        """int32 ``[B, S]``: the address of every lookup, -1 where there is none; padded inputs are all -1.

        An address ``a < H`` is hot row number ``a`` of the slot's group, ``a >= H`` is entry ``a - H`` of the group's
        `cold_rows`. Those of a training batch are derived each time they are read.
        """
        found = self.read_addresses()
        found.flags.writeable = False
        return found

    def read_addresses(self, out: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.int32]:
        """`addresses`; those that are not stored are derived into `out`, int32 ``[B, S]``, or into a new array."""
        if self._arrays.addresses is not None:
            return np.asarray(self._arrays.addresses[self._index])
        assert self.order is not None
        assert self._arrays.group_places is not None
        if out is None:
            out = np.empty(self._arrays.shape, np.int32)
        derive_addresses(self.order, self.segments, self._arrays.group_places, out)
        return out

    @property
    def is_ordered(self) -> bool:
        """Whether there is an `order`, as in every batch of the training split."""
        return self._arrays.order is not None

    @cached_property
    def order(self) -> npt.NDArray[np.int32] | None:
        """int32 ``[B * S]``: lookups ``b * S + s``, group by group, sorted by address, ties by lookup, pads first.

        It is None outside the training split.
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
    def weights(self) -> npt.NDArray[np.float32] | None:
        """float32 ``[B]``, 0 in padded inputs; None where the log has no weights."""
        weights = self._arrays.weights
        return None if weights is None else weights[self._index]

    @property
    def total_inputs(self) -> int:
        """Real inputs of the whole batch, of which ranks have a slice each; `num_inputs` where there is one rank."""
        return self.num_inputs if self._arrays.shared is None else int(self._arrays.shared.num_inputs[self._index])

    @cached_property
    def total_weight(self) -> float:
        """Sum of the weights of the whole batch's inputs; their number where the log has no weights."""
        if self._arrays.shared is not None:
            return self._arrays.shared.weight_of(self._index)
        return float(self.num_inputs if self.weights is None else self.weights.sum(dtype=np.float64))

    @cached_property
    def cold_rows(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Per group, int64 ``[U]``: ascending row numbers (``>= H``), each once."""
        offsets = self._arrays.cold_offsets
        begin, end = offsets[self._index].tolist(), offsets[self._index + 1].tolist()
        return tuple(rows[begin[g] : end[g]] for g, rows in enumerate(self._arrays.cold_rows))

    @cached_property
    def segments(self) -> tuple[Segments, ...]:
        """`Segments` of each group; empty outside the training split."""
        hot, others = self._arrays.hot_segments, self._arrays.segments
        if others is None:
            return ()
        if hot is not None and self._index < self._num_hot_batches:
            return hot.batch(self._index)
        return others.batch(self._index - self._num_hot_batches)


@dataclass(frozen=True, kw_only=True)
class ColdLists:
    """The cold rows of one group in n batches.

    Attributes
    ----------
    rows
        int64: ascending within a batch, each once; read-only.
    begins, ends
        int64 ``[n]``: where each batch's rows begin and end in `rows`.
    """

    rows: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


class BatchSet:
    """The batches of one split, to be iterated over or taken by number with `batch`.

    Parameters
    ----------
    arrays
        Arrays of the split, mapped or in memory.
    num_hot_batches
        Batches ``[0, num_hot_batches)`` hold only hot inputs.

    Attributes
    ----------
    num_batches, num_inputs
        Batches, and real inputs of all of them.
    """

    def __init__(self, arrays: BatchArrays, num_hot_batches: int) -> None:
        self.arrays = arrays
        self._sizes: list[int] = arrays.num_inputs.tolist()
        self.num_batches: int = len(self._sizes)
        self.num_hot_batches = num_hot_batches
        self.num_inputs = sum(self._sizes)
        self._cached_batch = lru_cache(maxsize=64)(self._open_batch)

    def __repr__(self) -> str:
        return f"BatchSet({self.counts_in_words()}, {format_count(self.num_inputs)} inputs)"

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[PackedBatch]:
        return map(self.batch, range(len(self)))

    def counts_in_words(self) -> str:
        """How many batches there are, such as ``"27 hot + 7 cold batches"``."""
        hot, others = self.num_hot_batches, self.num_batches - self.num_hot_batches
        before, cold = (f"{format_count(hot)} hot + ", "cold ") if hot else ("", "")
        return f"{before}{format_count(others)} {cold}batches"

    @property
    def inputs(self) -> npt.NDArray[np.int64]:
        """int64 ``[num_batches, B]``: index in the columnar log of each packed input, -1 in padding."""
        return self.arrays.inputs

    @property
    def locked_with(self) -> object:
        """What the arrays' memory is locked for, while it lives, when a device copies from it."""
        return self

    def batch(self, index: int) -> PackedBatch:
        """The batch of a number, from 0.

        Raises
        ------
        IndexError
            If there is no batch of that number.
        """
        return self._cached_batch(index)

    def _open_batch(self, index: int) -> PackedBatch:
        if not 0 <= index < self.num_batches:
            raise IndexError(f"batch {index} of {self.num_batches}")
        return PackedBatch(
            self.arrays, index, num_inputs=self._sizes[index], has_cold_rows=self._are_cold[index],
            num_hot_batches=self.num_hot_batches,
        )  # fmt: skip

    def cold_lists(self, numbers: npt.NDArray[np.int64]) -> tuple[ColdLists, ...]:
        """Cold rows of these batches, per group."""
        begins, ends = (self.arrays.cold_offsets[each].T.copy() for each in (numbers, numbers + 1))
        return tuple(  # of one type for compiled loops, whether mapped or in memory
            ColdLists(rows=read_only(rows), begins=begins[group], ends=ends[group])
            for group, rows in enumerate(self.arrays.cold_rows)
        )

    @cached_property
    def has_cold_rows(self) -> npt.NDArray[np.bool_]:
        """bool ``[num_batches]``: which batches need any row from the host."""
        return np.asarray(np.diff(self.arrays.cold_offsets, axis=0).any(axis=1))

    @cached_property
    def _are_cold(self) -> list[bool]:
        are_cold: list[bool] = self.has_cold_rows.tolist()
        return are_cold

    @property
    def is_weighted(self) -> bool:
        """Whether inputs have weights."""
        return self.arrays.weights is not None

    @property
    def num_dense(self) -> int:
        """K: dense features of an input."""
        return int(self.arrays.dense.shape[2])

    @property
    def most_segments(self) -> tuple[tuple[int, int], ...]:
        """Per group: most segments, and most rows of more than one segment, of a batch; empty without segments."""
        parts = [part.most for part in (self.arrays.hot_segments, self.arrays.segments) if part is not None]
        return tuple((int(segments), int(rows)) for segments, rows in np.max(parts, axis=0).T) if parts else ()

    @property
    def most_cold_rows(self) -> tuple[int, ...]:
        """Per group: most unique cold rows that a batch has."""
        return tuple(np.diff(self.arrays.cold_offsets, axis=0).max(axis=0, initial=0).tolist())

    @property
    def most_shared(self) -> tuple[tuple[int, int, int, int], ...]:
        """As `SharedArrays.most`, of slices; else empty."""
        return () if self.arrays.shared is None else self.arrays.shared.most


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
    command
        As the parameter.
    manifest, summary
        The artifact's manifest, and the part of it that says what packing found.
    train, validation, test
        `BatchSet` of each split; a split without inputs has no batches.
    batch_size, num_slots, num_dense
        B, S and K.
    group_slots
        Slots of each group of tables; None in format 2, which stores the addresses of the training split.
    mixed
        Whether training batches ignore hotness (order = "shuffled").
    weighted
        Whether inputs have weights.

    Raises
    ------
    ArtifactError
        If it is missing, damaged or of another format.
    """

    def __init__(self, path: str | Path, *, command: str = COMMAND) -> None:
        self.path = path = Path(path)
        self.manifest: Manifest = read_manifest(
            path, KIND, FORMAT_VERSION, command=command, older_versions=OLDER_VERSIONS
        )
        self.command = command
        self.summary: dict[str, Any] = self.manifest.summary
        fields = Fields(self.summary, "summary", path, command)
        self.batch_size: int = fields.whole("batch_size", 1, MOST_ROWS)
        self.num_slots: int = fields.whole("num_slots", 1, MOST_ROWS)
        self.num_dense: int = fields.whole("num_dense", 0, MOST_ROWS)
        self._num_groups = fields.whole("num_groups", 1, self.num_slots)
        is_older = self.manifest.format_version in OLDER_VERSIONS
        self.group_slots = None if is_older else fields.wholes("group_slots", 1, count=self._num_groups)
        if self.group_slots is not None and sum(self.group_slots) != self.num_slots:
            raise fields.fault(f"group_slots whose sum is {self.num_slots}")
        self.mixed: bool = fields.flag("mixed")
        self.weighted: bool = fields.flag("weighted") if "weighted" in fields else False
        for name in ("coverage", "input_share"):
            fields.number(name)
        if "dense" in fields:
            fields.texts("dense")
        for kind in ("hot", "cold"):
            fields.part("num_batches").whole(kind)
        self.train, self.validation, self.test = (self._open(name, fields.part("splits").part(name)) for name in SPLITS)

    def __repr__(self) -> str:
        return (
            f"PackedDataset({str(self.path)!r}: {self.train.counts_in_words()} of {self.batch_size}"
            f"{', mixed' if self.mixed else ''}, {self.num_slots} slots, "
            f"coverage {100 * self.summary['coverage']:.1f} %)"
        )

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprint, and those that the same batches have in the other formats that are read."""
        made, versions = self.manifest, (FORMAT_VERSION, *OLDER_VERSIONS)
        names = [fingerprint(KIND, version, made.parameters, made.parents) for version in versions]
        return (made.fingerprint, *(name for name in names if name != made.fingerprint))

    def _open(self, split: str, fields: Fields) -> BatchSet:
        num_batches, batch_size, num_groups = fields.whole("num_batches"), self.batch_size, self._num_groups
        num_hot = fields.whole("num_hot_batches", 0, num_batches)
        groups = range(num_groups)

        def mapped(name: str, kind: npt.DTypeLike, *shape: int | None) -> Any:
            # A plain view of the map: slicing np.memmap itself costs several times more.
            return np.asarray(open_array(self.path, f"{split}/{name}.npy", kind, shape, self.command))

        def offsets(name: str, size: int, *parts: tuple[npt.NDArray[Any], ...]) -> Any:
            array = mapped(name, np.int64, size + 1, num_groups)
            ends = np.array([[len(each) for each in part] for part in parts], np.int64)
            if array[0].any() or (np.diff(array, axis=0) < 0).any() or (array[-1] != ends).any():
                raise damaged(self.path, f"{split}/{name}.npy", self.command, "its lists do not follow each other")
            return array

        def lists(name: str, kind: npt.DTypeLike, *shape: int) -> tuple[Any, ...]:
            return tuple(mapped(f"{name}_{group}", kind, None, *shape) for group in groups)

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
            raise damaged(self.path, f"{split}/num_inputs.npy", self.command, f"it has other sizes than {total} inputs")
        cold_rows = lists("cold_rows", np.int64)
        cold_offsets = offsets("cold_offsets", num_batches, cold_rows)
        if cold_offsets[num_hot].any():
            raise damaged(self.path, f"{split}/cold_offsets.npy", self.command, "hot batches have cold rows")

        is_ordered, slots = split == "train", self.group_slots
        has_addresses = slots is None or not is_ordered
        arrays = BatchArrays(
            addresses=mapped("addresses", np.int32, num_batches, batch_size, self.num_slots) if has_addresses else None,
            order=mapped("order", np.int32, num_batches, batch_size * self.num_slots) if is_ordered else None,
            dense=mapped("dense", np.float32, num_batches, batch_size, self.num_dense),
            labels=mapped("labels", np.float32, num_batches, batch_size),
            num_inputs=num_inputs,
            inputs=mapped("inputs", np.int64, num_batches, batch_size),
            weights=mapped("weights", np.float32, num_batches, batch_size) if self.weighted else None,
            cold_rows=cold_rows,
            cold_offsets=cold_offsets,
            segments=read_segments("cold", num_batches - num_hot),
            hot_segments=read_segments("hot", num_hot),
            group_places=None if slots is None else batch_size * np.cumsum([0, *slots]),
        )
        return BatchSet(arrays, num_hot)
