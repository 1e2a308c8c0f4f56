"""Every Python process that a campaign of kills starts: its tasks take a while, and an earlier fault is put back.

Python imports this by its name where the folder is on its path. Nothing is imported before the process does so itself.
"""

from __future__ import annotations

import faulthandler
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

_WATCHED = "fae.ingest.shards.shard_reading"


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the usual import of one module be followed by a change of it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            import worker_kill_faults

            worker_kill_faults.change_process()

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


if "FAE_CAMPAIGN_PAUSE" in os.environ:
    faulthandler.register(signal.SIGUSR1)  # a process that does not end says where it is
    sys.meta_path.insert(0, _Finder())
