"""GPUs of two hosts end with the bytes of GPUs of one, which read each other's memory.

Both hosts are this machine: two nodes of torchrun, each of which sees GPUs of its own alone, with sockets between them.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from gpus import needs_gpus, shown_gpus
from started_runs import Started, assert_same, nodes_of_torchrun, started

from commands import succeed, write_log, write_recipe

SHARING = Path(__file__).parents[1] / "support" / "fae_on_shared_gpus.py"
SOCKETS = {
    "NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}  # fmt: skip
# Batches have several blocks of 64 rows, which hosts add in parts.
RECIPE = {
    "hot": {"budget": "16KiB"},
    "train": {"epochs": 3, "checkpoint_batches": 7, "optimizer": "adam", "batch_size": 256},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, a recipe, and the run `alone`, whose data the others take."""
    folder = tmp_path_factory.mktemp("hosts")
    write_log(folder, 6000)
    write_recipe(folder, **RECIPE)
    succeed("run", folder / "recipe.toml", "--out", folder / "alone", "--device", "cpu")
    return folder


def hosts(folder: Path, out: str, ranks: int, *words: str, shared: bool = False) -> list[Started]:
    """Start two hosts with that many ranks each; the first one is the second node.

    Parameters
    ----------
    shared
        Whether both have the same GPUs, in the opposite order: NCCL connects those of one number, which differ.
    """
    gpus, nodes = shown_gpus(), []
    for starter in nodes_of_torchrun(ranks):
        number = int(starter[-1])
        own = gpus[:ranks][:: 1 - 2 * number] if shared else gpus[ranks * number : ranks * (number + 1)]
        # NCCL takes nodes of one machine for one host, unless they are named.
        environ = {**SOCKETS, "CUDA_VISIBLE_DEVICES": ",".join(own), "NCCL_HOSTID": f"node{number}"}
        program = (str(SHARING),) if shared else ("-m", "fae")
        nodes.append(started(folder, out, *words, starter=starter, device="cuda", environ=environ, program=program))
    return nodes


@needs_gpus(2)
@pytest.mark.parametrize("placement", ["tiered", "spread"])
def test_two_hosts_of_two_ranks_train_the_bytes_of_one_rank(placement: str, made: Path) -> None:
    """By the command line and reproducibly, since no two GPUs hold four ranks of one host."""
    words = ("--set", "train.reproducible=true", "--set", "train.epochs=1", "--set")
    if not (made / "one rank").exists():
        started(made, "one rank", *words, "train.placement=device", device="cuda").end()
    two = f"two of two, {placement}"
    second, first = (host.end() for host in hosts(made, two, 2, *words, f"train.placement={placement}", shared=True))
    (said,) = [line for line in (*first, *second) if line.startswith("train: NCCL copies the sums of each host to")]
    assert "since ranks of this host do not see each other's GPUs" in said
    record = json.loads((made / two / "run.json").read_text())["train"]
    assert record["wire"] == "hosts"
    assert all(0 < each["network_bytes"] < each["received_bytes"] for each in record["each_rank"])
    assert_same(made / two, made / "one rank")


@pytest.mark.parametrize(
    ("placement", "ranks"),
    [
        pytest.param("device", 1, marks=needs_gpus(2)),
        pytest.param("tiered", 1, marks=needs_gpus(2)),
        pytest.param("tiered", 2, marks=needs_gpus(4)),
    ],
)
def test_two_hosts_end_as_one(placement: str, ranks: int, made: Path) -> None:
    """By captured steps, with NCCL in their graphs; the record and one line say how sums went."""
    one, two = f"one, {placement}, {ranks}", f"two, {placement}, {ranks}"
    words = ("--set", f"train.placement={placement}")
    started(made, one, "--gpus", str(2 * ranks), *words, device="cuda").end()
    second, first = (host.end() for host in hosts(made, two, ranks, *words))
    whose = "each host to the others" if ranks > 1 else "ranks from GPU to GPU"
    said = [line for line in (*first, *second) if line.startswith(f"train: NCCL copies the sums of {whose}, since ")]
    assert len(said) == 1
    assert said[0].endswith("ranks of this host do not see each other's GPUs (CUDA_VISIBLE_DEVICES)")
    wires = {out: json.loads((made / out / "run.json").read_text())["train"]["wire"] for out in (one, two)}
    assert wires == {one: "peer", two: "hosts" if ranks > 1 else "gather"}
    assert_same(made / two, made / one)


@needs_gpus(2)
def test_a_rank_that_is_killed_ends_the_other_host(made: Path) -> None:
    """Whose GPU waits for it; torchrun hears nothing of it there."""
    second, first = hosts(made, "killed", 1, "--set", "train.epochs=100000", "--set", "train.placement=device")
    first.await_batches(50)
    os.kill(second.ranks()[-1], signal.SIGKILL)
    began = time.monotonic()
    second.end(1)
    lines = first.end(1)
    assert time.monotonic() - began < 150
    assert any(line.startswith("fae: ") and "rank 1" in line for line in lines), lines
