"""The exported server: scores over HTTP as `fae predict` gives them, clear refusals, a clean end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from export_cases import CASES
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.serve import ScoreServer
from fae.exporting.standalone.serve import _main as main
from fae.run.predictions import predict


@pytest.fixture(scope="module")
def folder(exported: Callable[[str], Path]) -> Path:
    """The case wide_deep, whose log has an object a line."""
    return exported("wide_deep")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Address of a server of it, in this process."""
    server = ScoreServer(("127.0.0.1", 0), ExportedModel(folder / "served"), most_bytes=200_000)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def post(url: str, body: Any, path: str = "/score") -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data=data), timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def get(url: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(url + path, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def inputs_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("odd", [False, True])
def test_http_gives_the_scores_of_predict(folder: Path, url: str, odd: bool) -> None:
    case = CASES["wide_deep"]
    path = case.odd_file(folder) if odd else folder / case.file
    status, answer = post(url, {"inputs": inputs_of(path)})
    assert status == 200, answer
    assert np.abs(np.array(answer["scores"]) - predict(folder / "run", [path])["scores"]).max() < 1e-6


def test_one_input_a_list_and_many_requests_at_once(folder: Path, url: str) -> None:
    inputs = inputs_of(folder / CASES["wide_deep"].file)
    _, whole = post(url, inputs)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: post(url, each), inputs[:40]))
    assert [answer["scores"][0] for _, answer in answers] == pytest.approx(whole["scores"][:40], abs=1e-6)
    assert post(url, []) == (200, {"scores": []})


def test_health_and_schema(folder: Path, url: str) -> None:
    assert get(url, "/health") | {"checkpoint": "", "log": ""} == {
        "status": "ok", "run": "run", "checkpoint": "", "log": "",
    }  # fmt: skip
    assert get(url, "/schema") == json.loads((folder / "served" / "schema.json").read_text())


GOOD: dict[str, Any] = {"item": 1, "is_new": True, "at": 1_700_000_000, "tags": ["t1"], "price": 1.0, "age": 2}
BAD: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "not JSON"),
    "a number": (7, "one JSON object an input"),
    "numbers": ([1, 2], "one JSON object an input"),
    "a column that is left out": ({"item": 1}, "has no 'price'"),
    "an object for text": ({**GOOD, "item": {"a": 1}}, "'item'"),
    "a fraction for an id": ({**GOOD, "item": 1.5}, "expected text or a whole number"),
    "a word for a number": ({**GOOD, "price": "cheap"}, "'price'"),
    "no finite number": ([GOOD, {**GOOD, "price": float("nan")}], "in input 2"),
    "no time": ({**GOOD, "at": "yesterday"}, "expected a time"),
    "a list in a list": ({**GOOD, "tags": [["t1"]]}, "'tags'"),
    "half a character": ({**GOOD, "item": "\ud800"}, "'item'"),
    "a deep list": (b"[" * 100_000, "not JSON"),
    "a number without an end": (b"[" + b"1" * 5000 + b"]", "not JSON"),
    "no inputs": ({"inputs": None}, "has no 'price'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs_are_refused_in_one_line(url: str, name: str) -> None:
    body, expected = BAD[name]
    status, answer = post(url, body)
    assert status == 400
    assert expected in answer["error"]
    assert "\n" not in answer["error"]


def answer_of(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


def test_whatever_comes_the_answer_is_json(url: str) -> None:
    assert answer_of(url, "GET", "/health?from=probe")[0] == 200
    assert answer_of(url, "HEAD", "/health") == (200, None)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert answer_of(url, method, "/score", b"{}")[0] == 405
    status, answer = answer_of(url, "BREW", "/score")
    assert (status, list(answer)) == (501, ["error"])
    assert answer_of(url, "POST", "/score", **{"Content-Length": "9" * 5000})[0] == 413
    assert answer_of(url, "POST", "/score", **{"Content-Length": "-1"})[0] == 411
    assert answer_of(url, "POST", "/score", iter([b"{}"]), **{"Transfer-Encoding": "chunked"})[0] == 411
    assert answer_of(url, "POST", "/score", b" " * 30_000_000)[0] == 413  # it is answered, not reset


def test_a_client_that_leaves_is_no_fault(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    for body in (b"", b"{"):
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
            connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + body)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    assert get(url, "/health")["status"] == "ok"
    assert "Traceback" not in capfd.readouterr().err


def test_other_paths_methods_and_sizes_are_refused(url: str) -> None:
    assert post(url, GOOD, "/other")[0] == 404
    assert post(url, b" " * 300_000)[0] == 413
    with pytest.raises(urllib.error.HTTPError, match="405"):
        get(url, "/score")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(url, "/")


def test_an_interrupt_ends_it_cleanly(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[threading.Timer] = []
    serve = socketserver.BaseServer.serve_forever

    def serving(self: socketserver.BaseServer, **options: Any) -> None:
        # Not before it serves: an interrupt while it loads would end the tests.
        timers.append(threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)))
        timers[0].start()
        serve(self, **options)

    monkeypatch.setattr(socketserver.BaseServer, "serve_forever", serving)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # What a shell runs in the background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["--port", "0", "--folder", str(folder / "served")]) == 0
    finally:
        for timer in timers:
            timer.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "scores of run at http://127.0.0.1:" in capsys.readouterr().out


def test_a_port_in_use_and_a_damaged_folder_are_one_line(
    folder: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(urlsplit(url).port)
    assert main(["--port", port, "--folder", str(folder / "served")]) == 2
    assert main(["--port", "70000", "--folder", str(folder / "served")]) == 2
    assert main(["--folder", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("serve.py: ") for line in errors] == [True] * 3
    assert port in errors[0]


def test_a_signal_ends_the_process_cleanly(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-I", str(folder / "served" / "serve.py"), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.:]+", process.stdout.readline())
        assert found is not None
        assert post(found[0], GOOD)[0] == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()
