"""What metrics need of the ids of scored inputs, collected a chunk at a time: unknown ids, groups, a sample.

Ids of all inputs would take more memory than their scores; a flag, one id and a sample of them do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, first_slots, model_features
from fae.core.errors import RecipeError

_CHUNK_INPUTS = 1 << 16
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
        self._sampled = np.empty(0, np.int64)
        self._sample = np.empty((0, self._slots[-1]), np.int32)

    def add(self, ids: npt.NDArray[np.int32]) -> None:
        """Add the ids ``[m, S]`` of the next inputs."""
        self._unknown.append((ids == self._unknown_ids).any(axis=1))
        if self.group is not None:
            self._groups.append(np.array(ids[:, self._group_slot]))
        first = -self.num_inputs % self._stride
        chosen = np.arange(first, len(ids), self._stride)
        self._sampled = np.concatenate([self._sampled, self.num_inputs + chosen])
        self._sample = np.concatenate([self._sample, ids[chosen]])
        self.num_inputs += len(ids)
        while len(self._sampled) > self._most:  # every second one is kept: an even sample of any number of inputs
            self._stride *= 2
            self._sampled, self._sample = self._sampled[::2].copy(), self._sample[::2].copy()

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
        return self._sampled

    def sample_of(self, column: int) -> npt.NDArray[np.int32]:
        """int32 ``[m, L]``: the sampled inputs' ids of a column, by its number."""
        return self._sample[:, self._slots[column] : self._slots[column + 1]]


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
    """The facts of inputs of a columnar log, by their numbers ``[n]``, read a chunk at a time."""
    found = InputColumns(log.features, group_by, most=most)
    for start in range(0, len(inputs), _CHUNK_INPUTS):
        found.add(log.ids[inputs[start : start + _CHUNK_INPUTS]])
    return found
