"""On a GPU: formats 2 (addresses), 3 (a whole order) and 4 (planes) train the same bytes, captured or not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fae.streaming.row_store import RowOptimizer

from cases import (
    adversarial_logs,
    assert_same_bytes,
    history_log,
    make_embeddings,
    random_log,
    shared_log,
    train,
    wide_log,
)
from packs import store_addresses, store_whole_order

CUDA = torch.device("cuda")


def take_stored_addresses(monkeypatch, batches):
    """Have every lookup take its addresses from a copy of stored ones, as format 2 sends them."""
    from fae.embedding.gpu_rows import GpuRows

    stored = {
        batch.order.tobytes(): torch.from_numpy(batch.addresses.copy()).to(CUDA) for batch in store_addresses(batches)
    }

    def take(self, batch, banks):
        order = batch.packed.order
        self._derived.order.copy_(torch.from_numpy(order.copy()))
        return dataclasses.replace(batch.buffer.views, addresses=stored[order.tobytes()])

    monkeypatch.setattr(GpuRows, "_with_addresses", take)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("placement", ["device", "tiered"])
@pytest.mark.parametrize("make", [random_log, shared_log, history_log, lambda seed: wide_log(random_log(seed))])
def test_derived_addresses_train_the_same_bytes(make, placement, precision, monkeypatch):
    log = make(3)
    layout = log.layout(0.3, 1)
    kind = {"device": CUDA, "precision": precision, "epochs": 4}
    captured = train(log, layout, "rowwise_adagrad", placement, **kind)
    eager = train(log, layout, "rowwise_adagrad", placement, capture=False, **kind)
    packed = type(log).packed
    for older in (store_whole_order, store_addresses):
        with monkeypatch.context() as patch:
            patch.setattr(type(log), "packed", lambda self, layout, older=older: older(packed(self, layout)))
            assert_same_bytes(train(log, layout, "rowwise_adagrad", placement, **kind), captured)
    take_stored_addresses(monkeypatch, log.packed(layout))
    stored = train(log, layout, "rowwise_adagrad", placement, capture=False, **kind)
    assert_same_bytes(eager, stored)
    if make is not history_log:  # what captured attention adds up is not promised to have the order of single kernels
        assert_same_bytes(captured, stored)


@pytest.mark.parametrize("name", adversarial_logs())
def test_adversarial_batches(name, monkeypatch):
    log = adversarial_logs()[name]
    layout = log.layout(0.2, 1)
    captured = train(log, layout, "adam", "tiered", device=CUDA, epochs=3)
    take_stored_addresses(monkeypatch, log.packed(layout))
    assert_same_bytes(train(log, layout, "adam", "tiered", device=CUDA, capture=False, epochs=3), captured)


@pytest.mark.parametrize("batch_size", [1000, 32768])
def test_the_kernel_writes_every_address_once(batch_size):
    """Large batches: many programs, long rows over several of them, pads of lists, two widths; one plane, and two."""
    log = random_log(9, num_inputs=3 * batch_size // 2, batch_size=batch_size, lists=True)
    layout = log.layout(0.3, 1)
    packed = log.packed(layout)
    stored = store_addresses(packed)
    embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=CUDA)
    for index, batch in enumerate(embeddings.stream(packed, range(packed.num_batches))):
        derived = embeddings._gpu._derived
        derived.addresses.fill_(77)
        derived.order.fill_(77)
        embeddings.lookup(batch)
        torch.cuda.synchronize()
        assert (derived.addresses.cpu().numpy() == stored.batch(index).addresses).all()
        assert (derived.order.cpu().numpy() == batch.packed.order).all()
