"""Works of a step for tests of the cost model, without a log."""

from __future__ import annotations

from dataclasses import replace

from fae.artifacts.columnar_log import FeatureSchema
from fae.models.config import DLRMConfig
from fae.planning.step_work import StepSettings, StepWork, WidthWork

SIZES = (40_000, 20_000, 3000, 100, 100, 20, 3, 3)
FEATURES = tuple(FeatureSchema(name=f"C{index}", num_embeddings=size) for index, size in enumerate(SIZES))


def settings(batch_size: int = 512, **changes: object) -> StepSettings:
    """A DLRM of eight columns with row-wise Adagrad."""
    made = StepSettings(
        model=DLRMConfig(name="dlrm", bottom_mlp=(64,), top_mlp=(64,)), features=FEATURES, embedding_dims=(16,) * 8,
        num_dense=4, optimizer="rowwise_adagrad", batch_size=batch_size,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def work(cold_rows: float, *, unique_rows: float = 900.0, of: StepSettings | None = None) -> StepWork:
    """A step of it with this many cold rows."""
    own = of or settings()
    return StepWork(
        settings=own,
        widths=(
            WidthWork(
                embedding_dim=16, num_slots=8, pooled_floats=128, lookups=8.0 * own.batch_size,
                unique_rows=unique_rows, unique_cold_rows=cold_rows, num_rows=sum(SIZES), num_hot_rows=0,
            ),
        ),
        num_hot=(0,) * 8, inputs_per_batch=own.batch_size, cold_batch_share=float(cold_rows > 0),
    )  # fmt: skip
