"""Inputs that pack works on: columns of the log, or of a part of it, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.threads import run_ranges


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
    index
        int64 ``[n]``: position of each input in the log.
    hot
        bool ``[n]``: whether an input is hot; all False until it is classified.
    weights
        float32 ``[n]``; None where the log has none.
    """

    ids: npt.NDArray[np.int32]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    index: npt.NDArray[np.int64]
    hot: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: npt.NDArray[np.int64]) -> LogInputs:
        """A copy of the inputs at these positions, in this order."""
        return LogInputs(
            ids=self.ids[positions],
            dense=self.dense[positions],
            labels=self.labels[positions],
            index=self.index[positions],
            hot=self.hot[positions],
            weights=None if self.weights is None else self.weights[positions],
        )


def log_inputs(log: ColumnarLog, start: int, stop: int) -> LogInputs:
    """Inputs ``[start, stop)`` of a log, as views of its memory maps."""
    return LogInputs(
        ids=np.asarray(log.ids)[start:stop],
        dense=np.asarray(log.dense)[start:stop],
        labels=np.asarray(log.labels)[start:stop],
        index=np.arange(start, stop, dtype=np.int64),
        hot=np.zeros(stop - start, np.bool_),
        weights=None if log.weights is None else np.asarray(log.weights)[start:stop],
    )


def take_rows(column: npt.NDArray[Any], positions: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
    """Do ``out[:] = column[positions]`` with several threads; `column` and `out` are contiguous."""

    def work(start: int, stop: int) -> None:
        # mode="clip" on purpose: the checking mode of `take` copies through a buffer; positions are ours.
        np.take(column, positions[start:stop], axis=0, out=out[start:stop], mode="clip")

    run_ranges(work, len(positions), min_range=256)


def input_bytes(num_slots: int, num_dense: int) -> int:
    """Bytes that an input takes in the columnar log.

    >>> input_bytes(26, 13)
    157
    """
    return 4 * num_slots + 4 * num_dense + 1
