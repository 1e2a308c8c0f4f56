"""The exported server: scores over HTTP as `fae predict` gives them, clear refusals, a clean end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export_cases import CASES
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.serve import ScoreServer
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
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs_are_refused_in_one_line(url: str, name: str) -> None:
    body, expected = BAD[name]
    status, answer = post(url, body)
    assert status == 400
    assert expected in answer["error"]
    assert "\n" not in answer["error"]


def test_other_paths_methods_and_sizes_are_refused(url: str) -> None:
    assert post(url, GOOD, "/other")[0] == 404
    assert post(url, b" " * 300_000)[0] == 413
    with pytest.raises(urllib.error.HTTPError, match="405"):
        get(url, "/score")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(url, "/")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(folder: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-I", str(folder / "served" / "serve.py"), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.:]+", process.stdout.readline())
        assert found is not None
        assert post(found[0], GOOD)[0] == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()
