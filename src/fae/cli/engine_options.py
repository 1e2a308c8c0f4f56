"""Options that say where the tasks of the data stages run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fae.engine.engine import Engine
    from fae.engine.local import LocalEngine


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine`` and ``--worker``, in a group that says what they mean."""
    group = parser.add_argument_group(
        "where the work is done",
        "The result is the same to the byte, whatever does the work. On several machines: a Dask cluster, or the same "
        "command on each with --worker 1/N to --worker N/N and a DIR that all of them see; who is killed or late is "
        "helped by the others. See docs/guide/engines.md.",
    )
    group.add_argument(
        "--engine", metavar="ENGINE",
        help="threads:N or processes:N of this machine, or dask://host:8786, a cluster whose workers see DIR "
        "(default: one thread a core, or one process where 1 GiB or more is read on four cores or more)",
    )  # fmt: skip
    group.add_argument(
        "--worker", metavar="i/N",
        help="this is worker i of N machines that share DIR, each of which runs this command, e.g. --worker "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT; worker 1 writes what only one may write",
    )  # fmt: skip


def engine_of(options: argparse.Namespace, folder: Path, local: LocalEngine | None = None) -> Engine:
    """Open the engine that the options name, for the run in a folder; use it as a context manager.

    Parameters
    ----------
    local
        What is returned where they name none; None opens it.

    Raises
    ------
    RecipeError
        If they name none.
    EngineError
        If it cannot be used.
    """
    from fae.engine.choose import open_engine

    if local is not None and not options.engine and not options.worker:
        return local
    return open_engine(options.engine, options.worker, folder)
