"""How many GPUs are here, for tests that need several."""

from __future__ import annotations

import os

import pytest
import torch

FEW_GPUS = "fewer GPUs here than it needs"


def needs_gpus(count: int) -> pytest.MarkDecorator:
    """Skip a test where there are fewer; the end of all tests says how many were."""
    here = torch.cuda.device_count()
    return pytest.mark.skipif(here < count, reason=f"{FEW_GPUS}: {count}")


def shown_gpus() -> list[str]:
    """The GPUs that this process may see, as `CUDA_VISIBLE_DEVICES` names them."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",") if shown else [str(number) for number in range(torch.cuda.device_count())]
