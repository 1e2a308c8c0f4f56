"""GPUs that do not see each other are refused in one line, and loss windows of ranks settle in step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fae.core.errors import DeviceError
from fae.distributed import peer_buffers
from fae.distributed.ends import CommonFault
from fae.distributed.group import Group
from fae.run import rank_training
from fae.training.watching.loss_windows import LossWindows


def test_gpus_that_do_not_read_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken of a GPU before."""
    monkeypatch.setattr(peer_buffers, "best_wire", lambda *_: "gather")
    with pytest.raises(CommonFault, match="do not read each other's memory"):
        peer_buffers.peer_buffer(Group(world=2), 4, torch.device("cuda", 0), channel=0, what="sums")


def test_a_copy_of_each_rank_on_cpus() -> None:
    buffer = peer_buffers.peer_buffer(Group(world=2), 4, torch.device("cpu"), channel=0, what="sums")
    assert buffer.own.shape == (4,)
    assert int(buffer.pointers[1] - buffer.pointers[0]) == 16


@pytest.mark.parametrize(("gpus", "advice"), [(3, "start 2 here"), (1, "start one rank")])
def test_fewer_gpus_than_ranks(gpus: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_training, "most_gpus", lambda: gpus)
    recipe = SimpleNamespace(train=SimpleNamespace(placement="device", batch_size=64, reproducible=False))
    with pytest.raises(DeviceError, match=advice):
        rank_training.check_ranks(recipe, "cuda", 4, 4)


@pytest.mark.parametrize("ready", [True, False])
def test_windows_of_ranks_settle_in_step(ready: bool) -> None:
    """Whatever has arrived from the device of one of them."""
    settled: list[int] = []
    windows = LossWindows(lambda inputs, window, batches, loss: settled.append(batches), in_step=True)
    mark = SimpleNamespace(ready=ready, value=lambda: 1.0)
    for batches in range(1, 6):
        windows.close(batches, 1.0, batches, 0.0, mark)  # type: ignore[arg-type]
    assert settled == [1, 2, 3]
    windows.settle(wait=True)
    assert settled == [1, 2, 3, 4, 5]
