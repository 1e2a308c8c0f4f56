"""Small trainings on each of several ranks, as one of them.

::

    python rank_cases_program.py FOLDER SEED [ENGINE [WIRE [NAME...]]]

ENGINE is ``cpu``, ``apart`` (on CPUs as of several hosts), ``triton`` (in its interpreter), or ``cuda`` (in bf16), and
behind it ``-fp32``, ``-eager`` (no step is captured), ``-long`` (`long_cases`) and ``-reproducible``, or not. WIRE is
that of a `Group` or empty: ``hosts`` are two with half of the ranks each.
Names are those of `HELD`. With a SEED everything waits at random, and NaN fills slots and buffers that hold nothing.
What every rank ends with is written beside, for tests to compare.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fae.artifacts.row_layout import RowLayout
from fae.distributed.exchange import RowExchange, Sums
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.group import Group
from fae.distributed.peers.host_meeting import HostMeeting
from fae.distributed.peers.host_sums import HostSums
from fae.distributed.peers.wires import in_hosts
from fae.distributed.places import place_of_process
from fae.distributed.rank_process import RankProcess
from fae.embedding.ranks import rank_rows
from fae.streaming.staging import FaultInjection
from one_gpu_ranks import share_one_gpu, share_two_gpus

from cases import (
    Log,
    adversarial_logs,
    history_log,
    hot_and_cold_log,
    in_order_layout,
    many_rows_log,
    random_log,
    train,
    wide_log,
)

OPTIMIZERS = ("sgd", "rowwise_adagrad", "adagrad", "adam")
ONE_WIDTH = -1.0
"""All rows of the narrowest tables are hot, and no others."""
HELD: dict[str, tuple[str, float | None]] = {
    "device": ("device", 0.4),
    "spread": ("spread", 0.2),
    "spread, all cold": ("spread", 0.0),
    "spread, half hot": ("spread", None),
    "cpu": ("cpu", 0.2),
    "hybrid": ("hybrid", 0.4),
    "paper": ("paper", None),
    "tiered, all cold": ("tiered", 0.0),
    "tiered, a little hot": ("tiered", 0.1),
    "tiered, half hot": ("tiered", None),
    "tiered, one width hot": ("tiered", ONE_WIDTH),
    "tiered, all hot": ("tiered", 1.0),
}
"""Placements, and which share of each table is hot; None: its first half, so that some batches are hot."""
SOME = ("device", "tiered, a little hot")
SPREAD = ("spread", "spread, all cold", "spread, half hot")
ON_CPUS = tuple(name for name in HELD if name not in (*SPREAD[1:], "tiered, all hot"))
"""Those that differ for ranks of CPUs, where `spread` is `device`."""
INTERPRETED_SLICES = ("weights",)
"""Cases that are trained in slices by Triton's interpreter, which takes long."""
OF_TWO_RANKS = ("lists, sgd", "lists, rowwise_adagrad", "lists, adagrad")
"""Cases that no more ranks train in Triton's interpreter: a step follows a row's sum, however many ranks made it."""
STEPS_OF_AN_EPOCH, LONG_EPOCHS = 50, 10
BY_BOTH = ("hybrid", "paper")
"""Those under which a CPU computes rows beside a GPU."""


class DelayedGroup(Group):
    """A group that waits at random before its ranks exchange anything."""

    draws = random.Random()

    def all_gather(self, *arguments: Any, **options: Any) -> torch.Tensor:
        time.sleep(self.draws.random() * 0.002)
        return super().all_gather(*arguments, **options)


class NanBuffer:
    """A buffer of ranks that waits at random before and behind what is shared, and holds NaN until it is written."""

    def __init__(self, inner: Any, *, is_dense: bool) -> None:
        self._is_dense = is_dense
        self._inner, self.own, self.pointers = inner, inner.own, inner.pointers
        self.fill_with_nan()

    def _wait(self) -> None:
        if self.own.is_cuda:
            from fae.kernels.torch_private import busy_stream

            busy_stream(int(DelayedGroup.draws.random() * 200_000))

    def fill_with_nan(self) -> None:
        if not self._is_dense:  # where padding of weights must have no gradient
            self.own.fill_(float("nan"))

    def send(self) -> None:
        self._wait()
        self._inner.send()

    def await_all(self) -> None:
        self._wait()
        self._inner.await_all()
        self._wait()


def fill_buffers_with_nan() -> None:
    """Let all buffers of ranks that are made from now on hold NaN."""
    import fae.distributed.peers.host_parts as parts
    import fae.distributed.peers.peer_buffers as buffers
    import fae.embedding.ranks.gpu_rank_rows as rows

    make = buffers.peer_buffer

    def made(*arguments: Any, what: str, **options: Any) -> NanBuffer:
        return NanBuffer(make(*arguments, what=what, **options), is_dense="dense" in what)

    await_readers = rows.GpuRankRows.await_readers

    def filled(self: Any) -> None:
        await_readers(self)
        for sums in self._sums:
            sums.buffer.fill_with_nan()
            if sums.parts is not None:
                sums.parts.own.fill_(float("nan"))
                sums.parts.received.fill_with_nan()

    buffers.peer_buffer = rows.peer_buffer = parts.peer_buffer = made
    rows.GpuRankRows.await_readers = filled  # type: ignore[method-assign]


class NanExchange(RowExchange):
    """Buffers hold NaN before each exchange."""

    def totals(self, *arguments: Any, **options: Any) -> Sums:
        self.fill_with_nan()
        return super().totals(*arguments, **options)


class NanHostSums(HostSums):
    """What a rank writes holds NaN until it does."""

    def room(self, num_rows: int) -> Sums:
        self.fill_with_nan()
        return super().room(num_rows)

    def write(self, rows: ExchangeList, sums: Sequence[Sums]) -> None:
        if len(sums) > 1:
            self.fill_with_nan()
        super().write(rows, sums)


def delay_meetings() -> None:
    """Let ranks come to the meetings of their host at random times."""
    say, await_all = HostMeeting.say, HostMeeting.await_all

    def say_late(self: HostMeeting, what: str) -> None:
        time.sleep(DelayedGroup.draws.random() * 0.002)
        say(self, what)

    def await_late(self: HostMeeting) -> None:
        time.sleep(DelayedGroup.draws.random() * 0.002)
        await_all(self)

    HostMeeting.say, HostMeeting.await_all = say_late, await_late  # type: ignore[method-assign]


def every_rank_or_one(batch_size: int = 16) -> Log:
    """All inputs of a batch look one row up, and each a row of its own; batches of all sizes down to one input."""
    log = random_log(6, num_inputs=120)
    ids = log.ids.copy()
    ids[:, 0], ids[:, 2] = 3, np.arange(120)
    ends = np.cumsum([*range(batch_size, 0, -2), 1, *range(1, batch_size, 2)])
    groups = [np.arange(end - size, end) for size, end in zip(np.diff(ends, prepend=0), ends, strict=True)]
    return Log(**{**vars(log), "ids": ids, "groups": [group for group in groups if group[-1] < 120]})


def rank_cases() -> dict[str, tuple[Log, str]]:
    """Logs and optimizers: lists, weights, batches made to break an exchange, and last batches of all sizes."""
    weighted = random_log(5, lists=True)
    weights = np.random.default_rng(1).uniform(0, 3, len(weighted.labels)).astype(np.float32)
    weights[weighted.groups[2]] = 0
    found = {f"lists, {name}": (random_log(3, lists=True), name) for name in OPTIMIZERS}
    found["weights"] = (Log(**{**vars(weighted), "weights": weights}), "rowwise_adagrad")
    found["sequences"] = (history_log(4), "adam")
    found["every rank or one"] = (every_rank_or_one(), "adagrad")
    found["hot and cold"] = (hot_and_cold_log(), "adam")
    found["many rows"] = (many_rows_log(), "sgd")
    found |= {name: (log, "rowwise_adagrad") for name, log in adversarial_logs().items()}
    return found


def long_cases() -> dict[str, tuple[Log, str]]:
    """What is trained for 500 steps."""
    log = wide_log(random_log(2, num_inputs=64 * STEPS_OF_AN_EPOCH, batch_size=64))
    return {f"long, {name}": (log, name) for name in ("sgd", "rowwise_adagrad", "adam")}


def layout_of(log: Log, share: float | None) -> RowLayout:
    """Which rows are hot."""
    if share == ONE_WIDTH:
        sizes, narrowest = log.embedding_dims, min(log.embedding_dims)
        hot = [each.num_embeddings * (dim == narrowest) for each, dim in zip(log.features, sizes, strict=True)]
        return RowLayout(log.features, sizes, hot)
    return in_order_layout(log) if share is None else log.layout(share, 1)


def path_of(folder: Path, case: str, held: str, rank: int) -> Path:
    """The file of what a rank ends with."""
    return folder / (f"{case}.{rank}.npz" if held == "device" else f"{case}.{held}.{rank}.npz")


def main(folder: Path, seed: int, engine: str = "cpu", wire: str = "", *names: str) -> None:
    """As one rank: train all cases."""
    place = place_of_process()
    DelayedGroup.draws = random.Random(seed + place.rank)
    if seed:
        rank_rows.RowExchange, rank_rows.HostSums = NanExchange, NanHostSums
        delay_meetings()
    engine, *how = engine.split("-")
    is_reproducible, is_long = "reproducible" in how, "long" in how
    if seed and engine not in ("cpu", "apart"):
        fill_buffers_with_nan()
    on_gpu = engine == "cuda"
    if on_gpu and torch.cuda.device_count() < place.world:
        (share_two_gpus if wire == "hosts" else share_one_gpu)()
    longest = 0.001 if seed else 0.0
    faults = FaultInjection(max_delay_seconds=longest, fill_with_nan=seed > 0, seed=seed + place.rank)
    options: dict[str, Any] = {}
    cases = long_cases() if is_long else rank_cases()
    if engine == "triton" and is_reproducible:
        cases = {name: cases[name] for name in INTERPRETED_SLICES}
    elif engine == "triton" and place.world > 2:
        cases = {name: case for name, case in cases.items() if name not in OF_TWO_RANKS}
    with RankProcess(place) as process, process.join("cuda" if on_gpu else "cpu") as joined:
        group = replace(joined, wire=wire or joined.wire)
        if wire == "hosts":
            group = in_hosts(joined, place.world // 2)
        group = replace(group, reproducible=is_reproducible)
        if engine == "apart":
            group = replace(group, meeting=None)
        if seed:
            group = DelayedGroup(**vars(group))
        if on_gpu:
            precision = "fp32" if "fp32" in how else "bf16"
            options = {"device": torch.device(group.device), "precision": precision, "capture": "eager" not in how}
        elif engine == "triton":
            options = {"engine": "triton"}
        options["epochs"] = LONG_EPOCHS if is_long else 1
        for held, (case, (log, optimizer)) in itertools.product(names or ("device",), cases.items()):
            placement, share = HELD[held]
            tensors = train(
                log, layout_of(log, share), optimizer, placement, group=group, faults=faults, with_loss=True, **options
            )  # fmt: skip
            np.savez(path_of(folder, case, held, place.rank), *[tensor.numpy() for tensor in tensors])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
