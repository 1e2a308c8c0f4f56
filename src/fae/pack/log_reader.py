"""Inputs that pack works on: columns of the log, or of a part of it, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog


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
