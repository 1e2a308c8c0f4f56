"""Write the vocabulary of each table as Parquet: the text of every value that has a row of its own, and its id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fae.artifacts.checksums import check_contents
from fae.artifacts.columnar_log import ColumnarLog
from fae.core.errors import ArtifactError
from fae.exporting.standalone.scoring.row_files import write_vocabulary_parts


def export_vocabulary(path: Path, log: ColumnarLog, table: int) -> None:
    """Write ``value`` and ``id`` of one table, in ascending order of ids; ids that belong to no value are left out.

    Raises
    ------
    ArtifactError
        If the log's own file is damaged.
    """
    write_vocabulary_parts(path, _values(log, table))


def _values(log: ColumnarLog, table: int) -> Iterator[Any]:
    name = f"vocabulary/{table}.parquet"
    check_contents(log.path, log.manifest.files, name, command=log.command)
    size, first = log.features[table].num_embeddings, 0
    try:
        with pq.ParquetFile(log.path / name) as file:
            for batch in file.iter_batches(columns=["value"], batch_size=1 << 20):
                ids = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int32))
                first += batch.num_rows
                part = pa.table({"value": batch.column(0).cast(pa.string()), "id": ids})
                yield part.filter(part.column("value").is_valid())
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{log.path / name} cannot be read ({error}); run `{log.command}`") from error
    if first != size:
        raise ArtifactError(f"{log.path / name} has {first} lines for {size} ids; run `{log.command}`")
