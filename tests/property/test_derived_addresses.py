"""The addresses that follow from order and segments are those that pack composes, on a CPU and in the GPU's kernel."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.artifacts import lookup_addresses
from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.streaming.row_store import RowOptimizer

from cases import Log, make_embeddings
from composed_batches import batches_with_addresses
from packs import store_addresses


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
        derived = embeddings._gpu._derived.addresses
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
    has = np.empty(arrays.order.num_lookups, np.bool_)
    orders = arrays.order.parts[0].copy()

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
