"""Tiny columnar logs for tests, written as ingest would write them, without reading any text.

Counts are taken from the training split, as in every columnar log (`fae.artifacts.columnar_log`). Without `features`,
columns are plain; one whose ids are not by popularity is marked `encoded`, as in a log from ingest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, ColumnarLog, FeatureSchema, first_slots
from fae.artifacts.manifest import Plan, write_artifact


def count_ids(ids: npt.NDArray[np.int32], features: Sequence[FeatureSchema]) -> npt.NDArray[np.int64]:
    """Accesses of each id, table by table; -1 is no access."""
    slots = first_slots(features)
    parts = []
    for table, feature in enumerate(features):
        column = ids[:, slots[table] : slots[table + 1]]
        parts.append(np.bincount(column[column >= 0], minlength=feature.num_embeddings))
    return np.concatenate(parts).astype(np.int64)


def make_log(
    folder: Path,
    ids: Any,
    labels: Any,
    dense: Any = None,
    features: Sequence[FeatureSchema] | None = None,
    *,
    num_validation: int = 0,
    num_test: int = 0,
    name: str = "log",
) -> ColumnarLog:
    """Write ``folder/name`` and open it.

    Parameters
    ----------
    ids
        ``[n, S]``, -1 in unused slots.
    labels
        ``[n]`` of 0 or 1.
    dense
        ``[n, K]``; none by default.
    features
        One per table; by default a plain column per slot with as many rows as its ids need.
    num_validation, num_test
        Inputs of the last two splits; all inputs before them are the training split.
    """
    id_array = np.ascontiguousarray(ids, dtype=np.int32)
    num_inputs, num_slots = id_array.shape
    dense_array = np.zeros((num_inputs, 0), np.float32) if dense is None else np.asarray(dense, np.float32)
    train_stop, validation_stop = num_inputs - num_validation - num_test, num_inputs - num_test
    if features is None:
        features = []
        for slot in range(num_slots):
            size = max(1, int(id_array[:, slot].max(initial=0)) + 1)
            column = id_array[:train_stop, slot]
            popularity = np.bincount(column[column >= 0], minlength=size)
            by_popularity = bool(np.all(popularity[1:] <= popularity[:-1]))
            features.append(FeatureSchema(name=f"C{slot}", num_embeddings=size, encoded=not by_popularity))
    assert first_slots(features)[-1] == num_slots, "features do not match the slots of ids"
    plan = Plan(
        kind=KIND,
        format_version=FORMAT_VERSION,
        parameters={"test": name, "content": int(id_array.sum()), "shape": list(id_array.shape)},
        parents={},
        command="fae ingest RECIPE.toml",
    )
    summary: dict[str, Any] = {
        "features": [asdict(feature) for feature in features],
        "dense": [f"I{index}" for index in range(dense_array.shape[1])],
        "num_inputs": num_inputs,
        "splits": {
            "train": [0, train_stop],
            "validation": [train_stop, validation_stop],
            "test": [validation_stop, num_inputs],
        },
    }
    path = folder / name
    with write_artifact(path, plan, summary) as temporary:
        np.save(temporary / "ids.npy", id_array)
        np.save(temporary / "dense.npy", dense_array)
        np.save(temporary / "labels.npy", np.asarray(labels, np.uint8))
        np.save(temporary / "counts.npy", count_ids(id_array[:train_stop], features))
    return ColumnarLog(path)


def zipf_log(
    folder: Path,
    *,
    num_inputs: int = 2000,
    sizes: Sequence[int] = (50, 400, 7, 900),
    skew: float = 1.1,
    seed: int = 0,
    encoded: bool = False,
    num_validation: int = 0,
    num_test: int = 0,
    name: str = "log",
) -> ColumnarLog:
    """A log of independent Zipf columns; ids by popularity unless `encoded`, labels 0 or 1, two dense features."""
    rng = np.random.default_rng(seed)
    num_train = num_inputs - num_validation - num_test
    columns, features = [], []
    for position, size in enumerate(sizes):
        share = 1.0 / np.arange(1, size + 1) ** skew
        column = rng.choice(size, num_inputs, p=share / share.sum())
        if encoded:
            column = rng.permutation(size)[column]
        else:
            order = np.argsort(-np.bincount(column[:num_train], minlength=size), kind="stable")
            rank = np.empty(size, np.int64)
            rank[order] = np.arange(size)
            column = rank[column]
        columns.append(column)
        features.append(FeatureSchema(name=f"C{position}", num_embeddings=size, encoded=encoded))
    return make_log(
        folder,
        np.stack(columns, axis=1),
        rng.integers(0, 2, num_inputs),
        rng.standard_normal((num_inputs, 2)),
        features,
        num_validation=num_validation,
        num_test=num_test,
        name=name,
    )


def write_behaviour(path: Path, *, num_users: int, seed: int = 4) -> list[tuple[int, int, int, str, int]]:
    """Write a log like Taobao's: all lines of a user together, not all in order of time; returns its lines."""
    rng = np.random.default_rng(seed)
    lines: list[tuple[int, int, int, str, int]] = []
    for user in rng.permutation(10 * num_users)[:num_users].tolist():
        for _ in range(int(rng.choice([1, 2, 5, 11, 12, 25, 35, 60, 250]))):
            item = int(rng.zipf(1.3)) % 300 * 11
            time = int(rng.integers(-50, 1000) + 40 * (user % 17))
            lines.append((user, item, item % 13, str(rng.choice(["pv", "buy", "cart", "fav"])), time))
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return lines
