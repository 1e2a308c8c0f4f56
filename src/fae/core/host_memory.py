"""Host memory: how much could be had, and keeping what was freed.

Place in the flow: whoever trains on a CPU or measures it (`fae.training.trainer`, `fae.bench`, ``benchmarks/``) calls
`keep_freed_memory` before its first step. Invariant: nothing here raises or changes a result.
"""

from __future__ import annotations

import ctypes
import sys

# Of mallopt, in glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 2**20


def available_bytes() -> int:
    """Host memory that could be had without swapping, by the kernel's estimate; 0 where it makes none."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def keep_freed_memory() -> bool:
    """From here on, memory that this process frees serves its next allocations instead of going back to the kernel.

    glibc maps every block of more than 32 MiB anew and unmaps it when it is freed. A training step on a CPU makes and
    frees dozens of such activations, and the kernel clears every page of them, every step (docs/journal.md). Memory is
    then the most that was in use at once and what holes between blocks cost, for the rest of the process.

    Returns
    -------
    bool
        Whether it could be done: False, and nothing changed, where the allocator is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it: others' mallopt means something else, or nothing
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    done = True
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES)):
        done = mallopt(ctypes.c_int(option), ctypes.c_int(value)) == 1 and done
    return bool(done)
