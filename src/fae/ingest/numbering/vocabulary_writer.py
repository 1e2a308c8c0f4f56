"""Write which value has which id: a file for each table, all side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fae.artifacts.checksums import file_checksum
from fae.core.compiled import Int64
from fae.ingest.numbering.final_ids import Numbering
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.scratch import Scratch

_VALUES_PER_ROW_GROUP = 1 << 18


class VocabularyWriter:
    """Writes the vocabularies of a log whose ids are final.

    Parameters
    ----------
    folder
        Folder of the log.
    encoders
        The first column of each table, with its values.
    numberings
        Those of each table.

    Attributes
    ----------
    written
        Bytes and crc32 of each file that is there, by its name in the log.
    """

    def __init__(
        self, folder: Path, encoders: Sequence[ColumnEncoder], numberings: Sequence[Numbering], scratch: Scratch
    ) -> None:
        self._folder, self._encoders, self._numberings, self._scratch = folder, encoders, numberings, scratch
        self.written: dict[str, tuple[int, int]] = {}
        (folder / "vocabulary").mkdir(exist_ok=True)

    def jobs(self) -> list[Callable[[], None]]:
        """One for each table, those with the most values first."""
        tables = sorted(range(len(self._encoders)), key=lambda table: -self._numberings[table].num_embeddings)
        return [self._job(table) for table in tables]

    def _job(self, table: int) -> Callable[[], None]:
        def work() -> None:
            name = f"vocabulary/{table}.parquet"
            path = self._folder / name
            write_vocabulary(path, self._encoders[table], self._numberings[table], self._scratch)
            self.written[name] = path.stat().st_size, int(file_checksum(path), 16)

        return work


def numberings_of(
    finals: npt.NDArray[np.int32], counts: Int64, begins: Sequence[int], tables: Sequence[Sequence[int]]
) -> list[Numbering]:
    """The numbering of each table from the arrays of all.

    Parameters
    ----------
    begins
        Where each table begins in `finals`, and their end.
    tables
        ``num_embeddings`` and ``unknown_id`` of each table.
    """
    numberings, first = [], 0
    for table, (size, unknown_id) in enumerate(tables):
        final = finals[begins[table] : begins[table + 1]]
        numberings.append(
            Numbering(final=final, num_embeddings=size, unknown_id=unknown_id, counts=counts[first : first + size])
        )
        first += size
    return numberings


def write_vocabulary(path: Path, encoder: ColumnEncoder, numbering: Numbering, scratch: Scratch) -> None:
    """Write the columns ``value`` and ``count`` of one table in id order.

    The value is text, empty for the missing value; null where an id belongs to no single value: the reserved id, and
    numbers of an encoded column that share it.
    """
    size = numbering.num_embeddings
    provisional = scratch.array(size, np.int32)
    if encoder.vocabulary is not None:
        provisional[:] = -1
        for start in range(0, encoder.vocabulary.size, _VALUES_PER_ROW_GROUP):
            stop = min(start + _VALUES_PER_ROW_GROUP, encoder.vocabulary.size)
            provisional[numbering.final[start:stop]] = np.arange(start, stop, dtype=np.int32)
    else:
        for start in range(0, size - 1, _VALUES_PER_ROW_GROUP):
            part = provisional[start : min(start + _VALUES_PER_ROW_GROUP, size - 1)]
            shared = numbering.final[start : start + len(part)] == numbering.unknown_id
            part[:] = np.where(shared, np.int32(-1), np.arange(start, start + len(part), dtype=np.int32))
    provisional[numbering.unknown_id] = -1
    schema = pa.schema([("value", pa.string()), ("count", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, size, _VALUES_PER_ROW_GROUP):
            ids = provisional[start : start + _VALUES_PER_ROW_GROUP]
            if encoder.vocabulary is not None:
                values = encoder.vocabulary.values(ids)
            else:
                values = pa.array(ids, mask=ids < 0).cast(pa.string())
            counts = pa.array(numbering.counts[start : start + _VALUES_PER_ROW_GROUP])
            writer.write_table(pa.table([values, counts], schema=schema))
    scratch.release(provisional)
