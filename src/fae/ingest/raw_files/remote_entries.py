"""What every store of remote files can do: say what is under a name, list a folder, read ranges of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fae.ingest.raw_files.remote_name import RemoteName


@dataclass(frozen=True, kw_only=True)
class RemoteEntry:
    """A file or a folder of a store.

    Attributes
    ----------
    place
        Bucket and key, or server and path.
    mtime_ns
        Time of the last change; -1 where the store does not say.
    """

    place: str
    is_folder: bool
    num_bytes: int
    mtime_ns: int


class Ranges(Protocol):
    """An open remote file."""

    num_bytes: int

    def read(self, first: int, stop: int) -> bytes:
        """The bytes ``[first, stop)``, or fewer where the answer was cut off."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Store(Protocol):
    """An object store, a cluster or a server."""

    def status_of(self, path: RemoteName) -> RemoteEntry | None:
        """What is at a path; None where nothing is."""
        ...

    def entries(self, folder: RemoteName, *, recursive: bool) -> list[RemoteEntry]:
        """What is in a folder; nothing where there is none."""
        ...

    def open(self, path: RemoteName) -> Ranges:
        """Open a file."""
        ...
