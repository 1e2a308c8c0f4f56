"""Placements by name: where rows live and where their arithmetic runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fae.core.errors import RecipeError
from fae.embedding.base import Embeddings
from fae.embedding.hybrid import HybridEmbeddings
from fae.embedding.paper import PaperEmbeddings
from fae.embedding.resident import ResidentEmbeddings
from fae.embedding.tiered import TieredEmbeddings
from fae.streaming.row_store import RowOptimizer
from fae.streaming.staging import NO_FAULTS, FaultInjection

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet

PLACEMENTS = ("tiered", "device", "cpu", "hybrid", "paper")


def make_embeddings(
    placement: str,
    hot_set: HotSet,
    optimizer: RowOptimizer,
    *,
    device: str | torch.device,
    faults: FaultInjection = NO_FAULTS,
) -> Embeddings:
    """Embeddings of a hot set, rows not initialised yet.

    Parameters
    ----------
    placement
        ``tiered``: hot rows on `device`, cold rows on the host. ``device``: every row on `device`. ``cpu``: every row
        and all arithmetic on the CPU, whatever `device` says. ``hybrid``: rows and their arithmetic on the CPU, the
        model on `device`. ``paper``: FAE as published, hot batches on `device`, rows of cold batches on the CPU.

    Raises
    ------
    RecipeError
        If there is no such placement.
    """
    where = torch.device("cpu") if placement == "cpu" else torch.device(device)
    if placement in ("cpu", "device"):
        return ResidentEmbeddings(hot_set.layout, optimizer, hot_set.batch_size, where)
    if placement == "hybrid":
        return HybridEmbeddings(hot_set.layout, optimizer, hot_set.batch_size, where)
    if placement == "paper":
        return PaperEmbeddings(hot_set.layout, optimizer, hot_set.batch_size, where)
    if placement == "tiered":
        return TieredEmbeddings(
            hot_set.layout,
            optimizer,
            hot_set.batch_size,
            where,
            staging_rows=hot_set.staging_rows,
            ring_depth=hot_set.ring_depth,
            faults=faults,
        )
    raise RecipeError(f"[train] placement = {placement!r} is not one of {', '.join(PLACEMENTS)}")
