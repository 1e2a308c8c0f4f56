"""Import torch and what trains on a thread and wake the GPU while other stages work; find a missing GPU without it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fae.run.recipe import Recipe

THREAD_NAME = "import ahead"
_MODULES = ("torch", "fae.models.registry", "fae.embedding.placements", "fae.training.trainer")
_GPU_MODULES = ("fae.embedding.gpu_rows", "fae.kernels.triton_dense")
_DRIVER = Path("/proc/driver/nvidia/version")
"""There where Linux has a driver for GPUs."""
_DEVICES = Path("/dev")


def import_ahead(recipe: Recipe, device: str | None) -> threading.Thread | None:
    """Start the thread; None where torch is there already. Who imports the same meanwhile waits for it.

    At the end of the process it stops behind the module that it is at.

    Parameters
    ----------
    device
        ``"cpu"`` or ``"cuda"``; None is a GPU where there seems to be one.
    """
    if "torch" in sys.modules:
        return None
    on_gpu = recipe.train.placement != "cpu" and (seems_to_have_gpu() if device is None else device == "cuda")
    names = (*_MODULES, *(_GPU_MODULES if on_gpu else ()))
    thread = threading.Thread(target=_import_all, args=(names, on_gpu), name=THREAD_NAME)
    thread.start()
    return thread


def _import_all(names: tuple[str, ...], on_gpu: bool = False) -> None:
    with contextlib.suppress(Exception):  # who needs the module meets the same error
        if on_gpu:
            threading.Thread(target=_name_triton, name="triton ahead").start()
        for name in names:
            if not threading.main_thread().is_alive():
                return
            importlib.import_module(name)
        if on_gpu and threading.main_thread().is_alive():
            _wake_gpu()


def _wake_gpu() -> None:
    """Let the driver set itself up for this process, which takes it half a second; each rank has a GPU of its own."""
    import torch

    from fae.distributed.places import place_of_process

    torch.cuda.set_device(place_of_process().local_rank)

    torch.empty(1, device="cuda")


def _name_triton() -> None:
    """Let Triton name its own code, as it does before its first kernel: half a second, most of it without the lock."""
    with contextlib.suppress(Exception):
        from triton.runtime.cache import triton_key

        triton_key()


def most_gpus() -> int | None:
    """How many GPUs this process may see, as far as can be told without torch; None where it cannot."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = sum(re.fullmatch(r"nvidia\d+", path.name) is not None for path in _DEVICES.glob("nvidia[0-9]*"))
    return min(found, len(shown.split(","))) if shown is not None and found else found or None


def seems_to_have_gpu() -> bool:
    """Whether there is a driver, a GPU that this process may see, and a torch that was built for it.

    Where it says no, torch may still find one. Where it says yes, it is right unless the driver is too old or broken.
    """
    if not _DRIVER.exists() or os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if not any(_DEVICES.glob("nvidia[0-9]*")):
        return False
    with contextlib.suppress(ImportError, OSError, ValueError):
        found = importlib.util.find_spec("torch")
        for folder in (found.submodule_search_locations or ()) if found else ():
            text = (Path(folder) / "version.py").read_text()
            return re.search(r"^cuda\s*(:[^=\n]*)?=\s*['\"]\d", text, re.MULTILINE) is not None
    return False
