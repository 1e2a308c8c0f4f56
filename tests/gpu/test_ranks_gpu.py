"""Ranks on GPUs end alike, to the byte, whatever moves their sums, and within rounding of one GPU alone.

Where there are fewer GPUs than ranks, ranks share the first one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fae.distributed.launcher import launch
from gpus import needs_gpus

from cases import train
from rank_cases_program import BY_BOTH, HELD, SOME, SPREAD, layout_of, long_cases, path_of, rank_cases

PROGRAM = Path(__file__).parents[1] / "support" / "rank_cases_program.py"
Ends = dict[str, list[list[np.ndarray]]]


def trained(
    folder: Path, world: int, seed: int, engine: str = "cuda", wire: str = "", names: Sequence[str] = ("device",)
) -> Ends:
    """For each case, what each rank ends with."""
    folder.mkdir()
    assert launch([sys.executable, str(PROGRAM), str(folder), str(seed), engine, wire, *names], world) == 0
    found = {}
    for case in long_cases() if "-long" in engine else rank_cases():
        ends = [np.load(path_of(folder, case, name, rank)) for name in names for rank in range(world)]
        found[case] = [[each[key] for key in each.files] for each in ends]
    return found


def require_same(found: Ends, *others: Ends) -> None:
    """All have the bytes of the first rank of `found`."""
    for name, ends in found.items():
        for end in (*ends[1:], *(end for other in others for end in other[name])):
            for one, two in zip(ends[0], end, strict=True):
                assert one.tobytes() == two.tobytes(), name


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_end_alike(world: int, tmp_path: Path) -> None:
    """In bf16 by captured steps, under both placements, with delays and NaN in what is free."""
    found = trained(tmp_path / "plain", world, 0)
    require_same(found, trained(tmp_path / "delayed", world, 1, names=SOME))


@pytest.mark.parametrize("world", [2, 4])
def test_rows_that_ranks_have_together_end_alike(world: int, tmp_path: Path) -> None:
    """Spread over GPUs, or staged by their owners."""
    found = trained(tmp_path / "plain", world, 0)
    names = (*SPREAD[1:], "tiered, all cold", "tiered, one width hot")
    if world > 2:
        names = (SPREAD[0], "tiered, half hot")
    require_same(found, trained(tmp_path / "delayed", world, 1, names=names))


@pytest.mark.parametrize("world", [pytest.param(world, marks=needs_gpus(world)) for world in (2, 4)])
def test_500_steps_end_alike(world: int, tmp_path: Path) -> None:
    """Captured and not, wherever rows are, with delays and NaN in what is free."""
    found = trained(tmp_path / "plain", world, 0, "cuda-long")
    names = ("device", "tiered, a little hot", SPREAD[0])
    delayed = trained(tmp_path / "delayed", world, 1, "cuda-long", names=names)
    require_same(found, delayed, trained(tmp_path / "eager", world, 0, "cuda-eager-long"))


@needs_gpus(2)
def test_500_reproducible_steps_train_the_bytes_of_one(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", 1, 0, "cuda-long-reproducible")
    two = trained(tmp_path / "two", 2, 1, "cuda-long-reproducible", names=("device", "tiered, a little hot"))
    require_same(one, two)
    if torch.cuda.device_count() >= 4:
        require_same(one, trained(tmp_path / "four", 4, 0, "cuda-long-reproducible", names=(SPREAD[0],)))


def test_ranks_train_what_one_trains(tmp_path: Path) -> None:
    found, device = trained(tmp_path / "two", 2, 0, "cuda-fp32", names=SOME), torch.device("cuda", 0)
    require_same(found)
    for name, (log, optimizer) in rank_cases().items():
        alone = train(log, layout_of(log, 0.4), optimizer, "device", device=device, with_loss=True)
        for one, two in zip(found[name][0], alone, strict=True):
            np.testing.assert_allclose(one, two.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


def test_reproducible_ranks_train_the_bytes_of_one(tmp_path: Path) -> None:
    """In bf16 by captured steps, wherever rows are; in fp32 within rounding of a training that is not reproducible."""
    one = trained(tmp_path / "one", 1, 0, "cuda-reproducible", names=("device",))
    two = trained(tmp_path / "two", 2, 1, "cuda-reproducible", names=("device", "tiered, a little hot", SPREAD[0]))
    require_same(one, two, trained(tmp_path / "four", 4, 1, "cuda-reproducible", names=("tiered, half hot",)))
    slices, whole = (trained(tmp_path / engine, 1, 0, engine) for engine in ("cuda-fp32-reproducible", "cuda-fp32"))
    for name, ((ours,), (expected,)) in ((name, (slices[name], whole[name])) for name in whole):
        for tensor, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(tensor, other, rtol=1e-4, atol=1e-4, err_msg=name)


@needs_gpus(2)
def test_two_hosts_end_as_one(tmp_path: Path) -> None:
    """Whose ranks read each other's memory, and NCCL brings the sums of the other host."""
    found = trained(tmp_path / "one", 4, 0)
    names = (*SOME, "tiered, half hot", SPREAD[2], SPREAD[1])
    require_same(found, trained(tmp_path / "two", 4, 1, wire="hosts", names=names))


@needs_gpus(2)
def test_two_reproducible_hosts_train_the_bytes_of_one_rank(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", 1, 0, "cuda-reproducible")
    names = ("tiered, half hot",)
    require_same(one, trained(tmp_path / "two", 4, 1, "cuda-reproducible", wire="hosts", names=names))


@pytest.mark.parametrize("name", BY_BOTH)
def test_ranks_whose_cpus_compute_rows(name: str, tmp_path: Path) -> None:
    """In fp32, what one trains; in bf16, by captured dense parts, alike with delays and NaN in what is free."""
    found, device = trained(tmp_path / "fp32", 2, 0, "cuda-fp32", names=(name,)), torch.device("cuda", 0)
    require_same(found)
    for case, (log, optimizer) in rank_cases().items():
        layout = layout_of(log, HELD[name][1])
        alone = train(log, layout, optimizer, name, device=device, with_loss=True)
        for one, two in zip(found[case][0], alone, strict=True):
            np.testing.assert_allclose(one, two.numpy(), rtol=1e-4, atol=1e-4, err_msg=case)
    plain = trained(tmp_path / "plain", 4, 0, names=(name,))
    require_same(plain, trained(tmp_path / "delayed", 4, 1, names=(name,)))


@needs_gpus(2)
@pytest.mark.parametrize("name", BY_BOTH)
def test_what_moves_dense_gradients_changes_nothing(name: str, tmp_path: Path) -> None:
    found = trained(tmp_path / "peer", 2, 0, wire="peer", names=(name,))
    require_same(found, trained(tmp_path / "gather", 2, 1, wire="gather", names=(name,)))


@needs_gpus(2)
def test_what_moves_sums_changes_nothing(tmp_path: Path) -> None:
    """Peer memory and NCCL."""
    found = trained(tmp_path / "peer", 2, 0, wire="peer", names=SOME)
    require_same(found, trained(tmp_path / "gather", 2, 1, wire="gather", names=SOME))
