"""Measures a whole split: predictions, metrics, and what the log says of the same inputs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from fae.artifacts.columnar_log import ColumnarLog, model_features
from fae.artifacts.packed import BatchSet, PackedDataset
from fae.core.errors import RecipeError
from fae.core.progress import say
from fae.embedding.base import Embeddings
from fae.training.quality.describe import measure_quality, quality_lines
from fae.training.quality.evaluate import input_weights, predict_split
from fae.training.quality.input_columns import columns_of_log, find_group
from fae.training.quality.single_columns import SingleColumns
from fae.training.step import Precision
from fae.training.watching.causes import worse_than_the_rate


class QualityMeter:
    """Measures splits of packed batches.

    Parameters
    ----------
    packed
        The batches.
    log
        The columnar log they were packed from; None leaves out what needs ids.
    group_by
        As ``[train] group_by``.

    Raises
    ------
    RecipeError
        If the log is another one, or has no such column of single values.
    """

    def __init__(self, packed: PackedDataset, log: ColumnarLog | None, group_by: str | None) -> None:
        self._log, self._group_by = log, group_by
        if log is None:
            if group_by is not None:
                raise RecipeError(
                    f"group_by = {group_by!r} needs the columnar log: fae.Trainer(..., log=run.open_log())"
                )
            return
        packed_from = packed.manifest.parents.get(log.manifest.kind)
        if packed_from is not None and packed_from != log.manifest.fingerprint:
            raise RecipeError(
                f"log = {str(log.path)!r} ({log.manifest.fingerprint[:8]}) is not the log that the batches were packed "
                f"from ({packed_from[:8]})"
            )
        if group_by is not None:
            find_group(model_features(log.features), group_by)

    def measure(
        self, model: nn.Module, embeddings: Embeddings, batches: BatchSet, *, label: str, precision: Precision
    ) -> dict[str, Any]:
        """Metrics of a split, as ``validation`` and ``test`` of the run record have them; of ranks, the first has them.

        Returns
        -------
        dict
            Empty on another rank than the first.
        """
        labels, logits = predict_split(model, embeddings, batches, label=label, precision=precision)
        with embeddings.group.first_works(f"the metrics of {label}"):
            if not embeddings.group.is_first:
                return {}
            weights = input_weights(batches)
            inputs = None
            if self._log is not None and len(labels):
                inputs = columns_of_log(self._log, _packed_inputs(batches), self._group_by)
            return measure_quality(labels, logits, weights, inputs=inputs, singles=self._singles)

    def measure_both(
        self, model: nn.Module, embeddings: Embeddings, packed: PackedDataset, *, precision: Precision
    ) -> dict[str, Any]:
        """``test`` and ``validation`` of the run record, on all ranks; says to people what the figures mean."""
        is_shared = embeddings.group.world > 1
        found: dict[str, Any] = {
            name: self.measure(model, embeddings, batches, label=label, precision=precision)
            for name, label, batches in (("test", "test", packed.test), ("validation", "validate", packed.validation))
        }
        found = embeddings.group.broadcast_json(found, "the metrics of both splits") if is_shared else found
        for name in ("validation", "test"):
            warning = worse_than_the_rate(name, found[name], packed)
            for line in [warning] if warning else quality_lines(name, found[name]) if name == "test" else []:
                say(f"train: {line}")
        return found

    @cached_property
    def _singles(self) -> SingleColumns | None:
        return None if self._log is None else SingleColumns(self._log)


def _packed_inputs(batches: BatchSet) -> npt.NDArray[np.int64]:
    """int64 ``[n]``: numbers in the log of the real inputs, in batch order."""
    sizes = batches.arrays.num_inputs
    real = np.arange(batches.inputs.shape[1]) < np.asarray(sizes)[:, None]
    found: npt.NDArray[np.int64] = np.asarray(batches.inputs)[real]
    return found
