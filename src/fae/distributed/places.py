"""The place of a process among the ranks of a training, as torchrun and `fae.distributed.launcher` set it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from fae.core.errors import RankError, RecipeError
from fae.core.printable import brief

LAUNCHER, START = "FAE_LAUNCHER", "FAE_START_DESCRIPTOR"
"""Beside torchrun's variables: the process that started the ranks, and where rank 0 says that the others are needed."""
RANK_COUNTS = (1, 2, 4, 8)
"""How many ranks can train together: slices are summed in pairs, and an exchange list has a bit for each of 8."""
_MOST_RANKS = 4096


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """Which rank a process is.

    Attributes
    ----------
    rank, world
        The number of this rank, from 0, and how many there are.
    local_rank, local_world
        The same among the ranks of this host.
    address, port
        Where rank 0 (or torchrun) can be reached; port 0 lets rank 0 choose one.
    launcher
        The process of `fae.distributed.launcher` that started this one; None under torchrun, or where there is one
        rank.
    start
        Descriptor on which rank 0 says where it can be reached; then its launcher starts the others.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    launcher: int | None = None
    start: int | None = None

    @property
    def has_other_hosts(self) -> bool:
        """Whether there are ranks on other hosts, or in other nodes of torchrun."""
        return self.local_world < self.world

    @property
    def has_even_hosts(self) -> bool:
        """Whether there are other hosts, and each may have as many ranks as this one, which are several."""
        return 1 < self.local_world < self.world and self.world % self.local_world == 0

    def environment(self) -> dict[str, str]:
        """The variables that tell a process its place."""
        found = {
            "RANK": self.rank, "WORLD_SIZE": self.world, "LOCAL_RANK": self.local_rank,
            "LOCAL_WORLD_SIZE": self.local_world, "MASTER_ADDR": self.address, "MASTER_PORT": self.port,
            LAUNCHER: self.launcher, START: self.start,
        }  # fmt: skip
        return {name: str(value) for name, value in found.items() if value is not None}


def check_gpus(gpus: int | None) -> None:
    """Refuse a ``--gpus`` that is not one of `RANK_COUNTS`; None is none.

    Raises
    ------
    RecipeError
        If it is another number.
    """
    if gpus is not None and gpus not in RANK_COUNTS:
        raise RecipeError(f"--gpus {gpus} must be {', '.join(map(str, RANK_COUNTS[:-1]))} or {RANK_COUNTS[-1]}")


def is_other_rank() -> bool:
    """Whether this process is another rank than the first one, which says for all that a signal has come."""
    try:
        return place_of_process().rank > 0
    except RankError:  # said where ranks meet
        return False


def has_launcher() -> bool:
    """Whether a launcher of ours has started this process."""
    return LAUNCHER in os.environ


def place_of_process(environ: Mapping[str, str] | None = None) -> RankPlace:
    """The place that the environment gives to this process: rank 0 of 1 where it says nothing.

    Raises
    ------
    RankError
        If variables are missing or are no such numbers.

    Examples
    --------
    >>> place_of_process({}).world
    1
    >>> names = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
    >>> place = place_of_process(names)
    >>> place.rank, place.world, place.local_rank
    (5, 8, 1)
    """
    found = os.environ if environ is None else environ
    if "WORLD_SIZE" not in found and "RANK" not in found:
        return RankPlace()
    world = _number(found, "WORLD_SIZE", 1, _MOST_RANKS)
    if world == 1:
        return RankPlace()
    rank = _number(found, "RANK", 0, world - 1)
    launcher = _number(found, LAUNCHER, 1) if LAUNCHER in found else None
    start = _number(found, START, 0) if START in found else None
    if not found.get("MASTER_ADDR"):
        raise RankError("MASTER_ADDR is not set, which names the host of rank 0; start ranks with torchrun")
    local_world = _number(found, "LOCAL_WORLD_SIZE", 1, world) if "LOCAL_WORLD_SIZE" in found else world
    return RankPlace(
        rank=rank, world=world, local_rank=_number(found, "LOCAL_RANK", 0, world - 1), local_world=local_world,
        address=found["MASTER_ADDR"], port=_number(found, "MASTER_PORT", int(start is None), 65535),
        launcher=launcher, start=start,
    )  # fmt: skip


def _number(environ: Mapping[str, str], name: str, least: int, most: int | None = None) -> int:
    text = environ.get(name)
    if text is None:
        raise RankError(f"{name} is not set, though others of torchrun's variables are; start ranks with torchrun")
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < least or (most is not None and value > most):
        limit = f"from {least} to {most}" if most is not None else f"{least} or more"
        raise RankError(f"{name} = {brief(text)} must be a number {limit}; start ranks with torchrun, or unset it")
    return value
