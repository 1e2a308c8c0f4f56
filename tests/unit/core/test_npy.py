"""Files of `NpyWriter` are ordinary ``.npy`` files; a full disk is an error; `NpyRows` edits rows in place."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.core.npy import HEADER_BYTES, NpyRows, NpyWriter, _sync_file_range, npy_header, save_array
from fae.core.threads import run_ranges


def saved_by_numpy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("row_shape", [(), (3,), (0,), (3, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.int64])
def test_bytes_are_those_of_numpy(tmp_path: Path, dtype: Any, row_shape: tuple[int, ...]) -> None:
    expected = np.arange(9 * int(np.prod(row_shape)), dtype=dtype).reshape(9, *row_shape)
    with NpyWriter(tmp_path / "a.npy", dtype, row_shape) as file:
        for start, stop in ((0, 2), (2, 2), (2, 9)):
            file.append(expected[start:stop])
    assert (tmp_path / "a.npy").read_bytes() == saved_by_numpy(expected)
    save_array(tmp_path / "b.npy", expected)
    assert (tmp_path / "b.npy").read_bytes() == saved_by_numpy(expected)
    assert file.num_bytes == (tmp_path / "a.npy").stat().st_size


def test_strided_rows_and_rows_of_another_type(tmp_path: Path) -> None:
    columns = np.arange(12, dtype=np.int64).reshape(3, 4)
    save_array(tmp_path / "a.npy", columns.T)
    assert np.array_equal(np.load(tmp_path / "a.npy"), columns.T)
    with NpyWriter(tmp_path / "b.npy", np.int32, (4,)) as file:
        file.append(columns)
    assert np.load(tmp_path / "b.npy").dtype == np.int32


def test_rows_at_any_place_from_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "4")
    expected = np.arange(400, dtype=np.int64).reshape(100, 2, 2)
    with NpyWriter(tmp_path / "a.npy", np.int64, (2, 2)) as file:
        run_ranges(lambda start, stop: file.write(start, expected[start:stop]), 100)
    assert (tmp_path / "a.npy").read_bytes() == saved_by_numpy(expected)


def test_the_system_may_write_less_than_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda file, data, at: real(file, bytes(data)[:7], at))
    expected = np.arange(24, dtype=np.int64).reshape(4, 3, 2)
    with NpyWriter(tmp_path / "a.npy", np.int64, (3, 2)) as file:
        file.write(2, expected[2:])
        file.write(0, expected[:2])
        file.append(expected[:0])
    assert (tmp_path / "a.npy").read_bytes() == saved_by_numpy(expected)


def test_header_has_one_length_and_is_written_last(tmp_path: Path) -> None:
    assert len(npy_header(np.float32, (10**15, 100_000))) == len(npy_header(np.uint8, (0,))) == HEADER_BYTES == 128
    file = NpyWriter(tmp_path / "a.npy", np.int32)
    file.append(np.arange(5, dtype=np.int32))
    file.sync()
    with pytest.raises(ValueError, match="magic"):
        np.lib.format.open_memmap(tmp_path / "a.npy")
    file.close()
    file.abandon()  # closing twice does nothing
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]


def test_an_error_in_the_block_leaves_no_array(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), NpyWriter(tmp_path / "a.npy", np.float32, (1,)) as file:
        file.append(np.full((1, 1), 1 // 0, np.float32))
    with pytest.raises(ValueError, match="magic"):
        np.lib.format.open_memmap(tmp_path / "a.npy")


@pytest.mark.parametrize("at", [0, HEADER_BYTES])
def test_a_full_disk_is_an_error_that_closes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """In the rows and in the header."""
    real = os.pwrite

    def full(file: int, data: Any, position: int) -> int:
        if position == at:
            raise OSError(28, "No space left on device")
        return real(file, data, position)

    monkeypatch.setattr("os.pwrite", full)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    with pytest.raises(OSError, match="No space left"):
        save_array(tmp_path / "a.npy", np.zeros(3, np.int32))
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_rows_are_read_and_replaced_in_place(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.npy", np.arange(12, dtype=np.int32).reshape(4, 3)
    save_array(path, rows)
    with NpyRows(path, writable=True) as file:
        assert (len(file), file.shape) == (4, (4, 3))
        assert file.read(1, 3).tolist() == rows[1:3].tolist()
        assert file.read(2, 99).tolist() == rows[2:].tolist()
        assert file.read(4, 5).shape == file.read(9, 12).shape == (0, 3)
        file.write(1, -rows[1:3])
    rows[1:3] *= -1
    assert path.read_bytes() == saved_by_numpy(rows)
    with NpyRows(path) as file, pytest.raises(OSError, match="Bad file descriptor"):
        file.write(0, rows[:1])
    os.truncate(path, 140)
    with NpyRows(path) as file, pytest.raises(OSError, match="ends before row 2"):
        file.read(0, 2)


@pytest.mark.parametrize("has_call", [True, False])
def test_write_back_may_begin_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_call: bool) -> None:
    """It changes no byte, and where the system has no call for it nothing happens."""
    path, rows, asked = tmp_path / "a.npy", np.arange(12, dtype=np.int32).reshape(4, 3), []
    call = (lambda *arguments: asked.append(arguments[1:])) if has_call else None
    monkeypatch.setattr("fae.core.npy._sync_file_range", lambda: call)
    with NpyWriter(path, np.int32, (3,)) as writer:
        writer.append(rows)
        writer.start_write_back(1, 2)
        writer.start_write_back(4, 0)
    with NpyRows(path, writable=True) as file:
        file.start_write_back(0, 4)
    assert path.read_bytes() == saved_by_numpy(rows)
    assert asked == ([(140, 24, 2), (128, 48, 2)] if has_call else [])


def test_the_system_takes_the_call(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("a call of Linux")
    with (tmp_path / "a").open("wb", buffering=0) as file:
        file.write(bytes(1000))
        assert _sync_file_range()(file.fileno(), 0, 1000, 2) in (0, -1)  # -1: a file system that cannot
        assert _sync_file_range()(-1, 0, 1000, 2) == -1
