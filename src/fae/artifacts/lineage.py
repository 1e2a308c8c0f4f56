"""Whether a log can continue another, and what became of its tables; from schemas alone.

Place in the flow: beside `fae.ingest.continued_ids`, which hands out the ids; training asks here what moved, so no library is
imported. Invariant: two logs of one lineage have the same columns in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.core.errors import ArtifactError


def check_same_columns(
    parent: ColumnarLog, *, columns: Sequence[Mapping[str, Any]], dense_names: Sequence[str], dense_transform: str
) -> None:
    """Refuse a parent whose inputs mean something else. Instant.

    Parameters
    ----------
    columns
        The categorical columns as a recipe has them: name, encoded, max_length, pooling.

    Raises
    ------
    ArtifactError
        Naming the first difference.
    """
    there = [
        {"name": f.name, "encoded": f.encoded, "max_length": f.length, "pooling": f.pooling} for f in parent.features
    ]
    here = [{key: column[key] for key in ("name", "encoded", "max_length", "pooling")} for column in columns]  # fmt: skip
    differences: list[tuple[str, Any, Any]] = [
        ("categorical", [c["name"] for c in there], [c["name"] for c in here]),
        *((f"categorical {new['name']}: {key}", old[key], new[key])
          for old, new in zip(there, here, strict=False) for key in new),
        ("dense", list(parent.dense_names), list(dense_names)),
    ]  # fmt: skip
    if parent.dense_names:
        transform = parent.manifest.parameters.get("dense_transform")
        differences.append(("dense_transform", transform, dense_transform))
    if not any(name.startswith("vocabulary/") for name in parent.manifest.files):
        raise ArtifactError(
            f"{parent.path} has no vocabulary (it was not made from a raw log), so no log can continue it; make it "
            "with `fae ingest RECIPE.toml`"
        )
    for key, old, new in differences:
        if old != new:
            raise ArtifactError(
                f"[log] {key} = {new!r}, and the run to continue was made with {old!r} ({parent.path}); a run can only "
                "go on with the same columns: set it to that, or leave [train] from out"
            )


def moved_reserved_id(old: FeatureSchema, new: FeatureSchema) -> tuple[int, int] | None:
    """``(id in the parent, id here)`` of the reserved id where it moved, else None."""
    return None if old.unknown_id == new.unknown_id else (old.unknown_id, new.unknown_id)


def num_appended(old: FeatureSchema, new: FeatureSchema) -> int:
    """Rows that the parent's table does not have."""
    return new.num_embeddings - old.num_embeddings
