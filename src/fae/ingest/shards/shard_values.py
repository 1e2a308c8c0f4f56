"""Join the vocabularies of all parts: the ids of the whole log, in order of first appearance, of each part's values.

The parts are taken in log order, and the values of a part are in the order in which it shows them first. So the ids are
those that one pass over the log gives, whatever the parts are. Tables share nothing and are joined side by side.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fae.core.progress import Task, task
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.scratch import Scratch
from fae.ingest.shards.shard_files import SavedValues

_MOST_THREADS = 32
_MOST_WAITING = 64
"""Parts that wait for a thread: their files are open."""
_PAUSE = 0.005  # seconds


class JoinedIds:
    """Joins the values of parts while the log is read, and has the whole log's ids of each part's ids.

    As a context manager it has threads, none of which runs behind the block: each joins the values of tables of its
    own, part by part.

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
        columns = list(self._tables)
        self._shares = [columns[first::_MOST_THREADS] for first in range(min(_MOST_THREADS, len(columns)))]
        self._waiting: list[queue.SimpleQueue[SavedValues | None]] = [queue.SimpleQueue() for _ in self._shares]
        self._errors: dict[int, Exception] = {}
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name="fae-join", daemon=True)
            for index in range(len(self._shares))
        ]
        self._has_stopped = False
        self._bar: Task | None = None

    def __contains__(self, column: int) -> bool:
        """Whether a column is the first of a table with a vocabulary; that of an encoded one is not."""
        return column in self._tables

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._has_stopped = True
            self._wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_stopped = True
        self._wait()

    def add(self, path: Path, facts: dict[str, Any]) -> None:
        """Take the next part in log order; its values are joined some time later."""
        if not self._waiting:
            return
        while max(waiting.qsize() for waiting in self._waiting) >= _MOST_WAITING:
            time.sleep(_PAUSE)
        values = SavedValues(path, facts)
        for waiting in self._waiting:
            waiting.put(values)

    def finish(self) -> None:
        """Wait until all values are joined.

        Raises
        ------
        LogError
            If a column has more distinct values than ids.
        """
        with task("ingest: joining values", sum(waiting.qsize() for waiting in self._waiting), "parts") as self._bar:
            self._wait()
        if self._errors:
            raise self._errors[min(self._errors)]

    def of_part(self, column: int, part: int) -> npt.NDArray[np.int32]:
        """int32 ``[values]``: ids of the values of a part, of the table whose first column this is."""
        table = self._tables[column]
        return table.ids[table.first_ids[part] : table.first_ids[part + 1]]

    def release(self) -> None:
        """Free the memory."""
        for table in self._tables.values():
            self._scratch.release(table.ids)

    def _wait(self) -> None:
        for waiting in self._waiting:
            waiting.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self, index: int) -> None:
        """Join each part that comes, for the tables of one thread."""
        while (values := self._waiting[index].get()) is not None:
            for column in self._shares[index]:
                if self._has_stopped or column in self._errors:
                    continue
                try:
                    data, count = values.read(column)
                    self._encoders[column].add_values(data, count, self._tables[column].make_room(count))
                except Exception as error:
                    self._errors[column] = error
            if self._bar is not None:
                self._bar.advance(1)


class _Table:
    """The joined ids of one table.

    Attributes
    ----------
    ids
        int32: one part's after the other's, and room for more.
    first_ids
        Where those of each part begin.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self.ids: npt.NDArray[np.int32] = scratch.array(1, np.int32)
        self.first_ids = [0]

    def make_room(self, count: int) -> npt.NDArray[np.int32]:
        """The place of the next part's ids."""
        begin, end = self.first_ids[-1], self.first_ids[-1] + count
        if end > len(self.ids):
            self.ids = self._scratch.grow(self.ids, max(end, 2 * len(self.ids)))
        self.first_ids.append(end)
        return self.ids[begin:end]
