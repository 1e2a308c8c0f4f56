"""The GPU that a plan is for: the one here, a named card, or one of which only the memory is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fae.core.progress import say
from fae.core.units import format_bytes, parse_bytes
from fae.planning.cards import CARDS, CORE_RATE, HOST_CORES, card_constants, find_card
from fae.planning.machine_constants import MachineConstants
from fae.planning.measured_constants import measure_constants
from fae.planning.step_work import StepSettings, StepWork
from fae.run.context import choose_device


@dataclass(frozen=True, kw_only=True)
class TargetGPU:
    """What a plan is for.

    Attributes
    ----------
    device
        Where the model will be: ``cuda`` or ``cpu``.
    card
        Name of the card whose ceilings are used; None: this machine is measured.
    name
        For people.
    memory_bytes
        Memory of the GPU, as far as it is free; None without one.
    host_cores
        Cores of the host that a named card is in; None where this machine is measured.
    """

    device: str
    card: str | None
    name: str
    memory_bytes: int | None
    host_cores: int | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU in the plan."""
        return self.device == "cuda"

    def constants(self, settings: StepSettings, works: Sequence[StepWork]) -> MachineConstants:
        """What the machine can do: measured here in seconds, or of the card."""
        if self.card is not None and self.host_cores is not None:
            return card_constants(self.card, settings, host_rate=self.host_cores * CORE_RATE)
        return measure_constants(self.device, works)


def find_target(
    gpu: str | None, gpu_memory: str | int | None, device: str | None, cores: int | None = None
) -> TargetGPU:
    """The GPU that is named, else the one that is here, else none.

    Parameters
    ----------
    gpu
        Name of a card.
    gpu_memory
        Its memory; alone, it is that of the card of the nearest memory, or of the GPU that is here.
    device
        ``cpu`` or ``cuda``; None takes a GPU where there is one.
    cores
        Cores of the host that a named card is in; None for `HOST_CORES`.

    Raises
    ------
    RecipeError
        For an unknown card or a size that is none.
    DeviceError
        If ``cuda`` is requested, no card is named, and there is no GPU.
    """
    memory = None if gpu_memory is None else parse_bytes(gpu_memory, what="--gpu-memory")
    if gpu is not None:
        return _of_card(gpu, memory, cores)
    if memory is not None and not torch.cuda.is_available():
        nearest = min(CARDS.values(), key=lambda card: abs(math.log(card.memory_bytes / memory)))
        say(
            f"plan: no GPU is here and none is named; times are those of {nearest.title}, the card of the nearest "
            f"memory to {format_bytes(memory)}"
        )
        return _of_card(nearest.name, memory, cores)
    if choose_device(device) == "cpu":
        return TargetGPU(device="cpu", card=None, name="this CPU", memory_bytes=None)
    free = torch.cuda.mem_get_info()[0]
    return TargetGPU(device="cuda", card=None, name=torch.cuda.get_device_name(), memory_bytes=memory or free)


def _of_card(name: str, memory: int | None, cores: int | None) -> TargetGPU:
    card = find_card(name)
    return TargetGPU(
        device="cuda", card=card.name, name=card.title, memory_bytes=memory or card.memory_bytes,
        host_cores=cores or HOST_CORES,
    )  # fmt: skip
