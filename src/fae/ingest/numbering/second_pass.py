"""Second pass of ingest: count the training split, assign final ids, write counts, vocabularies and the summary.

It begins when every raw file was read and the splits are known. ``counts.npy`` is exactly how often each id occurs in
the training rows of ``ids.npy``. `fae.ingest.resume` explains what is kept in case of a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FeatureSchema, join_parts
from fae.artifacts.lineage import num_appended
from fae.core.compiled import Int64
from fae.core.errors import LogError
from fae.core.npy import NpyWriter
from fae.core.progress import task
from fae.core.threads import num_threads, run_jobs
from fae.ingest.column_config import columns_of_tables, slot_names, tables_of
from fae.ingest.config import LogConfig
from fae.ingest.notes.look import look_at_log
from fae.ingest.notes.split_lookups import ColumnLookups, training_lookups
from fae.ingest.numbering.final_ids import Numbering
from fae.ingest.numbering.id_blocks import IdRows, id_blocks
from fae.ingest.numbering.part_ids import open_ids
from fae.ingest.numbering.renumbering import Renumbering, SlotMaps
from fae.ingest.numbering.training_counts import count_training
from fae.ingest.numbering.vocabulary_writer import VocabularyWriter, numberings_of
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.resume import FINAL_IDS, RENUMBERED, IngestProgress
from fae.ingest.scratch import Scratch
from fae.ingest.splits import Splits

_ENCODED_SLACK, _ENCODED_IDS_PER_INPUT = 1_000_000, 100
"""An encoded id far above the number of inputs is a raw id that was declared encoded: its table would fill the disk."""


def second_pass(
    config: LogConfig, encoders: Sequence[ColumnEncoder], splits: Splits, progress: IngestProgress, scratch: Scratch
) -> dict[str, Any]:
    """Turn the provisional ids of an unfinished log into final ones and write the rest of it; return its summary.

    Parameters
    ----------
    encoders
        Their vocabularies must be filled while `progress` is in its phase ``reading``, and are empty later.
    """
    if progress.phase == "reading":
        progress.state["summary"] = _assign_final_ids(config, encoders, splits, progress, scratch)
        progress.begin_numbering()
    elif progress.phase == "numbering":
        progress.restore(encoders)
        _seal(encoders)
    if progress.phase == "numbering":
        # Copied on write, which never happens: the compiled loop takes arrays that could be written.
        finals = np.asarray(np.load(progress.work / FINAL_IDS, mmap_mode="c"))
        counts = np.load(progress.folder / "counts.npy", mmap_mode="r")
        begins, slots = progress.state["final_ids"], []
        for encoder, table in zip(encoders, _tables(encoders), strict=True):
            size = begins[table + 1] - begins[table] - 2
            slots += [(begins[table], size, encoder.config.encoded)] * encoder.config.max_length
        owners = [encoders[members[0]] for members in _members(encoders)]
        numberings = numberings_of(finals, counts, begins, progress.state["tables"])
        vocabularies = VocabularyWriter(progress.folder, owners, numberings, scratch)
        with open_ids(progress, encoders) as ids:
            renumbering = Renumbering(ids, progress.work / RENUMBERED, progress.work / "numbered")
            names = slot_names([encoder.config for encoder in encoders])
            checksum = renumbering.run(SlotMaps.of_slots(finals, slots), names, beside=vocabularies.jobs())
        progress.finish(checksum, vocabularies.written)
    summary: dict[str, Any] = progress.state["summary"]
    return summary


def _seal(encoders: Sequence[ColumnEncoder]) -> None:
    for encoder in encoders:
        if encoder.vocabulary is not None and encoder.owner is None:
            encoder.vocabulary.seal()


def _tables(encoders: Sequence[ColumnEncoder]) -> list[int]:
    """The table of each column."""
    return tables_of([encoder.config for encoder in encoders])


def _members(encoders: Sequence[ColumnEncoder]) -> list[list[int]]:
    """The columns of each table."""
    return columns_of_tables([encoder.config for encoder in encoders])


def _assign_final_ids(
    config: LogConfig, encoders: Sequence[ColumnEncoder], splits: Splits, progress: IngestProgress, scratch: Scratch
) -> dict[str, Any]:
    """Count the training split; write ``counts.npy`` and the final id of each provisional one.

    Returns the summary of the log.
    """
    labels = np.load(progress.folder / "labels.npy", mmap_mode="r")
    start, stop = splits["train"]
    _seal(encoders)
    with open_ids(progress, encoders) as ids:
        sizes = [max(_num_values(encoders[index], ids, stop) for index in members) for members in _members(encoders)]
        counts = [scratch.array(sizes[table] + 2, np.int64) for table in _tables(encoders)]
        for array in counts:
            array[:] = 0
        missing, has_lists = count_training(encoders, ids, stop, counts)
    progress.state["final_ids"] = np.concatenate([[0], np.cumsum(np.array(sizes) + 2, dtype=np.int64)]).tolist()
    columns = _write_tables(config, encoders, counts, progress, scratch)
    for column, encoder, absent, has_list in zip(columns, encoders, missing, has_lists, strict=True):
        column.splits["train"].absent, column.splits["train"].num_inputs = absent, stop - start
        column.has_lists = has_list or bool(encoder.printed.state.get("several"))
    features = join_parts([column.schema for column in columns], _tables(encoders))
    weights = np.load(progress.folder / "weights.npy", mmap_mode="r") if config.weight else None
    label_rate = {
        name: _label_rate(labels[first:last], None if weights is None else weights[first:last])
        for name, (first, last) in splits.items()
    }
    if weights is not None and label_rate["train"] is None:
        raise LogError(f"every weight {config.weight!r} of the training split is 0, so nothing would be trained")
    return {
        "features": [feature.to_summary() for feature in features],
        "dense": list(config.dense_columns()),
        **({} if config.weight is None else {"weight": config.weight}),
        "num_inputs": len(labels),
        "splits": splits,
        "label_rate": label_rate,
        "missing_share": {
            encoder.config.name: number / (stop - start) for encoder, number in zip(encoders, missing, strict=True)
        },
        **_appended(encoders, features),
        **look_at_log(config, encoders, columns, splits, label_rate, progress),
    }


def _write_tables(
    config: LogConfig,
    encoders: Sequence[ColumnEncoder],
    counts: list[Int64],
    progress: IngestProgress,
    scratch: Scratch,
) -> list[ColumnLookups]:
    """Write ``counts.npy`` and the final ids of all tables; frees `counts`, which are by column.

    Returns what the counts say of each column.
    """
    folder, tables = progress.folder, _members(encoders)
    columns: list[ColumnLookups] = []
    progress.state["tables"] = []
    with (
        NpyWriter(folder / "counts.npy", np.int64) as counts_file,
        NpyWriter(progress.work / FINAL_IDS, np.int32) as finals_file,
        task("ingest: numbering values", sum(len(counts[members[0]]) for members in tables), "values") as bar,
    ):
        # A few tables at a time, one for each thread: the final counts of all tables may not fit into memory.
        for first in range(0, len(tables), num_threads()):
            group = range(first, min(first + num_threads(), len(tables)))
            numberings: dict[int, Numbering] = {}
            lookups: dict[int, list[ColumnLookups]] = {}

            def job(
                table: int,
                numberings: dict[int, Numbering] = numberings,
                lookups: dict[int, list[ColumnLookups]] = lookups,
            ) -> Callable[[], None]:
                def work() -> None:
                    members = [encoders[index] for index in tables[table]]
                    of_columns = [counts[index] for index in tables[table]]
                    own = members[0].config.min_frequency
                    minimum = config.min_frequency if own is None else own
                    together = _sum(of_columns, scratch)
                    numbering = members[0].assign_final_ids(together, minimum, scratch)
                    lookups[table] = [
                        training_lookups(_schema(encoder, numbering), of_column, numbering, shared=len(members) > 1)
                        for encoder, of_column in zip(members, of_columns, strict=True)
                    ]
                    for array in of_columns if len(members) == 1 else (*of_columns, together):
                        scratch.release(array)
                    finals_file.write(progress.state["final_ids"][table], numbering.final)
                    scratch.release(numbering.final)
                    numberings[table] = numbering
                    bar.advance(len(numbering.final))

                return work

            run_jobs([job(table) for table in group])
            for table in group:
                progress.state["tables"].append([numberings[table].num_embeddings, numberings[table].unknown_id])
                counts_file.append(numberings[table].counts)
                scratch.release(numberings[table].counts)
                columns += lookups[table]
    return columns


def _sum(counts: Sequence[Int64], scratch: Scratch) -> Int64:
    """The counts of a table from those of its columns; of a single column, its own."""
    if len(counts) == 1:
        return counts[0]
    together = scratch.array(len(counts[0]), np.int64)
    together[:] = 0
    for each in counts:
        together += each
    return together


def _appended(encoders: Sequence[ColumnEncoder], features: Sequence[FeatureSchema]) -> dict[str, Any]:
    """Number of rows that each table has more than in the log that this one continues."""
    appended = {
        encoder.config.name: num_appended(encoder.known.schema, features[table])
        for encoder, table in zip(encoders, _tables(encoders), strict=True)
        if encoder.known and encoder.config.table is None
    }
    return {"appended": appended} if appended else {}


def _schema(encoder: ColumnEncoder, numbering: Numbering) -> FeatureSchema:
    return FeatureSchema(
        name=encoder.config.name,
        num_embeddings=numbering.num_embeddings,
        length=encoder.config.max_length,
        pooling=encoder.config.pooling,
        unknown_id=numbering.unknown_id,
        encoded=encoder.config.encoded,
    )


def _num_values(encoder: ColumnEncoder, ids: IdRows, num_training: int) -> int:
    """Number of provisional ids that can occur in the training split."""
    if encoder.vocabulary is not None:
        return encoder.vocabulary.size
    largest = max(int(rows[:, encoder.slots].max()) for rows in id_blocks(ids, 0, num_training))
    most = _ENCODED_SLACK + _ENCODED_IDS_PER_INPUT * num_training
    if largest > most:
        raise LogError(
            f"the encoded column {encoder.config.name!r} has the id {largest}, a table of that many rows for "
            f"{num_training} training inputs (expected ids up to {most}); leave `encoded` out"
        )
    # The table of a continued log never shrinks. Its last row in the parent is the reserved id, hence the -1.
    return max(max(largest, -1) + 1, encoder.known.size - 1 if encoder.known else 0)


def _label_rate(labels: npt.NDArray[np.uint8], weights: npt.NDArray[np.float32] | None = None) -> float | None:
    if weights is not None:
        total = float(weights.sum(dtype=np.float64))
        return float(weights[labels == 1].sum(dtype=np.float64)) / total if total else None
    return float(labels.sum(dtype=np.int64)) / len(labels) if len(labels) else None
