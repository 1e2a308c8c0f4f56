"""The accuracy of an order of batches: one epoch trained to its end, from the packed batches of that order."""

from __future__ import annotations

import time
from typing import Any

from fae.bench.cells import Cells
from fae.bench.config import BenchConfig
from fae.bench.preparation import Preparation
from fae.bench.shared_rows import RowMemory
from fae.bench.speed_cells import free_memory
from fae.core.errors import FaeError
from fae.core.progress import say
from fae.embedding.placements import make_embeddings
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer

ORDERS = {"shuffled": "mixed", "adaptive": "threshold", "interleaved": "own"}
"""Orders whose accuracy is measured, and the packed batches each is trained from."""


def accuracy_keys(config: BenchConfig) -> list[str]:
    """Names of the cells that `config` wants: ``<batch size>/accuracy/<order>``."""
    sizes = {"first": config.sizes()[:1], "all": config.sizes(), "none": ()}[config.accuracy]
    return [f"{size}/accuracy/{order}" for size in sizes for order in ORDERS]


class AccuracyCells:
    """Measures what is missing of the cells ``<batch size>/accuracy/<order>``."""

    def __init__(
        self, config: BenchConfig, prepared: Preparation, cells: Cells, memory: RowMemory, *, device: str
    ) -> None:
        self.config, self.prepared, self.cells, self.memory, self.device = config, prepared, cells, memory, device

    def measure(self) -> None:
        """Train an epoch for every missing cell, until the time limit."""
        for key in self.cells.missing(accuracy_keys(self.config)):
            if not self.cells.late():
                size, _, order = key.split("/")
                self.cells.put(key, self._train_epoch(int(size), order))
                free_memory(self.device)

    def _train_epoch(self, size: int, order: str) -> dict[str, Any]:
        kind, prepared, seed = ORDERS[order], self.prepared, self.config.seed
        hot_set, packed = prepared.packed(kind, size)
        self.cells.note(f"{size}/facts", prepared.pack_facts(size, {kind: (hot_set, packed)}))
        placement = "paper" if order == "adaptive" else "tiered" if self.device == "cuda" else "cpu"
        say(f"bench: an epoch to its end, batches of {size:,}, order {order}, placement {placement}")
        train = TrainConfig(
            batch_size=size, optimizer=prepared.optimizer, learning_rate=prepared.learning_rate,  # type: ignore[arg-type]
            dense_learning_rate=prepared.workload.train.get("dense_learning_rate"),
            placement=placement, order=order,  # type: ignore[arg-type]
            precision=self.config.precision, seed=seed, checkpoint_minutes=0.0,
            compile=self.config.compiled(),
        )  # fmt: skip
        rows = RowOptimizer(name=prepared.optimizer, learning_rate=prepared.learning_rate)
        started = time.perf_counter()
        with self.memory.lent():
            embeddings = make_embeddings(placement, hot_set, rows, device=self.device)
        embeddings.initialise(seed)
        initialised = time.perf_counter() - started
        model = build_model(prepared.model, hot_set.layout.features, packed.num_dense, seed=seed)
        model = model.to(embeddings.device)
        try:
            result = Trainer(model, embeddings, packed, train).fit()
        except FaeError as error:  # a loss that is not finite is a result
            result = {"train": {}, "test": {}, "validation": {}, "why": str(error)}
            say(f"bench: {error}")
        return {
            **result, "order": order, "placement": placement, "seconds_to_initialise": initialised,
            "session": len(self.cells.record["sessions"]) - 1,
        }  # fmt: skip
