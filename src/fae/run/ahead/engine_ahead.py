"""Start what reads a large log before anything is imported that takes time."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import tomllib
from pathlib import Path

from fae.engine.local import LocalEngine
from fae.ingest.formats import about_text_bytes, ready_module

_LARGEST_RECIPE = 1 << 20


def engine_ahead(options: argparse.Namespace) -> LocalEngine:
    """The engine without options, made before anything is imported that takes time.

    Where a large log will be read, it begins to start processes now: that takes as long as the imports.
    """
    engine = LocalEngine()
    if not options.engine and not options.worker:
        log_format, num_bytes = _log_to_read(options)
        if num_bytes:
            engine.prepare(about_text_bytes(log_format, num_bytes), ready_module(log_format))
    return engine


def _log_to_read(options: argparse.Namespace) -> tuple[str, int]:
    """Format and bytes of the log of a recipe that has none yet, about: what is wrong with it is said later."""
    with contextlib.suppress(Exception):
        path = Path(options.recipe)
        out = Path(options.out) if options.out else Path("runs") / path.stem
        # A pipe would be waited for, and a log that was named in the place of a recipe would be read whole.
        if path.is_file() and path.stat().st_size < _LARGEST_RECIPE and not (out / "log").exists():
            log = tomllib.loads(path.read_text())["log"]
            names = [log["train"]] if isinstance(log["train"], str) else log["train"]
            found = [glob.glob(str(path.parent / name)) for name in names]
            return str(log.get("format", "csv")), sum(os.stat(name).st_size for each in found for name in each)
    return "", 0
