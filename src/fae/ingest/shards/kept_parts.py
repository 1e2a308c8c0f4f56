"""The parts of an unfinished log: what was read of its shards, kept until all are joined."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fae.artifacts.checksums import file_checksum
from fae.core.progress import Task, task
from fae.core.threads import run_jobs
from fae.ingest.shards.shard_files import FACTS, read_part

_GONE = ".gone-"


def _take_away(path: Path) -> None:
    """Remove a folder in which a worker that still runs may write: there is nothing at its place from now on."""
    away = path.with_name(f"{_GONE}{path.name}")
    shutil.rmtree(away, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):  # its worker has removed it
        path.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def facts_checksum(path: Path) -> str:
    """Hex crc32 of the facts of a part; empty where there are none."""
    with contextlib.suppress(OSError):
        return file_checksum(path / FACTS)
    return ""


def _unlink_all(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


class KeptParts:
    """The folder of parts.

    Parameters
    ----------
    sources
        What identifies each raw file: parts of another file have other names.

    Attributes
    ----------
    folder
        The folder; it need not be there yet.
    """

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self.folder, self._sources = folder, sources
        self._removal: threading.Thread | None = None

    def path(self, source: int, key: str) -> Path:
        """Where the part of a raw file that `key` names appears."""
        return self.folder / f"{self._sources[source]}-{key}"

    @property
    def count(self) -> int:
        """Parts that are there."""
        if not self.folder.is_dir():
            return 0
        return sum(path.suffix != ".tmp" and not path.name.startswith(".") for path in self.folder.iterdir())

    def describe(self) -> str:
        """How many are read, for messages: ``2 parts of the log are read``."""
        return "1 part of the log is read" if self.count == 1 else f"{self.count:,} parts of the log are read"

    def drop_rows(self, parts: Sequence[tuple[Path, dict[str, Any]]], *, but: str) -> None:
        """Remove the rows of parts, `but` those of one kind: they are where they belong. `wait` waits for it."""
        names = [path / f"{name}.npy" for path, facts in parts for name in facts["rows"] if name != but]
        removal = threading.Thread(target=_unlink_all, args=(names,), name="fae-drop")
        removal.start()
        self._removal = removal

    def remove(self) -> None:
        """Remove all parts."""
        self.wait()
        if not self.folder.is_dir():
            return
        # Renamed first: a slow worker of another machine may still write there.
        away = self.folder.with_name(f"{self.folder.name}.old")
        self.folder.rename(away)
        run_jobs([partial(shutil.rmtree, path, ignore_errors=True) for path in away.iterdir()])
        shutil.rmtree(away, ignore_errors=True)

    def wait(self) -> None:
        """Wait until rows that are dropped are gone."""
        if self._removal is not None:
            self._removal.join()

    def with_ids(self, kept: Sequence[tuple[str, str]]) -> list[tuple[Path, dict[str, Any]]] | None:
        """Folder and facts of parts; None if the facts, ids or counts of one are not there, byte by byte.

        Parameters
        ----------
        kept
            Their names and what `facts_checksum` gave.
        """
        found: dict[str, dict[str, Any] | None] = {}

        def job(name: str, checksum: str) -> None:
            path = self.folder / name
            found[name] = read_part(path, checks="ids") if facts_checksum(path) == checksum else None

        run_jobs([partial(job, name, checksum) for name, checksum in kept])
        parts = [(self.folder / name, facts) for name, _ in kept if (facts := found[name]) is not None]
        return parts if len(parts) == len(kept) else None

    def check(self, say_damaged: Callable[[str, str], None]) -> None:
        """Remove what is no part of these files, or is not what was written, byte by byte.

        Parameters
        ----------
        say_damaged
            Is told the name of a damaged part, and what is done.
        """
        if not self.folder.is_dir():
            return

        def job(path: Path, progress: Task) -> Callable[[], None]:
            def work() -> None:
                if path.is_symlink() or not path.is_dir():
                    path.unlink(missing_ok=True)
                elif path.name.split("-")[0] not in self._sources or path.suffix == ".tmp":
                    _take_away(path)
                elif read_part(path, checks="all") is None:
                    say_damaged(path.name, "reading that part anew")
                    _take_away(path)
                progress.advance(1)

            return work

        # Claims first: workers that still run know by theirs that what they write is no longer wanted.
        for path in self.folder.glob(".*"):
            if path.is_dir() and not path.is_symlink():
                _take_away(path)
        paths = sorted(self.folder.iterdir())
        with task("ingest: checking what was read before", len(paths), "parts") as progress:
            run_jobs([job(path, progress) for path in paths])
