"""A process that keeps freed memory asks the system for little of what its next arrays take."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from fae.core.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def arrays():
    del [np.ones(3 << 20, np.uint8) for _ in range(30)][:]
arrays()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
arrays()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is about glibc")
def test_freed_memory_is_kept() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 100 < faults("give back") / 10
