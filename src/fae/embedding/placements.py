"""The registry of placements: where rows live, how to make embeddings of them, and what memory they take.

A new placement is one file with a class of `Embeddings` and one entry of `PLACEMENTS`. The contract tests
(``tests/contract/test_placements.py``) then run over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fae.artifacts.batch_arrays import BatchSizes
from fae.core.errors import RecipeError
from fae.distributed.group import Group
from fae.embedding.base import Embeddings, Engine
from fae.embedding.hybrid import HybridEmbeddings
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.embedding.paper import PaperEmbeddings
from fae.embedding.resident import ResidentEmbeddings, plan_cpu_memory
from fae.embedding.spread import SpreadEmbeddings
from fae.embedding.tiered import TieredEmbeddings
from fae.embedding.working_memory import HotSetSizes
from fae.streaming.row_store import RowOptimizer
from fae.streaming.staging import NO_FAULTS, FaultInjection

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where rows live and where their arithmetic runs.

    Attributes
    ----------
    name
        As ``[train] placement`` of a recipe spells it.
    description
        One line for people.
    embeddings
        The class that does it.
    plan
        Its memory, before anything is allocated.
    cpu_only
        Whether everything is on the CPU, the model too, whatever device is chosen.
    needs_gpu
        Whether without a GPU it does the same as ``cpu``.
    one_stream
        Whether a second stream is refused while one is open: both would write the same staging slots.
    """

    name: str
    description: str
    embeddings: type[Embeddings]
    plan: Callable[[MemoryRequest], MemoryPlan]
    cpu_only: bool = False
    needs_gpu: bool = False
    one_stream: bool = False

    def device_of(self, chosen: str | torch.device) -> torch.device:
        """The device of the model where `chosen` is the device of the run."""
        return torch.device("cpu" if self.cpu_only else chosen)

    def make(
        self,
        hot_set: HotSet,
        optimizer: RowOptimizer,
        device: str | torch.device,
        *,
        engine: Engine | None = None,
        faults: FaultInjection = NO_FAULTS,
        group: Group | None = None,
    ) -> Embeddings:
        """Embeddings of a hot set, rows not initialised yet; by default with the kernels made for the device."""
        made = self.embeddings.from_hot_set(
            hot_set, optimizer, self.device_of(device), engine=engine, faults=faults, group=group
        )
        made.placement = self.name
        return made


_ALL = (
    Placement(
        name="tiered",
        description="hot rows on the device, cold rows in host memory, staged for each batch",
        embeddings=TieredEmbeddings,
        plan=TieredEmbeddings.plan_memory,
        one_stream=True,
    ),
    Placement(
        name="device",
        description="every row on the device",
        embeddings=ResidentEmbeddings,
        plan=ResidentEmbeddings.plan_memory,
        needs_gpu=True,
    ),
    Placement(
        name="spread",
        description="hot rows on every GPU, each other row on one of them",
        embeddings=SpreadEmbeddings,
        plan=SpreadEmbeddings.plan_memory,
        needs_gpu=True,
    ),
    Placement(
        name="cpu",
        description="every row and all arithmetic on the CPU, whatever the device",
        embeddings=ResidentEmbeddings,
        plan=plan_cpu_memory,
        cpu_only=True,
    ),
    Placement(
        name="hybrid",
        description="rows and their arithmetic on the CPU, the model on the device",
        embeddings=HybridEmbeddings,
        plan=HybridEmbeddings.plan_memory,
        needs_gpu=True,
    ),
    Placement(
        name="paper",
        description="FAE of the paper: hot batches on the device, rows of cold batches on the CPU",
        embeddings=PaperEmbeddings,
        plan=PaperEmbeddings.plan_memory,
    ),
)

PLACEMENTS: Mapping[str, Placement] = {placement.name: placement for placement in _ALL}
"""Every placement, by name."""


def find_placement(name: str) -> Placement:
    """The placement of this name.

    Raises
    ------
    RecipeError
        If there is no such placement.

    Examples
    --------
    >>> find_placement("tiered").description
    'hot rows on the device, cold rows in host memory, staged for each batch'
    """
    if name not in PLACEMENTS:
        raise RecipeError(f"[train] placement = {name!r} is not one of {', '.join(PLACEMENTS)}")
    return PLACEMENTS[name]


def make_embeddings(
    placement: str,
    hot_set: HotSet,
    optimizer: RowOptimizer,
    *,
    device: str | torch.device,
    faults: FaultInjection = NO_FAULTS,
    group: Group | None = None,
    reproducible: bool = False,
) -> Embeddings:
    """Embeddings of a hot set, rows not initialised yet.

    Parameters
    ----------
    placement
        ``tiered``: hot rows on `device`, cold rows on the host. ``device``: every row on `device`. ``spread``: hot rows
        on the GPU of every rank, each other row on one of them. ``cpu``: every row and all arithmetic on the CPU,
        whatever `device` says. ``hybrid``: rows and their arithmetic on the CPU, the
        model on `device`. ``paper``: FAE of the paper, hot batches on `device`, rows of cold batches on the CPU.
    group
        The ranks that train together; None is this process alone.
    reproducible
        As ``[train] reproducible``: batches are streamed in 8 slices (`fae.streaming.ready_batch.ReadyBatch.slices`),
        and a training does not depend on how many ranks there are.

    Raises
    ------
    RecipeError
        If there is no such placement.
    """
    if reproducible:
        group = replace(group or Group(), reproducible=True)
    return find_placement(placement).make(hot_set, optimizer, device, faults=faults, group=group)


def plan_memory(
    placement: str,
    hot_set: HotSetSizes,
    optimizer: str,
    splits: Sequence[BatchSizes],
    *,
    on_gpu: bool,
    dense_bytes: int = 0,
    world: int = 1,
    reproducible: bool = False,
    have_rows_together: bool = True,
    shares_host: bool = True,
) -> MemoryPlan:
    """What the embeddings of a placement will take on each rank; parameters as `MemoryRequest` has them.

    Raises
    ------
    RecipeError
        If there is no such placement.
    """
    request = MemoryRequest(
        hot_set=hot_set, optimizer=optimizer, splits=splits, on_gpu=on_gpu, dense_bytes=dense_bytes, world=world,
        reproducible=reproducible, have_rows_together=have_rows_together, shares_host=shares_host,
    )  # fmt: skip
    return find_placement(placement).plan(request)
