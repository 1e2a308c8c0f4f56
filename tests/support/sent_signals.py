"""Signals that each arrive: while one is pending, the system takes another of its number for the same."""

from __future__ import annotations

import os
import time
from pathlib import Path


def send_one_by_one(pid: int, number: int, times: int) -> None:
    """Send a process a signal that many times, the next one when this one has arrived or the process has ended."""
    for _ in range(times):
        os.kill(pid, number)
        end = time.monotonic() + 30
        while _is_pending(pid, number):
            assert time.monotonic() < end, f"signal {number} is pending for 30 s"
            time.sleep(0.005)


def _is_pending(pid: int, number: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return False
    fields = dict(line.split(":", 1) for line in lines)
    if fields["State"].strip().startswith("Z"):
        return False
    return any(int(fields[name], 16) >> (number - 1) & 1 for name in ("SigPnd", "ShdPnd"))
