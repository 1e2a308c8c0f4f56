"""Checking every input of a log by ranges: the same errors as in one go, and none where there is nothing wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts import checksums, log_contents
from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.log_contents import check_inputs
from fae.core.errors import ArtifactError

from logs import make_log, zipf_log


@pytest.fixture
def log(tmp_path: Path) -> ColumnarLog:
    return zipf_log(tmp_path, num_inputs=600, num_validation=30, num_test=50)


@pytest.fixture(params=[(1, 2**24), (3, 900), (8, 1)])
def small_ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, range_bytes = request.param
    monkeypatch.setenv("FAE_NUM_THREADS", str(threads))
    monkeypatch.setattr(log_contents, "_RANGE_BYTES", range_bytes)
    monkeypatch.setattr(log_contents, "_STEP_BYTES", 300)
    # Nothing is known of any file.
    monkeypatch.setattr(log_contents, "_checked", set())
    monkeypatch.setattr(checksums, "_verified", set())
    monkeypatch.setattr(log_contents, "is_verified", lambda path, checksum: False)


def change(log: ColumnarLog, name: str, place: int, value: bytes) -> None:
    """Change bytes of a file and keep its times."""
    path = log.path / name
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        file.write(value)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("small_ranges")
def test_a_whole_log_passes_and_is_not_read_again(log: ColumnarLog, monkeypatch: pytest.MonkeyPatch) -> None:
    check_inputs(log)

    def reads(*arguments: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(log_contents, "NpyRows", reads)
    check_inputs(log)


@pytest.mark.usefixtures("small_ranges")
def test_logs_without_inputs_or_dense_values_pass(tmp_path: Path) -> None:
    check_inputs(make_log(tmp_path, np.zeros((0, 1)), [], features=[FeatureSchema(name="a", num_embeddings=3)]))
    check_inputs(make_log(tmp_path, np.zeros((5, 1)), [1] * 5, name="other"))


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("ids.npy", -4 * 4 * 100, b"\xff\xff\xff\x7f", "input 500 has the id 2147483647 in 'C0'"),
        ("labels.npy", -1, b"\x02", "input 599 has the label 2, expected 0 or 1"),
        ("dense.npy", -4, b"\x00\x00\xc0\x7f", "input 599 has nan in"),
        ("dense.npy", -4, b"\x00\x00\x00\x00", "dense.npy is missing or damaged"),
    ],
)
def test_the_first_fault_is_named(log: ColumnarLog, name: str, place: int, value: bytes, words: str) -> None:
    change(log, name, place, value)
    if name == "ids.npy" and place < 0:
        change(log, name, -4, value)  # and another one behind it
    with pytest.raises(ArtifactError, match=words):
        check_inputs(log)
