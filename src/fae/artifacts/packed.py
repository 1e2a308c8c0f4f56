"""Packed batches, opened for training: memory-mapped arrays, one view per batch.

A batch hands out read-only views of the files; nothing is copied, checked or translated at run time. The bytes are
described in ``formats/packed.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays, Segments
from fae.artifacts.columnar_log import MOST_ROWS, SPLITS
from fae.artifacts.lookup_addresses import derive_addresses
from fae.artifacts.manifest import Manifest, fingerprint, read_manifest
from fae.artifacts.schema import Fields
from fae.artifacts.stored.order_planes import OrderArrays
from fae.artifacts.stored.split_files import SplitShape, open_split
from fae.core.compiled import read_only
from fae.core.threads import run_ranges
from fae.core.units import format_count

KIND = "packed"
FORMAT_VERSION = 4
OLDER_VERSIONS = (2, 3)
"""Formats that are read too, and train the same bytes: both store the order as int32, 2 also the addresses of the
training split."""
_MIN_PLACES = 2**16
"""Places of an order that a thread joins: waking one for fewer costs more than it saves."""
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

    def read_addresses(
        self, out: npt.NDArray[np.int32] | None = None, order: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        """`addresses`; those that are not stored are derived into `out`, int32 ``[B, S]``, or into a new array.

        `order` is that of the batch, where the caller has read it already.
        """
        if self._arrays.addresses is not None:
            return np.asarray(self._arrays.addresses[self._index])
        order = self.order if order is None else order
        assert order is not None
        assert self._arrays.group_places is not None
        if out is None:
            out = np.empty(self._arrays.shape, np.int32)
        derive_addresses(order, self.segments, self._arrays.group_places, out)
        return out

    @property
    def is_ordered(self) -> bool:
        """Whether there is an `order`, as in every batch of the training split."""
        return self._arrays.order is not None

    @property
    def order(self) -> npt.NDArray[np.int32] | None:
        """int32 ``[B * S]``: lookups ``b * S + s``, group by group, sorted by address, ties by lookup, pads first.

        It is None outside the training split. One that is stored in planes is joined each time it is read.
        """
        return self.read_order()

    def read_order(self, out: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.int32] | None:
        """`order`, read-only; planes are joined into `out`, int32 ``[B * S]``, on all threads, or into a new array."""
        order = self._arrays.order
        if order is None or out is None or not order.are_planes:
            return None if order is None else order.of_batch(self._index)
        run_ranges(partial(self._join, order, out), out.size, min_range=_MIN_PLACES)
        return read_only(out)

    def _join(self, order: OrderArrays, out: npt.NDArray[np.int32], first: int, last: int) -> None:
        order.join(self._index, first, last, out)

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
        num_groups = fields.whole("num_groups", 1, self.num_slots)
        stores_addresses = self.manifest.format_version == 2
        self.group_slots = None if stores_addresses else fields.wholes("group_slots", 1, count=num_groups)
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
        shape = SplitShape(
            batch_size=self.batch_size, num_slots=self.num_slots, num_dense=self.num_dense, num_groups=num_groups,
            group_slots=self.group_slots, weighted=self.weighted, format_version=self.manifest.format_version,
        )  # fmt: skip
        self.train, self.validation, self.test = (
            BatchSet(*open_split(path, command, name, fields.part("splits").part(name), shape)) for name in SPLITS
        )

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
