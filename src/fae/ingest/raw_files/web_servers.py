"""Read files of web servers by ranges, through the proxies that the environment names."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any

from fae.ingest.raw_files.missing_files import RemoteFileError
from fae.ingest.raw_files.remote_entries import RemoteEntry
from fae.ingest.raw_files.remote_faults import explain_remote_fault, explain_remote_text
from fae.ingest.raw_files.remote_name import RemoteName

_TIMEOUT_SECONDS = 20.0


class WebStore:
    """Web servers that serve ranges of their files."""

    def status_of(self, path: RemoteName) -> RemoteEntry | None:
        """See `Store`."""
        try:
            ranges = self.open(path)
        except RemoteFileError as fault:
            if fault.is_absent:
                return None
            raise
        return RemoteEntry(
            place=path.place, is_folder=False, num_bytes=ranges.num_bytes, mtime_ns=ranges.mtime_ns
        )  # fmt: skip

    def entries(self, folder: RemoteName, *, recursive: bool) -> list[RemoteEntry]:
        """A server lists no files."""
        del folder, recursive
        return []

    def open(self, path: RemoteName) -> _WebRanges:
        """See `Store`."""
        return _WebRanges(path)


class _WebRanges:
    def __init__(self, path: RemoteName) -> None:
        self._path = path
        self.num_bytes, self.mtime_ns = -1, -1
        # One byte, because many servers and all signed addresses refuse a look without content.
        self.read(0, 1)

    def read(self, first: int, stop: int) -> bytes:
        try:
            with self._request(first, stop) as answer:
                self._check(answer)
                return bytes(answer.read(stop - first))
        except Exception as error:
            raise explain_web_fault(self._path, error) from error

    def _request(self, first: int, stop: int) -> Any:
        headers = {"Range": f"bytes={first}-{stop - 1}", "Accept-Encoding": "identity"}
        request = urllib.request.Request(self._path.uri, headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # there is no such range in an empty file
                return error
            raise

    def _check(self, answer: Any) -> None:
        """Take note of the size of the file, which must stay."""
        total = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
        if answer.status not in (206, 416) or not total.isdecimal():
            raise RemoteFileError(
                f"{self._path}: its server sends whole files only, and a log is read by ranges; download it and name "
                "the copy"
            )
        if self.num_bytes not in (-1, int(total)):
            raise RemoteFileError(f"{self._path} changed while it was read; run the command again once it is complete")
        self.num_bytes, self.mtime_ns = int(total), _changed(answer.headers.get("Last-Modified"))

    def close(self) -> None:
        pass


def _changed(text: str | None) -> int:
    try:
        return int(parsedate_to_datetime(text or "").timestamp()) * 10**9
    except ValueError:
        return -1


def explain_web_fault(path: RemoteName, error: Exception) -> RemoteFileError:
    """What an error of a request says, in one line with advice."""
    if isinstance(error, urllib.error.HTTPError):
        return explain_remote_text(path, f"HTTP status {error.code}")
    if isinstance(error, http.client.InvalidURL):
        return RemoteFileError(f"{path} is no web address; write spaces and the like as %20")
    if isinstance(error, http.client.HTTPException):
        return explain_remote_fault(path, ConnectionResetError())
    if isinstance(error, urllib.error.URLError):
        reason = error.reason
        if isinstance(reason, ssl.SSLError):
            return RemoteFileError(f"{path}: its server cannot be trusted ({reason.reason}); check the address")
        if isinstance(reason, (ConnectionError, TimeoutError)):
            return explain_remote_fault(path, reason)
        return explain_remote_text(path, f"Could not resolve host: {reason}")
    return explain_remote_fault(path, error)
