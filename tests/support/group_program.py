"""What a group of ranks must do, on each of them: ``python -m group_program FOLDER`` as a rank writes what it found."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fae.core.errors import RankError
from fae.distributed.group import Group
from fae.distributed.places import place_of_process
from fae.distributed.rank_process import RankProcess

ROUNDS = 30
KEPT: list[Group] = []
"""Groups that are freed at Python's end alone: their process must end well all the same."""


def part_of_rank(rank: int, step: int = 0) -> np.ndarray:
    """Numbers of very different sizes, whose sum depends on its order."""
    draws = np.random.default_rng((rank, step))
    return (draws.standard_normal(1000) * 10.0 ** draws.integers(-6, 7, 1000)).astype(np.float32)


def found_by(group: Group) -> dict[str, Any]:
    """All results of this rank, in values of JSON."""
    delays = random.Random(group.rank)
    rank, world = group.rank, group.world
    found: dict[str, Any] = {"rank": rank, "world": world, "is_first": group.is_first, "hosts": list(group.hosts)}
    found["gathered"] = group.gather_json({"rank": rank, "text": "ü" * (rank * 999), "no": [None, 1.5]}, "values")
    found["sent"] = group.broadcast_json({"from": rank} if rank == 0 else object, "a value")
    found["nothing"] = group.broadcast_json(None, "nothing")
    found["none"], found["all"] = group.any(False, "no flag"), group.any(True, "a flag")
    found["last"] = group.any(rank == world - 1, "a flag of the last")
    group.agree({"seed": 1, "rate": 0.1}, "recipe")
    kinds = {}
    for kind in (torch.float32, torch.int32, torch.uint8, torch.int64):
        tensor = torch.arange(12).reshape(3, 4).t().to(kind) + rank  # not contiguous
        out = torch.empty((world, 4, 3), dtype=kind)
        whole = group.all_gather(tensor, "numbers", out)
        kinds[str(kind)] = [whole.shape == out.shape, world == 1 or whole is out, whole[:, 1, 2].tolist()]
    found["kinds"] = kinds
    out, sums = torch.empty(world, 1000), []
    for step in range(ROUNDS):
        time.sleep(delays.random() * 0.01)
        total = group.tree_sum(torch.from_numpy(part_of_rank(rank, step)), f"the sum of step {step}", out)
        sums.append(total.numpy().tobytes().hex())
        if delays.random() < 0.5:
            time.sleep(delays.random() * 0.01)
        group.barrier(f"the end of step {step}")
    found["sums"] = sums
    try:
        group.agree({"train": {"seed": 1 if rank < world - 1 else 2, "epochs": 3}}, "recipe")
        found["agreed"] = True
    except RankError as error:
        found["differs"] = [type(error).__name__, str(error)]
    return found


def main(folder: Path) -> None:
    """As one rank: join, and write what it found."""
    place = place_of_process()
    with RankProcess(place) as process, process.join() as group:
        KEPT.append(group)
        (folder / f"{place.rank}.json").write_text(json.dumps(found_by(group)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
