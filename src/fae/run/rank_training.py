"""The ranks that a command trains on: what they can train so far, and how they come to the training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fae.core.errors import DeviceError, RecipeError
from fae.core.threads import shared_cores
from fae.distributed.places import RANK_COUNTS, RankPlace, check_gpus
from fae.distributed.slice_plan import next_batch_size
from fae.run.ahead.torch_ahead import most_gpus, seems_to_have_gpu
from fae.training.config import ONLY_ON_CPUS_REPRODUCIBLE

if TYPE_CHECKING:
    from fae.distributed.group import Group
    from fae.distributed.rank_process import RankProcess
    from fae.run.recipe import Recipe

_WORK = "whether there is anything to train"


def wanted_ranks(gpus: int | None, place: RankPlace) -> int:
    """How many ranks a command trains on.

    Parameters
    ----------
    gpus
        What ``--gpus`` says; None where it is left out.
    place
        Which rank this process is.

    Raises
    ------
    RecipeError
        If this many cannot train together, or it is not how many there are.
    """
    check_gpus(gpus)
    if gpus is not None and place.world > 1 and gpus != place.world:
        raise RecipeError(
            f"--gpus {gpus} is not how many ranks there are ({place.world}: WORLD_SIZE is that of torchrun); leave "
            "--gpus out under torchrun"
        )
    return place.world if gpus is None else gpus


def check_ranks(recipe: Recipe, device: str | None, world: int, local_world: int) -> None:
    """Refuse what several ranks cannot train, and what one rank cannot train reproducibly.

    Parameters
    ----------
    device
        ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.
    world, local_world
        How many ranks there are, and how many of them on this host.

    Raises
    ------
    RecipeError
        If it is the batch size or the number of ranks.
    DeviceError
        If this host has fewer GPUs.
    """
    train = recipe.train
    if world == 1 and not train.reproducible:
        return
    on_gpus = train.placement != "cpu" and (device == "cuda" or (device is None and seems_to_have_gpu()))
    if train.reproducible and on_gpus and train.placement in ONLY_ON_CPUS_REPRODUCIBLE:
        raise RecipeError(
            f'[train] placement = "{train.placement}" cannot be trained reproducibly on GPUs, since CPUs compute its '
            'rows; choose "device", "spread" or "tiered", or add --device cpu'
        )
    if world == 1:
        return
    if world not in RANK_COUNTS:
        known = ", ".join(map(str, RANK_COUNTS[1:-1]))
        raise RecipeError(
            f"{world} ranks are requested, and {known} or {RANK_COUNTS[-1]} can train together; change torchrun's "
            "--nproc-per-node or --nnodes"
        )
    gpus = most_gpus() if on_gpus else None
    if gpus is not None and local_world > gpus:
        most = 2 ** (gpus.bit_length() - 1)
        raise DeviceError(
            f"{local_world} ranks of this host need a GPU each, and it has {gpus}; start "
            f"{most if most > 1 else 'one rank (without --gpus and torchrun)'} here, or add --device cpu for "
            f"{local_world} processes on the CPU"
        )
    if train.batch_size % world:
        raise RecipeError(
            f"[train] batch_size = {train.batch_size} cannot be cut into equal slices for {world} ranks; set "
            f"train.batch_size={next_batch_size(train.batch_size, world)}"
        )


class TrainingRanks:
    """The ranks of a command, as one of them sees them.

    Parameters
    ----------
    process
        This process as a rank; None where it is the only one.

    Attributes
    ----------
    find_device
        Says what the run will train on, ``"cpu"`` or ``"cuda"``; the run sets it. Ranks meet in groups that fit it.
    """

    def __init__(self, process: RankProcess | None = None) -> None:
        self._process = process
        self.place = RankPlace() if process is None else process.place
        self._has_joined = False
        self.find_device: Callable[[], str] = lambda: "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which does everything but its part of the training alone."""
        return self.place.rank == 0

    @contextlib.contextmanager
    def joined(self) -> Iterator[Group | None]:
        """Meet the other ranks, and train with them while the block runs, on a share of the cores.

        Returns
        -------
        Group or None
            None on another rank than the first, where there is nothing to train.
        """
        from fae.distributed.group import Group

        self._has_joined = True
        if self._process is None:
            yield Group()
            return
        with shared_cores(self.place.local_world), self._process.join(self.find_device()) as group:
            yield group if group.broadcast_json(True, _WORK) else None

    def dismiss(self) -> None:
        """Let ranks that wait know that there is nothing to train; those of a launcher are not started before."""
        if self._process is None or self._has_joined or not self.is_first or self.place.launcher is not None:
            return
        self._has_joined = True
        with self._process.join(self.find_device()) as group:
            group.broadcast_json(False, _WORK)
