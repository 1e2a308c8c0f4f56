"""Inputs that pack works on: columns of the log, or of a part of it, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog
from fae.pack.input_kernels import LoopColumns


def plain_view(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A plain view that cannot be written: a loop is then compiled once, for files and for memory."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, kw_only=True)
class LogInputs:
    """Columns of n inputs, memory-mapped or in memory.

    Attributes
    ----------
    ids
        int32 ``[n, S]``, contiguous, -1 in unused slots.
    dense
        float32 ``[n, K]``, contiguous.
    labels
        uint8 ``[n]``.
    first
        Position in the log of the first input, where the others follow it.
    index
        int64 ``[n]``: position of each input in the log; None where they follow the first one.
    weights
        float32 ``[n]``; None where the log has none.
    """

    ids: npt.NDArray[np.int32]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    first: int = 0
    index: npt.NDArray[np.int64] | None = None
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def loop_ids(self) -> npt.NDArray[np.int32]:
        """The ids as compiled loops take them: a plain array that is only read, wherever it lies."""
        return plain_view(self.ids)

    @cached_property
    def loop_columns(self) -> LoopColumns:
        """The other columns as compiled loops take them."""
        return LoopColumns(
            dense=plain_view(self.dense),
            labels=plain_view(self.labels),
            log_positions=plain_view(np.empty(0, np.int64) if self.index is None else self.index),
            weights=plain_view(np.empty(0, np.float32) if self.weights is None else self.weights),
        )

    def log_positions(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64: where in the log the inputs at these positions are."""
        return positions + self.first if self.index is None else self.index[positions]

    def take(self, positions: npt.NDArray[np.int64]) -> LogInputs:
        """A copy of the inputs at these positions, in this order."""
        return LogInputs(
            ids=self.ids[positions],
            dense=self.dense[positions],
            labels=self.labels[positions],
            index=self.log_positions(positions),
            weights=None if self.weights is None else self.weights[positions],
        )


def log_inputs(log: ColumnarLog, start: int, stop: int) -> LogInputs:
    """Inputs ``[start, stop)`` of a log, as views of its memory maps."""
    return LogInputs(
        ids=np.asarray(log.ids)[start:stop],
        dense=np.asarray(log.dense)[start:stop],
        labels=np.asarray(log.labels)[start:stop],
        first=start,
        weights=None if log.weights is None else np.asarray(log.weights)[start:stop],
    )


def input_bytes(num_slots: int, num_dense: int) -> int:
    """Bytes that an input takes in the columnar log.

    >>> input_bytes(26, 13)
    157
    """
    return 4 * num_slots + 4 * num_dense + 1
