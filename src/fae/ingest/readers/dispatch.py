"""Read a raw file of any format as a stream of chunks of typed columns, on a second thread.

Chunks of a file come in file order, hold every input once, and hold only the columns that the recipe names. Memory is
bounded by a few chunks, whatever the file's size. What values mean (vocabulary, labels, transforms) is decided by the
first pass of ingest.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fae.ingest.config import LogConfig
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.readers.chunk import Chunk, CriteoChunk

T = TypeVar("T")


def read_chunks(config: LogConfig, path: Path) -> Generator[Chunk | CriteoChunk, None, None]:
    """Stream one raw file, parsed on a second thread. Close the generator to stop early.

    Raises
    ------
    LogError
        If the file is empty, damaged, or not what the recipe says; one line, naming the file and where possible the
        line.
    """
    if config.format in CRITEO_FORMATS:
        from fae.ingest.readers.criteo import read_criteo

        return read_ahead(read_criteo(config, path))
    if config.format == "taobao":
        from fae.ingest.readers.taobao import read_taobao

        return read_ahead(read_taobao(config, path))
    if config.format == "avazu":
        from fae.ingest.readers.avazu import read_avazu

        return read_ahead(read_avazu(config, path))
    from fae.ingest.readers.csv import read_text
    from fae.ingest.readers.parquet import read_parquet

    return read_ahead(read_parquet(config, path) if config.format == "parquet" else read_text(config, path))


_END = object()


def read_ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Run an iterator on a second thread, at most `depth` items ahead; its exceptions are raised here.

    Closing the returned generator stops the thread and waits for it.
    """
    waiting: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: tuple[Any, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=work, name="fae-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
