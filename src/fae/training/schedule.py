"""The order of batches: a pure state machine that knows how many hot and cold batches there are, and nothing else.

The trainer takes the next `Segment`, trains it, and reports the validation loss where the segment wants it. Every batch
comes once an epoch; the same seed and the same losses give the same order; an epoch never ends on hot batches alone. A
schedule restored from its `state` continues as if nothing had happened.

The orders (measured in docs/results/accuracy.md):

* ``interleaved``: pure batches, hot and cold in proportion;
* ``shuffled``: mixed batches (pack made them so), in random order;
* ``adaptive``: the paper's shuffle scheduler, phases of cold and of hot batches;
* ``fixed_rate``: the same phases at a rate that no loss changes, the paper's R(r).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.seeds import generator

PHASED = ("adaptive", "fixed_rate")
"""Orders that train hot and cold batches in phases."""
FALLS_BEFORE_DOUBLING = 4
"""Swaps in a row with a falling loss after which the paper's rate doubles."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Batches to train without a break.

    Attributes
    ----------
    batches
        int64 batch numbers, in order.
    phase
        ``"mixed"``, ``"cold"`` or ``"hot"``.
    wants_loss
        Whether `Schedule.observe` must be given the validation loss after it (a swap).
    ends_epoch
        Whether it is the last of its epoch.
    """

    batches: npt.NDArray[np.int64]
    phase: str
    wants_loss: bool
    ends_epoch: bool


def interleave(hot: npt.NDArray[np.int64], cold: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Merge two lists in proportion, the shorter one spread evenly, ending on a cold batch where there is one.

    >>> interleave(np.array([0, 1, 2, 3]), np.array([8, 9])).tolist()
    [0, 1, 8, 2, 3, 9]
    """
    # The i-th of n is at (i + 1) / n of the epoch; on ties hot goes first, so the end is cold.
    place = np.concatenate(
        [(np.arange(len(hot)) + 1) / max(1, len(hot)), (np.arange(len(cold)) + 1) / max(1, len(cold))]
    )
    return np.concatenate([hot, cold])[np.argsort(place, kind="stable")]


class Schedule:
    """The order of one run.

    Parameters
    ----------
    order
        ``interleaved``, ``shuffled``, ``adaptive`` or ``fixed_rate``.
    num_hot, num_cold
        How many batches; hot ones are numbered ``[0, num_hot)``, cold (or mixed) ones from num_hot.
    rate
        Rate of the phases, in per cent of the hot (cold) batches; the adaptive order's first one.
    tail
        Share of the hot and of the cold batches that an epoch in phases keeps for its end, where they run in
        proportion; 0: all in phases, as in the paper, but for one cold batch.
    """

    def __init__(
        self, order: str, *, num_hot: int, num_cold: int, epochs: int, seed: int, rate: int = 50, tail: float = 0.0
    ) -> None:
        # Without batches of both kinds there is nothing to be one-sided about.
        both = num_hot > 0 and num_cold > 0
        self._tail = {"hot": math.ceil(tail * num_hot) * both, "cold": math.ceil(tail * num_cold) * both}
        self._kind, self._num_hot, self._num_cold, self._epochs, self._seed = order, num_hot, num_cold, epochs, seed
        self.epoch, self._hot_done, self._cold_done = 0, 0, 0
        self.rate, self._falls, self._last_loss = rate, 0, float("nan")
        self._next_phase = "cold"
        self.trace: list[dict[str, Any]] = []

    @property
    def num_batches(self) -> int:
        """Batches of one epoch."""
        return self._num_hot + self._num_cold

    @property
    def done(self) -> bool:
        """Whether every epoch is complete."""
        return self.epoch >= self._epochs or self.num_batches == 0

    def _shuffled(self, kind: str) -> npt.NDArray[np.int64]:
        first, count = (0, self._num_hot) if kind == "hot" else (self._num_hot, self._num_cold)
        return first + generator(self._seed, "order", self.epoch, kind).permutation(count)

    def next_segment(self) -> Segment:
        """Return the batches that come next, and advance."""
        if self._kind not in PHASED:
            order = interleave(self._shuffled("hot"), self._shuffled("cold"))
            self.epoch += 1
            return Segment(batches=order, phase="mixed", wants_loss=False, ends_epoch=True)
        return self._next_phase_segment()

    def _next_phase_segment(self) -> Segment:
        hot_left, cold_left = self._num_hot - self._hot_done, self._num_cold - self._cold_done
        left = {"hot": hot_left - self._tail["hot"], "cold": cold_left - self._tail["cold"]}
        if not self._tail["cold"]:
            # One cold batch is kept for the end: an epoch that ends on hot batches alone ends on a one-sided log.
            left["cold"] -= 1 if hot_left and self._num_cold else 0
        elif left["hot"] <= 0 and left["cold"] <= 0:
            return self._tail_segment()
        phase = self._next_phase
        if left[phase] <= 0:
            phase = "hot" if phase == "cold" else "cold"
        share = -(-self.rate * (self._num_hot if phase == "hot" else self._num_cold) // 100)
        count = min(max(1, share), left[phase])
        done = self._hot_done if phase == "hot" else self._cold_done
        batches = self._shuffled(phase)[done : done + count]
        if phase == "hot":
            self._hot_done += count
        else:
            self._cold_done += count
        self._next_phase = "hot" if phase == "cold" else "cold"
        ends = self._hot_done == self._num_hot and self._cold_done == self._num_cold
        return self._phase(phase, batches, ends)

    def _tail_segment(self) -> Segment:
        hot, cold = self._shuffled("hot")[self._hot_done :], self._shuffled("cold")[self._cold_done :]
        return self._phase("mixed", interleave(hot, cold), ends=True)

    def _phase(self, phase: str, batches: npt.NDArray[np.int64], ends: bool) -> Segment:
        self.trace.append({"epoch": self.epoch, "phase": phase, "rate": self.rate, "batches": len(batches)})
        if ends:
            self.epoch, self._hot_done, self._cold_done, self._next_phase = self.epoch + 1, 0, 0, "cold"
        return Segment(batches=batches, phase=phase, wants_loss=self._kind == "adaptive", ends_epoch=ends)

    def observe(self, loss: float) -> None:
        """Take the validation loss at a swap: halve the rate where it rose, double it after four falls in a row."""
        if self.trace:
            self.trace[-1]["validation_loss"] = loss
        if loss > self._last_loss:
            self.rate, self._falls = max(1, self.rate // 2), 0
        elif loss < self._last_loss:
            self._falls += 1
            if self._falls == FALLS_BEFORE_DOUBLING:
                self.rate, self._falls = min(100, self.rate * 2), 0
        else:
            self._falls = 0
        self._last_loss = loss

    def state(self) -> dict[str, Any]:
        """Everything that changes, as JSON values."""
        return {
            "epoch": self.epoch, "hot_done": self._hot_done, "cold_done": self._cold_done, "rate": self.rate,
            "falls": self._falls, "last_loss": self._last_loss if self._last_loss == self._last_loss else None,
            "next_phase": self._next_phase, "trace": [dict(entry) for entry in self.trace],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.epoch, self._hot_done, self._cold_done = state["epoch"], state["hot_done"], state["cold_done"]
        self.rate, self._falls, self._next_phase = state["rate"], state["falls"], state["next_phase"]
        self._last_loss = float("nan") if state["last_loss"] is None else state["last_loss"]
        self.trace = [dict(entry) for entry in state["trace"]]
