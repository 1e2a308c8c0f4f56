"""Answer HTTP with an exported model: torch, safetensors, pyarrow and the standard library are all it needs.

    python serve.py --port 8080

    curl localhost:8080/score -d '{"inputs": [{"user": "u1", "item": 7, "price": 2.5}]}'
    {"scores": [0.1234]}

GET /health says which model answers, GET /schema what an input is. Rows stay in their files, which are memory-mapped:
a table takes memory only where it is looked up. SIGTERM and SIGINT end it: requests that are being answered are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: python -I leaves its folder out of the path
    sys.dont_write_bytecode = True  # the folder stays as it is
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # torch works without it, and says so

import torch

from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.scoring.input_objects import columns_of_objects, wanted_names
from fae.exporting.standalone.scoring.input_text import InputError

_MOST_BYTES = 64 * 2**20
_PATIENCE_SECONDS = 10.0
"""How long an idle connection is kept, and how long requests in work are waited for at the end."""

_LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read."""


def score_request(model: ExportedModel, body: bytes) -> list[float]:
    """Scores of the inputs of a request: ``{"inputs": [{...}, ...]}``, a list of objects, or one object.

    Raises
    ------
    InputError
        If the body is something else, an input lacks a column, or a value is none that its column can hold.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("inputs"), list):
        found = found["inputs"]
    objects = [found] if isinstance(found, dict) else found
    if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
        raise InputError('expected {"inputs": [{...}, ...]}, one JSON object an input')
    if not objects:
        return []
    names = wanted_names(model.schema)
    for row, each in enumerate(objects, 1):
        for name in names:
            if name not in each:
                raise InputError(f"input {row} has no {name!r}; null says that a value is missing")
    scores: list[float] = model.score(columns_of_objects(objects, model.schema)).tolist()
    return scores


class ScoreServer(ThreadingHTTPServer):
    """Answers with one model; counts the requests in work, so that the end can wait for them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], model: ExportedModel, *, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__(address, _Handler)
        self.model, self.most_bytes = model, most_bytes
        self.idle = threading.Condition()
        self.in_work = 0

    def wait_idle(self) -> None:
        """Wait until no request is in work, some seconds at most."""
        with self.idle:
            self.idle.wait_for(lambda: not self.in_work, _PATIENCE_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    server: ScoreServer
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE_SECONDS

    def do_GET(self) -> None:
        """``/health`` and ``/schema``."""
        try:
            self._get()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_GET

    def _get(self) -> None:
        manifest = self.server.model.manifest
        self._cut_query()
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # its body is not read
        if self.path == "/health":
            self._answer(HTTPStatus.OK, {"status": "ok", "run": manifest["run"], **manifest["fingerprints"]})
        elif self.path == "/schema":
            self._answer(HTTPStatus.OK, self.server.model.schema)
        elif self.path == "/score":
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "POST the inputs to /score")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}; there are POST /score, GET /health, /schema")

    def do_POST(self) -> None:
        """``/score``."""
        with self.server.idle:
            self.server.in_work += 1
        try:
            self._post()
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            with self.server.idle:
                self.server.in_work -= 1
                self.server.idle.notify_all()

    def _post(self) -> None:
        length = self.headers.get("Content-Length", "")
        self._cut_query()
        if self.path != "/score":
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}; POST the inputs to /score")
        elif not length.isascii() or not length.isdigit():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "give the body's length in Content-Length")
        elif len(length) > 18 or int(length) > self.server.most_bytes:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {length[:20]} bytes, at most {self.server.most_bytes}; send fewer inputs at once",
            )
        else:
            try:
                self._answer(HTTPStatus.OK, {"scores": score_request(self.server.model, self.rfile.read(int(length)))})
            except InputError as error:
                self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                self.log_error("%s: %s", type(error).__name__, error)
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answer with an error, and close. What is left of the body is read for a moment and dropped: a client that is
        still sending would see a reset connection, and not the answer."""
        self.close_connection = True
        self._answer(status, {"error": reason})
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_SECONDS)
            until = time.monotonic() + _LINGER_SECONDS
            while time.monotonic() < until and self.connection.recv(1 << 16):
                pass

    def _cut_query(self) -> None:
        self.path = self.path.partition("?")[0]

    def _other_method(self) -> None:
        self._refuse(
            HTTPStatus.METHOD_NOT_ALLOWED, f"there is no {self.command}; there are POST /score, GET /health, /schema"
        )

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _other_method

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses before a method is called, as JSON too."""
        del explain
        status = HTTPStatus(code)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self._refuse(status, message or status.phrase)

    def _answer(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST" if self.path == "/score" else "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of a request that was answered."""


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (0.0.0.0: every network)")
    parser.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch for one request")
    parser.add_argument("--most-bytes", type=int, default=_MOST_BYTES, help="largest body of a request")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent, help="the exported folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(max(options.threads, 1))
    try:
        server = ScoreServer((options.host, options.port), ExportedModel(options.folder), most_bytes=options.most_bytes)
    except InputError as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 2
    except (OSError, OverflowError) as error:
        print(f"serve.py: cannot listen at {options.host} port {options.port}: {error}", file=sys.stderr)
        return 2

    def stop(number: int, frame: Any) -> None:
        # Not in this thread, which is inside serve_forever.
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    print(f"scores of {server.model.manifest['run']} at http://{options.host}:{server.server_port}/score", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    server.wait_idle()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
