"""What one training step of a recipe has to do: lookups, different rows, cold rows, a dense part; no machine in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import map_slots
from fae.artifacts.columnar_log import FeatureSchema, feature_tables, model_features
from fae.artifacts.packed import PackedDataset
from fae.artifacts.stored.order_planes import order_bytes
from fae.core.optimizers import row_bytes
from fae.models.config import ModelConfig
from fae.planning.batch_counts import MOST_BATCHES, counts_of_batch, packed_counts
from fae.training.step import Precision

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet
    from fae.run.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What a step depends on beside the log's values and the budget; one for all budgets of a recipe.

    Attributes
    ----------
    model
        The recipe's ``[model]``.
    features
        Tables of the log.
    embedding_dims
        Width D of each table.
    num_dense
        K: dense features of an input.
    optimizer
        Name of the row optimizer; the dense weights take its counterpart.
    batch_size
        B: inputs of a full batch.
    precision
        Precision of the dense part that the device honours (`fae.training.step.honoured_precision`).
    mixed
        Whether batches mix hot and cold inputs (``[train] order = "shuffled"``).
    compiled, capture
        ``[train] compile`` and ``capture``: on a GPU, `torch.compile` for the dense part, CUDA graphs for steps.
    threads
        ``[train] threads``: on a CPU, threads of the dense part; 0 lets its size decide.
    """

    model: ModelConfig
    features: tuple[FeatureSchema, ...]
    embedding_dims: tuple[int, ...]
    num_dense: int
    optimizer: str
    batch_size: int
    precision: Precision = "fp32"
    mixed: bool = True
    compiled: bool = False
    capture: bool = True
    threads: int = 0

    @classmethod
    def from_recipe(
        cls, recipe: Recipe, features: Sequence[FeatureSchema], num_dense: int, precision: Precision
    ) -> StepSettings:
        """What a recipe says for a log with these features.

        Parameters
        ----------
        precision
            That of the dense part on the device in question: a CPU without units for bfloat16 trains in fp32.
        """
        model, train = recipe.model, recipe.train
        return cls(
            model=model,
            features=tuple(features),
            embedding_dims=tuple(model.dims([feature.name for feature in features])),
            num_dense=num_dense,
            optimizer=train.optimizer,
            batch_size=train.batch_size,
            precision=precision,
            mixed=recipe.mixed,
            compiled=train.compile,
            capture=train.capture,
            threads=train.threads,
        )

    @property
    def num_slots(self) -> int:
        """S: most lookups of an input."""
        return sum(feature.length for feature in self.features)

    @property
    def rounds_dense(self) -> bool:
        """Whether dense features go to a GPU in bfloat16."""
        return self.precision == "bf16" and self.model.rounds_dense


@dataclass(frozen=True, kw_only=True)
class WidthWork:
    """The rows of one embedding_dim in a mean batch.

    Attributes
    ----------
    embedding_dim
        D.
    num_slots
        Slots of an input whose tables have this width.
    pooled_floats
        Floats of an input that the model receives from them.
    lookups
        Slots in use, of all inputs.
    unique_rows
        Different rows.
    unique_cold_rows
        Those of them that are not hot; a mean over all batches, those without cold rows counted.
    num_rows, num_hot_rows
        Rows of the tables, and hot ones among them.
    """

    embedding_dim: int
    num_slots: int
    pooled_floats: int
    lookups: float
    unique_rows: float
    unique_cold_rows: float
    num_rows: int
    num_hot_rows: int


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """One mean step of a recipe under one hot set.

    Attributes
    ----------
    settings
        What all budgets share.
    widths
        The work of each embedding_dim, ascending.
    num_hot
        Hot rows of each table, a prefix of its storage order.
    inputs_per_batch
        Mean number of real inputs: below B where batches are closed early.
    cold_batch_share
        Share of the batches that have any cold row.
    ring_depth
        Staging slots.
    """

    settings: StepSettings
    widths: tuple[WidthWork, ...]
    num_hot: tuple[int, ...]
    inputs_per_batch: float
    cold_batch_share: float
    ring_depth: int = 8

    @classmethod
    def from_sample(
        cls,
        settings: StepSettings,
        ranks: npt.NDArray[np.int32],
        num_hot: Sequence[int],
        *,
        ring_depth: int = 8,
        closed_early: float = 0.0,
    ) -> StepWork:
        """Count batches of sampled inputs.

        Parameters
        ----------
        ranks
            int32 ``[n, S]``: storage ranks (hottest 0) that n inputs, in random order, look up; -1 where a slot is not
            in use. Fewer inputs than a batch are extrapolated.
        num_hot
            Hot rows of each table.
        closed_early
            Share of the places in training batches that are padding, where it is known.
        """
        size, hot = settings.batch_size, np.asarray(num_hot, np.int64)
        slot_hot = hot[map_slots(settings.features).slot_table]
        if settings.mixed:
            kinds = [(1.0, ranks)]
        else:
            has_cold = (ranks >= slot_hot).any(axis=1)
            share = float(has_cold.mean()) if len(ranks) else 0.0
            kinds = [(1.0 - share, ranks[~has_cold]), (share, ranks[has_cold])]
        kinds = [(share, inputs) for share, inputs in kinds if share > 0]
        counted = [
            (share, counts_of_batch(settings.features, settings.embedding_dims, inputs, hot, size))
            for share, inputs in kinds
        ]
        # One column a width: lookups, different rows, different cold rows.
        mean = sum((share * counts for share, counts in counted), np.zeros((3, len(set(settings.embedding_dims)))))
        return cls(
            settings=settings,
            widths=_widths(settings, mean, num_hot),
            num_hot=tuple(int(count) for count in num_hot),
            inputs_per_batch=size * (1.0 - closed_early),
            cold_batch_share=sum(share for share, counts in counted if counts[2].any()),
            ring_depth=ring_depth,
        )

    @classmethod
    def from_packed(cls, settings: StepSettings, packed: PackedDataset, hot_set: HotSet | Any) -> StepWork:
        """Read it from the training batches of a packed artifact; cold rows are exact, the rest is counted in some.

        Parameters
        ----------
        hot_set
            The hot set it was packed for.
        """
        train, layout = packed.train, hot_set.layout
        cold = np.diff(train.arrays.cold_offsets, axis=0)
        full = np.flatnonzero(np.asarray(train.arrays.num_inputs) == packed.batch_size)
        chosen = full if len(full) else np.arange(train.num_batches)
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(MOST_BATCHES, len(chosen))).astype(int)]
        lookups_unique = np.mean([packed_counts(train.batch(int(index)), layout) for index in chosen], axis=0)
        mean = np.vstack([lookups_unique, cold.mean(axis=0)])
        return cls(
            settings=settings,
            widths=_widths(settings, mean, layout.num_hot),
            num_hot=layout.num_hot,
            inputs_per_batch=float(np.mean(train.arrays.num_inputs)),
            cold_batch_share=float(cold.any(axis=1).mean()),
            ring_depth=hot_set.ring_depth,
        )

    @property
    def lookups(self) -> float:
        """Lookups of a batch."""
        return sum(width.lookups for width in self.widths)

    @property
    def cold_rows(self) -> float:
        """Different cold rows of a mean batch."""
        return sum(width.unique_cold_rows for width in self.widths)

    @cached_property
    def cold_bytes(self) -> float:
        """Bytes of the different cold rows of a mean batch with their optimizer state: what goes each way."""
        return sum(
            width.unique_cold_rows * row_bytes(self.settings.optimizer, width.embedding_dim) for width in self.widths
        )

    @property
    def pooled_bytes(self) -> int:
        """Bytes of a batch's pooled rows in float32, which `hybrid` sends to the device and back as gradients."""
        return 4 * self.settings.batch_size * sum(width.pooled_floats for width in self.widths)

    @property
    def input_bytes(self) -> float:
        """Bytes of a batch that go to a GPU: order, dense features, labels, segments."""
        settings = self.settings
        dense = (2 if settings.rounds_dense else 4) * settings.num_dense
        segments = sum(max(width.unique_rows, width.lookups / 32) for width in self.widths)
        order = order_bytes(settings.batch_size * settings.num_slots)
        return order + settings.batch_size * (dense + 4.0) + 8.0 * segments


def _widths(settings: StepSettings, mean: npt.NDArray[np.float64], num_hot: Sequence[int]) -> tuple[WidthWork, ...]:
    columns, tables = model_features(settings.features), feature_tables(settings.features)
    widths = []
    for index, dim in enumerate(sorted(set(settings.embedding_dims))):
        own = [table for table, width in enumerate(settings.embedding_dims) if width == dim]
        slots_to_model = sum(
            column.length if column.pooling == "none" else 1
            for column, table in zip(columns, tables, strict=True)
            if table in own
        )
        widths.append(
            WidthWork(
                embedding_dim=dim,
                num_slots=sum(settings.features[table].length for table in own),
                pooled_floats=dim * slots_to_model,
                lookups=float(mean[0, index]),
                unique_rows=float(mean[1, index]),
                unique_cold_rows=float(mean[2, index]),
                num_rows=sum(settings.features[table].num_embeddings for table in own),
                num_hot_rows=sum(int(num_hot[table]) for table in own),
            )
        )
    return tuple(widths)
