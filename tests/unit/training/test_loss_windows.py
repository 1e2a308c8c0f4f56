"""Windows of the loss curve: settled late, in order, with the sums of their own steps."""

from __future__ import annotations

import math

import torch

from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer
from fae.training.runner import MOST_MARKS, LossMark, StepRunner
from fae.training.watching.loss_windows import LossWindows

from cases import make_embeddings, random_log


class LateMark:
    """A sum that comes when it is told to."""

    def __init__(self, value: float) -> None:
        self.ready, self._value, self.waited = False, value, False

    def value(self) -> float:
        self.waited = not self.ready
        return self._value


def test_windows_do_not_wait_and_keep_their_order():
    seen = []
    windows = LossWindows(lambda *settled: seen.append(settled))
    marks = [LateMark(float(number)) for number in range(4)]
    for number, mark in enumerate(marks[:3]):
        windows.close(10 * number, 10, number, 0.5, mark)
    assert seen == []
    marks[1].ready = True  # the first one is not
    windows.settle(wait=False)
    assert seen == []
    marks[0].ready = True
    windows.close(30, 10, 3, 0.0, marks[3])
    assert seen == [(0, 10, 0, 0.5), (10, 10, 1, 1.5)]
    windows.settle(wait=True)
    assert seen[2:] == [(20, 10, 2, 2.5), (30, 10, 3, 3.0)]
    assert [mark.waited for mark in marks] == [False, False, True, True]


def test_no_more_are_open_than_marks_can_hold():
    seen = []
    windows = LossWindows(lambda *settled: seen.append(settled))
    for number in range(3 * MOST_MARKS):
        windows.close(number, 1, number, 0.0, LateMark(0.0))
        assert number - len(seen) < MOST_MARKS - 1
    windows.settle(wait=True)
    assert [inputs for inputs, *_ in seen] == list(range(3 * MOST_MARKS))


def test_marks_are_the_losses_between_them():
    log = random_log(2, num_inputs=90)
    layout = log.layout(0.3, 1)
    packed = log.packed(layout)

    def fresh() -> StepRunner:
        embeddings = make_embeddings("cpu", log, layout, RowOptimizer(learning_rate=0.1))
        embeddings.initialise(3)
        model = build_model(log.config(), log.features, 3, seed=3)
        return StepRunner(model, embeddings, make_dense_optimizer("sgd", model, 0.05))

    one, each, waiting = fresh(), fresh(), fresh()
    for batch in one._embeddings.stream(packed, range(packed.num_batches)):
        one(batch)
    marks = []
    for batch in each._embeddings.stream(packed, range(packed.num_batches)):
        each(batch)
        marks.append(each.mark_loss())
    values = [mark.value() for mark in marks]
    assert all(mark.ready for mark in marks)
    assert math.isclose(sum(values), one.take_loss(), rel_tol=1e-12)
    assert one.take_loss() == 0.0
    taken = []
    for batch in waiting._embeddings.stream(packed, range(packed.num_batches)):
        waiting(batch)
        taken.append(waiting.take_loss())
    assert values == taken
    assert min(values) > 0.0


def test_windows_settle_in_order_with_what_was_carried():
    settled = []
    windows = LossWindows(lambda *window: settled.append(window))
    host = torch.zeros(2, dtype=torch.float64)
    sums = (torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64))
    marks = [LossMark(value, host[place]) for place, value in enumerate(sums)]

    class Late:
        ready = False

        def value(self):
            return 3.0

    windows.close(10, 10, 1, 0.5, Late())
    windows.close(20, 10, 2, 0.0, marks[0])
    assert settled == [], "the second has come, but the first has not"
    windows.settle(wait=True)
    windows.close(30, 10, 3, 4.0, marks[1])
    assert settled == [(10, 10, 1, 3.5), (20, 10, 2, 1.0), (30, 10, 3, 6.0)]
