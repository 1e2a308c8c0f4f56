"""Lists of driver commands, and the GPU's moves made of them, with a driver of CPU memory in the place of CUDA's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cuda_stand_in import Driver, Event, Stream, feed_by_commands, stand_in
from fae.embedding.feed_sources import FeedTarget, LaneSource, MappedSource
from fae.embedding.pipeline import FaultInjection
from fae.embedding.rows import RowOptimizer
from fae.kernels.driver import COPY, RECORD, WAIT, Commands, command_table
from fae.kernels.feed import FeedLayout

from cases import adversarial_logs, assert_same_bytes, make_embeddings, random_log, train

OPTIMIZER = RowOptimizer(name="rowwise_adagrad", learning_rate=0.1)


def test_in_order_and_without_empty_copies():
    driver, source, target = Driver(), np.arange(6, dtype=np.float32), np.zeros(6, np.float32)
    table = command_table(
        3,
        [
            (WAIT, 11, 21),
            (COPY, target.ctypes.data, source.ctypes.data, 4 * np.arange(3), 11),
            (RECORD, np.array([31, 32, 33]), 11),
        ],
    )
    assert table.shape == (3, 3, 5)
    commands = Commands(driver.functions)
    commands.run(table[0])
    assert driver.calls == [("wait", 11, 21, 0), ("record", 31, 11)]
    commands.run(table[2])
    assert driver.calls[2:] == [("wait", 11, 21, 0), ("copy", 8, 11), ("record", 33, 11)]
    np.testing.assert_array_equal(target, [0, 1, 0, 0, 0, 0])
    commands.run(table[2][:1])
    assert driver.calls[5:] == [("wait", 11, 21, 0)]


def test_the_first_refusal_is_the_last_command():
    driver = Driver()
    driver.refuse = ("record", 1, 2)
    with pytest.raises(RuntimeError, match="CUDA error 700"):
        Commands(driver.functions).run(command_table(1, [(RECORD, 1, 2), (RECORD, 3, 4)])[0])
    assert driver.calls == [("record", 1, 2)]


def test_handles_above_two_to_the_31():
    driver, large = Driver(), 0x7FFF_FFFF_FFF0
    Commands(driver.functions).run(command_table(1, [(WAIT, large, large - 1)])[0])
    assert driver.calls == [("wait", large, large - 1, 0)]


@pytest.mark.parametrize("name", ["plain", *adversarial_logs()])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_rows_go_where_a_gpu_would_have_them(optimizer, name, monkeypatch):
    log = random_log(3, lists=True) if name == "plain" else adversarial_logs()[name]
    layout = log.layout(0.1, 1)
    expected = train(log, layout, optimizer, "cpu", epochs=2)
    driver = stand_in(monkeypatch)
    for depth in (2, 3, 5):
        assert_same_bytes(train(log, layout, optimizer, "tiered", depth=depth, epochs=2), expected)
    assert {call[0] for call in driver.calls} == {"wait", "copy", "record"}


def test_poison_and_delays_take_the_same_commands_apart(monkeypatch):
    log = random_log(5)
    layout = log.layout(0.1, 1)
    expected = train(log, layout, "rowwise_adagrad", "cpu")
    driver = stand_in(monkeypatch)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3), expected)
    plain = [call[0] for call in driver.calls]
    driver.calls.clear()
    faults = FaultInjection(max_delay_seconds=0.001, poison=True, seed=2)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3, faults=faults), expected)
    # Copies that poison may keep waiting come in another order between batches, but none is left out.
    assert sorted(call[0] for call in driver.calls) == sorted(plain)


def test_by_location(monkeypatch):
    pytest.importorskip("triton")
    log = random_log(2, num_inputs=48, batch_size=8)
    layout = log.layout(0.2, 1)
    expected = train(log, layout, "rowwise_adagrad", "device", engine="triton")
    stand_in(monkeypatch)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3, engine="triton"), expected)


@pytest.mark.parametrize("locked", [True, False], ids=["from files", "from pinned buffers"])
@pytest.mark.parametrize("placement", ["device", "tiered"])
def test_feeds_too_come_by_commands(placement, locked, monkeypatch):
    pytest.importorskip("triton")
    log = random_log(2, num_inputs=96, batch_size=8)
    layout = log.layout(0.2, 1)
    expected = train(log, layout, "adam", "device", engine="triton", epochs=2)
    driver = stand_in(monkeypatch)
    feed_by_commands(monkeypatch, locked=locked)
    assert_same_bytes(train(log, layout, "adam", placement, depth=3, engine="triton", epochs=2), expected)
    if placement == "device":
        pieces = sum(call[0] == "copy" for call in driver.calls) / sum(call[0] == "record" for call in driver.calls)
        assert pieces > 3 if locked else pieces == 1


def test_evaluation_copies_nothing_back(monkeypatch):
    driver = stand_in(monkeypatch)
    log = random_log(5)
    layout = log.layout(0.1, 1)
    embeddings = make_embeddings("tiered", log, layout, OPTIMIZER, depth=3)
    packed = log.packed(layout)
    list(embeddings.stream_frozen(packed, range(packed.num_batches)))
    batches = int(packed.has_cold_rows.sum())
    rows = sum(len(part) for index in range(packed.num_batches) for part in packed.batch(index).cold_rows)
    (dim,) = {group.embedding_dim for group in layout.groups}
    assert sum(1 for call in driver.calls if call[0] == "record") == 3 * batches
    each = 4 * (dim + OPTIMIZER.state_width(dim)) + 8  # up: the row, its state and where it is
    assert sum(call[1] for call in driver.calls if call[0] == "copy") == rows * each


def test_every_source_feeds_the_same_bytes(monkeypatch):
    driver = stand_in(monkeypatch)
    log = random_log(4, lists=True)
    layout = log.layout(0.2, 1)
    packed = log.packed(layout)
    feed = FeedLayout(
        batch_size=log.batch_size, num_slots=layout.num_slots, num_dense=packed.num_dense,
        num_groups=len(layout.groups), with_cold_lists=True,
    )  # fmt: skip
    order = np.array([2, 0, 1, 3, 2])
    table = feed.table(
        packed, order, slots=np.full(5, -1), slot_rows=[0] * len(layout.groups), rates=np.full(5, 0.5, np.float32)
    )
    words, stream = feed.num_words(packed), Stream()
    buffers = [torch.zeros(words, dtype=torch.int32) for _ in range(3)]
    events = [(Event(), Event()) for _ in range(3)]
    for pair in events:
        for event in pair:
            event.record(stream)
    targets = [
        FeedTarget(words=torch.zeros(words, dtype=torch.int32), stream=stream, arrived=arrived, consumed=consumed)
        for arrived, consumed in events
    ]
    on_a_cpu = [FeedTarget(words=torch.zeros(words, dtype=torch.int32)) for _ in range(3)]
    plain = LaneSource(table, [torch.zeros_like(buffer) for buffer in buffers], 1, on_a_cpu)
    lanes, mapped = LaneSource(table, buffers, 2, targets), MappedSource(table, targets)
    for position in range(5):
        own, target, length = on_a_cpu[position % 3], targets[position % 3], table.words[position]
        ends = (
            ("wait", stream.cuda_stream, target.consumed.cuda_event, 0),
            ("record", target.arrived.cuda_event, stream.cuda_stream),
        )
        for source in (plain, lanes):
            source.wait(position, lambda: None)
        plain.start_copy(position, own)
        target.words.zero_()
        driver.calls.clear()
        lanes.start_copy(position, target)
        assert driver.calls == [ends[0], ("copy", 4 * length, stream.cuda_stream), ends[1]]
        assert_same_bytes([target.words[: table.headers.shape[1]]], [own.words[: table.headers.shape[1]]])
        for place, size in table.pieces[position][:, 1:]:
            assert_same_bytes(
                [own.words[place // 4 : (place + size) // 4]], [target.words[place // 4 : (place + size) // 4]]
            )
        for source in (plain, lanes):
            source.copied(position + 1)
        target.words.zero_()
        driver.calls.clear()
        mapped.start_copy(position, target)
        assert (driver.calls[0], driver.calls[-1]) == ends
        filled = own.words[:length].clone()
        # Between pieces the buffers of lanes hold what was there before.
        for place, size in table.pieces[position][:, 1:]:
            assert_same_bytes(
                [filled[place // 4 : (place + size) // 4]], [target.words[place // 4 : (place + size) // 4]]
            )
        assert_same_bytes([filled[: table.headers.shape[1]]], [target.words[: table.headers.shape[1]]])
    for source in (plain, lanes):
        source.stop()
