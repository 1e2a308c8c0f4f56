"""Hot sets for packing tests, and a check in plain numpy of everything that a packed artifact promises."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fae.artifacts.batch_arrays import Segments
from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.manifest import Manifest, Plan, write_artifact
from fae.artifacts.packed import BatchSet, PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.artifacts.stored.order_planes import OrderArrays
from fae.core.npy import save_array
from fae.kernels.input_views import InputViews
from fae.pack.sort_kernels import SEGMENT_LOOKUPS


def stub_hot_set(layout: RowLayout, *, batch_size: int, staging_rows: Sequence[int] = (), mixed: bool = False) -> Any:
    """The attributes of a hot set that pack reads; by default with staging for any batch."""
    return SimpleNamespace(
        layout=layout, ring_depth=4, batch_size=batch_size, mixed=mixed, optimizer="sgd",
        staging_rows=tuple(staging_rows) or tuple(batch_size * layout.num_slots for _ in layout.groups),
        manifest=Manifest(kind="hot_set", format_version=1, fingerprint="5" * 32),
    )  # fmt: skip


def random_ranks(random: np.random.Generator, features: Sequence[FeatureSchema]) -> list[np.ndarray | None]:
    """A storage order for every second table; the others keep the vocabulary's."""
    return [
        random.permutation(feature.num_embeddings).astype(np.int32) if table % 2 == 0 else None
        for table, feature in enumerate(features)
    ]


def row_numbers(ids: np.ndarray, layout: RowLayout) -> np.ndarray:
    """int64 ``[n, S]``: row number of each lookup by `RowLayout.row_numbers`, -1 where there is none."""
    rows = np.full(ids.shape, -1, np.int64)
    for slot, table in enumerate(layout.table_of_slot):
        used = ids[:, slot] >= 0
        rows[used, slot] = layout.row_numbers(int(table))[ids[used, slot]]
    return rows


def store_whole_order(batches: BatchSet) -> BatchSet:
    """The same batches as format 3 has them: their order as int32."""
    orders = np.array([batch.order for batch in batches], np.int32).reshape(-1, batches.arrays.order.num_lookups)
    arrays = dataclasses.replace(batches.arrays, order=OrderArrays((orders,)).read_only())
    return BatchSet(arrays, batches.num_hot_batches)


def order_in_buffer(views: InputViews, batches: BatchSet) -> np.ndarray:
    """The order of the training batch in an input buffer, int32 ``[B * S]``."""
    if not batches.arrays.order.are_planes:
        return views.order.numpy()
    low, *high = (plane.numpy().astype(np.int64) & 0xFFFF for plane in views.planes)
    return (low + sum(plane << 16 for plane in high)).astype(np.int32)


def store_addresses(batches: BatchSet) -> BatchSet:
    """The same batches as format 2 has them: their addresses in the order of lookups, by plain numpy."""
    batches = store_whole_order(batches)
    arrays = batches.arrays
    found = np.full((batches.num_batches, *arrays.shape), -1, np.int32)
    for flat, batch in zip(found.reshape(len(found), arrays.shape[0] * arrays.shape[1]), batches, strict=True):
        for group, segments in enumerate(batch.segments):
            end = arrays.group_places[group + 1]
            counts = np.diff(np.append(segments.starts, end)) if len(segments.starts) else []
            flat[batch.order[end - sum(counts) : end]] = np.repeat(segments.addresses, counts)
    found.flags.writeable = False
    return BatchSet(dataclasses.replace(arrays, addresses=found, group_places=None), batches.num_hot_batches)


def write_older(packed: PackedDataset, path: Path, version: int) -> PackedDataset:
    """Write the same batches in format 2, which stores addresses of the training split, or 3; both a whole order."""
    made = packed.manifest
    plan = Plan(
        kind=made.kind, format_version=version, parameters=made.parameters, parents=made.parents, command="fae pack"
    )
    summary = {name: value for name, value in made.summary.items() if version == 3 or name != "group_slots"}
    older = store_addresses(packed.train).arrays
    with write_artifact(path, plan, summary) as folder:
        for name in made.files:
            if "order_" not in name:
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(packed.path / name, folder / name)
        save_array(folder / "train" / "order.npy", older.order.parts[0])
        if version == 2:
            save_array(folder / "train" / "addresses.npy", older.addresses)
        summary["bytes"] = sum(each.stat().st_size for each in folder.glob("*/*.npy"))
    return PackedDataset(path)


def check_packed(packed: PackedDataset, log: ColumnarLog, hot_set: Any) -> None:
    """Check every promise of formats/packed.md, batch by batch."""
    layout, batch_size = hot_set.layout, hot_set.batch_size
    rows = row_numbers(np.asarray(log.ids), layout)
    group_of_slot = layout.group_of_table[layout.table_of_slot]
    num_hot_rows = np.array([group.num_hot_rows for group in layout.groups])[group_of_slot]
    hot = np.all((rows < 0) | (rows < num_hot_rows), axis=1)
    for name in ("train", "validation", "test"):
        batches: BatchSet = getattr(packed, name)
        start, stop = log.split(name)
        inputs = batches.inputs
        assert inputs.shape == (batches.num_batches, batch_size)
        real = inputs[inputs >= 0]
        # A permutation of the split; in log order outside training.
        assert np.array_equal(np.sort(real) if name == "train" else real, np.arange(start, stop))
        assert batches.num_inputs == stop - start
        for index in range(batches.num_batches):
            check_batch(batches, index, rows, log, hot_set, ordered=name == "train")
        if name == "train" and not hot_set.mixed:
            members = [hot[batch[batch >= 0]] for batch in inputs]
            assert all(np.all(member) for member in members[: batches.num_hot_batches])
            assert not any(np.any(member) for member in members[batches.num_hot_batches :])
            sizes = np.array([len(member) for member in members[: batches.num_hot_batches]])
            assert np.all(sizes[:-1] == batch_size)
        else:
            assert batches.num_hot_batches == 0
        check_cuts(batches, rows, hot_set)
    summary = packed.summary
    start, stop = log.split("train")
    assert summary["num_inputs"] == stop - start
    assert summary["num_hot_inputs"] == np.count_nonzero(hot[start:stop])
    used = rows[start:stop] >= 0
    if used.any():
        warm = used & (rows[start:stop] < num_hot_rows)
        assert np.isclose(summary["coverage"], warm.sum() / used.sum())


def check_batch(
    batches: BatchSet, index: int, rows: np.ndarray, log: ColumnarLog, hot_set: Any, *, ordered: bool
) -> None:
    """Check one batch: addresses, cold lists, order, segments, dense features, labels, padding."""
    layout, batch_size = hot_set.layout, hot_set.batch_size
    batch, num_slots = batches.batch(index), layout.num_slots
    chosen = batches.inputs[index]
    assert 0 < batch.num_inputs <= batch_size
    assert np.all(chosen[: batch.num_inputs] >= 0)
    assert np.all(chosen[batch.num_inputs :] == -1)
    chosen = chosen[: batch.num_inputs]
    assert np.array_equal(batch.dense[: batch.num_inputs], log.dense[chosen])
    assert np.array_equal(batch.labels[: batch.num_inputs], log.labels[chosen].astype(np.float32))
    assert not batch.dense[batch.num_inputs :].any()
    assert not batch.labels[batch.num_inputs :].any()
    assert np.all(batch.addresses[batch.num_inputs :] == -1)
    assert batch.addresses.dtype == np.int32
    assert batch.labels.dtype == batch.dense.dtype == np.float32
    for array in (batch.addresses, batch.dense, batch.labels, *batch.cold_rows):
        assert not array.flags.writeable
    assert len(batch.cold_rows) == len(layout.groups)
    first = 0
    for g, group in enumerate(layout.groups):
        slots = layout.group_slots(g)
        cold = batch.cold_rows[g]
        assert cold.dtype == np.int64
        assert np.all(np.diff(cold) > 0)
        expected = rows[chosen][:, slots]
        assert np.array_equal(cold, np.unique(expected[expected >= group.num_hot_rows]))
        assert len(cold) <= hot_set.staging_rows[g]
        if ordered and index < batches.num_hot_batches:
            assert len(cold) == 0
        addresses = batch.addresses[: batch.num_inputs][:, slots].astype(np.int64)
        assert np.all(addresses < group.num_hot_rows + len(cold))
        table = np.concatenate([np.arange(group.num_hot_rows), cold, [-1]])  # entry -1 is a pad
        assert np.array_equal(table[addresses], expected)
        if ordered:
            lookups = (np.arange(batch_size)[:, None] * num_slots + slots).reshape(-1)
            flat = batch.addresses.reshape(-1)[lookups]
            part = batch.order[batch_size * first : batch_size * (first + len(slots))]
            assert np.array_equal(part, lookups[np.argsort(flat, kind="stable")])
            check_segments(batch.segments[g], np.sort(flat), batch_size * first)
        first += len(slots)
    assert (batch.order is not None) == ordered
    assert len(batch.segments) == (len(layout.groups) if ordered else 0)
    if ordered:
        assert batch.order.dtype == np.int32
        assert not batch.order.flags.writeable


def check_segments(segments: Segments, addresses: np.ndarray, first: int) -> None:
    """Check a group's segments against its sorted addresses, which begin at place `first` of the order."""
    starts, of_segment, long_rows = [], [], []
    for address in np.unique(addresses[addresses >= 0]):
        begin, end = np.searchsorted(addresses, [address, address + 1])
        cuts = range(begin, end, SEGMENT_LOOKUPS)
        if len(cuts) > 1:
            long_rows.append((len(starts), len(cuts)))
        starts += [first + cut for cut in cuts]
        of_segment += [address] * len(cuts)
    assert segments.starts.dtype == segments.addresses.dtype == segments.long_rows.dtype == np.int32
    assert segments.starts.tolist() == starts
    assert segments.addresses.tolist() == of_segment
    assert segments.long_rows.tolist() == [list(pair) for pair in long_rows]
    for array in vars(segments).values():
        assert not array.flags.writeable


def check_cuts(batches: BatchSet, rows: np.ndarray, hot_set: Any) -> None:
    """Check that a batch which is not full is its kind's last, or could not hold the next input's cold rows."""
    layout = hot_set.layout
    for index in range(batches.num_batches):
        last = index in (batches.num_hot_batches - 1, batches.num_batches - 1)
        batch = batches.batch(index)
        if last or batch.num_inputs == hot_set.batch_size:
            continue
        chosen = np.append(batches.inputs[index][: batch.num_inputs], batches.inputs[index + 1][0])
        sizes = []
        for g, group in enumerate(layout.groups):
            wanted = rows[chosen][:, layout.group_slots(g)]
            sizes.append(len(np.unique(wanted[wanted >= group.num_hot_rows])))
        assert any(size > most for size, most in zip(sizes, hot_set.staging_rows, strict=True))
