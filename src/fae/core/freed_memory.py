"""Let a process keep the memory that its arrays free, for the arrays that come next."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # as <malloc.h> names them
_KEPT_BYTES = 256 * 2**20
_AT_ONCE_BYTES = 4 * 2**20
_MOST_FROM_HEAP = 32 * 2**20  # glibc takes no more


def keep_freed_memory() -> None:
    """Keep up to 256 MiB of freed memory, and have arrays of up to 32 MiB use it; for glibc, elsewhere nothing is done.

    Otherwise glibc returns the memory of large arrays to the system and asks for it again for the next ones, page by
    page: two page faults in three of a process that reads a log are this. For processes of one thread: glibc keeps the
    memory of each thread apart.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _MOST_FROM_HEAP)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_TOP_PAD, _AT_ONCE_BYTES)
