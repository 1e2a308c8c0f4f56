"""Put the rows of all parts into the arrays of the log, each part in its place, with the ids of the whole log."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.checksums import join_checksums
from fae.core.npy import NpyRows, NpyWriter
from fae.core.progress import task
from fae.core.threads import run_jobs
from fae.ingest.column_config import slot_names
from fae.ingest.numbering.final_ids import damaged_ids
from fae.ingest.numbering.renumbering import SlotMaps
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.resume import IngestProgress
from fae.ingest.shards.shard_values import JoinedIds, Parts

_BLOCK_BYTES = 4 * 2**20
_UNCHANGED = np.array([-2, -1], np.int32)


def join_rows(encoders: Sequence[ColumnEncoder], parts: Parts, joined: JoinedIds, progress: IngestProgress) -> None:
    """Write all arrays of rows of the unfinished log.

    Raises
    ------
    LogError
        If an id of a part has no value: the part was damaged meanwhile.
    """
    starts = [0, *itertools.accumulate(facts["num_inputs"] for _, facts in parts)]
    kinds: dict[str, tuple[str, list[int]]] = {}
    for _, facts in parts:
        kinds |= {name: (dtype, shape) for name, (dtype, shape, _, _) in facts["rows"].items() if name not in kinds}
    checksums: dict[tuple[str, int], int] = {}
    with ExitStack() as files, task("ingest: joining rows", starts[-1]) as bar:
        writers = {
            name: files.enter_context(progress.open_rows(name, dtype, tuple(shape)))
            for name, (dtype, shape) in kinds.items()
        }

        def job(index: int) -> Callable[[], None]:
            def work() -> None:
                path, facts = parts[index]
                exchange = _exchanger(encoders, joined, index)
                for name, (_, _, num_rows, checksum) in facts["rows"].items():
                    change = exchange if name == "ids" else None
                    found = _copy_rows(path / f"{name}.npy", num_rows, writers[name], starts[index], change)
                    checksums[name, index] = found if change else checksum
                bar.advance(facts["num_inputs"])

            return work

        run_jobs([job(index) for index in range(len(parts))])
        for name, writer in writers.items():
            held = [index for index, (_, facts) in enumerate(parts) if name in facts["rows"]]
            sizes = [parts[index][1]["rows"][name][2] * writer.row_bytes for index in held]
            writer.checksum = join_checksums([checksums[name, index] for index in held], sizes)
        progress.mark_read(encoders, list(writers.values()))


def _exchanger(
    encoders: Sequence[ColumnEncoder], joined: JoinedIds, part: int
) -> Callable[[npt.NDArray[np.int32]], None]:
    """What replaces the ids in rows of a part."""
    maps, slots, begins, size = [], [], {}, 0
    for column, encoder in enumerate(encoders):
        owner = column if encoder.owner is None else encoders.index(encoder.owner)
        if owner in joined and owner not in begins:
            of_part = joined.of_part(owner, part)
            begins[owner] = size, len(of_part)
            maps += [of_part, _UNCHANGED]
            size += len(of_part) + len(_UNCHANGED)
        begin, known = begins.get(owner, (-1, 0))
        slots += [(begin, known, False)] * encoder.config.max_length
    exchanged = SlotMaps.of_slots(np.concatenate(maps) if maps else _UNCHANGED, slots)
    names = slot_names([encoder.config for encoder in encoders])

    def exchange(rows: npt.NDArray[np.int32]) -> None:
        wrong = exchanged.exchange(rows)
        if wrong >= 0:
            raise damaged_ids(names[wrong])

    return exchange


def _copy_rows(
    path: Path,
    num_rows: int,
    writer: NpyWriter,
    first: int,
    change: Callable[[npt.NDArray[Any]], None] | None,
) -> int:
    """Copy an array of rows to its place; return the crc32 of what was written."""
    checksum = 0
    step = max(1, _BLOCK_BYTES // max(1, writer.row_bytes))
    if not num_rows:
        return 0
    with NpyRows(path) as rows:
        for start in range(0, num_rows, step):
            block = rows.read(start, min(start + step, num_rows))
            if change is not None:
                change(block)
                checksum = zlib.crc32(block.reshape(-1).view(np.uint8).data, checksum)
            writer.write(first + start, block)
            if change is None:  # ids are written once more
                writer.start_write_back(first + start, len(block))
    return checksum
