"""A hot set that is not written: what memory, packing and the cost model need to know of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.row_layout import RowLayout


@dataclass(frozen=True, kw_only=True)
class PlannedHotSet:
    """The hot rows of one budget.

    Attributes
    ----------
    layout
        Tables, storage order and hot rows.
    staging_rows
        Most unique cold rows of a batch, per group.
    ring_depth
        Staging slots.
    batch_size, mixed, optimizer
        The training that it is for.
    """

    layout: RowLayout
    staging_rows: tuple[int, ...]
    ring_depth: int
    batch_size: int
    mixed: bool
    optimizer: str

    @classmethod
    def from_summary(
        cls,
        features: Sequence[FeatureSchema],
        summary: Mapping[str, Any],
        ranks: npt.NDArray[np.int32] | None,
        *,
        batch_size: int,
        mixed: bool,
        optimizer: str,
    ) -> PlannedHotSet:
        """The hot set of a summary that calibrate made.

        Parameters
        ----------
        ranks
            int32, flat: the storage order; None for the identity.
        """
        ends = np.cumsum([feature.num_embeddings for feature in features])[:-1]
        return cls(
            layout=RowLayout(
                features,
                [table["embedding_dim"] for table in summary["tables"]],
                [table["num_hot"] for table in summary["tables"]],
                None if ranks is None else np.split(ranks, ends),
            ),
            staging_rows=tuple(summary["staging_rows"]),
            ring_depth=summary["ring_depth"],
            batch_size=batch_size,
            mixed=mixed,
            optimizer=optimizer,
        )
