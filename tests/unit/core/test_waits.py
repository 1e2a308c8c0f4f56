"""Pipes are waited for whatever the number of their descriptor: a process with many files open has large ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import time
from collections.abc import Iterator

import pytest

from fae.core.waits import await_ready


@pytest.fixture(params=[None, 1500])
def pipe(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, with numbers as they come or from this one on."""
    made, least = os.pipe(), request.param
    ends = made
    if least is not None:
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < least + 100:
            pytest.skip("this process may not have as many files")
        ends = tuple(fcntl.fcntl(end, fcntl.F_DUPFD, least) for end in made)
        for end in made:
            os.close(end)
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(end)


def test_what_can_be_read(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    began = time.monotonic()
    assert not await_ready(reader, 0.05)
    assert time.monotonic() - began >= 0.04
    os.write(writer, b"x")
    assert await_ready(reader, 10)
    os.read(reader, 1)
    os.close(writer)
    assert await_ready(reader, 10), "its end can be read"


def test_what_can_be_written(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    assert await_ready(writer, 10, to_write=True)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(65536)):
            pass
    assert not await_ready(writer, 0.01, to_write=True)
    os.read(reader, 65536)
    assert await_ready(writer, 10, to_write=True)
