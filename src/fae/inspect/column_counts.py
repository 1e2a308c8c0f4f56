"""Count the values of a column: before the last tenth of a log, and in it. Exact, whatever the number of values.

The vocabulary is that of ingest, so memory is bounded: what is too large is kept in files (`fae.ingest.scratch`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.ingest.scratch import Scratch
from fae.ingest.vocabulary import Vocabulary

Counts = npt.NDArray[np.int64]
MOST_LOOKED_AT = 500_000
"""Values whose texts are looked at, the first ones: a kind shows in fewer."""


class ColumnCounts:
    """Counts the values of one column, table by table in log order."""

    def __init__(self, name: str, scratch: Scratch) -> None:
        self._scratch = scratch
        self._vocabulary = Vocabulary(name, scratch)
        self._counts = [self._zeros(1 << 10), self._zeros(1 << 10)]
        self._num_missing = [0, 0]

    def _zeros(self, size: int) -> Counts:
        array = self._scratch.array(size, np.int64)
        array[:] = 0
        return array

    def add(self, values: Any, *, is_test: bool) -> None:
        """Count an Arrow string array; null is a missing value.

        Parameters
        ----------
        is_test
            Whether the inputs are of the last tenth of the log.
        """
        self._num_missing[is_test] += values.null_count
        ids = self._vocabulary.encode(values.drop_null() if values.null_count else values)
        for index in (0, 1):
            old = self._counts[index]
            if len(old) < self._vocabulary.size:
                self._counts[index] = self._zeros(max(2 * len(old), self._vocabulary.size))
                self._counts[index][: len(old)] = old
                self._scratch.release(old)
        if len(ids):
            found = np.bincount(ids)
            self._counts[is_test][: len(found)] += found

    def add_missing(self, count: int, *, is_test: bool) -> None:
        """Count inputs of a table that does not have the column."""
        self._num_missing[is_test] += count

    def finish(self) -> CountedValues:
        """What was counted; frees what only `add` needs."""
        size = self._vocabulary.size
        self._vocabulary.seal()
        looked_at = min(size, MOST_LOOKED_AT)
        return CountedValues(
            texts=self._vocabulary.values(np.arange(looked_at, dtype=np.int32)),
            before=self._counts[0][:size], after=self._counts[1][:size],
            missing_before=self._num_missing[0], missing_after=self._num_missing[1],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CountedValues:
    """The values of one column, in order of first appearance, and how often each occurs.

    Attributes
    ----------
    texts
        Arrow string array of the first values.
    before, after
        int64 ``[d]``: how often each of the d values occurs before the last tenth of the log, and in it.
    missing_before, missing_after
        Inputs without a value.
    """

    texts: Any
    before: Counts
    after: Counts
    missing_before: int
    missing_after: int

    @cached_property
    def counts(self) -> Counts:
        """int64 ``[d]``: how often each value occurs."""
        return self.before + self.after

    @cached_property
    def num_values(self) -> int:
        """Inputs with a value."""
        return int(self.before.sum() + self.after.sum())

    @property
    def num_missing(self) -> int:
        """Inputs without a value."""
        return self.missing_before + self.missing_after

    @property
    def distinct(self) -> int:
        """Number of values."""
        return len(self.before)

    @cached_property
    def seen_once(self) -> int:
        """Number of values that occur once."""
        return int(np.count_nonzero(self.counts == 1))

    @property
    def new_share(self) -> float | None:
        """Share of the inputs of the last tenth whose value was not there before; None where there are none."""
        total = int(self.after.sum())
        return int(self.after[self.before == 0].sum()) / total if total else None

    def weights(self) -> Counts:
        """Counts of `texts`."""
        return self.counts[: len(self.texts)]

    def without(self, words: Collection[str]) -> CountedValues:
        """The same with some values taken as missing."""
        named = np.zeros(self.distinct, np.bool_)
        named[: len(self.texts)] = np.asarray(pc.is_in(self.texts, value_set=pa.array([*words], pa.string())))
        if not named.any():
            return self
        return CountedValues(
            texts=self.texts.filter(pa.array(~named[: len(self.texts)])),
            before=self.before[~named], after=self.after[~named],
            missing_before=self.missing_before + int(self.before[named].sum()),
            missing_after=self.missing_after + int(self.after[named].sum()),
        )  # fmt: skip

    def most_frequent(self, count: int) -> list[tuple[str, int]]:
        """The most frequent values with their counts, most first."""
        weights = self.weights()
        places = np.argsort(-weights, kind="stable")[:count]
        return [(str(self.texts[int(place)].as_py()), int(weights[place])) for place in places]

    def items(self, lists: Any) -> CountedValues:
        """The items of a list column.

        Parameters
        ----------
        lists
            Arrow list array of text: the items of each of `texts`.
        """
        flat = lists.flatten()
        lengths = np.asarray(pc.list_value_length(lists).fill_null(0), np.int64)
        owners = np.repeat(np.arange(len(self.texts)), lengths)
        keep = np.asarray(pc.not_equal(flat, "").fill_null(False))
        encoded = flat.filter(pa.array(keep)).dictionary_encode()
        codes, owners = encoded.indices.to_numpy(), owners[keep]
        size = len(encoded.dictionary)
        before, after = (
            np.bincount(codes, weights=counts[owners], minlength=size).astype(np.int64)
            for counts in (self.before, self.after)
        )
        return CountedValues(
            texts=encoded.dictionary, before=before, after=after,
            missing_before=self.missing_before, missing_after=self.missing_after,
        )  # fmt: skip
