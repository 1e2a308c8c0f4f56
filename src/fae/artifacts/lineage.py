"""Whether a log can continue another, and how its tables grew; decided from the schemas alone.

Ids are assigned by `fae.ingest.continued_ids`; training uses this module to move and append rows, without importing
the libraries of ingest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, feature_tables, model_features
from fae.core.errors import ArtifactError


def check_same_columns(
    parent: ColumnarLog,
    *,
    columns: Sequence[Mapping[str, Any]],
    dense_names: Sequence[str],
    dense_transform: str,
    dense_settings: Mapping[str, Any],
) -> None:
    """Refuse a parent log with other columns. Reads no data.

    Parameters
    ----------
    columns
        The categorical columns of the recipe in slot order, each with name, encoded, max_length, pooling and, where
        they have them, the name of the column whose table they share, and part and zone of a time.
    dense_settings
        Entries of the parameters of a log that say more of its dense columns, as they are there.

    Raises
    ------
    ArtifactError
        If something differs; it names the first difference.
    """
    there: list[dict[str, Any]] = [
        {
            "name": f.name, "encoded": f.encoded, "max_length": f.length, "pooling": f.pooling,
            "table": None if f.name == parent.features[table].name else parent.features[table].name,
        }
        for f, table in zip(model_features(parent.features), feature_tables(parent.features), strict=True)
    ]  # fmt: skip
    compared = ("name", "encoded", "max_length", "pooling")
    made = {column["name"]: column for column in parent.manifest.parameters.get("categorical", ())}
    parts = [
        (f"categorical {column['name']}: {key}", made.get(column["name"], {}).get(key), column.get(key))
        for column in columns
        for key in ("part", "zone")
    ]
    here = [{**{key: column[key] for key in compared}, "table": column.get("table")} for column in columns]
    differences: list[tuple[str, Any, Any]] = [
        ("categorical", [c["name"] for c in there], [c["name"] for c in here]),
        *((f"categorical {new['name']}: {key}", old[key], new[key])
          for old, new in zip(there, here, strict=False) for key in new),
        *parts,
        ("dense", list(parent.dense_names), list(dense_names)),
    ]  # fmt: skip
    if parent.dense_names:
        transform = parent.manifest.parameters.get("dense_transform")
        differences.append(("dense_transform", transform, dense_transform))
        made_with = json.loads(json.dumps(dense_settings))
        differences += [(key, parent.manifest.parameters.get(key), made_with[key]) for key in made_with]
    if not any(name.startswith("vocabulary/") for name in parent.manifest.files):
        raise ArtifactError(
            f"{parent.path} has no vocabulary (it was not made from a raw log), so no log can continue it; make it "
            "with `fae ingest RECIPE.toml`"
        )
    for key, old, new in differences:
        if old != new:
            raise ArtifactError(
                f"[log] {key} = {new!r}, and the run to continue was made with {old!r} ({parent.path}); a run can only "
                "continue with the same columns: set it to that, or leave [train] from out"
            )


def moved_reserved_id(old: FeatureSchema, new: FeatureSchema) -> tuple[int, int] | None:
    """``(old id, new id)`` of the reserved id if it moved, else None."""
    return None if old.unknown_id == new.unknown_id else (old.unknown_id, new.unknown_id)


def num_appended(old: FeatureSchema, new: FeatureSchema) -> int:
    """Number of rows that the new table has more than the parent's."""
    return new.num_embeddings - old.num_embeddings
