"""Join the vocabularies of all parts: the ids of the whole log, in order of first appearance, of each part's values.

The parts are taken in log order, and the values of a part are in the order in which it shows them first. So the ids are
those that one pass over the log gives, whatever the parts are. Tables share nothing and are joined side by side.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fae.core.progress import Task, task
from fae.core.threads import num_threads
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.scratch import Scratch
from fae.ingest.shards.shard_files import saved_values

Parts = Sequence[tuple[Path, dict[str, Any]]]


class JoinedIds:
    """Joins the values of parts while the log is read, and has the whole log's ids of each part's ids.

    As a context manager it starts threads, which no longer run behind the block.

    Parameters
    ----------
    encoders
        Their vocabularies get the values.
    """

    def __init__(self, encoders: Sequence[ColumnEncoder], scratch: Scratch) -> None:
        self._encoders, self._scratch = encoders, scratch
        self._tables = {
            column: _Table(scratch)
            for column, encoder in enumerate(encoders)
            if encoder.owner is None and encoder.vocabulary is not None
        }
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._bar: Task | None = None

    def __contains__(self, column: int) -> bool:
        """Whether a column is the first of a table with a vocabulary; that of an encoded one is not."""
        return column in self._tables

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(max(1, min(num_threads(), len(self._tables))), "fae-join")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._threads is not None
        for table in self._tables.values():
            table.waiting.clear()
        self._threads.shutdown(cancel_futures=True)

    def add(self, path: Path, facts: dict[str, Any]) -> None:
        """Take the next part in log order; its values are joined some time later."""
        assert self._threads is not None
        for column, table in self._tables.items():
            with self._lock:
                table.waiting.append((path, facts))
                if not table.is_worked_at:
                    table.is_worked_at = True
                    table.future = self._threads.submit(self._work, column)

    def finish(self) -> None:
        """Wait until all values are joined.

        Raises
        ------
        LogError
            If a column has more distinct values than ids.
        """
        waiting = [facts["values"][column][0] for column, table in self._tables.items() for _, facts in table.waiting]
        with task("ingest: joining values", sum(waiting), "values") as self._bar:
            for table in self._tables.values():
                if table.future is not None:
                    table.future.result()
        self._bar = None

    def of_part(self, column: int, part: int) -> npt.NDArray[np.int32]:
        """int32 ``[values]``: ids of the values of a part, of the table whose first column this is."""
        table = self._tables[column]
        return table.ids[table.first_ids[part] : table.first_ids[part + 1]]

    def release(self) -> None:
        """Free the memory."""
        for table in self._tables.values():
            self._scratch.release(table.ids)

    def _work(self, column: int) -> None:
        """Join the parts that wait for a table, one after the other."""
        table = self._tables[column]
        while True:
            with self._lock:
                if not table.waiting:
                    table.is_worked_at = False
                    return
                path, facts = table.waiting.popleft()
            data, count = saved_values(path, facts, column)
            self._encoders[column].add_values(data, count, table.make_room(count))
            if self._bar is not None:
                self._bar.advance(count)


class _Table:
    """The joined ids of one table.

    Attributes
    ----------
    ids
        int32: one part's after the other's, and room for more.
    first_ids
        Where those of each part begin.
    waiting
        Parts that were added and are not joined.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self.ids: npt.NDArray[np.int32] = scratch.array(1, np.int32)
        self.first_ids = [0]
        self.waiting: deque[tuple[Path, dict[str, Any]]] = deque()
        self.is_worked_at = False
        self.future: Future[None] | None = None

    def make_room(self, count: int) -> npt.NDArray[np.int32]:
        """The place of the next part's ids."""
        begin, end = self.first_ids[-1], self.first_ids[-1] + count
        if end > len(self.ids):
            self.ids = self._scratch.grow(self.ids, max(end, 2 * len(self.ids)))
        self.first_ids.append(end)
        return self.ids[begin:end]
