"""What `fae bench paper` measures: FAE under each placement, and other systems, behind one clock.

All contenders train the same model with the same optimizer, batch size and precision. Rows hold random values, which
decide no address, no byte and no time. A sample's rate is that of an epoch with its own share of hot batches.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.bench.plain_contender import OtherSystem
from fae.bench.shared_rows import fill
from fae.bench.timing import WARM_UP_BATCHES, Sample, synchronize, timed_sample, warm_up
from fae.core.host_memory import keep_freed_memory
from fae.distributed.group import Group
from fae.embedding.paper import PaperEmbeddings
from fae.embedding.placements import make_embeddings
from fae.models.config import ModelConfig
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer
from fae.training.real_inputs import send_dense
from fae.training.runner import StepRunner
from fae.training.schedule import Schedule, interleave
from fae.training.step import Precision, cpu_multiplies_bf16


class Contender(Protocol):
    """One system that is measured.

    Attributes
    ----------
    precision
        Precision of the dense part; on a CPU it may be changed between samples.
    """

    precision: Precision

    @property
    def device_bytes(self) -> int:
        """Bytes of rows, state and staging on the GPU."""

    def warm_up(self, seconds: float) -> float:
        """Train until everything is compiled, at most about `seconds` longer than that needs; seconds a batch."""

    def sample(self, seconds: float, min_batches: int) -> Sample:
        """Train for at least `seconds` and `min_batches`."""


def take_faster_precision(contender: Contender, seconds: float) -> None:
    """Let a contender whose dense part is on a CPU train in fp32 or bf16, whichever a sample of each shows faster.

    Where the CPU has no units for bfloat16 products it stays with fp32, unmeasured.
    """
    contender.precision = "fp32"
    if not cpu_multiplies_bf16():
        return
    rates: dict[Precision, float] = {}
    for precision in ("fp32", "bf16"):
        contender.precision = precision
        contender.warm_up(seconds / 2)
        rates[precision] = contender.sample(seconds, 2)["samples_per_second"] or 0.0
    contender.precision = max(rates, key=lambda name: rates[name])


class StepOptions(TypedDict, total=False):
    """Options of the step, as `StepRunner` takes them.

    Attributes
    ----------
    capture
        False runs every step kernel by kernel.
    compiled
        Run the dense part through `torch.compile` on a GPU.
    """

    capture: bool
    compiled: bool


class OurContender:
    """FAE under one placement.

    Parameters
    ----------
    precision
        Precision of the dense part; on a CPU it may be changed between samples.
    filled
        Whether the rows on the host hold values already (memory that contenders share).
    group
        The ranks that train together, each of which makes a contender; None is this process alone.
    **step
        See `StepOptions`.
    """

    def __init__(
        self,
        packed: PackedDataset,
        hot_set: HotSet,
        placement: str,
        *,
        model: ModelConfig,
        optimizer: str,
        learning_rate: float,
        device: str,
        precision: Precision,
        filled: bool = False,
        group: Group | None = None,
        **step: Unpack[StepOptions],
    ) -> None:
        keep_freed_memory()
        self.packed = packed
        rows = RowOptimizer(name=optimizer, learning_rate=learning_rate)
        self.embeddings = make_embeddings(placement, hot_set, rows, device=device, group=group)
        self.device, self._group = self.embeddings.device, self.embeddings.group
        together = self.embeddings.has_rows_together
        for store in (*self.embeddings.device_stores, *self.embeddings.host_stores):
            if store.weight.is_cuda or (self._group.is_first if together else not filled):
                fill(store.weight)
        if together:
            self._group.barrier("host rows are filled")
        on_gpu = self.device.type == "cuda"
        module = build_model(model, hot_set.layout.features, packed.num_dense, seed=1).to(self.device)
        bf16 = on_gpu and precision == "bf16"
        dense = make_dense_optimizer(
            optimizer, module, learning_rate, flat=on_gpu, bf16=bf16, group=self.embeddings.group
        )  # fmt: skip
        self.runner = StepRunner(module, self.embeddings, dense, precision=precision, **step)
        self._module = module
        send_dense(module, self.embeddings, precision, packed)
        self._next, self._a_batch = 0, 0.0
        self._order = self._full_batches(interleaved_order(packed))

    @property
    def precision(self) -> Precision:
        """Precision of the dense part."""
        return self.runner.precision

    @precision.setter
    def precision(self, value: Precision) -> None:
        """Change it from the next step on."""
        self.runner.precision = value
        send_dense(self._module, self.embeddings, value, self.packed)

    @property
    def device_bytes(self) -> int:
        """Bytes of rows, state and staging on the GPU."""
        return self.embeddings.device_bytes if self.device.type == "cuda" else 0

    def _full_batches(self, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """`order` without the batches that are not full: the last of a kind would count as a whole one."""
        sizes = np.count_nonzero(self.packed.train.inputs[:, -1:] >= 0, axis=1)
        return order[sizes[order] > 0] if (sizes[order] > 0).any() else order

    def run(self, num_batches: int) -> float:
        """Train the next batches; seconds, with everything the device and the host had to do for them."""
        places = (self._next + np.arange(num_batches)) % len(self._order)
        self._next = int(places[-1] + 1)
        return self.train(self._order[places])

    def train(self, order: npt.NDArray[np.int64]) -> float:
        """Train these batches; seconds, those of the slowest rank."""
        self._group.barrier("the start of batches that are timed")
        synchronize(self.device)
        started = time.perf_counter()
        with closing(self.embeddings.stream(self.packed.train, order)) as stream:
            for batch in stream:
                self.runner(batch)
        synchronize(self.device)
        return self._slowest({"all": time.perf_counter() - started})["all"]

    def _slowest(self, seconds: dict[str, float]) -> dict[str, float]:
        """The most seconds of any rank: all decide by the same, so that they train the same batches."""
        every = self._group.gather_json(seconds, "the seconds of ranks") if self._group.world > 1 else [seconds]
        return {name: max(each[name] for each in every) for name in seconds}

    def warm_up(self, seconds: float) -> float:
        """See `Contender.warm_up`."""
        self._a_batch = warm_up(self.run, seconds, WARM_UP_BATCHES if self.device.type == "cuda" else 2)
        return self._a_batch

    def sample(self, seconds: float, min_batches: int) -> Sample:
        """See `Contender.sample`."""
        return timed_sample(self.run, self._a_batch, seconds, min_batches, self.packed.batch_size)


class PlainContender:
    """`fae.bench.plain_contender.PlainPyTorch` behind the same clock."""

    def __init__(self, system: OtherSystem) -> None:
        self.system, self._a_batch = system, 0.0

    @property
    def precision(self) -> Precision:
        """Precision of the dense part."""
        return self.system.precision

    @precision.setter
    def precision(self, value: Precision) -> None:
        """Change it from the next step on."""
        self.system.precision = value

    @property
    def device_bytes(self) -> int:
        """0: rows are on the CPU."""
        return 0

    def warm_up(self, seconds: float) -> float:
        """See `Contender.warm_up`."""
        self._a_batch = warm_up(self.system.run, seconds, 2)
        return self._a_batch

    def sample(self, seconds: float, min_batches: int) -> Sample:
        """See `Contender.sample`."""
        return timed_sample(self.system.run, self._a_batch, seconds, min_batches, self.system.batch_size)


class PaperContender(OurContender):
    """The `paper` placement: cold batches, a swap, hot batches, a swap; an epoch is put together from the four."""

    def __init__(self, packed: PackedDataset, hot_set: HotSet, **options: Any) -> None:
        super().__init__(packed, hot_set, "paper", **options)
        assert isinstance(self.embeddings, PaperEmbeddings)
        train = packed.train
        self._hot = self._full_batches(np.arange(train.num_hot_batches))
        self._cold = self._full_batches(np.arange(train.num_hot_batches, train.num_batches))
        self._places = {"hot": 0, "cold": 0}
        self.swaps = epoch_swaps(train.num_hot_batches, train.num_batches - train.num_hot_batches)

    def _phase(self, kind: str, num_batches: int) -> tuple[float, dict[str, float]]:
        """Seconds of the next batches of a kind without the swap before them, and of the swap, by direction."""
        order, first = (self._hot if kind == "hot" else self._cold), self._places[kind]
        if not len(order) or not num_batches:
            return 0.0, {}
        places = (first + np.arange(num_batches)) % len(order)
        self._places[kind] = int(places[-1] + 1)
        before = self.embeddings.seconds
        seconds = self.train(order[places])
        swap = self._slowest({name: value - before[name] for name, value in self.embeddings.seconds.items()})
        return seconds - sum(swap.values()), swap

    def _phase_seconds(self, kind: str, num_batches: int) -> float:
        return self._phase(kind, num_batches)[0]

    def warm_up(self, seconds: float) -> float:
        """See `Contender.warm_up`."""
        for kind, order in (("cold", self._cold), ("hot", self._hot)):
            if len(order):
                least = WARM_UP_BATCHES if kind == "hot" and self.device.type == "cuda" else 2
                warm_up(partial(self._phase_seconds, kind), seconds / 2, least)
        return 0.0

    def sample(self, seconds: float, min_batches: int) -> Sample:
        """See `Contender.sample`; ``phases`` holds what the rate was put together from."""
        train = self.packed.train
        batches = {"cold": train.num_batches - train.num_hot_batches, "hot": train.num_hot_batches}
        phases: dict[str, Any] = {}
        swaps = {"swap_to_device": 0.0, "swap_to_host": 0.0}
        total = 0.0
        for kind in ("cold", "hot"):
            if not batches[kind]:
                continue
            # Unmeasured first: the swap that brings this side up to date, and how long a batch takes.
            two, swap = self._phase(kind, 2)
            for name, value in swap.items():
                swaps[name] = max(swaps[name], value)
            count = max(min_batches, math.ceil(seconds / 2 / max(two / 2, 1e-6))) if seconds else min_batches
            count = min(count, batches[kind])
            spent, _ = self._phase(kind, count)
            phases[kind] = {"batches": count, "seconds": spent, "epoch_batches": batches[kind]}
            total += spent / count * batches[kind]
        phases["swaps"] = {"epoch_swaps": self.swaps, **swaps}
        total += sum(swaps[f"swap_{direction}"] * count for direction, count in self.swaps.items())
        return {
            "batches": sum(phases[kind]["batches"] for kind in ("cold", "hot") if kind in phases),
            "seconds": sum(phases[kind]["seconds"] for kind in ("cold", "hot") if kind in phases),
            "samples_per_second": train.num_inputs / total if total else None,
            "phases": phases,
        }


def interleaved_order(packed: PackedDataset) -> npt.NDArray[np.int64]:
    """Numbers of the hot and cold batches in proportion, each kind in packed order."""
    hot = packed.train.num_hot_batches
    return interleave(np.arange(hot), np.arange(hot, packed.train.num_batches))


def epoch_swaps(num_hot: int, num_cold: int, rate: int = 50) -> dict[str, int]:
    """Swaps of an epoch of the adaptive order whose rate never changes: to the device, to the host.

    The epoch starts with cold batches and with both sides equal, as the epoch before it ended.

    >>> epoch_swaps(4, 4)
    {'to_device': 2, 'to_host': 2}
    """
    schedule = Schedule("adaptive", num_hot=num_hot, num_cold=num_cold, epochs=1, seed=0, rate=rate)
    phases = []
    while not schedule.done:
        phases.append(schedule.next_segment().phase)
    pairs = list(pairwise(phases))
    return {
        "to_device": sum(pair == ("cold", "hot") for pair in pairs),
        "to_host": sum(pair == ("hot", "cold") for pair in pairs),
    }
