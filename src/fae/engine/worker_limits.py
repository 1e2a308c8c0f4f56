"""Give the libraries of a worker process one thread each, those that are loaded and those that will be."""

from __future__ import annotations

import os
import sys

_THREAD_SETTINGS = (
    "FAE_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS",
)  # fmt: skip


def limit_settings() -> None:
    """For the libraries that will be loaded: a process with threads of its own must not be forked."""
    for name in _THREAD_SETTINGS:
        os.environ[name] = "1"
    if "numba" not in sys.modules:  # which refuses another number once its threads run; FAE uses none of them
        os.environ["NUMBA_NUM_THREADS"] = "1"


def limit_libraries() -> None:
    """For libraries that are loaded too."""
    limit_settings()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].set_cpu_count(1)
