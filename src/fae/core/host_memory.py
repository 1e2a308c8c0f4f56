"""How much host memory is available, and how to keep freed memory for reuse.

Programs that train on a CPU or measure it call `keep_freed_memory` before their first step. Nothing here raises or
changes a result.
"""

from __future__ import annotations

import ctypes
import resource
import sys

# Options of mallopt, from glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 2**20


def available_bytes() -> int:
    """Bytes of host memory that this process may still take without swapping; 0 where the system does not say.

    The least of the kernel's estimate for the machine, what its control group (a container) leaves, and what a limit on
    its addresses (``ulimit -v``) leaves.
    """
    found = [size for size in (_machine_bytes(), _group_bytes(), _address_bytes()) if size is not None]
    return max(1, min(found)) if found else 0


def _machine_bytes() -> int | None:
    lines = _lines("/proc/meminfo")
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _group_bytes() -> int | None:
    """What the control group leaves; its page cache is given back when memory is needed."""
    for folder, limit, used, cache in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, taken = _lines(f"{folder}/{limit}"), _lines(f"{folder}/{used}")
        if most and taken and most[0].strip().isdigit():
            facts = dict(line.split(maxsplit=1) for line in _lines(f"{folder}/memory.stat") if " " in line)
            return int(most[0]) - int(taken[0]) + int(facts.get(cache, 0))
    return None


def _address_bytes() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = _lines("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not taken:
        return None
    return limit - int(taken[0].split()[0]) * resource.getpagesize()


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.readlines()
    except OSError:
        return []


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
