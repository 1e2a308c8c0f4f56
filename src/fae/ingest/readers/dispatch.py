"""Read a raw file of any format as a stream of chunks of typed columns, on a second thread.

Chunks of a file come in file order, hold every input once, and hold only the columns that the recipe names. Memory is
bounded by a few chunks, whatever the file's size. What values mean (vocabulary, labels, transforms) is decided by the
first pass of ingest.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fae.ingest.config import LogConfig
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.readers import avazu, criteo, csv, jsonl, parquet, taobao
from fae.ingest.readers.chunk import Chunk, CriteoChunk
from fae.ingest.readers.file_kinds import check_kind
from fae.ingest.readers.line_blocks import COMPRESSIONS
from fae.ingest.readers.span import Span, SpanEnds

T = TypeVar("T")


_READERS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "csv": (csv.read_csv, csv.check_csv_header),
    "jsonl": (jsonl.read_jsonl, jsonl.check_jsonl_header),
    "parquet": (parquet.read_parquet, parquet.check_parquet_header),
    "avazu": (avazu.read_avazu, avazu.check_avazu_header),
    "taobao": (taobao.read_taobao, taobao.check_taobao_header),
    **dict.fromkeys(CRITEO_FORMATS, (criteo.read_criteo, criteo.check_criteo_header)),
}
"""For each format the function that streams a file, and the one that looks at its header."""


def read_chunks(config: LogConfig, path: Path, *, labelled: bool = True) -> Generator[Chunk | CriteoChunk, None, None]:
    """Stream one raw file, parsed on a second thread. Close the generator to stop early.

    Parameters
    ----------
    labelled
        Without it the file need not have labels, and `Chunk.label`, `weight`, `time` and `split_key` are None.

    Raises
    ------
    LogError
        If the file is damaged or not what the recipe says; one line, naming the file and where possible the line. A
        `NoInputsError` if it is empty.
    """
    read, _ = _READERS[config.format]
    return read_ahead(_checked(read, config, path, labelled))


def _checked(read: Any, config: LogConfig, path: Path, labelled: bool) -> Iterator[Any]:
    check_kind(path, config.format)
    yield from read(config, path, labelled=labelled)


def read_span(config: LogConfig, path: Path, span: Span, ends: SpanEnds) -> Iterator[Chunk | CriteoChunk]:
    """Stream a span of one raw file on this thread; `ends` is told where its records begin and end.

    Raises
    ------
    LogError
        As `read_chunks`. Lines are numbered from ``span.first_line`` on. What is wrong with a file as a whole (it has
        no inputs, or no line has a column) is an error where the span is the whole file.
    """
    read, _ = _READERS[config.format]
    check_kind(path, config.format)
    if span.is_whole and not can_be_cut(config, path):
        yield from read(config, path)
    else:
        yield from read(config, path, span=span, ends=ends)


def can_be_cut(config: LogConfig, path: Path) -> bool:
    """Whether a file can be read in spans: text that is not packed, line by line or record by record, and Parquet.

    Taobao's is not: its users are sampled over the whole file.
    """
    if config.format == "parquet":
        return True
    return config.format in ("csv", "jsonl", "avazu", *CRITEO_FORMATS) and path.suffix.lower() not in COMPRESSIONS


def check_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """Look at the beginning of one raw file alone: is it what the recipe says, with the columns that it names?

    Raises
    ------
    LogError
        As `read_chunks` would, as far as the first lines tell.
    """
    _, check = _READERS[config.format]
    check_kind(path, config.format)
    check(config, path, labelled=labelled)


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
