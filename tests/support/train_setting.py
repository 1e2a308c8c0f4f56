"""A packed log of 900 inputs and trainers over it, for tests of training, checkpoints and baselines."""

from __future__ import annotations

from pathlib import Path

import torch

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import Plan
from fae.artifacts.row_layout import RowLayout
from fae.checkpoint.save_load import COMMAND, FORMAT_VERSION, KIND
from fae.embedding.placements import make_embeddings
from fae.models.config import DLRMConfig
from fae.models.registry import build_model
from fae.pack.pack import pack
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer

from logs import zipf_log
from packs import stub_hot_set

MODEL = DLRMConfig(embedding_dim=4, bottom_mlp=(8,), top_mlp=(8,))


class Setting:
    """A packed log and everything that trains on it."""

    def __init__(self, folder: Path, *, share=0.1, mixed=False, name="packed"):
        log_folder = folder / "logs"
        if (log_folder / "log").exists():
            self.log = ColumnarLog(log_folder / "log")
        else:
            self.log = zipf_log(log_folder, num_inputs=900, num_validation=100, num_test=100, seed=3)
        num_hot = [round(share * feature.num_embeddings) for feature in self.log.features]
        self.layout = RowLayout(self.log.features, [4] * 4, num_hot)
        self.hot_set = stub_hot_set(self.layout, batch_size=32, mixed=mixed)
        self.packed = pack(self.log, self.hot_set, folder / name, seed=1)

    def trainer(
        self,
        folder: Path | None,
        config: TrainConfig,
        placement=None,
        *,
        plan: Plan | None = None,
        model=MODEL,
        device="cpu",
    ) -> Trainer:
        rows = RowOptimizer(name=config.optimizer, learning_rate=0.1, weight_decay=config.row_weight_decay)
        embeddings = make_embeddings(placement or config.placement, self.hot_set, rows, device=device)
        embeddings.initialise(config.seed)
        network = build_model(model, self.log.features, 2, seed=config.seed)
        network.to(embeddings.device)
        plan = plan or Plan(kind=KIND, format_version=FORMAT_VERSION, parameters={}, parents={}, command=COMMAND)
        return Trainer(network, embeddings, self.packed, config, folder=folder, plan=plan)


def tensors_of(trainer: Trainer) -> list[torch.Tensor]:
    tables = [part for table in range(4) for part in trainer.embeddings.export_table(table)]
    return [*tables, *(parameter.detach() for parameter in trainer.model.parameters())]
