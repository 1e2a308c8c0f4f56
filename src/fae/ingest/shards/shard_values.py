"""Join the vocabularies of all parts: the ids of the whole log, in order of first appearance, of each part's values.

The parts are taken in log order, and the values of a part are in the order in which it shows them first. So the ids are
those that one pass over the log gives, whatever the parts are. Tables share nothing and are joined side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.progress import task
from fae.core.threads import run_jobs
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.scratch import Scratch
from fae.ingest.shards.shard_files import saved_values

Parts = Sequence[tuple[Path, dict[str, Any]]]


class JoinedIds:
    """For each part and table, the whole log's ids of the part's ids.

    Attributes
    ----------
    first_ids
        int64 ``[P + 1]`` a table: where the ids of each part begin in `ids`; None of an encoded column.
    ids
        int32 a table: one part's after the other's; None of an encoded column.
    """

    def __init__(self, encoders: Sequence[ColumnEncoder], parts: Parts, scratch: Scratch) -> None:
        self._scratch = scratch
        self.first_ids: dict[int, list[int]] = {}
        self.ids: dict[int, npt.NDArray[np.int32]] = {}
        for column, encoder in enumerate(encoders):
            if encoder.owner is None and encoder.vocabulary is not None:
                counts = [facts["values"][column][0] for _, facts in parts]
                self.first_ids[column] = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).tolist()
                self.ids[column] = scratch.array(self.first_ids[column][-1], np.int32)

    def of_part(self, column: int, part: int) -> npt.NDArray[np.int32]:
        """int32 ``[values]``: ids of the values of a part, of the table whose first column this is."""
        return self.ids[column][self.first_ids[column][part] : self.first_ids[column][part + 1]]

    def release(self) -> None:
        """Free the memory."""
        for ids in self.ids.values():
            self._scratch.release(ids)


def join_values(encoders: Sequence[ColumnEncoder], parts: Parts, scratch: Scratch) -> JoinedIds:
    """Add the values of all parts to the vocabularies of `encoders`, in log order.

    Raises
    ------
    LogError
        If a column has more distinct values than ids.
    """
    joined = JoinedIds(encoders, parts, scratch)
    columns = list(joined.ids)
    with task("ingest: joining values", sum(len(joined.ids[column]) for column in columns), "values") as bar:

        def job(column: int) -> Callable[[], None]:
            def work() -> None:
                for part, (path, facts) in enumerate(parts):
                    data, count = saved_values(path, facts, column)
                    encoders[column].add_values(data, count, joined.of_part(column, part))
                    bar.advance(count)

            return work

        # The largest first: they take longest.
        columns.sort(key=lambda column: -len(joined.ids[column]))
        run_jobs([job(column) for column in columns])
    return joined
