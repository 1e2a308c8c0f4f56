"""How much host memory is available, and how to keep freed memory for reuse.

Programs that train on a CPU or measure it call `keep_freed_memory` before their first step. Nothing here raises or
changes a result.
"""

from __future__ import annotations

import ctypes
import sys

# Options of mallopt, from glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 2**20


def available_bytes() -> int:
    """Bytes of host memory available without swapping, by the kernel's estimate; 0 where it gives none."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def keep_freed_memory() -> bool:
    """Make this process reuse the memory it frees instead of returning it to the kernel.

    By default glibc maps every block of more than 32 MiB anew and unmaps it when it is freed. A training step on a CPU
    allocates and frees dozens of such activations, and the kernel clears all their pages, every step (docs/journal/).
    The price: for the rest of the process its memory stays at the largest amount in use at once, plus fragmentation.

    Returns
    -------
    bool
        True if it was done; False, with nothing changed, if the allocator is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it; mallopt of others means something else
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    done = True
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES)):
        done = mallopt(ctypes.c_int(option), ctypes.c_int(value)) == 1 and done
    return bool(done)
