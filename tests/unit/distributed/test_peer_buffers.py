"""How ranks reach each other's sums, as they find out together; loss windows of ranks settle in step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fae.core.errors import DeviceError, RecipeError
from fae.distributed.group import Group
from fae.distributed.peers import peer_buffers, wires
from fae.run import rank_training
from fae.training.watching.loss_windows import LossWindows


class Told(Group):
    """A group whose other ranks have said what the class holds, in turn."""

    others: list[list[Any]]

    def gather_json(self, value: Any, what: str) -> list[Any]:
        return [value, *type(self).others.pop(0)]


@pytest.fixture
def see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of two GPUs that read each other's memory."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *_: True)


def chosen(*others: list[Any], hosts: tuple[str, ...] = ("a", "a"), device: str = "cuda:0") -> tuple[str | None, str]:
    """The wire of rank 0 and why sums are gathered; `others` are the GPU of another rank and what that has found."""
    Told.others = list(others)
    group = wires.with_best_wire(Told(world=2, hosts=hosts), torch.device(device))
    assert not Told.others
    return group.wire, group.why_gathered


@pytest.mark.usefixtures("see_each_other")
def test_gpus_of_one_host_read_each_other() -> None:
    assert chosen([1], [""]) == ("peer", "")


@pytest.mark.usefixtures("see_each_other")
def test_several_hosts_gather() -> None:
    """Whatever numbers their GPUs have."""
    for number in (0, 1):
        wire, reason = chosen([number], ["ranks are on 2 hosts"], [1], hosts=("a", "b"))
        assert (wire, reason) == ("gather", "ranks are on 2 hosts")


class OfHosts(Group):
    """Rank 0 of two hosts of two ranks, whose GPUs see their neighbours or do not."""

    firsts, sees = (0, 2, 2), True

    def gather_json(self, value: Any, what: str) -> list[Any]:
        answers = {
            "the GPUs of all ranks": [1, 0, 1],
            "whether GPUs see each other": [value] * 3,
            "the first rank of each host": [0, *self.firsts[1:]],
            "the GPUs of each host": [[0, 1], [2, 0], [2, 1]],
            "whether GPUs of each host see each other": [self.sees] * 3,
        }
        return [value, *answers[what]]


@pytest.mark.usefixtures("see_each_other")
@pytest.mark.parametrize(
    ("firsts", "sees", "wire"),
    [
        ((0, 2, 2), True, "hosts"),
        ((0, 2, 2), False, "gather"),
        ((0, 0, 3), True, "gather"),
        ((0, 1, 2), True, "gather"),
    ],
)
def test_hosts_of_several_gpus_add_theirs_first(
    firsts: tuple[int, ...], sees: bool, wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each has as many, in a row, which all see one another."""
    monkeypatch.setattr(OfHosts, "firsts", firsts)
    monkeypatch.setattr(OfHosts, "sees", sees)
    monkeypatch.setattr(wires, "in_hosts", lambda group, size: replace(group, wire="hosts", why_gathered=f"{size}"))
    group = OfHosts(world=4, hosts=("a", "a", "b", "b"))
    found = wires.with_best_wire(group, torch.device("cuda:0"))
    assert found.wire == wire
    assert found.why_gathered == ("2" if wire == "hosts" else "ranks are on 2 hosts")


@pytest.mark.usefixtures("see_each_other")
def test_ranks_that_have_gpus_of_their_own_gather() -> None:
    """As two containers of one host have: each names its GPU 0."""
    wire, reason = chosen([0], [""], [0])
    assert wire == "gather"
    assert "do not see each other's GPUs (CUDA_VISIBLE_DEVICES)" in reason


@pytest.mark.usefixtures("see_each_other")
def test_gpus_without_peer_access_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where any rank finds one: it is named on all."""
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *_: False)
    expected = "GPU 0 does not read the memory of GPU 1 (nvidia-smi topo -m)"
    assert chosen([1], [""], [0]) == ("gather", expected)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *_: True)
    assert chosen([1], ["GPU 1 does not"], [0]) == ("gather", "GPU 1 does not")


@pytest.mark.usefixtures("see_each_other")
def test_a_torch_without_shared_memory_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "symmetric_memory", lambda: None)
    assert chosen([1], [""], [0]) == ("gather", "this torch has no memory that GPUs share")


def test_cpus_gather_without_a_reason() -> None:
    assert chosen(device="cpu") == ("gather", "")


def test_a_copy_of_each_rank() -> None:
    for wire in (None, "gather"):
        group = Group(world=2, wire=wire)  # type: ignore[arg-type]
        buffer = peer_buffers.peer_buffer(group, 4, torch.device("cpu"), channel=0, what="sums")
        assert buffer.own.shape == (4,)
        assert int(buffer.pointers[1] - buffer.pointers[0]) == 16


@pytest.mark.parametrize(("gpus", "advice"), [(3, "start 2 here"), (1, "start one rank")])
def test_fewer_gpus_than_ranks(gpus: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_training, "most_gpus", lambda: gpus)
    recipe = SimpleNamespace(train=SimpleNamespace(placement="device", batch_size=64, reproducible=False))
    with pytest.raises(DeviceError, match=advice):
        rank_training.check_ranks(recipe, "cuda", 4, 4)


@pytest.mark.parametrize("world", [3, 5, 16])
def test_a_number_of_ranks_that_torchrun_may_start(world: int) -> None:
    recipe = SimpleNamespace(train=SimpleNamespace(placement="device", batch_size=240, reproducible=False))
    with pytest.raises(RecipeError, match=f"^{world} ranks are requested, and 2, 4 or 8 can train .* --nproc-per-node"):
        rank_training.check_ranks(recipe, "cpu", world, world)


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
