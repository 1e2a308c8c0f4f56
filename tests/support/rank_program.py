"""A program of ranks for tests: the command line's own process around a small work, each rank of which follows a plan.

``python -m rank_program FOLDER PLAN.json [--ranks N]``: with ``--ranks`` it starts itself as that many ranks. The plan
names by rank what happens at which step, and how long ranks wait.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fae.cli import main as command
from fae.cli import run as verb
from fae.core.errors import TrainingError
from fae.core.interrupts import is_interrupted, put_off, raise_interrupt
from fae.core.progress import say
from fae.distributed import launcher, meeting
from fae.distributed.group import Group
from fae.distributed.places import place_of_process
from fae.distributed.rank_process import RankProcess

STEPS = 40


def work(options: argparse.Namespace) -> dict[str, Any]:
    """What the verb does in place of `fae run`: the recipe is the plan, and ``--out`` the folder."""
    plan = json.loads(Path(options.recipe).read_text())
    place = place_of_process()
    if plan["ranks"] > 1 and place.world == 1:
        launcher.INTERRUPTED_SECONDS = plan.get("interrupted_seconds", launcher.INTERRUPTED_SECONDS)
        raise SystemExit(launcher.launch([sys.executable, "-m", "rank_program", *options.arguments], plan["ranks"]))
    folder = Path(options.out)
    waits = {name: plan[name] for name in ("join_seconds", "group_seconds") if name in plan}
    meeting._BEAT_SECONDS = plan.get("beat_seconds", meeting._BEAT_SECONDS)
    meeting._SILENT_SECONDS = plan.get("silent_seconds", meeting._SILENT_SECONDS)
    with RankProcess(place, **waits) as process:
        (folder / f"pid{place.rank}").write_text(str(os.getpid()))
        act(plan, place.rank, "stages", folder)
        if place.rank == 0:
            say("stages: done")
            (folder / "stages").open("a").write("x")
        if place.rank in plan.get("no_shared_memory", []):
            del os.memfd_create
        with process.join() as group:
            act(plan, place.rank, "joined", folder)
            return train(plan, group, folder)


def train(plan: dict[str, Any], group: Group, folder: Path) -> dict[str, Any]:
    """Steps of a training that ends where all ranks have seen a signal."""
    import torch

    group.agree(plan.get("recipes", {}).get(str(group.rank), {"train": {"seed": 1}}), "recipe")
    total = torch.zeros(3)
    rows = torch.empty(group.world, 3)
    sums = sum_in_host_memory(plan, group) if plan.get("meets") else None
    with put_off():
        for step in range(plan.get("uneven", {}).get(str(group.rank), plan.get("steps", STEPS))):
            act(plan, group.rank, step, folder)
            own = torch.full((3,), group.rank + step, dtype=torch.float32)
            total += group.tree_sum(own, f"step {step}", rows) if sums is None else sums(own, step)
            (folder / f"at{group.rank}").write_text(str(step))
            for _ in range(plan.get("works", {}).get(str(step), 0)):
                first_works(plan, group, step, folder)
            if group.any(is_interrupted(), f"the end of step {step}"):
                time.sleep(plan.get("save", 0.0))
                (folder / f"saved{group.rank}").write_text(str(step))
                group.barrier("the checkpoint")
                raise_interrupt()
                os.kill(os.getpid(), signal.SIGTERM)  # another rank has seen it first
                raise_interrupt()
            time.sleep(plan.get("pause", 0.0))
    if group.is_first:
        say("train: done")
    return {"total": total.tolist(), "hosts": len(group.hosts), "meets": group.meeting is not None}


def sum_in_host_memory(plan: dict[str, Any], group: Group) -> Callable[[Any, int], Any]:
    """What sums over ranks that meet in the memory of their host; one may say that it is somewhere else."""
    import torch

    from fae.distributed.peers.shared_memory import memory_of_ranks

    parts, meeting = memory_of_ranks(group, 3, torch.float32), group.meeting
    assert meeting is not None

    def summed(own: Any, step: int) -> Any:
        meeting.await_all()  # they have read what this rank wrote before
        parts[group.rank].copy_(own)
        is_elsewhere = plan.get("elsewhere", {}).get(str(group.rank)) == step
        meeting.meet("somewhere else" if is_elsewhere else f"step {step}")
        found = torch.stack(parts).sum(0)
        meeting.say(f"all have read what step {step} sums")
        return found

    return summed


def first_works(plan: dict[str, Any], group: Group, step: int, folder: Path) -> None:
    """Work of rank 0 alone, once or several times a step; ranks of ``left_out`` do not wait for it."""
    if group.rank in plan.get("left_out", []):
        return
    with group.first_works(f"the work of step {step}"):
        if group.is_first:
            (folder / "works").open("a").write("x")
            act(plan, 0, f"work {step}", folder)
    if not group.is_first:
        (folder / f"worked{group.rank}").open("a").write(f"{len((folder / 'works').read_text())}\n")


def act(plan: dict[str, Any], rank: int, step: object, folder: Path) -> None:
    """What the plan has for this rank at this place."""
    deed = plan.get("acts", {}).get(f"{rank} {step}")
    if deed == "raise":
        raise TrainingError("the loss is not finite; lower learning_rate")
    if deed == "defect":
        raise ZeroDivisionError("a defect")
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "hang":
        (folder / "hangs").write_text(str(rank))
        while True:
            pass
    if deed == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if deed == "leave":
        raise SystemExit(0)
    if isinstance(deed, float):
        time.sleep(deed)


if __name__ == "__main__":
    verb.work = work
    sys.exit(command.main())
