"""Trainings on each of several ranks, in turn: ``python rank_trainer_program.py FOLDER NAME...`` as a rank.

Each leaves what it was like in a file of its name and rank.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fae import Callback
from fae.distributed.group import Group
from fae.distributed.places import place_of_process
from fae.distributed.rank_process import RankProcess
from fae.embedding.placements import make_embeddings
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training import kept_states
from fae.training.config import TrainConfig
from fae.training.quality import evaluate, meter
from fae.training.trainer import Trainer
from train_setting import MODEL, Setting, tensors_of


class StopsAt(Callback):
    """Ends the training, or fails, behind a batch."""

    def __init__(self, batch: int, *, fails: bool = False) -> None:
        self._batch, self._fails = batch, fails

    def on_window(self, window: Any) -> None:
        if window.batches >= self._batch:
            if self._fails:
                raise ValueError("no more")
            self.stop("enough")


BASE = TrainConfig(batch_size=32, placement="device", epochs=3, optimizer="sgd", learning_rate=0.1)
STOPPING = dataclasses.replace(BASE, early_stopping=2, epochs=30, validate_batches=5, learning_rate=3.0)
TRAININGS: dict[str, tuple[TrainConfig, Any, tuple[Callback, ...]]] = {
    "plain": (BASE, MODEL, ()),
    "adaptive": (dataclasses.replace(BASE, order="adaptive", adaptive_rate=20), MODEL, ()),
    "callback": (BASE, MODEL, (StopsAt(20),)),
    "early stopping": (STOPPING, MODEL, ()),
    "dropout": (BASE, dataclasses.replace(MODEL, dropout=0.3), ()),
    "reproducible": (
        dataclasses.replace(
            STOPPING,
            placement="tiered",
            optimizer="adagrad",
            order="adaptive",
            adaptive_rate=20,
            weight_decay=0.001,
            row_weight_decay=0.001,
            rate_schedule="cosine",
            reproducible=True,
        ),
        dataclasses.replace(MODEL, dropout=0.3),
        (),
    ),
    "staged": (dataclasses.replace(BASE, placement="tiered", optimizer="adam", learning_rate=0.01), MODEL, ()),
    "drifting": (dataclasses.replace(BASE, placement="tiered"), MODEL, ()),
    "slow": (dataclasses.replace(BASE, epochs=2), MODEL, ()),
    "another cold row": (dataclasses.replace(BASE, placement="tiered"), MODEL, ()),
    "failing callback": (BASE, MODEL, (StopsAt(20, fails=True),)),
}


def trainer_of(name: str, setting: Setting, group: Group | None = None, folder: Path | None = None) -> Trainer:
    """The trainer of a training; some write a run folder, and one trains other rows on the second rank."""
    config, model_config, callbacks = TRAININGS[name]
    optimizer = RowOptimizer(name=config.optimizer, learning_rate=config.learning_rate)
    embeddings = make_embeddings(
        config.placement, setting.hot_set, optimizer, device="cpu", group=group, reproducible=config.reproducible
    )
    embeddings.initialise(config.seed)
    model = build_model(model_config, setting.log.features, 2, seed=config.seed)
    if name == "drifting" and embeddings.group.rank == 1:
        embeddings.follow_rates(lambda step: 0.5)
    if name == "another cold row" and embeddings.group.rank == 1:
        embeddings.host_stores[0].weight[-1, 0] += 1e-6
    run = folder / "run" if name in ("drifting", "slow") and folder is not None else None
    return Trainer(model, embeddings, setting.packed, config, callbacks=callbacks, folder=run)


GROUP_SECONDS, SLOW_SECONDS = 3.0, 6.0


def slow_once(folder: Path, rank: int, module: Any, name: str) -> None:
    """Let the first call of a function of a module take longer than ranks wait in a collective."""
    work: Callable[..., Any] = getattr(module, name)
    said = folder / f"{name}.{rank}"

    def slowly(*arguments: Any, **options: Any) -> Any:
        if not said.exists():
            said.touch()
            time.sleep(SLOW_SECONDS)
        return work(*arguments, **options)

    setattr(module, name, slowly)


def main(folder: Path, names: list[str]) -> None:
    """As one rank: all of them."""
    place = place_of_process()
    waits = {"group_seconds": GROUP_SECONDS} if names == ["slow"] else {}
    with RankProcess(place, **waits) as process, process.join() as group:
        if names == ["slow"]:
            slow_once(folder, place.rank, kept_states, "save_checkpoint")
            slow_once(folder, place.rank, evaluate, "compute_metrics")
            slow_once(folder, place.rank, meter, "measure_quality")
        for name in names:
            trainer = trainer_of(name, Setting(folder / str(place.rank)), group, folder)
            result = trainer.fit()
            (folder / f"{name}.{place.rank}.json").write_text(json.dumps(result))
            np.savez(folder / f"{name}.{place.rank}.npz", *[tensor.numpy() for tensor in tensors_of(trainer)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
