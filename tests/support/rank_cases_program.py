"""Small trainings on each of several ranks, with random delays: ``python rank_cases_program.py FOLDER SEED`` as a rank.

What every rank ends with is written beside, for tests to compare.
"""

from __future__ import annotations

import random
import sys
import time
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


def main(folder: Path, seed: int) -> None:
    """As one rank: train all cases."""
    place = place_of_process()
    DelayedGroup.draws = random.Random(seed + place.rank)
    with RankProcess(place) as process, process.join() as joined:
        group = DelayedGroup(**vars(joined)) if seed else joined
        for name, (log, optimizer) in rank_cases().items():
            layout = log.layout(0.4, 1)
            tensors = train(log, layout, optimizer, "device", group=group, with_loss=True)
            np.savez(folder / f"{name}.{place.rank}.npz", *[tensor.numpy() for tensor in tensors])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
