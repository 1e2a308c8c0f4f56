"""How much host memory could be had."""

from __future__ import annotations


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
