"""How fast the disk of a folder is, measured in a second or two: large pieces, one after the other."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from fae.core.files import cannot_write
from fae.core.host_memory import available_bytes
from fae.planning.stages.stage_costs import DiskRates

_FILE_BYTES = 256 * 2**20
_BLOCK_BYTES = 8 * 2**20


def measure_disk(folder: Path, *, num_bytes: int = _FILE_BYTES) -> DiskRates:
    """Write a file until it is on the disk, and read it from there.

    Half of the memory that is free is taken to keep files that are read again.

    Raises
    ------
    ArtifactError
        If the disk is full.
    """
    path, block = folder / "disk", os.urandom(_BLOCK_BYTES)
    number = max(1, num_bytes // _BLOCK_BYTES)
    try:
        started = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(number):
                file.write(block)
            os.fsync(file.fileno())
            written = number * len(block) / (time.perf_counter() - started)
            if hasattr(os, "posix_fadvise"):
                with contextlib.suppress(OSError):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            while file.read(_BLOCK_BYTES):
                pass
        read = number * len(block) / (time.perf_counter() - started)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return DiskRates(read=read, written=written, kept_bytes=available_bytes() / 2)
