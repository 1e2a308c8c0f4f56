"""Look at a log whose final ids are known but not yet written: shares of unknown and missing values, and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fae.core.npy import NpyRows
from fae.ingest.column_config import tables_of
from fae.ingest.config import LogConfig
from fae.ingest.notes.column_notes import column_notes
from fae.ingest.notes.dense_facts import MISSING_ROWS, count_missing
from fae.ingest.notes.number_notes import class_notes, dense_notes
from fae.ingest.notes.split_lookups import ColumnLookups, add_other_splits
from fae.ingest.notes.value_examples import UnknownExample, unknown_example, value_text
from fae.ingest.notes.value_facts import key_notes, value_facts
from fae.ingest.numbering.part_ids import open_ids
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.resume import FINAL_IDS, IngestProgress


def look_at_log(
    config: LogConfig,
    encoders: Sequence[ColumnEncoder],
    columns: Sequence[ColumnLookups],
    splits: Mapping[str, Sequence[int]],
    label_rate: Mapping[str, float | None],
    progress: IngestProgress,
) -> dict[str, Any]:
    """``unknown_share``, ``dense_missing_share``, ``value_facts`` and ``notes`` of the log's summary.

    Parameters
    ----------
    columns
        What the counts of the training split say of each column; the other splits are added.
    """
    tables = tables_of([encoder.config for encoder in encoders])
    all_finals, begins = np.load(progress.work / FINAL_IDS, mmap_mode="r"), progress.state["final_ids"]
    finals = [all_finals[begins[table] : begins[table + 1]] for table in tables]
    with open_ids(progress, encoders) as ids:
        add_other_splits(columns, ids, finals, [encoder.missing_id for encoder in encoders], splits)

        def example(index: int, split: str) -> UnknownExample:
            return unknown_example(encoders[index], ids, splits[split], finals[index], columns[index].schema.unknown_id)

        def most_frequent(index: int) -> str:
            return value_text(encoders[index], columns[index].only_value)

        facts = value_facts(columns, most_frequent)
        notes = [*key_notes(config, columns, facts), *column_notes(config, columns, example, most_frequent)]
    names = config.dense_columns()
    with NpyRows(progress.folder / f"{MISSING_ROWS}.npy") as rows:
        missing = count_missing(rows, splits, len(names))
    sizes = {name: stop - start for name, (start, stop) in splits.items()}
    return {
        "unknown_share": {
            split: {column.schema.name: column.splits[split].unknown_share for column in columns} for split in splits
        },
        "dense_missing_share": {
            name: count / sizes["train"] for name, count in zip(names, missing["train"], strict=True)
        },
        "value_facts": facts,
        "notes": [*class_notes(label_rate), *notes, *dense_notes(config, missing, sizes, progress.state["dense"])],
    }
