"""Each rank takes its memory of its host and of its GPU: a training that fits once may not fit twice."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from fae.core.errors import BudgetError
from fae.distributed.devices import gpu_with_free_bytes
from fae.distributed.ends import CommonFault
from fae.distributed.group import Group
from fae.distributed.places import RankPlace
from fae.models.registry import sketch_model
from fae.run import train_stage
from fae.run.train_stage import require_enough_memory, require_memory_of_each, require_model_memory
from fae.training.config import TrainConfig
from fae.training.dense import dense_bytes, gathered_dense_bytes
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
    line = ", on each of 2 ranks of this host; of memory that all of them map, each has 1/2\n"
    assert line in capsys.readouterr().err
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


MIB = 2**20


def use_gpu(monkeypatch: pytest.MonkeyPatch, number: int, free: int, *, reserved: int = 0, allocated: int = 0) -> None:
    """A GPU of which torch itself holds some."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: number)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 10 * free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: allocated)


class TwoRanks(Group):
    """The second of two ranks, whose first one has enough; it keeps what this one says."""

    said: list[str]

    def gather_json(self, value: Any, what: str) -> list[Any]:
        type(self).said = ["", value]
        return self.said


def run_of(placement: str, device: str) -> Any:
    train = TrainConfig(batch_size=32, placement=placement)
    place = RankPlace(rank=1, world=2, local_rank=1, local_world=2)
    return SimpleNamespace(
        recipe=SimpleNamespace(train=train, model=MODEL), device=lambda: device, ranks=SimpleNamespace(place=place)
    )


def test_each_rank_looks_at_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line has the number of the GPU, its host, and what is free there."""
    setting, run = Setting(tmp_path), run_of("device", "cuda")
    group = TwoRanks(rank=1, world=2, local_rank=1, hosts=("a", "a"), device="cuda:1", wire="peer")
    use_gpu(monkeypatch, 1, 600 * MIB)
    require_memory_of_each(run, setting.packed, setting.hot_set, group)
    use_gpu(monkeypatch, 1, 100 * MIB)
    with pytest.raises(
        CommonFault, match=r"^placement = .* 100\.0 MiB are free on GPU 1 of a, that of rank 1; free GPU"
    ):
        require_memory_of_each(run, setting.packed, setting.hot_set, group)
    model = sketch_model(MODEL, setting.log.features, 2)
    with pytest.raises(BudgetError, match=r"100\.0 MiB are free on GPU 1; free GPU"):
        require_enough_memory(run, setting.packed, setting.hot_set, model)


def test_what_torch_holds_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpu(monkeypatch, 3, 5 * MIB, reserved=4 * MIB, allocated=MIB)
    assert gpu_with_free_bytes() == (3, 8 * MIB)


@pytest.mark.parametrize("placement", ["device", "hybrid"])
def test_copies_of_sums_are_counted(placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a collective makes them; rows of `hybrid` have theirs in host memory."""
    setting, run = Setting(tmp_path), run_of(placement, "cuda")

    def least(wire: Any) -> int:
        group = TwoRanks(rank=1, world=2, local_rank=1, hosts=("a", "a"), device="cuda:1", wire=wire)

        def fits(free: int) -> bool:
            use_gpu(monkeypatch, 1, free)
            try:
                require_memory_of_each(run, setting.packed, setting.hot_set, group)
            except CommonFault:
                return False
            return True

        return bisect_left(range(2**32), True, key=fits)

    model = sketch_model(MODEL, setting.log.features, 2)
    dense = gathered_dense_bytes(model, 2)
    assert dense >= 2 * 4 * sum(weight.numel() for weight in model.parameters())
    sums = least("gather") - least("peer") - dense
    assert sums > 0 if placement == "device" else sums == 0


def test_ranks_of_one_host_that_do_not_share_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they have met they are taken to share it: then all rows of each are counted."""
    setting, run = Setting(tmp_path), run_of("hybrid", "cpu")
    model = sketch_model(MODEL, setting.log.features, 2)

    def fits(free: int) -> bool:
        monkeypatch.setattr(train_stage, "available_bytes", lambda: free)
        try:
            require_enough_memory(run, setting.packed, setting.hot_set, model)
        except BudgetError:
            return False
        return True

    free = bisect_left(range(1, 10**8), True, key=fits) + 1
    monkeypatch.setattr(train_stage, "available_bytes", lambda: free)
    group = TwoRanks(rank=1, world=2, hosts=("a", "a"), meeting=cast(Any, object()))
    require_memory_of_each(run, setting.packed, setting.hot_set, group)
    with pytest.raises(CommonFault, match=r"^placement = 'hybrid' needs .* of host memory .* on each of 2 ranks"):
        require_memory_of_each(run, setting.packed, setting.hot_set, replace(group, meeting=None))


def test_another_host_looks_at_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of rank 0 has been looked at before."""
    setting, run = Setting(tmp_path), run_of("device", "cpu")
    monkeypatch.setattr(train_stage, "available_bytes", lambda: 1000)
    group = TwoRanks(rank=1, world=2, hosts=("a", "a"), wire="gather", meeting=cast(Any, object()))
    require_memory_of_each(run, setting.packed, setting.hot_set, group)
    group = TwoRanks(rank=1, world=2, hosts=("a", "b"), wire="gather")
    with pytest.raises(CommonFault, match=r"^on b: placement = .* of host memory .* on each of 2 ranks of this host"):
        require_memory_of_each(run, setting.packed, setting.hot_set, group)
