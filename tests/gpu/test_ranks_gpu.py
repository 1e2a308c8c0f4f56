"""Ranks on GPUs end alike, to the byte, whatever moves their sums, and within rounding of one GPU alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fae.distributed.launcher import launch

from cases import train
from rank_cases_program import rank_cases

PROGRAM = Path(__file__).parents[1] / "support" / "rank_cases_program.py"
WORLDS = [world for world in (2, 4, 8) if world <= torch.cuda.device_count()] or [2]

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs 2 GPUs")


def trained(folder: Path, world: int, seed: int, *mover: str) -> dict[str, list[list[np.ndarray]]]:
    """For each case, what each rank ends with."""
    folder.mkdir()
    assert launch([sys.executable, str(PROGRAM), str(folder), str(seed), "cuda", *mover], world) == 0
    found = {}
    for name in rank_cases():
        ranks = [np.load(folder / f"{name}.{rank}.npz") for rank in range(world)]
        found[name] = [[each[key] for key in each.files] for each in ranks]
    return found


@pytest.mark.parametrize("world", WORLDS)
def test_gpus_end_alike(world: int, tmp_path: Path) -> None:
    """With delays and poisoned buffers too, over peer memory and over NCCL."""
    found = trained(tmp_path / "plain", world, 0)
    others = [trained(tmp_path / "delayed", world, 1), trained(tmp_path / "gather", world, 2, "gather")]
    device = torch.device("cuda", 0)
    for name, (log, optimizer) in rank_cases().items():
        first = found[name][0]
        for other in (*found[name][1:], *(rank for each in others for rank in each[name])):
            for one, two in zip(first, other, strict=True):
                assert one.tobytes() == two.tobytes(), name
        alone = train(log, log.layout(0.4, 1), optimizer, "device", device=device, precision="bf16", with_loss=True)
        for one, two in zip(first, alone, strict=True):
            # Gradients are rounded to bfloat16 on either side, and adaptive optimizers make much of small ones.
            np.testing.assert_allclose(one, two.numpy(), rtol=2e-2, atol=2e-3 if "sgd" in name else 5e-2, err_msg=name)
