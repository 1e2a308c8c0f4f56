"""The addresses that follow from order and segments are those that pack composes, on a CPU and in the GPU's kernel."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.artifacts import lookup_addresses
from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.pack.compose import Composer
from fae.pack.log_reader import LogInputs
from fae.streaming.row_store import RowOptimizer

from cases import Log, make_embeddings
from packs import random_ranks, store_addresses


@st.composite
def batches_with_addresses(draw: st.DrawFn) -> tuple[Log, RowLayout, BatchSet]:
    """Batches with composed addresses: empty slots and batches, one row for all, long rows, several widths."""
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    num_tables, batch_size = draw(st.integers(1, 4)), draw(st.integers(1, 140))
    features = [
        FeatureSchema(name=f"C{t}", num_embeddings=draw(st.sampled_from([1, 2, 40, 3000])), length=length)
        for t, length in enumerate(draw(st.lists(st.integers(1, 5), min_size=num_tables, max_size=num_tables)))
    ]
    dims = [draw(st.sampled_from([4, 8, 12])) for _ in features]
    num_inputs = batch_size * draw(st.integers(1, 3))
    columns = []
    for feature in features:
        skew = draw(st.sampled_from([0, 1, 6, 40]))  # from all rows to one
        ids = (feature.num_embeddings * random.random((num_inputs, feature.length)) ** skew).astype(np.int64)
        ids = np.minimum(ids, feature.num_embeddings - 1)
        ids[random.random(ids.shape) < draw(st.sampled_from([0.0, 0.0, 0.3, 0.97, 1.0]))] = -1
        columns.append(ids)
    groups, start = [], 0
    while start < num_inputs:
        size = min(draw(st.sampled_from([batch_size, batch_size, 1])), num_inputs - start)
        groups.append(np.arange(start, start + size))
        start += size
        if len(groups) == 4:
            break
    ids = np.concatenate(columns, 1).astype(np.int32)
    log = Log(
        ids=ids, dense=np.zeros((num_inputs, 1), np.float32), labels=np.zeros(num_inputs, np.uint8), groups=groups,
        features=tuple(features), embedding_dims=tuple(dims), batch_size=batch_size,
    )  # fmt: skip
    num_hot = [draw(st.integers(0, feature.num_embeddings)) for feature in features]
    layout = RowLayout(features, dims, num_hot, random_ranks(random, features))
    inputs = LogInputs(ids=log.ids, dense=log.dense, labels=log.labels, weights=None)
    bounds = np.cumsum([0, *map(len, groups)]).astype(np.int64)
    composer = Composer(layout, 1, batch_size, None, with_addresses=True)
    arrays = composer.compose_groups(inputs, np.concatenate(groups).astype(np.int64), bounds)
    return log, layout, BatchSet(arrays, 0)


@given(batches_with_addresses(), st.integers(1, 5))
@settings(max_examples=80)
def test_derived_addresses_are_the_composed_ones(case: tuple[Log, RowLayout, BatchSet], threads: int) -> None:
    _, _, composed = case
    bare = BatchSet(dataclasses.replace(composed.arrays, addresses=None), 0)
    assert np.array_equal(store_addresses(bare).arrays.addresses, composed.arrays.addresses)
    plain = lookup_addresses.write_addresses.py_func
    for compiled_form in (lookup_addresses.write_addresses, plain):
        with (
            mock.patch.object(lookup_addresses, "_MIN_PLACES", 7),
            mock.patch.object(lookup_addresses, "write_addresses", compiled_form),
            mock.patch.dict("os.environ", FAE_NUM_THREADS=str(threads)),
        ):
            for batch, expected in zip(bare, composed, strict=True):
                assert np.array_equal(batch.addresses, expected.addresses)
                out = np.full(expected.addresses.shape, 77, np.int32)
                assert batch.read_addresses(out) is out
                assert np.array_equal(out, expected.addresses)
                assert expected.read_addresses(out) is not out


@given(batches_with_addresses(), st.sampled_from([(1024, 128), (16, 2), (64, 4)]))
@settings(max_examples=25)
def test_the_gpus_kernel_derives_the_same(case: tuple[Log, RowLayout, BatchSet], sizes: tuple[int, int]) -> None:
    """Whatever the places of a program, and however many starts it looks at together."""
    pytest.importorskip("triton")
    import torch

    from fae.kernels import triton_addresses

    log, layout, composed = case
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    packed = log.packed(layout)
    embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=device, engine="triton")
    for index, batch in enumerate(embeddings.stream(packed, range(packed.num_batches))):
        derived = embeddings._gpu._addresses
        derived.fill_(77)
        with (
            mock.patch.dict(triton_addresses.ADDRESSES, places=sizes[0]),
            mock.patch.object(triton_addresses, "_SAMPLES", sizes[1]),
        ):
            embeddings.lookup(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        assert np.array_equal(derived.cpu().numpy(), composed.batch(index).addresses)


@given(batches_with_addresses(), st.data())
@settings(max_examples=40)
def test_only_permutations_by_group_are_orders(case: tuple[Log, RowLayout, BatchSet], data: st.DataObject) -> None:
    _, layout, composed = case
    arrays, addressing = composed.arrays, layout.addressing
    has = np.empty(arrays.order.shape[1], np.bool_)
    orders = arrays.order.copy()

    def fits() -> bool:
        return lookup_addresses.are_permutations(orders, addressing.slot_group, arrays.group_places, has)

    assert fits()
    row, place = data.draw(st.integers(0, len(orders) - 1)), data.draw(st.integers(0, len(has) - 1))
    before = orders[row, place]
    for wrong in (-1, len(has), orders[row, place - 1]):
        orders[row, place] = wrong
        assert fits() == (wrong == before)
    orders[row, place] = before
    if len(layout.groups) > 1:
        orders[row, [0, -1]] = orders[row, [-1, 0]]
        assert not fits()
