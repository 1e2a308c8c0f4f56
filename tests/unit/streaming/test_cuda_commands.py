"""Lists of driver commands, and the copies that streaming makes of them, with a fake driver over CPU memory."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import fake_cuda
from fae.streaming import input_ring, input_sources
from fae.streaming.cuda_commands import command_table, require_success
from fae.streaming.driver_calls import COPY, RECORD, WAIT, count_done, run_commands
from fae.streaming.input_layout import InputLayout
from fae.streaming.input_sources import BufferSource, InputTarget, MappedSource
from fae.streaming.row_store import RowOptimizer
from fae.streaming.staging import FaultInjection
from fae.streaming.workers import WorkerError
from fake_cuda import Driver, Event, Stream, install_fake_cuda, install_fake_inputs

from cases import adversarial_logs, assert_same_bytes, make_embeddings, random_log, train

OPTIMIZER = RowOptimizer(name="rowwise_adagrad", learning_rate=0.1)


def test_commands_run_in_order_and_empty_copies_are_left_out():
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
    assert run_commands(driver.functions, table[0]) == 0
    assert driver.calls == [("wait", 11, 21, 0), ("record", 31, 11)]
    assert run_commands(driver.functions, table[2]) == 0
    assert driver.calls[2:] == [("wait", 11, 21, 0), ("copy", 8, 11), ("record", 33, 11)]
    np.testing.assert_array_equal(target, [0, 1, 0, 0, 0, 0])
    run_commands(driver.functions, table[2][:1])
    assert driver.calls[5:] == [("wait", 11, 21, 0)]


def test_the_first_refusal_is_the_last_command():
    driver = Driver()
    driver.refuse = ("record", 1, 2)
    code = run_commands(driver.functions, command_table(1, [(RECORD, 1, 2), (RECORD, 3, 4)])[0])
    assert (code, driver.calls) == (700, [("record", 1, 2)])
    with pytest.raises(RuntimeError, match="CUDA error 700"):
        require_success(code)


def test_handles_above_two_to_the_31():
    driver, large = Driver(), 0x7FFF_FFFF_FFF0
    run_commands(driver.functions, command_table(1, [(WAIT, large, large - 1)])[0])
    assert driver.calls == [("wait", large, large - 1, 0)]


def test_events_are_queried_in_order_until_one_has_not_happened():
    driver, events = Driver(), np.array([21, 22, 23])
    assert count_done(driver.functions, events, 2, 7) == (7, 0)
    assert [entry[1] for entry in fake_cuda.order[-5:]] == [23, 21, 22, 23, 21]
    driver.patience = 1  # every second time: yes, then not yet
    assert count_done(driver.functions, events, 7, 9) == (8, 0)
    driver.patience = 9
    assert count_done(driver.functions, events, 8, 9) == (8, 0)
    driver.patience, driver.refuse_query = 0, driver.num_queries + 2
    assert count_done(driver.functions, events, 7, 9) == (8, 700), "22 has happened, 23 fails"


@pytest.mark.parametrize("name", ["plain", *adversarial_logs()])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_rows_go_where_a_gpu_would_have_them(optimizer, name, monkeypatch):
    log = random_log(3, lists=True) if name == "plain" else adversarial_logs()[name]
    layout = log.layout(0.1, 1)
    expected = train(log, layout, optimizer, "cpu", epochs=2)
    driver = install_fake_cuda(monkeypatch)
    for depth in (2, 3, 5):
        assert_same_bytes(train(log, layout, optimizer, "tiered", depth=depth, epochs=2), expected)
    assert {call[0] for call in driver.calls} == {"wait", "copy", "record"}


def test_nan_and_delays_come_between_the_same_commands(monkeypatch):
    log = random_log(5)
    layout = log.layout(0.1, 1)
    expected = train(log, layout, "rowwise_adagrad", "cpu")
    driver = install_fake_cuda(monkeypatch)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3), expected)
    plain = [call[0] for call in driver.calls]
    driver.calls.clear()
    fake_cuda.order.clear()
    faults = FaultInjection(max_delay_seconds=0.001, fill_with_nan=True, seed=2)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3, faults=faults), expected)
    tested = [call[0] for call in driver.calls]
    made = {kind for kind, *_ in fake_cuda.order} - {"record"}
    assert made == {"wait", "copy", "fill", "delay", "seen", "synchronize"}
    # Events are recorded once when they are made.
    begin = next(place for place, entry in enumerate(fake_cuda.order) if entry[0] == "wait")
    order = fake_cuda.order[begin:]
    # Streams take turns differently, but nothing is left out.
    assert sorted(kind for kind in tested if kind not in ("fill", "delay")) == sorted(plain)
    batches = plain.count("record") // 3
    assert tested.count("fill") == 2 * batches, "weight and state of every slot that is filled"
    assert tested.count("delay") == 2 * batches, "before copies up, and before copies down"
    first = [kind for kind, stream, *_ in order if kind != "seen" and stream == order[0][1]][:7]
    assert first == ["wait", "delay", "fill", "fill", "copy", "copy", "copy"], "of the first arrival"
    (down,) = {stream for kind, stream, *_ in order if kind == "delay"} - {order[0][1]}
    departure = [kind for kind, stream, *_ in order if kind != "seen" and stream == down][:5]
    assert departure == ["wait", "delay", "copy", "copy", "record"]


def test_by_location(monkeypatch):
    pytest.importorskip("triton")
    log = random_log(2, num_inputs=48, batch_size=8)
    layout = log.layout(0.2, 1)
    expected = train(log, layout, "rowwise_adagrad", "device", engine="triton")
    install_fake_cuda(monkeypatch)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3, engine="triton"), expected)


@pytest.mark.parametrize("locked", [True, False], ids=["from files", "from pinned buffers"])
@pytest.mark.parametrize("placement", ["device", "tiered"])
def test_inputs_are_copied_by_commands(placement, locked, monkeypatch):
    pytest.importorskip("triton")
    log = random_log(2, num_inputs=96, batch_size=8)
    layout = log.layout(0.2, 1)
    expected = train(log, layout, "adam", "device", engine="triton", epochs=2)
    driver = install_fake_cuda(monkeypatch)
    install_fake_inputs(monkeypatch, locked=locked)
    assert_same_bytes(train(log, layout, "adam", placement, depth=3, engine="triton", epochs=2), expected)
    if placement == "device":
        copies, records = (sum(call[0] == kind for call in driver.calls) for kind in ("copy", "record"))
        pieces = 2 * copies / records  # two events a batch: it has arrived, it is consumed
        assert pieces > 3 if locked else pieces == 1
    # Streams of inputs and of rows: the next pass writes memory that copies of this one may still read.
    last = [entry for entry in fake_cuda.order if entry[0] != "follow"][-4:]
    ends = {entry for entry in last if entry[0] == "synchronize"}
    assert len(ends) == (1 if placement == "device" else 3)


def test_evaluation_copies_nothing_back(monkeypatch):
    driver = install_fake_cuda(monkeypatch)
    log = random_log(5)
    layout = log.layout(0.1, 1)
    embeddings = make_embeddings("tiered", log, layout, OPTIMIZER, depth=3)
    packed = log.packed(layout)
    list(embeddings.stream_frozen(packed, range(packed.num_batches)))
    batches = int(packed.has_cold_rows.sum())
    rows = sum(len(part) for index in range(packed.num_batches) for part in packed.batch(index).cold_rows)
    (dim,) = {group.embedding_dim for group in layout.groups}
    assert sum(1 for call in driver.calls if call[0] == "record") == 3 * batches
    each = 4 * (dim + OPTIMIZER.state_width(dim)) + 8  # copied up: the row, its state and its location
    assert sum(call[1] for call in driver.calls if call[0] == "copy") == rows * each


DEPTH = 3


class Sources:
    """The same five inputs, of four batches, from every source: pinned buffers, files, and for a CPU."""

    def __init__(self):
        log = random_log(4, lists=True)
        layout = log.layout(0.2, 1)
        packed = log.packed(layout)
        inputs = InputLayout(
            batch_size=log.batch_size, num_slots=layout.num_slots, num_dense=packed.num_dense,
            num_groups=len(layout.groups), with_cold_lists=True,
        )  # fmt: skip
        self.layout, self.packed, self.order = inputs, packed, np.array([2, 0, 1, 3, 2])
        self.table = inputs.table(
            packed, self.order, slots=np.full(5, -1), slot_rows=[0] * len(layout.groups),
            rates=np.full(5, 0.5, np.float32),
        )  # fmt: skip
        self.words = inputs.num_words(packed)

    def targets(self, stream):
        events = [(Event(), Event()) if stream else (None, None) for _ in range(DEPTH)]
        for event in (event for pair in events for event in pair if event):
            event.record(stream)
        return [
            InputTarget(
                words=torch.zeros(self.words, dtype=torch.int32), stream=stream, arrived=arrived, consumed=consumed
            )
            for arrived, consumed in events
        ]

    def buffered(self, targets, num_workers):
        buffers = [torch.zeros(self.words, dtype=torch.int32) for _ in range(DEPTH)]
        return BufferSource(self.table, buffers, num_workers, targets)


def test_every_source_gives_the_same_bytes(monkeypatch):
    install_fake_cuda(monkeypatch)
    sources = Sources()
    places = {"cpu": sources.targets(None), "buffered": sources.targets(Stream()), "mapped": sources.targets(Stream())}
    made = {
        "cpu": sources.buffered(places["cpu"], 1), "buffered": sources.buffered(places["buffered"], 2),
        "mapped": MappedSource(sources.table, places["mapped"]),
    }  # fmt: skip
    for position in range(5):
        for source in made.values():
            source.acquire(position)
        own, *others = (targets[position % DEPTH].words for targets in places.values())
        header = sources.table.headers[position]
        assert own[: len(header)].tolist() == header.tolist()
        # Between pieces host buffers hold what was there before.
        for place, size in [(0, 4 * len(header)), *sources.table.pieces[position][:, 1:].tolist()]:
            for other in others:
                part = slice(place // 4, (place + size) // 4)
                assert_same_bytes([own[part]], [other[part]])
        for source in made.values():
            source.release(position)
    for source in made.values():
        source.stop()


def reach_sent(stream, count):
    """Wait until `count` inputs are sent: as far ahead as places are free."""
    end = time.monotonic() + 20
    while sum(entry[:2] == ("wait", stream.cuda_stream) for entry in list(fake_cuda.order)) < count:
        assert time.monotonic() < end, "the copier sends fewer inputs ahead than there are places"
        time.sleep(0.001)


@pytest.mark.parametrize("locked", [True, False], ids=["from files", "from pinned buffers"])
@pytest.mark.parametrize("held", [0, 1])
def test_a_ring_whose_consumer_stops_early_can_be_used_again(locked, held, monkeypatch):
    """Where one is held, a step reads the place of the batch before too, and the end of a stream that of the last."""
    install_fake_cuda(monkeypatch)
    install_fake_inputs(monkeypatch, locked=locked)
    sources, log = Sources(), random_log(4, lists=True)
    ring = input_ring.InputRing(sources.layout, DEPTH, torch.device("cpu"), held=held)
    ring.reserve(sources.packed)
    compute = torch.cuda.current_stream().cuda_stream
    fake_cuda.order.clear()
    for leave_at in (1, 99, 3, 0, 99):
        stream = ring.run(sources.packed, sources.order, sources.table)
        for position, (_, slot) in enumerate(stream):
            assert slot.views.words[0] == log.batch_size
            is_last = position in (leave_at, len(sources.order) - 1)
            for place in [slot.index, *[slot.index - 1] * (held and position > 0), *[slot.index] * (held and is_last)]:
                fake_cuda.order.append(("compute", place % DEPTH))
            if position == leave_at:
                break
        stream.close()
    inputs = ring._stream.cuda_stream
    places = [(target.words.data_ptr(), 4 * len(target.words)) for target in ring._targets]
    done, recorded, reading = {inputs: set(), compute: set()}, {}, {}
    for number, entry in enumerate(fake_cuda.order):
        if entry[0] == "wait":
            done[entry[1]] |= recorded.get(entry[2], set())
        elif entry[0] == "follow":
            done[entry[1]] |= done[entry[2]]
        elif entry[0] == "record":
            recorded[entry[2]] = set(done[entry[1]])
        elif entry[0] == "copy":
            (place,) = (index for index, (first, size) in enumerate(places) if 0 <= entry[2] - first < size)
            assert reading.get(place, "none") in {"none", *done[inputs]}, "a step may still read this place"
        elif entry[0] == "compute":
            reading[entry[1]] = number
            done[compute].add(number)
    assert len(reading) == DEPTH


def test_an_input_is_sent_when_its_buffer_is_full(monkeypatch):
    install_fake_cuda(monkeypatch)
    sources = Sources()
    real, targets, own = input_sources.fill_buffers, sources.targets(Stream()), sources.targets(None)
    expected = sources.buffered(own, 1)

    def slowly(*arguments):
        time.sleep(0.1)
        real(*arguments)

    monkeypatch.setattr(input_sources, "fill_buffers", slowly)
    source = sources.buffered(targets, 2)
    for position in range(5):
        for each in (source, expected):
            each.acquire(position)
        words = int(sources.table.words[position])
        assert_same_bytes([targets[position % DEPTH].words[:words]], [own[position % DEPTH].words[:words]])
        for each in (source, expected):
            each.release(position)
    for each in (source, expected):
        each.stop()


@pytest.mark.parametrize("patience", [0, 3])
@pytest.mark.parametrize("kind", ["buffered", "mapped"])
def test_places_and_buffers_of_inputs_are_written_when_no_step_reads_them(kind, patience, monkeypatch):
    made = install_fake_cuda(monkeypatch)
    made.patience, sources, stream = patience, Sources(), Stream()
    targets, compute = sources.targets(stream), torch.cuda.current_stream().cuda_stream
    consumed = {target.consumed.cuda_event: place for place, target in enumerate(targets)}
    fake_cuda.order.clear()
    source = sources.buffered(targets, 2) if kind == "buffered" else MappedSource(sources.table, targets)
    for position in range(5):
        source.acquire(position)
        fake_cuda.order.append(("compute", position))
        source.release(position)
        reach_sent(stream, min(5, position + 1 + DEPTH))
        time.sleep(0.01)  # and not further
    source.stop()
    done, recorded, sent, seen, left = {stream.cuda_stream: set(), compute: set()}, {}, -1, 0, 0
    for entry in fake_cuda.order:
        if entry[0] == "wait":
            done[entry[1]] |= recorded.get(entry[2], set())
            sent += entry[1] == stream.cuda_stream
        elif entry[0] == "copy":
            assert sent < DEPTH or ("computed", sent - DEPTH) in done[stream.cuda_stream]
            if kind == "buffered":
                assert sent < DEPTH + seen, "a worker has written the buffer again"
            place = targets[sent % DEPTH].words
            assert 0 <= entry[2] - place.data_ptr() < 4 * len(place)
            done[stream.cuda_stream].add(("copied", sent))
        elif entry[0] == "record":
            if entry[2] in consumed:
                assert (entry[1], consumed[entry[2]]) == (compute, left % DEPTH)
                left += 1
            recorded[entry[2]] = set(done[entry[1]])
        elif entry[0] == "seen":
            assert ("copied", seen) in recorded[entry[1]]
            seen += 1
        else:
            assert ("copied", entry[1]) in done[compute]
            done[compute].add(("computed", entry[1]))
    assert (sent, left) == (4, 5)
    assert seen if kind == "buffered" else not seen


def test_an_input_whose_copy_cannot_be_queried_ends_the_pass(monkeypatch):
    made = install_fake_cuda(monkeypatch)
    made.refuse_query, sources = 2, Sources()
    source = sources.buffered(sources.targets(Stream()), 2)

    def step_through():
        for position in range(5):
            source.acquire(position)
            source.release(position)

    with pytest.raises(WorkerError, match=r"thread 'copies' failed: RuntimeError: the driver refused.*CUDA error 700"):
        step_through()
    source.stop()


def test_an_input_that_the_driver_refuses_ends_the_pass(monkeypatch):
    made = install_fake_cuda(monkeypatch)
    sources, stream = Sources(), Stream()
    targets = sources.targets(stream)
    source = MappedSource(sources.table, targets)
    source.acquire(0)
    made.refuse = ("wait", stream.cuda_stream, targets[0].consumed.cuda_event, 0)
    source.release(0)

    def step_through():
        for position in range(1, 5):  # batch 3 goes to place 0
            source.acquire(position)
            source.release(position)

    with pytest.raises(WorkerError, match=r"thread 'copies' failed: RuntimeError: the driver refused.*CUDA error 700"):
        step_through()
    source.stop()
