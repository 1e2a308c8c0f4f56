"""Read Parquet files, batch by batch within their row groups.

Columns keep their stored types; `fae.ingest.values` and `fae.ingest.dense_values` convert them. Nested columns other
than lists are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import Chunk, NoInputsError
from fae.ingest.readers.file_columns import find_columns

_BATCH_INPUTS = 32_768


def read_parquet(config: LogConfig, path: Path, *, labelled: bool = True) -> Iterator[Chunk]:
    """Stream a Parquet file. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    first_row = 0
    try:
        with pq.ParquetFile(path) as file:
            num_inputs = file.metadata.num_rows
            if num_inputs == 0:
                raise NoInputsError(f"{path} holds no inputs; write it again or take it out of the recipe")
            columns = find_columns(config, file.schema_arrow.names, path, labelled=labelled)
            bytes_per_input = path.stat().st_size / num_inputs
            # No threads here: the next stage uses all of them, and this already runs ahead of it.
            for batch in file.iter_batches(batch_size=_BATCH_INPUTS, columns=list(columns.names), use_threads=False):
                yield columns.chunk(
                    {name: batch.column(name) for name in columns.names},
                    num_inputs=batch.num_rows,
                    locate=partial(_locate, path, first_row),
                    raw_bytes=round(batch.num_rows * bytes_per_input),
                )
                first_row += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LogError(f"{path} cannot be read as Parquet ({reason}); write it again or set [log] format") from error


def check_parquet_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """Look at the schema alone. Raises `LogError`; see `fae.ingest.readers.dispatch.check_header`."""
    try:
        find_columns(config, pq.read_schema(path).names, path, labelled=labelled)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LogError(f"{path} cannot be read as Parquet ({reason}); write it again or set [log] format") from error


def _locate(path: Path, first_row: int, row: int) -> str:
    return f"{path}, input {first_row + row + 1}"
