"""Small trainings on each of several ranks: ``python rank_cases_program.py FOLDER SEED [ENGINE [MOVER]]`` as a rank.

ENGINE is ``cpu``, ``triton`` (in its interpreter, on a CPU) or ``cuda``, MOVER one of `fae.distributed.group`. With a
SEED there are random delays, and buffers of ranks are poisoned. What every rank ends with is written beside, for tests
to compare.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fae.distributed.group import Group
from fae.distributed.places import place_of_process
from fae.distributed.rank_process import RankProcess

from cases import Log, adversarial_logs, history_log, random_log, train

OPTIMIZERS = ("sgd", "rowwise_adagrad", "adagrad", "adam")


class DelayedGroup(Group):
    """A group that waits at random before its ranks exchange anything."""

    draws = random.Random()

    def all_gather(self, *arguments: Any, **options: Any) -> torch.Tensor:
        time.sleep(self.draws.random() * 0.002)
        return super().all_gather(*arguments, **options)


class PoisonedBuffer:
    """A buffer of ranks that waits at random before and behind what is shared, and holds NaN until it is written."""

    def __init__(self, inner: Any, *, is_dense: bool) -> None:
        self._is_dense = is_dense
        self._inner, self.own, self.pointers = inner, inner.own, inner.pointers
        self.poison()

    def _wait(self) -> None:
        if self.own.is_cuda:
            from fae.kernels.torch_private import busy_stream

            busy_stream(int(DelayedGroup.draws.random() * 200_000))

    def poison(self) -> None:
        if not self._is_dense:  # where padding of weights must have no gradient
            self.own.fill_(float("nan"))

    def send(self) -> None:
        self._wait()
        self._inner.send()

    def await_all(self) -> None:
        self._wait()
        self._inner.await_all()
        self._wait()


def poison_buffers() -> None:
    """Let all buffers of ranks that are made from now on be poisoned."""
    import fae.distributed.peer_buffers as buffers
    import fae.embedding.gpu_rank_rows as rows

    make = buffers.peer_buffer

    def poisoned(*arguments: Any, what: str, **options: Any) -> PoisonedBuffer:
        return PoisonedBuffer(make(*arguments, what=what, **options), is_dense="dense" in what)

    await_readers = rows.GpuRankRows.await_readers

    def poison_all(self: Any) -> None:
        await_readers(self)
        for buffer in self._buffers:
            buffer.poison()

    buffers.peer_buffer = rows.peer_buffer = poisoned
    rows.GpuRankRows.await_readers = poison_all  # type: ignore[method-assign]


def rank_cases() -> dict[str, tuple[Log, str]]:
    """Logs and optimizers: lists, weights, batches made to break an exchange, and last batches of all sizes."""
    weighted = random_log(5, lists=True)
    weights = np.random.default_rng(1).uniform(0, 3, len(weighted.labels)).astype(np.float32)
    weights[weighted.groups[2]] = 0
    found = {f"lists, {name}": (random_log(3, lists=True), name) for name in OPTIMIZERS}
    found["weights"] = (Log(**{**vars(weighted), "weights": weights}), "rowwise_adagrad")
    found["sequences"] = (history_log(4), "adam")
    found |= {name: (log, "rowwise_adagrad") for name, log in adversarial_logs().items()}
    return found


def main(folder: Path, seed: int, engine: str = "cpu", mover: str | None = None) -> None:
    """As one rank: train all cases."""
    place = place_of_process()
    DelayedGroup.draws = random.Random(seed + place.rank)
    if seed and engine != "cpu":
        poison_buffers()
    options: dict[str, Any] = {}
    with RankProcess(place) as process, process.join("cuda" if engine == "cuda" else "cpu") as joined:
        group = replace(joined, mover=mover)
        if seed:
            group = DelayedGroup(**vars(group))
        if engine == "cuda":
            options = {"device": torch.device(group.device), "precision": "bf16"}
        elif engine == "triton":
            options = {"engine": "triton"}
        for name, (log, optimizer) in rank_cases().items():
            layout = log.layout(0.4, 1)
            tensors = train(log, layout, optimizer, "device", group=group, with_loss=True, **options)
            np.savez(folder / f"{name}.{place.rank}.npz", *[tensor.numpy() for tensor in tensors])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
