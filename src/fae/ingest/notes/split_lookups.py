"""How many lookups of each split have the reserved id, counted before final ids replace the provisional ones.

Of the training split all that is needed is in the counts, so only the other splits are read. Nothing is changed, so a
process that is killed meanwhile leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FeatureSchema
from fae.core.compiled import Int64, compiled
from fae.core.progress import task
from fae.core.threads import run_jobs
from fae.ingest.numbering.final_ids import Numbering, damaged_ids
from fae.ingest.numbering.id_blocks import IdRows, id_blocks

_UNKNOWN, _LOOKUPS, _SECOND, _ABSENT = range(4)


@dataclass(kw_only=True)
class SplitLookups:
    """Lookups of one feature in one split.

    Attributes
    ----------
    unknown
        Those that have the reserved id.
    lookups
        All of them; of a list, its used slots.
    absent
        Inputs without a value.
    num_inputs
        Inputs of the split.
    """

    unknown: int = 0
    lookups: int = 0
    absent: int = 0
    num_inputs: int = 0

    @property
    def unknown_share(self) -> float | None:
        """Share of the lookups that have the reserved id; None where there is no lookup."""
        return self.unknown / self.lookups if self.lookups else None


@dataclass(kw_only=True)
class ColumnLookups:
    """What the notes need to know of one categorical column.

    Attributes
    ----------
    splits
        By the name of the split.
    num_values
        Distinct values of the training split, the missing one included.
    num_ids
        Distinct ids that they have.
    seen_once
        Values that occur once in the training split, the missing one included.
    only_value
        Provisional id of the most frequent value of the training split that is not missing.
    most_frequent
        Lookups of the most frequent value, the missing one included.
    is_missing_first
        Whether that is the missing value of an encoded column, which has no text.
    has_lists
        Whether any input of the log has two items.
    """

    schema: FeatureSchema
    splits: dict[str, SplitLookups] = field(default_factory=dict)
    num_values: int = 0
    num_ids: int = 0
    seen_once: int = 0
    only_value: int = -1
    most_frequent: int = 0
    is_missing_first: bool = False
    has_lists: bool = False


def training_lookups(
    schema: FeatureSchema, counts: Int64, numbering: Numbering, *, shared: bool = False
) -> ColumnLookups:
    """What the counts of the training split say of a column.

    Parameters
    ----------
    counts
        As `fae.ingest.numbering.final_ids.count_ids` gives them for this column.
    shared
        Whether other columns share the table, whose counts are then those of all of them.
    """
    values = counts[:-2]
    if shared:
        own = np.bincount(numbering.final[:-1], weights=counts[:-1], minlength=numbering.num_embeddings)
        numbering = replace(numbering, counts=own.astype(np.int64))
    found = ColumnLookups(
        schema=schema,
        num_values=int(np.count_nonzero(values)) + int(counts[-2] > 0),
        num_ids=int(np.count_nonzero(numbering.counts)),
        seen_once=int(np.count_nonzero(values == 1)) + int(counts[-2] == 1),
        only_value=int(np.argmax(values)) if len(values) else -1,
    )
    largest = int(values[found.only_value]) if len(values) else 0
    found.most_frequent, found.is_missing_first = max(largest, int(counts[-2])), bool(counts[-2] > largest)
    unknown, lookups = int(numbering.counts[numbering.unknown_id]), int(numbering.counts.sum())
    found.splits["train"] = SplitLookups(unknown=unknown, lookups=lookups)
    return found


@compiled
def count_lookups(
    ids: npt.NDArray[np.int32],
    first: int,
    stop: int,
    encoded: bool,
    missing: int,
    final: npt.NDArray[np.int32],
    unknown: int,
    found: Int64,
) -> bool:
    """Count lookups of one feature in ``ids [n, S]``, slots ``[first, stop)``; False if an id is beyond its table.

    Parameters
    ----------
    missing
        Provisional id of the missing value.
    final, unknown
        As `fae.ingest.numbering.final_ids.Numbering`.
    found
        int64 ``[4]``, to which is added: lookups with the reserved id, all lookups, inputs with two items, inputs
        without a value.
    """
    known = final.size - 2
    for row in range(ids.shape[0]):
        if ids[row, first] == -1 or (ids[row, first] == missing and stop - first == 1):
            found[3] += 1
        if stop - first > 1 and ids[row, first + 1] != -1:
            found[2] += 1
        for slot in range(first, stop):
            value = ids[row, slot]
            if value == -1:
                continue
            if value >= known and encoded:
                value = np.int32(known)
            if value < -2 or value >= known + (1 if encoded else 0):
                return False
            found[1] += 1
            if final[value] == unknown:
                found[0] += 1
    return True


def add_other_splits(
    columns: Sequence[ColumnLookups],
    ids: IdRows,
    finals: Sequence[npt.NDArray[np.int32]],
    missing: Sequence[int],
    splits: Mapping[str, Sequence[int]],
) -> None:
    """Count the lookups of all splits but training.

    Parameters
    ----------
    finals, missing
        For each column its final ids, and the provisional id of its missing value.
    """
    first_slots = np.cumsum([0, *(column.schema.length for column in columns)]).tolist()
    others = {name: ends for name, ends in splits.items() if name != "train"}
    with task("ingest: looking for unknown ids", sum(stop - start for start, stop in others.values())) as progress:
        for name, (start, stop) in others.items():
            found = np.zeros((len(columns), 4), np.int64)
            intact = [True] * len(columns)
            for rows in id_blocks(ids, start, stop):

                def job(
                    index: int, rows: npt.NDArray[Any] = rows, found: Int64 = found, intact: list[bool] = intact
                ) -> Callable[[], None]:
                    schema, first = columns[index].schema, first_slots[index]

                    def work() -> None:
                        intact[index] &= count_lookups(
                            rows, first, first + schema.length, schema.encoded, missing[index], finals[index],
                            schema.unknown_id, found[index],
                        )  # fmt: skip

                    return work

                run_jobs([job(index) for index in range(len(columns))])
                progress.advance(len(rows))
                if not all(intact):
                    raise damaged_ids(columns[intact.index(False)].schema.name)
            for column, numbers in zip(columns, found.tolist(), strict=True):
                column.splits[name] = SplitLookups(
                    unknown=numbers[_UNKNOWN], lookups=numbers[_LOOKUPS], absent=numbers[_ABSENT],
                    num_inputs=stop - start,
                )  # fmt: skip
                column.has_lists |= numbers[_SECOND] > 0
