"""Start what reads a large log before anything is imported that takes time."""

from __future__ import annotations

import argparse
import contextlib
import glob
import importlib
import json
import os
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fae.core.compiling.hidden_packages import owns_this_process
from fae.engine.local import LocalEngine, is_much
from fae.ingest.formats import about_text_bytes, ready_module
from fae.ingest.raw_files.digests_ahead import begin_digests, end_digests

_LARGEST_RECIPE = 1 << 20
_INGEST_MODULE = "fae.ingest.ingest"


@contextlib.contextmanager
def engine_ahead(options: argparse.Namespace) -> Iterator[LocalEngine]:
    """The engine without options, made before anything is imported that takes time.

    Where a large log will be read, it begins to start processes now, which takes as long as the imports, and threads
    begin to name its files, and what reads it is imported beside what reads recipes: much of an import is waiting for
    the disk.
    """
    with LocalEngine() as engine:
        try:
            if not options.engine and not options.worker:
                log_format, paths, num_bytes = _log_to_read(options)
                if is_much(num_bytes):
                    engine.prepare(num_bytes, ready_module(log_format))
                    begin_digests(_unknown_to_neighbours(options, paths))
                    threading.Thread(target=_prepare_ingest, args=(log_format,), name="fae-import").start()
            yield engine
        finally:
            end_digests()


def _prepare_ingest(log_format: str) -> None:
    """Import ingest and load its loops: once processes read, loading waits for them, and what they read waits for it.

    A loop that is not kept is left to `fae.run.ahead.compile_helpers`.
    """
    with contextlib.suppress(Exception):  # who needs the module meets the same error
        importlib.import_module(_INGEST_MODULE)
        from fae.core.compiled import is_kept
        from fae.ingest.shards.reading_loops import look_for_pandas
        from fae.run.ahead.ingest_loops import ingest_loops

        look_for_pandas(find=not owns_this_process())
        for loop, types in ingest_loops(log_format):
            if is_kept(loop, types):
                loop.compile(types)


def _log_to_read(options: argparse.Namespace) -> tuple[str, list[Path], int]:
    """Format, files and bytes of text of the log of a recipe that has none yet, about: faults are named later."""
    with contextlib.suppress(Exception):
        path = Path(options.recipe)
        # A pipe would be waited for, and a log that was named in the place of a recipe would be read whole.
        if path.is_file() and path.stat().st_size < _LARGEST_RECIPE and not (_run_folder(options) / "log").exists():
            log = tomllib.loads(path.read_text())["log"]
            names = [name for role in ("train", "validation", "test") for name in _names(log.get(role))]
            paths = [
                Path(each) for name in names for each in glob.glob(str(path.parent / name)) if Path(each).is_file()
            ]
            log_format = str(log.get("format", "csv"))
            return log_format, paths, about_text_bytes(log_format, sum(each.stat().st_size for each in paths))
    return "", [], 0


def _run_folder(options: argparse.Namespace) -> Path:
    return Path(options.out) if options.out else Path("runs") / Path(options.recipe).stem


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _unknown_to_neighbours(options: argparse.Namespace, paths: list[Path]) -> list[Path]:
    """The files that no run in a folder beside this one has named: they are read, and the others perhaps not."""
    with contextlib.suppress(OSError, ValueError):
        sidecars = _run_folder(options).parent.glob("*/log.sources.json")
        known = "".join(path.read_text() for path in sidecars if path.is_file())
        return [path for path in paths if json.dumps(os.path.realpath(path)) not in known]
    return []
