"""Reading ahead on a second thread."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fae.core.errors import LogError
from fae.ingest.readers.dispatch import read_ahead


def test_read_ahead_gives_items_then_errors_and_stops_when_closed() -> None:
    def numbers() -> Any:
        yield from range(5)
        raise LogError("five")

    items = read_ahead(numbers())
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(LogError, match="five"):
        next(items)
    endless = read_ahead(iter(int, 1), depth=1)
    assert next(endless) == 0
    time.sleep(0.15)  # the thread finds its queue full meanwhile, and waits
    endless.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fae-read-ahead"]
