"""Servers for the tests of remote logs: an S3-compatible store (moto), and one that fails as a test wants it to."""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

BUCKET = "clicks"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "an-access-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret-key",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
"""What a client needs beside the endpoint; nothing of the machine's own settings counts."""


@dataclass
class ObjectStore:
    """A running S3-compatible server with one bucket."""

    endpoint: str

    def put(self, key: str, content: bytes, *, bucket: str = BUCKET) -> str:
        """Write an object; returns its name as a recipe has it."""
        from pyarrow.fs import S3FileSystem

        host = self.endpoint.partition("://")[2]
        files = S3FileSystem(
            access_key="an-access-key", secret_key="a-secret-key", endpoint_override=host, scheme="http",
            region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip
        files.create_dir(bucket)
        with files.open_output_stream(f"{bucket}/{key}", compression=None) as stream:
            stream.write(content)
        return f"s3://{bucket}/{key}"

    @contextlib.contextmanager
    def checking_keys(self) -> Iterator[None]:
        """While the block runs only access keys of known users are let in: none of the tests'."""
        self._reset_auth(b"0")
        try:
            yield
        finally:
            self._reset_auth(b"inf")

    def _reset_auth(self, count: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", data=count, headers=headers)
        urllib.request.urlopen(request).close()


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run an S3-compatible server on the loopback."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    store = ObjectStore(f"http://{host}:{port}")
    try:
        yield store
    finally:
        server.stop()


@dataclass
class FaultyServer:
    """A web server with files, whose answers a test decides.

    Attributes
    ----------
    files
        Content by path, which begins with a slash.
    answer
        From the number of the request (from 0) to what happens to it: a status, ``"cut"`` (the body ends early),
        ``"whole"`` (ranges are not heard), or None, the right answer.
    requests
        Method, path and range of all requests.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    answer: Callable[[int], Any] = lambda number: None
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""


@contextlib.contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    """Run a `FaultyServer` on the loopback."""
    state = FaultyServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            number = len(state.requests)
            wanted = self.headers.get("Range", "")
            state.requests.append((self.command, self.path, wanted))
            content, fate = state.files.get(self.path.partition("?")[0]), state.answer(number)
            if isinstance(fate, int) or content is None:
                self._send(fate if isinstance(fate, int) else 404, b"")
                return
            headers = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "ETag": '"1"'}
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
            if found is None or fate == "whole":
                self._send(200, content, headers)
                return
            first = int(found[1])
            part = content[first : int(found[2] or len(content)) + 1]
            status = 206 if part else 416
            span = f"{first}-{first + len(part) - 1}" if part else "*"
            self._send(status, part, {**headers, "Content-Range": f"bytes {span}/{len(content)}"}, cut=fate == "cut")

        do_HEAD = do_GET

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), **state.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.close_connection = True

    class Server(socketserver.ThreadingMixIn, HTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.address = f"127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
