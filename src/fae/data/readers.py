"""One interface over the formats of a raw log: a stream of chunks of typed columns.

Place in the flow: between the raw files and ingest. Invariant: chunks of a file come in file order, hold every input
once, and hold only the columns that the recipe names; memory is bounded by a few chunks whatever the file's size.
What values mean (vocabulary, labels, transforms) is not decided here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fae.core.config import nearest
from fae.core.errors import LogError
from fae.data.config import LogConfig
from fae.data.formats import CRITEO_FORMATS

if TYPE_CHECKING:
    from fae.data.criteo import CriteoChunk

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some consecutive inputs of one file.

    Attributes
    ----------
    label
        Arrow array of any type.
    dense, categorical
        Arrow arrays in the order of ``LogConfig.dense_columns()`` and ``LogConfig.columns()``. Text files give float64
        and text; Parquet gives what it holds.
    locate
        From a row of this chunk to the place a person can open: ``"log.csv.gz, line 17"``. May read the file again.
    raw_bytes
        Bytes of the file, as it is on disk, that were read for this chunk.
    days
        Avazu: text that orders the inputs by day.
    split
        Taobao: the split that the inputs belong to.
    """

    num_inputs: int
    label: Any
    dense: tuple[Any, ...]
    categorical: tuple[Any, ...]
    locate: Callable[[int], str]
    raw_bytes: int
    days: Any = None
    split: str = ""


def read_chunks(config: LogConfig, path: Path) -> Generator[Chunk | CriteoChunk, None, None]:
    """Stream one raw file, parsing on a second thread; close the generator to stop early.

    Raises
    ------
    LogError
        If the file is empty, damaged, or not what the recipe says; one line, naming the file and where possible the
        line.
    """
    if config.format in CRITEO_FORMATS:
        from fae.data.criteo import read_criteo

        return ahead(read_criteo(config, path))
    if config.format == "taobao":
        from fae.data.taobao import read_taobao

        return ahead(read_taobao(config, path))
    if config.format == "avazu":
        from fae.data.avazu import read_avazu

        return ahead(read_avazu(config, path))
    from fae.data.readers_parquet import read_parquet
    from fae.data.readers_text import read_text

    return ahead(read_parquet(config, path) if config.format == "parquet" else read_text(config, path))


def column_positions(config: LogConfig, header: list[str], path: Path) -> list[int]:
    """Where the label, the dense and the categorical columns stand in `header`.

    Raises
    ------
    LogError
        If one is not there (naming its nearest neighbour) or is there more than once.
    """
    positions = []
    for name in (config.label_column(), *config.dense_columns(), *(column.name for column in config.columns())):
        count = header.count(name)
        if count == 0:
            raise LogError(f"{path}: there is no column {name!r}; {nearest(name, [cell for cell in header if cell])}")
        if count > 1:
            raise LogError(f"{path}: the column {name!r} stands {count} times in the header; give each its own name")
        positions.append(header.index(name))
    return positions


_END = object()


def ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Run an iterator on a second thread, at most `depth` items ahead; its exceptions come out here.

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
