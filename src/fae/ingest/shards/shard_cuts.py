"""Cut the raw files of a log into shards: what one task of ingest reads.

Where the cuts are depends on the files alone, never on workers, so that what a killed ingest has read is found again.
Text is cut into ranges of bytes, Parquet into row groups; packed text and Taobao's file are read whole. Row groups are
measured by their values, on which the time to read them depends: their bytes may be a tenth of the same text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
_VALUE_BYTES = 10
"""Bytes of text that a value of Parquet counts for."""


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


class _RowGroup(NamedTuple):
    """Bytes of a row group as it is stored, and of its wanted values as text, about."""

    num_bytes: int
    text_bytes: int


def shard_bytes(total: int) -> int:
    """Bytes of a shard of a log of `total` bytes of text: enough shards for many cores, none so small that it costs.

    >>> [shard_bytes(size * 2**20) // 2**20 for size in (1, 2000, 1_000_000)]
    [16, 16, 64]
    """
    return SHARD_BYTES or min(max(total // _SHARDS, _SMALLEST), _LARGEST)


def cut_log(config: LogConfig, sources: Sequence[SourceFile]) -> list[Shard]:
    """The shards of a log, in log order."""
    groups: dict[int, list[_RowGroup]] = {}
    if config.format == "parquet":
        num_columns = len(config.wanted_columns())
        groups = {index: _row_groups(source.path, num_columns) for index, source in enumerate(sources)}
    size = shard_bytes(
        sum(
            sum(group.text_bytes for group in groups.get(index, ())) or source.num_bytes
            for index, source in enumerate(sources)
        )
    )
    shards = []
    for index, source in enumerate(sources):
        spans = [(WHOLE_FILE, source.num_bytes)]
        if index not in groups and can_be_cut(config, source.path):
            spans = _spans_of_bytes(source.num_bytes, size)
        elif groups.get(index):
            spans = _spans_of_groups(groups[index], size)
        shards += [Shard(source=index, span=span, num_bytes=num_bytes) for span, num_bytes in spans]
    return shards


def _spans_of_bytes(total: int, size: int) -> list[tuple[Span, int]]:
    count = max(1, round(total / size))
    if count == 1:
        return [(WHOLE_FILE, total)]
    bounds = [total * place // count for place in range(count + 1)]
    return [
        (Span(begin=begin, end=None if end == total else end, is_exact=begin == 0), end - begin)
        for begin, end in itertools.pairwise(bounds)
    ]


def _row_groups(path: Path, num_columns: int) -> list[_RowGroup]:
    """The row groups of a file, of which `num_columns` columns are wanted; none if it is damaged."""
    try:
        with open_raw(path) as raw, pq.ParquetFile(raw) as file:
            stored = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
            sizes = [_compressed_bytes(group) for group in stored]
            return [
                _RowGroup(num_bytes, max(num_bytes, _VALUE_BYTES * num_columns * group.num_rows))
                for num_bytes, group in zip(sizes, stored, strict=True)
            ]
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError):
        return []  # its reader says what is wrong


def _spans_of_groups(groups: Sequence[_RowGroup], size: int) -> list[tuple[Span, int]]:
    spans, begin, text, held = [], 0, 0, 0
    for index, group in enumerate(groups):
        text, held = text + group.text_bytes, held + group.num_bytes
        if text >= size or index == len(groups) - 1:
            spans.append((Span(begin=begin, end=index + 1), held))
            begin, text, held = index + 1, 0, 0
    return spans if len(spans) > 1 else [(WHOLE_FILE, sum(group.num_bytes for group in groups))]


def _compressed_bytes(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(column).total_compressed_size for column in range(group.num_columns))
