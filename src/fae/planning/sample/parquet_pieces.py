"""Rows of a Parquet file, spread over it: a smaller Parquet file of the columns that the recipe wants."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.line_blocks import open_raw


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer.

    Raises
    ------
    LogError
        If it is none.
    """
    try:
        with open_raw(path) as raw, pq.ParquetFile(raw) as file:
            return int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise LogError(f"cannot read {path}: {error}; copy it again or take it out of the recipe") from error


def take_rows_of(path: Path, target: Path, config: LogConfig, quota: int, number: int) -> int:
    """Write about `quota` rows, in at most `number` stretches at even distances; returns how many.

    Raises
    ------
    LogError
        If the file cannot be read.
    """
    taken = 0
    try:
        with open_raw(path) as raw, pq.ParquetFile(raw) as file:
            names = [name for name in config.wanted_columns() if name in file.schema_arrow.names]
            ends, total = [0], file.metadata.num_rows
            for group in range(file.num_row_groups):
                ends.append(ends[-1] + file.metadata.row_group(group).num_rows)
            number = max(1, min(number, quota))
            of_stretch, loaded, table = max(1, quota // number), -1, None
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            with pq.ParquetWriter(target, schema) as writer:
                for stretch in range(number):
                    start = stretch * max(0, total - of_stretch) // max(1, number - 1)
                    group = next(index for index, end in enumerate(ends[1:]) if start < end)
                    if group != loaded:
                        table, loaded = file.read_row_group(group, columns=names), group
                    assert table is not None
                    part = table.slice(start - ends[group], of_stretch).select(names)
                    writer.write_table(part)
                    taken += part.num_rows
    except (pa.ArrowException, OSError) as error:
        raise LogError(f"cannot read {path}: {error}; copy it again or take it out of the recipe") from error
    return taken
