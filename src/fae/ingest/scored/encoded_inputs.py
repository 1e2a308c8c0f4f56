"""Inputs as numbers of a finished run, regrouped into batches of one size across the borders of chunks and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class EncodedInputs:
    """Some consecutive inputs, n of them, as numbers of a finished run.

    Attributes
    ----------
    ids
        int32 ``[n, S]``: the run's ids, -1 in unused slots.
    dense
        float32 ``[n, K]``, transformed as the run's log is.
    labels
        uint8 ``[n]``; None where they are not read.
    weights
        float32 ``[n]``; None where they are not read, or the run's log has none.
    kept
        Arrow table of the kept columns, n rows; None where none are kept.
    """

    ids: npt.NDArray[np.int32]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8] | None
    weights: npt.NDArray[np.float32] | None = None
    kept: Any = None

    def part(self, start: int, stop: int) -> EncodedInputs:
        """Inputs ``[start, stop)``, as views."""
        return EncodedInputs(
            ids=self.ids[start:stop],
            dense=self.dense[start:stop],
            labels=None if self.labels is None else self.labels[start:stop],
            weights=None if self.weights is None else self.weights[start:stop],
            kept=None if self.kept is None else self.kept.slice(start, stop - start),
        )


def regroup(chunks: Iterable[EncodedInputs], size: int) -> Iterator[EncodedInputs]:
    """The same inputs in batches of `size`; the last one may be smaller."""
    waiting: list[EncodedInputs] = []
    count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk.ids)
        if count < size:
            continue
        joined = _joined(waiting)
        for start in range(0, count - size + 1, size):
            yield joined.part(start, start + size)
        waiting, count = [joined.part(count - count % size, count)], count % size
    if count:
        yield _joined(waiting)


def _joined(parts: Sequence[EncodedInputs]) -> EncodedInputs:
    if len(parts) == 1:
        return parts[0]
    labels = [part.labels for part in parts if part.labels is not None]
    weights = [part.weights for part in parts if part.weights is not None]
    return EncodedInputs(
        ids=np.concatenate([part.ids for part in parts]),
        dense=np.concatenate([part.dense for part in parts]),
        labels=np.concatenate(labels) if labels else None,
        weights=np.concatenate(weights) if weights else None,
        kept=None if parts[0].kept is None else pa.concat_tables([part.kept for part in parts]),
    )
