"""The schedule: every batch once an epoch, the paper's rate, and a state that says everything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fae.training.schedule import Schedule, interleave

counts = st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda pair: sum(pair) > 0)


def run_epochs(schedule: Schedule, losses=None) -> list[list[int]]:
    """Batches of each epoch, telling the schedule `losses` at swaps."""
    epochs: list[list[int]] = [[]]
    losses = iter(losses or [])
    while not schedule.done:
        segment = schedule.next_segment()
        epochs[-1].extend(segment.batches.tolist())
        if segment.wants_loss:
            schedule.observe(next(losses, 0.5))
        if segment.ends_epoch:
            epochs.append([])
    return epochs[:-1]


@given(
    counts, st.sampled_from(["interleaved", "adaptive", "fixed_rate"]), st.integers(1, 100),
    st.lists(st.floats(0, 1), max_size=30), st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)  # fmt: skip
def test_every_batch_once_an_epoch(pair, order, rate, losses, tail):
    hot, cold = pair
    epochs = run_epochs(Schedule(order, num_hot=hot, num_cold=cold, epochs=2, seed=3, rate=rate, tail=tail), losses)
    assert len(epochs) == 2
    for batches in epochs:
        assert sorted(batches) == list(range(hot + cold))
        if cold:
            assert batches[-1] >= hot, "an epoch ended on a hot batch"


def test_interleaved_is_in_proportion():
    merged = interleave(np.arange(90), np.arange(90, 120))
    hot_so_far = np.cumsum(merged < 90)
    assert np.all(np.abs(hot_so_far - 0.75 * np.arange(1, 121)) <= 1.5)


def test_epochs_and_seeds_differ():
    first, second = run_epochs(Schedule("shuffled", num_hot=0, num_cold=50, epochs=2, seed=1))
    (other,) = run_epochs(Schedule("shuffled", num_hot=0, num_cold=50, epochs=1, seed=2))
    assert first != second
    assert first != other
    assert first == run_epochs(Schedule("shuffled", num_hot=0, num_cold=50, epochs=1, seed=1))[0]


def phases(rate: int, losses: list[float], hot: int = 100, cold: int = 100) -> list[tuple[str, int]]:
    schedule = Schedule("adaptive", num_hot=hot, num_cold=cold, epochs=1, seed=1, rate=rate)
    run_epochs(schedule, losses)
    return [(entry["phase"], entry["batches"]) for entry in schedule.trace]


def test_adaptive_starts_cold_at_its_rate():
    assert phases(50, [0.5] * 20)[:3] == [("cold", 50), ("hot", 50), ("cold", 49)]


def test_adaptive_halves_when_the_loss_rises():
    assert phases(50, [0.5, 0.6, 0.7, 0.8])[:4] == [("cold", 50), ("hot", 50), ("cold", 25), ("hot", 12)]


def test_adaptive_rate_stays_from_1_to_100():
    schedule = Schedule("adaptive", num_hot=10, num_cold=10, epochs=1, seed=1, rate=2)
    for loss in (0.1, 0.2, 0.3, 0.4):
        schedule.observe(loss)
    assert schedule.rate == 1
    for step in range(60):
        schedule.observe(-float(step))
    assert schedule.rate == 100


def test_adaptive_doubles_after_four_falls():
    schedule = Schedule("adaptive", num_hot=10, num_cold=10, epochs=1, seed=1, rate=10)
    rates = []
    for loss in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4):
        schedule.observe(loss)
        rates.append(schedule.rate)
    assert rates == [10, 10, 10, 10, 20, 20]


@pytest.mark.parametrize(("rate", "expected"), [
    (100, [("cold", 99), ("hot", 100), ("cold", 1)]),
    (50, [("cold", 50), ("hot", 50), ("cold", 49), ("hot", 50), ("cold", 1)]),
])  # fmt: skip
def test_fixed_rate_heeds_no_loss(rate, expected):
    schedule = Schedule("fixed_rate", num_hot=100, num_cold=100, epochs=1, seed=1, rate=rate)
    seen = []
    while not schedule.done:
        segment = schedule.next_segment()
        seen.append((segment.phase, len(segment.batches)))
        assert not segment.wants_loss
    assert seen == expected


def test_fixed_rate_is_the_adaptive_order_until_a_loss_rises():
    fixed, adaptive = (
        Schedule(order, num_hot=40, num_cold=30, epochs=1, seed=1, rate=20) for order in ("fixed_rate", "adaptive")
    )
    assert run_epochs(fixed) == run_epochs(adaptive, [0.5] * 60)


def test_tail_runs_in_proportion():
    schedule = Schedule("fixed_rate", num_hot=100, num_cold=60, epochs=2, seed=1, rate=100, tail=0.1)
    first, _ = run_epochs(schedule)
    assert [(entry["phase"], entry["batches"]) for entry in schedule.trace] == [
        ("cold", 54), ("hot", 90), ("mixed", 16), ("cold", 54), ("hot", 90), ("mixed", 16),
    ]  # fmt: skip
    tail = np.array(first[-16:]) < 100
    assert np.all(np.abs(np.cumsum(tail) - 10 / 16 * np.arange(1, 17)) <= 1.5)
    whole = Schedule("fixed_rate", num_hot=100, num_cold=60, epochs=1, seed=1, rate=100, tail=1.0)
    assert run_epochs(whole)[0] == run_epochs(Schedule("interleaved", num_hot=100, num_cold=60, epochs=1, seed=1))[0]


@given(counts, st.integers(0, 20), st.lists(st.floats(0, 1), min_size=60, max_size=60), st.sampled_from([0.0, 0.2]))
def test_restored_schedule_continues_the_same(pair, cut, losses, tail):
    hot, cold = pair

    def make() -> Schedule:
        return Schedule("adaptive", num_hot=hot, num_cold=cold, epochs=2, seed=5, rate=30, tail=tail)

    def play(schedule: Schedule, step: int, most: int = 10**6) -> list[list[int]]:
        played = []
        while not schedule.done and step < most:
            played.append(schedule.next_segment().batches.tolist())
            schedule.observe(losses[step % len(losses)])
            step += 1
        return played

    whole = play(make(), 0)
    first = make()
    head = play(first, 0, cut)
    second = make()
    second.restore(json.loads(json.dumps(first.state())))
    assert head + play(second, len(head)) == whole


def test_a_single_cold_batch_comes_last():
    (batches,) = run_epochs(Schedule("adaptive", num_hot=3, num_cold=1, epochs=1, seed=1))
    assert batches[-1] == 3


def test_no_batches_is_done():
    assert Schedule("interleaved", num_hot=0, num_cold=0, epochs=3, seed=1).done


@pytest.mark.parametrize(("hot", "cold"), [(0, 5), (5, 0)])
def test_one_kind_only(hot, cold):
    (batches,) = run_epochs(Schedule("adaptive", num_hot=hot, num_cold=cold, epochs=1, seed=1))
    assert sorted(batches) == list(range(5))
