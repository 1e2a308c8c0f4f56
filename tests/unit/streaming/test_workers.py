"""Workers that fail or end too early: the consumer that waits for them gets an error with their name, and soon."""

from __future__ import annotations

import inspect
import threading
import time

import numpy as np
import pytest
from numba import njit

from fae.streaming import input_sources, staging, transfer
from fae.streaming.counters import publish, reach
from fae.streaming.row_store import RowOptimizer
from fae.streaming.workers import WorkerError, WorkerGroup, last_turn
from fake_cuda import install_fake_cuda

from cases import make_embeddings, random_log, train

LOOPS = {
    "gather": "gather_loop",
    "scatter": "scatter_loop",
    "up": "up_loop",
    "down": "down_loop",
    "fill": "fill_buffers",
}

pytestmark = pytest.mark.timeout(300)  # a hang is what these tests are about

SOON = 2.0
MODULES = {
    "gather": staging, "scatter": staging, "up": transfer, "down": transfer, "fill": input_sources,
}  # fmt: skip


@njit(nogil=True)
def three_then_nothing(counters, own, ready):
    for count in range(3):
        if not reach(counters, ready, count):
            return
        publish(counters, own, count + 1)


@njit(nogil=True)
def three_then_an_error(counters, own, ready):
    for count in range(3):
        publish(counters, own, count + 1)
    raise ValueError("row out of range")


@njit(nogil=True)
def waits(counters, own, forever):
    reach(counters, forever, 1)


def staged_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(("staging:", "input:"))]


@pytest.mark.parametrize(
    ("loop", "end", "message"),
    [
        (three_then_nothing, 5, "staging thread 'gather 1' ended, without an error, at 3 of 5 batches"),
        # It did all its work; a consumer that waits for more would wait for ever.
        (three_then_nothing, 3, "staging thread 'gather 1' ended, without an error, at 3 of 5 batches"),
        (three_then_an_error, 5, "staging thread 'gather 1' failed: ValueError: row out of range"),
    ],
)
def test_waiting_for_a_worker_that_ended_raises(loop, end, message):
    workers = WorkerGroup("staging")
    own, ready, other, forever = (workers.add_counter() for _ in range(4))
    workers.publish(ready, 9)
    workers.start("waits", waits, other, forever, end=1)
    workers.start("gather 1", loop, own, ready, end=end)
    counter_ids = np.array([own])
    workers.wait(counter_ids, 3)
    started = time.perf_counter()
    with pytest.raises(WorkerError) as caught:
        workers.wait(counter_ids, 5)
    assert time.perf_counter() - started < SOON
    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, ValueError if loop is three_then_an_error else type(None))
    workers.stop()
    assert staged_threads() == []


def test_waiting_for_a_worker_that_waits_for_one_that_ended_raises():
    """The worker that failed is not the one that the consumer waits for."""
    workers = WorkerGroup("staging")
    short, own, ready = (workers.add_counter() for _ in range(3))
    workers.publish(ready, 9)
    workers.start("scatter 0", three_then_nothing, short, ready, end=4)
    workers.start("gather 0", three_then_nothing, own, short, end=3)
    with pytest.raises(WorkerError, match="'scatter 0' ended"):
        workers.wait(np.array([own]), 9)
    workers.stop()


@pytest.mark.parametrize("cores", [2, 16])
def test_waiting_takes_little_of_few_cores(cores, monkeypatch):
    monkeypatch.setattr("fae.streaming.workers.num_threads", lambda: cores)
    workers = WorkerGroup("staging")
    counter = workers.add_counter()
    assert not workers.have_reached(np.array([counter]), 1)  # compiles
    timer = threading.Timer(0.3, lambda: workers.publish(counter, 1))
    timer.start()
    used = time.thread_time()
    workers.wait(np.array([counter]), 1)
    used = time.thread_time() - used
    assert workers.waited > 0.2
    if cores == 2:
        assert used < workers.waited / 4
    workers.stop()


def test_workers_that_are_told_to_stop_have_not_failed():
    workers = WorkerGroup("staging")
    own, ready = workers.add_counter(), workers.add_counter()
    workers.start("gather 0", three_then_nothing, own, ready, end=3)
    workers.stop()
    workers.wait(np.array([own]), 9)  # returns: the pass ends unfinished, without an error


def test_a_worker_that_cannot_start_leaves_no_other(monkeypatch):
    """The system has no thread left: `stop` ends those that run, and does not fail over the one that does not."""
    start, left = threading.Thread.start, iter([True, False])

    def scarce(thread):
        if not next(left, False):
            raise RuntimeError("can't start new thread")
        start(thread)

    workers = WorkerGroup("staging")
    counter_ids = workers.add_counters(3)
    monkeypatch.setattr(threading.Thread, "start", scarce)
    workers.start("a", waits, int(counter_ids[0]), int(counter_ids[2]), end=1)
    with pytest.raises(RuntimeError, match="new thread"):
        workers.start("b", waits, int(counter_ids[1]), int(counter_ids[2]), end=1)
    workers.stop()
    assert staged_threads() == []


@pytest.mark.parametrize(("first", "step", "count"), [(0, 1, 5), (1, 3, 9), (2, 3, 2), (0, 4, 0), (3, 4, 4)])
def test_last_turn(first, step, count):
    assert last_turn(first, step, count) == max([0, *(at + 1 for at in range(first, count, step))])


def cut_short(loop, how):
    """The same loop over fewer batches; after them it ends or fails."""
    names = list(inspect.signature(loop.py_func).parameters)

    def short(*arguments):
        given = list(arguments)
        for name in ("begins", "ends", "headers"):
            if name in names:
                given[names.index(name)] = given[names.index(name)][:5]
        loop(*given)
        if how == "fails":
            raise MemoryError("no more")

    return short


def inject(monkeypatch, kind, how):
    module = MODULES[kind]
    real = getattr(module, LOOPS[kind])
    if kind in ("gather", "scatter"):
        monkeypatch.setattr(module, LOOPS[kind], lambda *widths: cut_short(real(*widths), how))
    else:
        monkeypatch.setattr(module, LOOPS[kind], cut_short(real, how))


def check(caught, kind, how):
    assert f"thread '{kind} " in str(caught.value)
    if how == "fails":
        assert isinstance(caught.value.__cause__, MemoryError)
        assert "MemoryError: no more" in str(caught.value)
    else:
        assert "ended, without an error, at 5 of " in str(caught.value)
    assert staged_threads() == []


@pytest.mark.parametrize("how", ["ends", "fails"])
@pytest.mark.parametrize("kind", ["gather", "scatter", "up", "down"])
def test_a_worker_cut_short_ends_the_training(kind, how, monkeypatch):
    log = random_log(6)
    inject(monkeypatch, kind, how)
    with pytest.raises(WorkerError) as caught:
        train(log, log.layout(0.1, 1), "sgd", "tiered")
    check(caught, kind, how)


@pytest.mark.parametrize("how", ["ends", "fails"])
@pytest.mark.parametrize("placement", ["device", "tiered"])
def test_an_input_worker_cut_short_ends_the_training(placement, how, monkeypatch):
    pytest.importorskip("triton")
    log = random_log(6)
    inject(monkeypatch, "fill", how)
    with pytest.raises(WorkerError) as caught:
        train(log, log.layout(0.1, 1), "sgd", placement, depth=3, engine="triton")
    check(caught, "fill", how)


@pytest.mark.parametrize("kind", ["gather", "scatter"])
def test_a_worker_cut_short_beside_a_copier(kind, monkeypatch):
    """The copier cannot tell a dead worker from a slow one and continues; the consumer still gets the error."""
    log = random_log(6)
    install_fake_cuda(monkeypatch)
    inject(monkeypatch, kind, "ends")
    with pytest.raises(WorkerError) as caught:
        train(log, log.layout(0.1, 1), "sgd", "tiered")
    check(caught, kind, "ends")


@pytest.mark.parametrize("number", [1, 2, 3, 20, 21, 22, 23, 24, 25, 26])
def test_a_driver_that_refuses_ends_the_training(number, monkeypatch):
    """Whichever command it is, of the copier or of the consumer."""
    log = random_log(6)
    install_fake_cuda(monkeypatch).refuse_number = number
    with pytest.raises(RuntimeError, match="CUDA error 700"):
        train(log, log.layout(0.1, 1), "sgd", "tiered")
    assert staged_threads() == []


def test_a_copy_down_that_cannot_be_queried_ends_the_training(monkeypatch):
    log = random_log(6)
    install_fake_cuda(monkeypatch).refuse_query = 3
    with pytest.raises(WorkerError, match="staging thread 'copies' failed: RuntimeError: the driver refused"):
        train(log, log.layout(0.1, 1), "sgd", "tiered")
    assert staged_threads() == []


def test_a_consumer_that_stops_after_a_worker_failed_gets_the_error(monkeypatch):
    """Its last updates are not written back."""
    log = random_log(6)
    layout = log.layout(0.1, 1)
    inject(monkeypatch, "scatter", "ends")
    embeddings = make_embeddings("tiered", log, layout, RowOptimizer(), depth=4)
    embeddings.initialise(1)
    packed = log.packed(layout)
    stream = embeddings.stream(packed, range(packed.num_batches))

    def stop_after(count):
        for _ in range(count):
            next(stream)
        stream.close()

    with pytest.raises(WorkerError, match="'scatter 0 of group 0' ended"):
        stop_after(6)
    assert staged_threads() == []
    assert len(list(embeddings.stream_frozen(packed, range(packed.num_batches)))) == packed.num_batches
