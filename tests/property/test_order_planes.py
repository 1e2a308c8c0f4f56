"""The order of a batch in planes: joined it is what was split, on every side of what a plane holds, also on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.stored.order_planes import OrderArrays, order_bytes, plane_types

from cases import Log, make_embeddings

EDGES = [1, 2, 2**16 - 1, 2**16, 2**16 + 1, 2**17 + 3, 2**24, 2**24 + 1, 2**31 - 1]


@pytest.mark.parametrize(
    ("num_lookups", "width"),
    [(1, 2), (2**16, 2), (2**16 + 1, 3), (2**24, 3), (2**24 + 1, 4), (2**31 - 1, 4)],
)
def test_a_lookup_takes_no_more_bytes_than_it_needs(num_lookups: int, width: int) -> None:
    assert order_bytes(num_lookups) == width * num_lookups
    assert list(plane_types(num_lookups)) == ["order_low", "order_high"][: 1 + (width > 2)]
    greatest = sum(np.iinfo(kind).max << 16 * k for k, kind in enumerate(plane_types(num_lookups).values()))
    assert greatest >= num_lookups - 1


@given(st.sampled_from(EDGES), st.integers(1, 3), st.integers(1, 70), st.data())
@settings(max_examples=80)
def test_planes_are_joined_to_what_was_split(most: int, num_batches: int, size: int, data: st.DataObject) -> None:
    """Lookups up to `most` of a batch of that size; only a few of its places are made."""
    random = np.random.default_rng(size)
    orders = random.integers(max(0, most - 200), most, (num_batches, size)).astype(np.int32)
    orders[:, 0], orders[:, -1] = 0, most - 1
    parts = tuple(np.full(orders.shape, 77, kind) for kind in plane_types(most).values())
    planes = OrderArrays.split(orders, OrderArrays(parts))
    assert planes.are_planes
    for index, order in enumerate(orders):
        found = planes.of_batch(index)
        assert found.dtype == np.int32
        assert not found.flags.writeable
        assert np.array_equal(found, order)
        first = data.draw(st.integers(0, size))
        last = data.draw(st.integers(first, size))
        out = np.full(size, -5, np.int32)
        planes.join(index, first, last, out)
        assert np.array_equal(out[first:last], order[first:last])
        assert (np.delete(out, slice(first, last)) == -5).all()


@pytest.mark.parametrize("num_lookups", [2**16, 2**16 + 1])
def test_whole_orders_and_planes_of_one_batch(num_lookups: int) -> None:
    orders = np.random.default_rng(1).permutation(num_lookups).astype(np.int32)[None]
    whole, planes = OrderArrays((orders,)), OrderArrays.split(orders)
    assert list(whole.files) == ["order"]
    assert list(planes.files) == list(plane_types(num_lookups))
    assert (whole.are_planes, planes.are_planes) == (False, True)
    assert whole.num_lookups == planes.num_lookups == num_lookups
    assert sum(part.nbytes for part in planes.parts) == order_bytes(num_lookups)
    assert np.array_equal(whole.of_batch(0), planes.of_batch(0))
    kept = planes.read_only()
    assert not any(part.flags.writeable for part in kept.parts)
    assert np.array_equal(kept[0:1].of_batch(0), orders[0])


def test_a_gpu_joins_the_planes_of_more_than_65536_lookups() -> None:
    """One batch of long lists: many programs, upper bits that are not 0, a rest of a program."""
    pytest.importorskip("triton")
    import torch

    from fae.streaming.row_store import RowOptimizer

    random, length, batch_size = np.random.default_rng(2), 661, 100
    ids = random.integers(-1, 40, (2 * batch_size - 3, length)).astype(np.int32)
    log = Log(
        ids=ids, dense=np.zeros((len(ids), 1), np.float32), labels=np.zeros(len(ids), np.uint8),
        groups=[np.arange(batch_size), np.arange(batch_size, len(ids))], batch_size=batch_size, embedding_dims=(4,),
        features=(FeatureSchema(name="items", num_embeddings=40, length=length),),
    )  # fmt: skip
    layout = log.layout(0.5, 1)
    packed, device = log.packed(layout), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert packed.arrays.order is not None
    assert len(packed.arrays.order.parts) == 2
    assert packed.arrays.order.parts[1].any()
    embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=device, engine="triton")
    assert embeddings._gpu is not None
    derived = embeddings._gpu._derived
    for index, batch in enumerate(embeddings.stream(packed, range(packed.num_batches))):
        assert derived.order is not None
        derived.addresses.fill_(77)
        derived.order.fill_(77)
        embeddings.lookup(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        assert np.array_equal(derived.order.cpu().numpy(), packed.batch(index).order)
        assert np.array_equal(derived.addresses.cpu().numpy(), packed.batch(index).addresses)
