"""Load torch's libraries, and open the GPU, on a thread that needs no interpreter lock.

An import holds that lock while it loads a library, and so does torch while the driver sets itself up: half a second in
which no other thread of this process gets on. What is loaded already is found loaded by the import that comes later.

The system loads one library at a time, so an import of another library waits here with the lock in its hand: this
begins when the libraries that a command needs first are there, and its recipe was found right.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from fae.distributed.places import place_of_process
from fae.run.ahead.torch_ahead import seems_to_have_gpu

if TYPE_CHECKING:
    from fae.run.recipe import Recipe

THREAD_NAME = "libraries ahead"
_LIBRARIES = ("libtorch_global_deps.so", "libc10.so", "libtorch_cpu.so", "libc10_cuda.so", "libtorch_cuda.so")
"""In the order in which each finds what it needs. None has code that calls Python."""
_EVERYWHERE = "libtorch_global_deps.so"
"""torch loads this one for all libraries to see."""


def libraries_ahead(recipe: Recipe, out: Path, device: str | None) -> threading.Thread | None:
    """Start the thread where the command will train; None where it will not, or torch is there already.

    Parameters
    ----------
    out
        Folder of the run.
    device
        ``"cpu"`` or ``"cuda"``; None is a GPU where there seems to be one.
    """
    if sys.platform != "linux" or "torch" in sys.modules or (out / "checkpoint").exists():
        return None
    is_first = place_of_process().local_rank == 0  # the context is that of the first GPU
    on_gpu = is_first and device != "cpu" and recipe.train.placement != "cpu" and seems_to_have_gpu()
    thread = threading.Thread(target=load_libraries, args=(on_gpu,), name=THREAD_NAME)
    thread.start()
    return thread


def load_libraries(on_gpu: bool) -> None:
    """Load what there is of them; on a GPU, also make the context of the first one, which torch takes over."""
    with contextlib.suppress(Exception):  # the import meets the same error
        found = importlib.util.find_spec("torch")
        for folder in (found.submodule_search_locations or ()) if found else ():
            for name in _LIBRARIES if on_gpu else [name for name in _LIBRARIES if "cuda" not in name]:
                _load(Path(folder) / "lib" / name, os.RTLD_GLOBAL if name == _EVERYWHERE else os.RTLD_LOCAL)
        if on_gpu:
            _open_gpu()


def _load(path: Path, scope: int) -> None:
    """Load a library as an import would, without the lock: ``ctypes.CDLL`` holds it in some versions of Python."""
    if path.exists():
        function = ctypes.CDLL(None).dlopen
        function.restype, function.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
        function(os.fsencode(path), os.RTLD_NOW | scope)


def _open_gpu() -> None:
    driver, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
