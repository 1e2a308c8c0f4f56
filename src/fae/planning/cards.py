"""Profiles of graphics cards, from their data sheets, for plans on a machine that has none: ceilings and bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fae.core.config import nearest
from fae.core.errors import RecipeError
from fae.core.printable import brief
from fae.models.config import DCNv2Config, DeepFMConfig, DLRMConfig, ModelConfig, TBSMConfig
from fae.planning.machine_constants import MachineConstants, WireConstants
from fae.planning.step_work import StepSettings

_MIB = 2**20
_GIGA, _TERA = 1e9, 1e12

_MEMORY_SHARE = 0.86
"""Share of the published bandwidth that a copy reaches: 0.88 on an H100, 0.84 on an H200."""
_PRODUCT_SHARE = 0.79
"""Share of the published operations that a large product reaches: 785 of 989 TFLOP/s on an H100."""
_BUS_SHARE = 0.85
"""Share of the published rate of the bus that a copy from page-locked memory reaches: 54.5 of 64 GB/s."""
_LINK_RATE: Mapping[int, float] = {3: 0.985 * _GIGA, 4: 1.969 * _GIGA, 5: 3.938 * _GIGA}
"""Bytes/s of a PCI Express link of width 1, one way, by generation."""
_NVLINK_RATE: Mapping[str, float] = {"h200": 450 * _GIGA, "h100": 450 * _GIGA, "a100": 300 * _GIGA, "v100": 150 * _GIGA}
"""Published bytes/s of NVLink, one way, by what the name of a card has in it; not of cards for PCI Express."""
_WIRE_SHARE = 350 / 450
"""Share of it at which a kernel reads the memory of other GPUs: 350 GB/s on H100 and H200."""
HOST_CORES = 8
"""Cores of the host that a card is planned with where nobody says how many: those of a desktop."""
CORE_RATE = 15.0 / 8 * _GIGA
"""Bytes/s of single rows that a core of a host reads and writes, on no data sheet: eight of a desktop 15 GB/s, 16
threads of a Xeon 34 GB/s."""

# Of steps on an H200 (benchmarks/results/plan_h200.json): seconds over those that its ceilings allow.
_KERNEL_SECONDS = 2e-6
_STEP_FACTORS: Mapping[type[ModelConfig], float] = {
    DLRMConfig: 0.83, DeepFMConfig: 1.7, DCNv2Config: 2.3, TBSMConfig: 3.6,
}  # fmt: skip
"""Below 1 where the lookup is fused with the interaction, which the operators that are counted do not know."""
_OTHER_FACTOR = 2.3
_HYBRID_SECONDS = 2.2e-3
_STREAM_SECONDS, _STREAM_FACTOR, _STREAM_LATENCY, _UNHIDDEN = 45e-6, 1.0, 2.5, 0.05

_MARGIN = 0.5


@dataclass(frozen=True, kw_only=True)
class CardProfile:
    """One graphics card by its data sheet.

    Attributes
    ----------
    name
        As ``fae plan --gpu`` takes it.
    title
        Its name for people.
    memory_bytes
        Memory that programs see.
    memory_rate
        Published bytes/s of its memory.
    bf16_rate
        Published operations/s of dense bfloat16 products summed in float32; that of float32 where it has no units for
        bfloat16.
    fp32_rate
        Published operations/s of float32.
    bus_generation, bus_width
        PCI Express generation, and width of the link: 8 or 16.
    """

    name: str
    title: str
    memory_bytes: int
    memory_rate: float
    bf16_rate: float
    fp32_rate: float
    bus_generation: int
    bus_width: int = 16

    @property
    def bus_rate(self) -> float:
        """Published bytes/s of the bus, one way."""
        return self.bus_width * _LINK_RATE[self.bus_generation]


def _card(
    name: str, title: str, memory_mib: int, gigabytes: float, bf16: float, fp32: float, generation: int, width: int = 16
) -> CardProfile:
    return CardProfile(
        name=name, title=title, memory_bytes=memory_mib * _MIB, memory_rate=gigabytes * _GIGA, bf16_rate=bf16 * _TERA,
        fp32_rate=fp32 * _TERA, bus_generation=generation, bus_width=width,
    )  # fmt: skip


_ALL = (
    _card("rtx3060", "GeForce RTX 3060 12 GB", 12288, 360, 25.5, 12.7, 4),
    _card("rtx3070", "GeForce RTX 3070 8 GB", 8192, 448, 40.6, 20.3, 4),
    _card("rtx3080", "GeForce RTX 3080 10 GB", 10240, 760, 59.5, 29.8, 4),
    _card("rtx3090", "GeForce RTX 3090 24 GB", 24576, 936, 71.2, 35.6, 4),
    _card("rtx4060", "GeForce RTX 4060 8 GB", 8188, 272, 30.2, 15.1, 4, 8),
    _card("rtx4060ti", "GeForce RTX 4060 Ti 16 GB", 16380, 288, 44.1, 22.1, 4, 8),
    _card("rtx4070", "GeForce RTX 4070 12 GB", 12282, 504, 58.3, 29.1, 4),
    _card("rtx4080", "GeForce RTX 4080 16 GB", 16376, 717, 97.5, 48.7, 4),
    _card("rtx4090", "GeForce RTX 4090 24 GB", 24564, 1008, 165.2, 82.6, 4),
    _card("t4", "T4 16 GB", 15360, 320, 8.1, 8.1, 3),
    _card("v100", "V100 16 GB", 16384, 900, 15.7, 15.7, 3),
    _card("a10", "A10 24 GB", 23028, 600, 125, 31.2, 4),
    _card("l4", "L4 24 GB", 23034, 300, 121, 30.3, 4),
    _card("l40s", "L40S 48 GB", 46068, 864, 362, 91.6, 4),
    _card("a100", "A100 40 GB", 40960, 1555, 312, 19.5, 4),
    _card("a100-80gb", "A100 80 GB", 81920, 2039, 312, 19.5, 4),
    _card("h100", "H100 80 GB (SXM)", 81559, 3350, 989, 66.9, 5),
    _card("h200", "H200 141 GB", 143771, 4800, 989, 66.9, 5),
)

CARDS: Mapping[str, CardProfile] = {card.name: card for card in _ALL}
"""By the name that ``fae plan --gpu`` takes, from 8 GB to 141 GB."""


def find_card(name: str) -> CardProfile:
    """The card of a name; capitals, spaces and dashes do not matter, nor a leading "NVIDIA" or "GeForce".

    Raises
    ------
    RecipeError
        If there is no profile of it.
    """
    plain = _plain(name)
    for card in CARDS.values():
        if plain in (_plain(card.name), _plain(card.title)):
            return card
    hint = nearest(name.lower(), CARDS)
    raise RecipeError(
        f"--gpu {brief(name)} is no card with a profile; {hint}{'' if hint.endswith('?') else '.'} For any other card "
        "give --gpu-memory alone"
    )


def _plain(name: str) -> str:
    text = name.lower()
    for word in ("nvidia", "geforce", " ", "-", "_"):
        text = text.replace(word, "")
    return text


def wire_constants(machine: MachineConstants) -> WireConstants:
    """How GPUs like that of `machine` exchange sums: over NVLink where their name is known to have it, else the bus."""
    name = _plain(machine.name)
    for card, rate in _NVLINK_RATE.items():
        if card in name and "pcie" not in name:
            return WireConstants(wire_rate=_WIRE_SHARE * rate, is_nvlink=True)
    return WireConstants(wire_rate=machine.bus_rate, is_nvlink=False)


def card_constants(name: str, settings: StepSettings, *, host_rate: float = HOST_CORES * CORE_RATE) -> MachineConstants:
    """Constants of a card from its data sheet, with the factors that steps on an H100 and an H200 were measured at.

    Parameters
    ----------
    settings
        The recipe's: its precision chooses the rate of products.
    host_rate
        As in `MachineConstants`; by default that of `HOST_CORES`.

    Raises
    ------
    RecipeError
        If there is no profile of the card.
    """
    card, is_bf16 = find_card(name), settings.precision == "bf16"
    factor = _STEP_FACTORS.get(type(settings.model), _OTHER_FACTOR) if is_bf16 else _OTHER_FACTOR
    return MachineConstants(
        source="published",
        device="cuda",
        name=card.title,
        memory_bytes=card.memory_bytes,
        memory_rate=_MEMORY_SHARE * card.memory_rate,
        product_rate=_PRODUCT_SHARE * (card.bf16_rate if is_bf16 else card.fp32_rate),
        kernel_seconds=_KERNEL_SECONDS,
        host_rate=host_rate,
        bus_rate=_BUS_SHARE * card.bus_rate,
        dense_factor=factor,
        rows_factor=factor,
        hybrid_seconds=_HYBRID_SECONDS,
        stream_seconds=_STREAM_SECONDS,
        stream_factor=_STREAM_FACTOR,
        stream_latency=_STREAM_LATENCY,
        unhidden=_UNHIDDEN,
        margin=_MARGIN,
    )
