"""Cut the raw files of a log into shards: what one task of ingest reads.

Where the cuts are depends on the files alone, never on workers, so that what a killed ingest has read is found again.
Text is cut into ranges of bytes, Parquet into row groups; packed text and Taobao's file are read whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fae.ingest.config import LogConfig
from fae.ingest.readers.dispatch import can_be_cut
from fae.ingest.readers.line_blocks import open_raw
from fae.ingest.readers.span import WHOLE_FILE, Span
from fae.ingest.sources import SourceFile

SHARD_BYTES: int | None = None
"""Bytes of a shard; None for what `shard_bytes` says."""
_SMALLEST, _LARGEST, _SHARDS = 16 * 2**20, 64 * 2**20, 128
"""Shards of 8 MiB cost a fourth more processor time than those of 16: each fills its vocabularies anew."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A piece of a log.

    Attributes
    ----------
    source
        Place of its file among the raw files.
    span
        Which inputs of the file.
    num_bytes
        Bytes that are read for it, about.
    """

    source: int
    span: Span
    num_bytes: int


def shard_bytes(total: int) -> int:
    """Bytes of a shard of a log of `total` bytes: enough shards for many cores, none so small that it costs time.

    >>> [shard_bytes(size * 2**20) // 2**20 for size in (1, 2000, 1_000_000)]
    [16, 16, 64]
    """
    return SHARD_BYTES or min(max(total // _SHARDS, _SMALLEST), _LARGEST)


def cut_log(config: LogConfig, sources: Sequence[SourceFile]) -> list[Shard]:
    """The shards of a log, in log order."""
    size = shard_bytes(sum(source.num_bytes for source in sources))
    shards = []
    for index, source in enumerate(sources):
        spans = [(WHOLE_FILE, source.num_bytes)]
        if can_be_cut(config, source.path):
            spans = _row_groups(source.path, size) if config.format == "parquet" else _bytes(source.num_bytes, size)
        shards += [Shard(source=index, span=span, num_bytes=num_bytes) for span, num_bytes in spans]
    return shards


def _bytes(total: int, size: int) -> list[tuple[Span, int]]:
    count = max(1, round(total / size))
    if count == 1:
        return [(WHOLE_FILE, total)]
    bounds = [total * place // count for place in range(count + 1)]
    return [
        (Span(begin=begin, end=None if end == total else end, is_exact=begin == 0), end - begin)
        for begin, end in itertools.pairwise(bounds)
    ]


def _row_groups(path: Path, size: int) -> list[tuple[Span, int]]:
    try:
        with open_raw(path) as raw, pq.ParquetFile(raw) as file:
            metadata = file.metadata
            sizes = [_compressed_bytes(metadata.row_group(group)) for group in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError):
        return [(WHOLE_FILE, path.stat().st_size)]  # its reader says what is wrong
    spans, begin = [], 0
    for group in range(len(sizes)):
        held = sum(sizes[begin : group + 1])
        if held >= size or group == len(sizes) - 1:
            spans.append((Span(begin=begin, end=group + 1), held))
            begin = group + 1
    if len(spans) < 2:
        return [(WHOLE_FILE, sum(sizes))]
    return spans


def _compressed_bytes(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(column).total_compressed_size for column in range(group.num_columns))
