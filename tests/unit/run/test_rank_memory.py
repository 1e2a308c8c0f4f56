"""Each rank of a host takes its memory: a training that fits once may not fit twice."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fae.core.errors import BudgetError
from fae.distributed.places import RankPlace
from fae.models.registry import sketch_model
from fae.run import train_stage
from fae.run.train_stage import require_enough_memory, require_model_memory
from fae.training.config import TrainConfig
from fae.training.dense import dense_bytes
from train_setting import MODEL, Setting


def test_rows_and_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    setting = Setting(tmp_path)
    model = sketch_model(MODEL, setting.log.features, 2)

    def require(free: int, world: int, local_world: int) -> None:
        monkeypatch.setattr(train_stage, "available_bytes", lambda: free)
        run: Any = SimpleNamespace(
            recipe=SimpleNamespace(train=TrainConfig(batch_size=32, placement="device")), device=lambda: "cpu",
            ranks=SimpleNamespace(place=RankPlace(world=world, local_world=local_world)),
        )  # fmt: skip
        require_enough_memory(run, setting.packed, setting.hot_set, model)

    with pytest.raises(BudgetError) as caught:
        require(1, 1, 1)
    assert " ranks" not in str(caught.value)
    assert "of this host" not in capsys.readouterr().err
    fits = bisect_left(range(10**8), True, key=lambda free: _fits(require, free))
    require(fits, 4, 1)
    with pytest.raises(BudgetError, match=r"on each of 2 ranks of this host, .* in all; .* start fewer ranks"):
        require(fits, 4, 2)
    assert ", on each of 2 ranks of this host\n" in capsys.readouterr().err
    require(2 * fits, 4, 2)


def _fits(require: Any, free: int) -> bool:
    try:
        require(free, 4, 1)
    except BudgetError:
        return False
    return True


def test_dense_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Setting(tmp_path).log
    recipe: Any = SimpleNamespace(model=MODEL, train=TrainConfig(optimizer="sgd"))
    needed = dense_bytes("sgd", sketch_model(MODEL, log.features, len(log.dense_names)))
    monkeypatch.setattr(train_stage, "available_bytes", lambda: 2 * needed)
    require_model_memory(recipe, log)
    require_model_memory(recipe, log, 2)
    with pytest.raises(BudgetError, match=r"state on each of 3 ranks of this host, .* make the widths .* fewer ranks$"):
        require_model_memory(recipe, log, 3)
