"""The streaming pipeline when things go wrong: a consumer that stops early, a thread that fails."""

from __future__ import annotations

import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from fae.artifacts.packed import ColdLists
from fae.models.registry import build_model
from fae.streaming import staging, transfer
from fae.streaming.row_store import RowOptimizer
from fae.streaming.staging import FaultInjection, WorkerCounts
from fae.training.dense import make_dense_optimizer
from fae.training.step import train_step

from cases import assert_same_bytes, in_a_process, make_embeddings, random_log, train


def staging_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("staging")]


def test_a_consumer_that_stops_early_loses_no_update():
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
    whole = make_embeddings("cpu", log, layout, RowOptimizer())
    whole.initialise(1)
    expected = whole.stream_frozen(packed, range(packed.num_batches))
    for batch, other in zip(embeddings.stream_frozen(packed, range(packed.num_batches)), expected, strict=True):
        rows = embeddings.lookup(batch, requires_grad=False).stacked
        assert_same_bytes([rows], [whole.lookup(other, requires_grad=False).stacked])
        # A later batch reads these rows from the host, not from here.
        for part in embeddings._tiers[0].slot(batch.slot):
            part += 1.0
    assert_same_bytes([embeddings.export_table(table)[0] for table in range(3)], before)


def test_a_stream_within_a_stream_is_refused():
    """Both would use the same slots. After a stream was closed, or failed, the next one may start."""
    log = random_log(5)
    layout = log.layout(0.1, 1)
    embeddings = make_embeddings("tiered", log, layout, RowOptimizer(), depth=3)
    embeddings.initialise(1)
    packed = log.packed(layout)
    outer = embeddings.stream(packed, range(packed.num_batches))
    next(outer)
    with pytest.raises(RuntimeError, match="still open"):
        next(embeddings.stream_frozen(packed, [0]))
    outer.close()
    assert len(list(embeddings.stream_frozen(packed, range(packed.num_batches)))) == packed.num_batches


@pytest.mark.parametrize(
    ("module", "kind"),
    [(staging, "gather"), (staging, "scatter"), (transfer, "up"), (transfer, "down")],
)
def test_a_failing_worker_reaches_the_consumer(module, kind, monkeypatch):
    calls = []

    def fail(*arguments):
        calls.append(kind)
        raise MemoryError("no more")

    makes_loops = kind in ("gather", "scatter")
    monkeypatch.setattr(module, f"{kind}_loop", (lambda *widths: fail) if makes_loops else fail)
    with pytest.raises(RuntimeError, match=f"staging thread .{kind} .*failed: MemoryError: no more") as caught:
        train(random_log(6), random_log(6).layout(0.1, 1), "sgd", "tiered")
    assert isinstance(caught.value.__cause__, MemoryError)
    assert set(calls) == {kind}
    assert staging_threads() == []


@pytest.mark.parametrize(
    "fake", ["", "from fake_cuda import install_fake_cuda\ninstall_fake_cuda(pytest.MonkeyPatch())\n"]
)
def test_a_stream_left_open_does_not_keep_the_process(fake):
    code = (
        "import pytest\nfrom cases import *\n"
        f"{fake}"
        "log = random_log(1)\n"
        "layout = log.layout(0.1, 1)\n"
        "embeddings = make_embeddings('tiered', log, layout, RowOptimizer(), depth=3)\n"
        "stream = embeddings.stream(log.packed(layout), range(9))\n"
        "next(stream)\n"
        "print('left')\n"
    )
    done = in_a_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


@pytest.mark.parametrize("counts", [WorkerCounts(gather=1, scatter=1), WorkerCounts(gather=4, scatter=3)])
def test_more_workers_change_nothing(counts, monkeypatch):
    log = random_log(3, lists=True)
    layout = log.layout(0.1, 1)
    expected = train(log, layout, "rowwise_adagrad", "cpu")
    monkeypatch.setattr(WorkerCounts, "of_machine", classmethod(lambda cls, groups: counts))
    faults = FaultInjection(max_delay_seconds=0.002, fill_with_nan=True, seed=3)
    for depth in (2, 4):
        assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=depth, faults=faults), expected)


def test_a_position_waits_for_every_gatherer():
    this = transfer.Pass(
        workers=None, lists=(), write_back=True, gathered=(np.array([1, 2]), np.array([3])), scattered=(),
        copied_down=np.array([]),
    )  # fmt: skip
    assert this.sources.tolist() == [1, 2, 3]


def test_ranges_hold_equal_shares_of_entries():
    rows = np.sort(np.random.default_rng(1).zipf(1.3, 4000) % 1000).astype(np.int64)
    lists = ColdLists(rows=rows, begins=np.array([0, 2000]), ends=np.array([2000, 4000]))
    cuts = staging.equal_ranges(lists, 4)
    assert cuts[0] == 0
    assert cuts[-1] > rows.max()
    most = np.bincount(rows).max()
    for low, high in pairwise(cuts):
        assert ((rows >= low) & (rows < high)).sum() <= 1000 + most


def test_rows_take_the_bytes_that_calibrate_counts():
    from fae.core.optimizers import OPTIMIZERS, row_bytes

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


def test_without_triton_the_error_says_what_to_install(monkeypatch):

    from fae.core.errors import DeviceError

    monkeypatch.setitem(sys.modules, "fae.embedding.gpu_rows", None)
    log = random_log(1)
    with pytest.raises(DeviceError, match="pip install triton"):
        make_embeddings("device", log, log.layout(0.1, 1), RowOptimizer(), engine="triton")
