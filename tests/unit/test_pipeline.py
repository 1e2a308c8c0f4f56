"""The streaming pipeline when things go wrong: a consumer that leaves, a thread that fails."""

from __future__ import annotations

import threading

import pytest
import torch

from fae.embedding.rows import RowOptimizer
from fae.embedding.transfer import HostTransfer
from fae.models.registry import build_model
from fae.training.dense import make_dense_optimizer
from fae.training.step import train_step

from cases import assert_same_bytes, make_embeddings, random_log, train


def staging_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "staging"]


def test_a_consumer_that_leaves_loses_no_update():
    log = random_log(4)
    layout = log.layout(0.1, 1)
    packed = log.packed(layout)
    results = []
    for cuts in ([3, 4, 8], []):
        embeddings = make_embeddings("tiered", log, layout, RowOptimizer(learning_rate=0.1), depth=4)
        embeddings.initialise(7)
        model = build_model(log.config(), log.features, 3, seed=7)
        optimizer = make_dense_optimizer("rowwise_adagrad", model, 0.05)
        first = 0
        for stop in [*cuts, packed.num_batches]:
            stream = embeddings.stream(packed, range(first, packed.num_batches))
            for batch in stream:
                train_step(model, embeddings, optimizer, batch)
                first += 1
                if first == stop:
                    break
            stream.close()
            assert staging_threads() == []
        results.append([*embeddings.export_table(0), *embeddings.export_table(2)])
    assert_same_bytes(*results)


def test_evaluation_changes_nothing():
    log = random_log(5)
    layout = log.layout(0.1, 1)
    embeddings = make_embeddings("tiered", log, layout, RowOptimizer(), depth=2)
    embeddings.initialise(1)
    before = [embeddings.export_table(table)[0].clone() for table in range(3)]
    packed = log.packed(layout)
    for batch in embeddings.stream_frozen(packed, range(packed.num_batches)):
        embeddings.lookup(batch, requires_grad=False)
        embeddings._bank(0).weight[layout.groups[0].num_hot_rows :] += 1.0  # staged copies may be spoilt
    assert_same_bytes([embeddings.export_table(table)[0] for table in range(3)], before)


@pytest.mark.parametrize("step", ["gather", "arrive", "depart", "scatter"])
def test_a_failing_thread_reaches_the_consumer(step, monkeypatch):
    calls = []

    def fail(*arguments, **options):
        calls.append(step)
        raise MemoryError("no more")

    monkeypatch.setattr(HostTransfer, step, fail)
    with pytest.raises(RuntimeError, match="staging thread failed") as caught:
        train(random_log(6), random_log(6).layout(0.1, 1), "sgd", "tiered")
    assert isinstance(caught.value.__cause__, MemoryError)
    assert set(calls) == {step}
    assert staging_threads() == []


def test_rows_take_the_bytes_that_calibrate_counts():
    from fae.popularity.memory import OPTIMIZERS, row_bytes

    log = random_log(1, lists=True)
    layout = log.layout(0.5, 1)
    for optimizer in OPTIMIZERS:
        embeddings = make_embeddings("tiered", log, layout, RowOptimizer(name=optimizer), depth=3)
        staging = [tier.slot_rows for tier in embeddings._tiers]
        expected = sum(
            (group.num_hot_rows + 3 * rows) * row_bytes(optimizer, group.embedding_dim)
            for group, rows in zip(layout.groups, staging, strict=True)
        )
        assert embeddings.device_bytes == expected
        assert embeddings.device_bytes == sum(
            tensor.untyped_storage().nbytes()
            for tier in embeddings._tiers
            for tensor in (tier.bank.weight, tier.bank.state)
        )


def test_first_values_do_not_depend_on_the_placement():
    log = random_log(8, lists=True)
    tables = []
    for share, placement in ((0.0, "tiered"), (0.7, "tiered"), (0.3, "cpu")):
        embeddings = make_embeddings(placement, log, log.layout(share, 3), RowOptimizer())
        embeddings.initialise(5)
        tables.append([embeddings.export_table(table)[0] for table in range(len(log.features))])
    assert_same_bytes(tables[0], tables[2])
    assert_same_bytes(tables[1], tables[2])
    scale = 1 / 50**0.5
    assert torch.all(tables[0][0].abs() <= scale)
    assert tables[0][0].std() > 0.4 * scale
