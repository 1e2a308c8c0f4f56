"""Open the engine that ``--engine`` and ``--worker`` name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from fae.core.config import nearest
from fae.core.errors import RecipeError
from fae.core.printable import brief
from fae.engine.engine import Engine
from fae.engine.executor import ExecutorEngine
from fae.engine.presence import STALE_SECONDS

if TYPE_CHECKING:
    from fae.engine.local import LocalEngine

_KINDS = ("threads", "processes", "dask")
_MOST_WORKERS = 10_000
_DASK_PORT = 8786


def open_engine(
    text: str | None = None,
    worker: str | None = None,
    folder: Path | None = None,
    *,
    stale_seconds: float = STALE_SECONDS,
) -> Engine:
    """Open an engine; use it as a context manager.

    Parameters
    ----------
    text
        ``threads``, ``threads:8``, ``processes``, ``processes:8`` or ``dask://host:8786``; None is
        `fae.engine.local.LocalEngine`, which chooses.
    worker
        ``2/8`` for the second of eight that share `folder`, None for one process alone.
    folder
        The folder of the run; Dask and shared folders need it.
    stale_seconds
        As for `fae.engine.shared_folder.SharedFolderEngine`.

    Raises
    ------
    RecipeError
        If `text` or `worker` names nothing that there is.
    EngineError
        If the cluster or the folder cannot be used.
    """
    place = parse_worker(worker) if worker is not None else None
    kind, detail = parse_engine(text) if text else ("", None)
    if kind == "dask":
        if place is not None:
            raise RecipeError(
                f"--engine {text} and --worker {worker} exclude each other: a Dask cluster has its own workers; "
                "give one of them"
            )
        from fae.engine.dask_cluster import DaskEngine

        return DaskEngine(str(detail), _needed(folder))
    local = _local(kind, detail if isinstance(detail, int) else None)
    if place is None:
        return local
    from fae.engine.shared_folder import SharedFolderEngine

    return SharedFolderEngine(local, _needed(folder), *place, stale_seconds=stale_seconds)


def parse_engine(text: str) -> tuple[str, int | str | None]:
    """The kind of an engine, and its number of workers or its address.

    >>> parse_engine("threads"), parse_engine("processes:4"), parse_engine("dask://node1")
    (('threads', None), ('processes', 4), ('dask', 'node1:8786'))

    Raises
    ------
    RecipeError
        If there is no such engine.
    """
    if text.startswith("dask:"):
        found = re.fullmatch(r"dask://([\w.-]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?/?", text)
        if found is None:
            raise RecipeError(f"--engine {brief(text)} has no address; write it like dask://host:{_DASK_PORT}")
        return "dask", f"{found[1]}:{found[2] or _DASK_PORT}"
    kind, colon, number = text.partition(":")
    if kind not in _KINDS[:2]:
        raise RecipeError(
            f"--engine is {brief(text)}, expected threads[:N], processes[:N] or dask://host:{_DASK_PORT}; "
            f"{nearest(kind, _KINDS)}"
        )
    if colon and not (number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= _MOST_WORKERS):
        raise RecipeError(
            f"--engine is {brief(text)}, expected a number of workers from 1 to {_MOST_WORKERS:,}, as in {kind}:8"
        )
    return kind, int(number) if colon else None


def parse_worker(text: str) -> tuple[int, int]:
    """Number of a worker, from 1, and number of workers.

    >>> parse_worker("2/8")
    (2, 8)

    Raises
    ------
    RecipeError
        If it is nothing of the kind.
    """
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= _MOST_WORKERS:
        raise RecipeError(
            f"--worker is {brief(text)}, expected i/N with i from 1 to N, as in 2/8 for the second of eight workers"
        )
    return int(found[1]), int(found[2])


def _local(kind: str, number: int | None) -> ExecutorEngine | LocalEngine:
    from fae.engine.local import LocalEngine, ProcessesEngine, ThreadsEngine

    if not kind:
        return LocalEngine()
    return ProcessesEngine(number) if kind == "processes" else ThreadsEngine(number)


def _needed(folder: Path | None) -> Path:
    if folder is None:
        raise TypeError("this engine needs the folder of the run")
    return folder
