"""Time a recipe's own step on batches made for it: whole, its rows alone, its streaming alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import numpy as np
import torch

from fae.artifacts.packed import BatchSet
from fae.embedding.placements import make_embeddings
from fae.models.registry import build_model
from fae.planning.probe_batches import ProbeHotSet
from fae.planning.step_work import StepSettings
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer
from fae.training.dense_threads import dense_threads, torch_threads
from fae.training.real_inputs import rounds_dense
from fae.training.runner import StepRunner

_WARM_UP = 24
"""Steps before a sample on a GPU: some compile kernels, then one an input buffer is captured."""
_RATE = 1e-3
_MOST_STEPS = 4000

Run = Callable[[int], float]
"""Does that many steps; returns the seconds they took."""


class StepProbe:
    """One placement with the recipe's model, rows and batches of a probe.

    Parameters
    ----------
    placement
        As ``[train] placement`` spells it.
    device
        Device of the run.
    """

    def __init__(
        self, settings: StepSettings, placement: str, batches: BatchSet, hot_set: ProbeHotSet, device: torch.device
    ) -> None:
        self.batches = batches
        rows = RowOptimizer(name=settings.optimizer, learning_rate=_RATE)
        self.embeddings = make_embeddings(placement, hot_set, rows, device=device)  # type: ignore[arg-type]
        # Memory that was never written is one page of zeros, which no cache misses.
        for store in (*self.embeddings.device_stores, *self.embeddings.host_stores):
            store.weight.fill_(0.01)
            store.state.fill_(0.01)
        self.device = self.embeddings.device
        on_gpu = self.device.type == "cuda"
        model = build_model(settings.model, settings.features, settings.num_dense, seed=1).to(self.device)
        is_bf16 = on_gpu and settings.precision == "bf16"
        dense = make_dense_optimizer(settings.optimizer, model, _RATE, flat=on_gpu, bf16=is_bf16)
        self.runner = StepRunner(
            model, self.embeddings, dense, precision=settings.precision, capture=settings.capture,
            compiled=settings.compiled,
        )  # fmt: skip
        self.embeddings.round_dense(rounds=rounds_dense(model, settings.precision))
        self._threads = 0 if on_gpu else dense_threads(model, settings.batch_size, settings.threads)
        self._next = 0

    def whole_steps(self, count: int) -> float:
        """Seconds of `count` steps of training."""
        return self._stream(count, self.runner)

    def streaming(self, count: int) -> float:
        """Seconds to bring `count` batches and their cold rows to the device and back, with no step in between."""

        def no_step(batch: object) -> None:
            self.embeddings.steps += 1  # says that the slot was written; its values do not matter here

        return self._stream(count, no_step)

    def rows(self, count: int) -> float:
        """Seconds of `count` lookups and updates without a model; where the CPU does them."""

        def step(batch: object) -> None:
            _, leaves, _ = self.embeddings.lookup(batch).parts()  # type: ignore[arg-type]
            for leaf in leaves:
                leaf.grad = gradients.setdefault(leaf.shape, torch.full(leaf.shape, 1e-6))
            self.embeddings.update(batch)  # type: ignore[arg-type]

        gradients: dict[torch.Size, torch.Tensor] = {}
        return self._stream(count, step)

    def _stream(self, count: int, step: Callable[..., None]) -> float:
        order = (self._next + np.arange(count)) % self.batches.num_batches
        self._next = int(order[-1] + 1)
        with torch_threads(self._threads):
            _synchronize(self.device)
            started = time.perf_counter()
            with closing(self.embeddings.stream(self.batches, order)) as stream:
                for batch in stream:
                    step(batch)
            _synchronize(self.device)
            return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def samples_in_turns(runs: Mapping[str, Run], seconds: float, *, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds a step of each of these, taken in turns so that a slow moment of the machine meets all of them.

    Parameters
    ----------
    seconds
        Length of one sample, about: long beside the start of a stream.
    warm_up
        Steps before the first sample.
    """
    counts = {}
    for name, run in runs.items():
        run(warm_up)
        count, spent = 2, run(2)
        while spent < seconds / 2 and count < _MOST_STEPS:
            count = min(_MOST_STEPS, max(2 * count, math.ceil(0.7 * count * seconds / max(spent, seconds / 50))))
            spent = run(count)
        counts[name] = max(2, min(_MOST_STEPS, math.ceil(count * seconds / spent)))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(run(counts[name]) / counts[name])
    return samples


def undisturbed(samples: Sequence[float]) -> float:
    """The lower quartile of samples of one thing: what else runs on a machine only ever adds, often to half of them.

    >>> undisturbed([1.0, 1.2, 9.0, 1.1, 5.0])
    1.1
    """
    return float(np.quantile(np.asarray(samples), 0.25))


def warm_up_steps(device: torch.device) -> int:
    """Steps before the first sample on this device."""
    return _WARM_UP if device.type == "cuda" else 2
