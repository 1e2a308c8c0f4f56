"""What metrics need of the ids of scored inputs, collected a chunk at a time: unknown ids, groups, a sample.

Ids of all inputs would take more memory than their scores; a flag, one id and a sample of them do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, first_slots, model_features
from fae.core.compiled import Int64, compiled
from fae.core.errors import RecipeError
from fae.core.threads import run_ranges

_RANGE_INPUTS = 1 << 14
"""Inputs that a thread of its own is worth."""
_MOST_INPUTS, _MOST_LOOKUPS = 1 << 17, 1 << 22
"""Size of the sample."""


class InputColumns:
    """Facts about inputs whose ids are added in the order of their scores.

    Parameters
    ----------
    features
        Those of the log.
    group_by
        The column whose values are groups; None for no groups.
    most
        Inputs of the sample; None takes up to 131,072 inputs, and up to 4,194,304 lookups.

    Attributes
    ----------
    columns
        The columns of the log, in slot order.
    group
        The column of `group_by`.

    Raises
    ------
    RecipeError
        If the log has no such column, or a value of it is a list.
    """

    def __init__(
        self, features: Sequence[FeatureSchema], group_by: str | None = None, *, most: int | None = None
    ) -> None:
        self.columns = model_features(features)
        self._slots = first_slots(self.columns)
        self._unknown_ids = np.repeat(
            # -1 is an empty slot, and the reserved id of a table that has none.
            np.array([each.unknown_id if each.unknown_id >= 0 else -2 for each in self.columns], np.int32),
            np.diff(self._slots),
        )
        self.group = None if group_by is None else find_group(self.columns, group_by)
        self._group_slot = 0 if self.group is None else self._slots[self.columns.index(self.group)]
        self._most = most or max(1, min(_MOST_INPUTS, _MOST_LOOKUPS // self._slots[-1]))
        self._stride, self.num_inputs = 1, 0
        self._unknown: list[npt.NDArray[np.bool_]] = []
        self._groups: list[npt.NDArray[np.int32]] = []
        self._sample: list[tuple[npt.NDArray[Any], ...]] = [
            (np.empty(0, np.int64), np.empty((0, self._slots[-1]), np.int32))
        ]

    def add(self, ids: npt.NDArray[np.int32]) -> None:
        """Add the ids ``[m, S]`` of the next inputs."""
        self.add_rows(ids, np.arange(len(ids)))

    def add_rows(self, ids: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]) -> None:
        """Add the next inputs: those of the numbers `rows` ``[m]`` in ids ``[N, S]``.

        Raises
        ------
        IndexError
            If there is no such input.
        """
        there, unknown = np.ascontiguousarray(ids).view(), np.empty(len(rows), np.bool_)
        there.flags.writeable = False  # one type for the compiled loop, whether mapped or in memory
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(there):
            raise IndexError(f"inputs {rows.min()} to {rows.max()} of {len(there)}")

        def find(start: int, stop: int) -> None:
            find_unknown(there, rows, self._unknown_ids, unknown, start, stop)

        run_ranges(find, len(rows), min_range=_RANGE_INPUTS)
        self._unknown.append(unknown)
        if self.group is not None:
            self._groups.append(there[rows, self._group_slot])
        while self.num_inputs + len(rows) > self._stride * self._most:  # an even sample of any number of inputs
            self._stride *= 2
            self._sample = [tuple(part[::2].copy() for part in self._joined_sample())]
        chosen = np.arange(-self.num_inputs % self._stride, len(rows), self._stride)
        self._sample.append((self.num_inputs + chosen, there[rows[chosen]]))
        self.num_inputs += len(rows)

    def _joined_sample(self) -> tuple[npt.NDArray[Any], ...]:
        """int64 ``[m]`` and int32 ``[m, S]``: numbers and ids of the sampled inputs."""
        if len(self._sample) > 1:
            self._sample = [tuple(np.concatenate(parts) for parts in zip(*self._sample, strict=True))]
        return self._sample[0]

    @property
    def has_unknown(self) -> npt.NDArray[np.bool_]:
        """bool ``[n]``: which inputs look up a reserved id."""
        return np.concatenate([np.empty(0, np.bool_), *self._unknown])

    @property
    def groups(self) -> npt.NDArray[np.int32]:
        """int32 ``[n]``: ids of the group column."""
        return np.concatenate([np.empty(0, np.int32), *self._groups])

    @property
    def sampled(self) -> npt.NDArray[np.int64]:
        """int64 ``[m]``: numbers of the sampled inputs, ascending, evenly spread."""
        return self._joined_sample()[0]

    def sample_of(self, column: int) -> npt.NDArray[np.int32]:
        """int32 ``[m, L]``: the sampled inputs' ids of a column, by its number."""
        return self._joined_sample()[1][:, self._slots[column] : self._slots[column + 1]]


@compiled
def find_unknown(
    ids: npt.NDArray[np.int32],
    rows: Int64,
    unknown_ids: npt.NDArray[np.int32],
    found: npt.NDArray[np.bool_],
    start: int,
    stop: int,
) -> None:
    """Write to `found` ``[start, stop)`` whether the inputs of these numbers look up a reserved id."""
    for place in range(start, stop):
        row, is_there = rows[place], False
        for slot in range(len(unknown_ids)):
            is_there |= ids[row, slot] == unknown_ids[slot]
        found[place] = is_there


def find_group(columns: Sequence[FeatureSchema], name: str) -> FeatureSchema:
    """The column of ``[train] group_by``.

    Raises
    ------
    RecipeError
        If there is none of that name, or its values are lists.
    """
    for column in columns:
        if column.name == name:
            if column.length > 1:
                raise RecipeError(f"group_by = {name!r} is a column of lists; a group is one value an input")
            return column
    names = ", ".join(column.name for column in columns)
    raise RecipeError(f"group_by = {name!r} is no categorical column of the log, which has {names}")


def columns_of_log(
    log: ColumnarLog, inputs: npt.NDArray[np.int64], group_by: str | None = None, *, most: int | None = None
) -> InputColumns:
    """The facts of inputs of a columnar log, by their numbers ``[n]``."""
    found = InputColumns(log.features, group_by, most=most)
    found.add_rows(log.ids, inputs)
    return found
