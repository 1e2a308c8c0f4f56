"""The tables of a model by name and in vocabulary order: first values, export, import, ``state_dict``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.row_layout import RowLayout
from fae.core.config import nearest
from fae.core.errors import TrainingError
from fae.core.threads import num_threads
from fae.streaming.row_store import RowOptimizer, initial_chunks, initial_rows

_STEPS = "steps"


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Up to `most` numbers below `count`, ascending, as evenly spread as whole numbers are."""
    return np.arange(min(count, most), dtype=np.int64) * max(count, 1) // max(1, min(count, most))


class RowTables(ABC):
    """Rows that a placement keeps anywhere, read and written by table.

    Attributes
    ----------
    layout
        Tables, storage order and hot prefixes.
    optimizer
        Optimizer of the rows.
    steps
        Number of batches that have updated rows.
    has_rows_together
        Whether rows in host memory are those of all ranks of the host together.
    """

    layout: RowLayout
    optimizer: RowOptimizer
    steps: int
    has_rows_together = False

    @abstractmethod
    def _read_rows(self, group: int, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Weight and state of these row numbers, on the host."""

    @abstractmethod
    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        """The inverse of `_read_rows`."""

    def initialise(self, seed: int) -> None:
        """Give every row its first value (`fae.streaming.row_store.initial_rows`) and zero state."""
        self.steps = 0
        for table, feature in enumerate(self.layout.features):
            dim, rows = self.layout.embedding_dims[table], self.layout.row_numbers(table)
            width = self.optimizer.state_width(dim)
            # All threads draw, then all write: chunk by chunk, 48 GB of rows took minutes.
            ranges = initial_chunks(feature.num_embeddings, num_threads())
            buffer = np.empty((max((stop - start for start, stop in ranges), default=0), dim), np.float32)
            for start, stop in ranges:
                weight = initial_rows(
                    seed, feature.name, feature.num_embeddings, dim, start, stop, out=buffer[: stop - start]
                )
                self._write_rows(
                    int(self.layout.group_of_table[table]),
                    rows[start:stop],
                    torch.from_numpy(weight),
                    torch.zeros((stop - start, width)),
                )

    def export_table(self, table: int) -> tuple[Tensor, Tensor]:
        """Weight ``[num_embeddings, D]`` and state ``[num_embeddings, width]`` in vocabulary order, on the host.

        Raises `RuntimeError`, as `import_table` and `initialise` do, while a stream is open whose slots hold rows.
        """
        return self._read_rows(int(self.layout.group_of_table[table]), self.layout.row_numbers(table))

    def import_table(self, table: int, weight: Tensor, state: Tensor) -> None:
        """The inverse of `export_table`."""
        self._write_rows(int(self.layout.group_of_table[table]), self.layout.row_numbers(table), weight, state)

    def sample_rows(self, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Weight and state of up to `most` hot rows and as many cold ones of each width, evenly spread, on the host.

        They are the same rows under every placement. Raises as `export_table` does.
        """
        for group, part in enumerate(self.layout.groups):
            hot, cold = part.num_hot_rows, part.num_cold_rows
            rows = np.concatenate([_spread(hot, most), hot + _spread(cold, most)])
            yield self._read_rows(group, rows)

    def state_dict(self) -> dict[str, Any]:
        """All rows with optimizer state, in vocabulary order, on the host: what `load_state_dict` takes.

        It does not depend on placement, budget or hot set. All tables are in memory at once; for large ones, and for
        files, see `fae.load_tables`.

        Returns
        -------
        dict
            ``<table>.weight`` float32 ``[num_embeddings, D]`` and ``<table>.state`` float32
            ``[num_embeddings, width]`` of each table, and ``steps``.
        """
        state: dict[str, Any] = {_STEPS: self.steps}
        for table, feature in enumerate(self.layout.features):
            weight, kept = self.export_table(table)
            state |= {f"{feature.name}.weight": weight, f"{feature.name}.state": kept}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the rows of a `state_dict`, made under any placement, budget and hot set of the same log.

        Raises
        ------
        TrainingError
            If a tensor is missing, too many, or has another shape; then no row has changed.
        """
        expected: dict[str, tuple[int, int]] = {}
        for table, feature in enumerate(self.layout.features):
            dim = self.layout.embedding_dims[table]
            expected[f"{feature.name}.weight"] = (feature.num_embeddings, dim)
            expected[f"{feature.name}.state"] = (feature.num_embeddings, self.optimizer.state_width(dim))
        known = [_STEPS, *expected]
        for name in known:
            if name not in state:
                raise TrainingError(f"the state has no {name!r}; it must have those of embeddings.state_dict()")
        for name in state:
            if name not in known:
                raise TrainingError(f"the state has {name!r}, which these embeddings do not; {nearest(name, known)}")
        for name, shape in expected.items():
            if not isinstance(state[name], Tensor) or tuple(state[name].shape) != shape:
                found = list(state[name].shape) if isinstance(state[name], Tensor) else type(state[name]).__name__
                raise TrainingError(
                    f"{name!r} of the state is {found}, and must be {list(shape)} for these tables and "
                    f"{self.optimizer.name}"
                )
        for table, feature in enumerate(self.layout.features):
            weight, kept = (state[f"{feature.name}.{part}"].float().cpu() for part in ("weight", "state"))
            self.import_table(table, weight, kept)
        self.steps = int(state[_STEPS])
