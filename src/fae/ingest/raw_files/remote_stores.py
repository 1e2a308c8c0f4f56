"""Find the store that a remote file is in, and reach object stores and Hadoop through pyarrow.

What goes wrong while a file is read is raised as it comes, and told by `fae.ingest.raw_files.remote_faults`.
Credentials are found as each store's own tools find them: environment, profile, role of the machine.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlencode

from fae.ingest.raw_files.remote_entries import Ranges, RemoteEntry, Store
from fae.ingest.raw_files.remote_faults import explain_remote_fault, unknown_setting
from fae.ingest.raw_files.remote_name import RemoteName

_SETTINGS = {
    "s3": ("region", "endpoint_override", "scheme", "anonymous"),
    "gs": ("endpoint_override", "scheme", "anonymous"),
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_RETRY_SECONDS = 20
"""How long a request to Google's store is tried; its library's own limit is a quarter of an hour."""
_TIMEOUT_SECONDS, _TRIES = 10.0, 3
"""How long one to S3 may be silent, and how often it is tried."""


_stores: dict[Any, Store] = {}


def store_of(path: RemoteName) -> Store:
    """The store that a path is in; one for all paths with its settings and the same environment.

    Raises
    ------
    LogError
        If this build of pyarrow does not have it, or its settings are not right.
    """
    seen = frozenset(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_", "HADOOP_")))
    key = path.scheme, path.root, path.query, seen
    if key not in _stores:
        if path.is_web:
            from fae.ingest.raw_files.web_servers import WebStore  # it takes a while to import

            _stores[key] = WebStore()
        else:
            _stores[key] = ArrowStore(path)
    return _stores[key]


# A forked process has the connections of a store and none of the threads that serve them.
os.register_at_fork(after_in_child=_stores.clear)


class ArrowStore:
    """A store that pyarrow knows."""

    def __init__(self, path: RemoteName) -> None:
        _check_settings(path)
        try:
            self._files = _connect(path)
            self._is_rooted, self._root = path.scheme == "hdfs", path.root
        except Exception as error:
            raise explain_remote_fault(path, error) from error

    def status_of(self, path: RemoteName) -> RemoteEntry | None:
        """See `Store`."""
        from pyarrow.fs import FileType

        try:
            found = self._files.get_file_info(self._name(path))
        except Exception as error:
            raise explain_remote_fault(path, error) from error
        return None if found.type == FileType.NotFound else self._entry(found)

    def entries(self, folder: RemoteName, *, recursive: bool) -> list[RemoteEntry]:
        """See `Store`."""
        from pyarrow.fs import FileSelector

        try:
            found = self._files.get_file_info(
                FileSelector(self._name(folder), recursive=recursive, allow_not_found=True)
            )
        except Exception as error:
            raise explain_remote_fault(folder, error) from error
        return [self._entry(each) for each in found]

    def open(self, path: RemoteName) -> Ranges:
        """See `Store`."""
        return _ArrowRanges(self._files.open_input_file(self._name(path)))

    def _name(self, path: RemoteName) -> str:
        """What pyarrow calls it: of a cluster, the path behind the server."""
        return f"/{path.key}" if self._is_rooted else path.place

    def _entry(self, info: Any) -> RemoteEntry:
        from pyarrow.fs import FileType

        is_folder, mtime, place = info.type == FileType.Directory, info.mtime_ns, info.path
        if self._is_rooted:
            place = f"{self._root}/{place.partition('://')[2].partition('/')[2] or place.lstrip('/')}"
        return RemoteEntry(
            place=place, is_folder=is_folder, num_bytes=0 if is_folder else int(info.size),
            mtime_ns=-1 if mtime is None else int(mtime),
        )  # fmt: skip


class _ArrowRanges:
    def __init__(self, file: Any) -> None:
        self._file, self.num_bytes = file, int(file.size())

    def read(self, first: int, stop: int) -> bytes:
        return bytes(self._file.read_at(stop - first, first))

    def close(self) -> None:
        self._file.close()


def _check_settings(path: RemoteName) -> None:
    known = _SETTINGS.get(path.scheme)
    for name in path.settings:
        if known is not None and name not in known:
            raise unknown_setting(path, name, known)


def _connect(path: RemoteName) -> Any:
    import pyarrow.fs

    settings = path.settings
    is_anonymous = settings.pop("anonymous", "") in ("true", "1")
    if path.scheme == "s3":
        return _connect_s3(path, settings, is_anonymous)
    user = "anonymous@" if is_anonymous else ""
    if path.scheme == "gs":
        settings["retry_limit_seconds"] = str(_RETRY_SECONDS)
    query = f"?{urlencode(settings)}" if settings else ""
    return pyarrow.fs.FileSystem.from_uri(f"{path.scheme}://{user}{path.root}/{query}")[0]


def _connect_s3(path: RemoteName, settings: dict[str, str], is_anonymous: bool) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    endpoint = settings.get("endpoint_override") or next(filter(None, map(os.environ.get, _ENDPOINTS)), None)
    region, scheme = settings.get("region"), settings.get("scheme")
    if endpoint and "://" in endpoint:
        named, _, endpoint = endpoint.partition("://")
        scheme = scheme or named
    if endpoint is None and region is None:
        region = resolve_s3_region(path.root)
    return S3FileSystem(
        region=region, endpoint_override=endpoint.rstrip("/") if endpoint else None, scheme=scheme or "https",
        anonymous=is_anonymous, connect_timeout=_TIMEOUT_SECONDS, request_timeout=_TIMEOUT_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )  # fmt: skip
