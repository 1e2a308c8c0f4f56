"""The artifact `log`: the columnar log that ingest writes and every later stage reads, memory-mapped.

Byte by byte: formats/columnar_log.md. Inputs are in log order; every split is one range of them, the training split
comes first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fae.artifacts.checksums import check_contents, damaged
from fae.artifacts.manifest import Manifest, read_manifest
from fae.artifacts.schema import Fields, open_array
from fae.core.pooling import POOLING_CODE, Pooling

KIND = "log"
FORMAT_VERSION = 2
SPLITS = ("train", "validation", "test")
MOST_ROWS = 2**31 - 2
"""Most rows of a table, and most slots of a feature: ids are int32."""


@dataclass(frozen=True, kw_only=True)
class TablePart:
    """One of the columns that share a table: its name, its slots of an input and its pooling."""

    name: str
    length: int = 1
    pooling: Pooling = "sum"


@dataclass(frozen=True, kw_only=True)
class FeatureSchema:
    """One table and the categorical feature that looks it up, or the features that share it.

    Attributes
    ----------
    num_embeddings
        Rows of the table, the reserved one included.
    length
        Slots of an input (L); 1 for a plain column. The sum over `parts` where there are any.
    pooling
        That of the first part where there are any.
    parts
        The columns that share the table, in the order of their slots, the one that the table is named by first; empty
        where it has one column.
    unknown_id
        The reserved id of rare and unknown values.
    encoded
        True: vocabulary ids are the log's own numbers. False: ids are in order of popularity; in a log that continues
        another, the ids of the other log come first, and new values follow in order of popularity.
    """

    name: str
    num_embeddings: int
    length: int = 1
    pooling: Pooling = "sum"
    unknown_id: int = -1
    encoded: bool = False
    parts: tuple[TablePart, ...] = ()

    def to_summary(self) -> dict[str, Any]:
        """Its JSON object in the summaries of artifacts; without `parts` where there are none."""
        values = dataclasses.asdict(self)
        if not self.parts:
            del values["parts"]
        return values


def model_features(features: Sequence[FeatureSchema]) -> tuple[FeatureSchema, ...]:
    """What a model receives: the columns of the tables, in slot order, each with its own name, length and pooling.

    >>> shared = FeatureSchema(name="a", num_embeddings=9, length=4, parts=(TablePart(name="a"),
    ...     TablePart(name="b", length=3, pooling="none")))
    >>> [(feature.name, feature.length, feature.pooling) for feature in model_features([shared])]
    [('a', 1, 'sum'), ('b', 3, 'none')]
    """
    return tuple(
        dataclasses.replace(feature, name=part.name, length=part.length, pooling=part.pooling, parts=())
        for feature in features
        for part in feature.parts or (feature,)
    )


def feature_tables(features: Sequence[FeatureSchema]) -> list[int]:
    """The table of each of the `model_features`."""
    return [table for table, feature in enumerate(features) for _ in feature.parts or (feature,)]


def join_parts(columns: Sequence[FeatureSchema], tables: Sequence[int]) -> tuple[FeatureSchema, ...]:
    """The tables of these columns: the inverse of `model_features`; `tables` as `feature_tables` gives it."""
    of_table: dict[int, list[FeatureSchema]] = {}
    for column, table in zip(columns, tables, strict=True):
        of_table.setdefault(table, []).append(column)
    joined: list[FeatureSchema] = []
    for members in of_table.values():
        parts = tuple(TablePart(name=each.name, length=each.length, pooling=each.pooling) for each in members)
        length = sum(each.length for each in members)
        joined.append(dataclasses.replace(members[0], length=length, parts=parts if len(parts) > 1 else ()))
    return tuple(joined)


def read_features(fields: Fields) -> tuple[FeatureSchema, ...]:
    """The features in a summary.

    Raises
    ------
    ArtifactError
        If there is none, or a field has another type or is out of its range.
    """
    known = {field.name for field in dataclasses.fields(FeatureSchema)}
    features = []
    for part in fields.parts("features"):
        size = part.whole("num_embeddings", 1, MOST_ROWS)
        if not part.keys() <= known:
            raise part.fault("features of other fields")
        features.append(
            FeatureSchema(
                **{
                    **part.values(),
                    "name": part.text("name"),
                    "num_embeddings": size,
                    "length": part.whole("length", 1, MOST_ROWS) if "length" in part else 1,
                    "pooling": part.text("pooling", POOLING_CODE) if "pooling" in part else "sum",
                    "unknown_id": part.whole("unknown_id", -1, size - 1) if "unknown_id" in part else -1,
                    "encoded": part.flag("encoded") if "encoded" in part else False,
                    "parts": _read_parts(part),
                }
            )
        )
    return tuple(features)


def _read_parts(fields: Fields) -> tuple[TablePart, ...]:
    if "parts" not in fields:
        return ()
    parts = tuple(
        TablePart(
            name=part.text("name"),
            length=part.whole("length", 1, MOST_ROWS),
            pooling=cast(Pooling, part.text("pooling", POOLING_CODE)),
        )
        for part in fields.parts("parts")
    )
    if not parts:
        return ()
    if (
        len(parts) < 2
        or parts[0].name != fields.text("name")
        or sum(part.length for part in parts) != fields.whole("length", 1, MOST_ROWS)
    ):
        raise fields.fault("parts that begin with its own name and have its length together")
    return parts


def first_slots(features: Sequence[FeatureSchema]) -> list[int]:
    """First slot of each feature; the last entry is the number of slots S.

    >>> first_slots([FeatureSchema(name="a", num_embeddings=3), FeatureSchema(name="b", num_embeddings=3, length=4)])
    [0, 1, 5]
    """
    slots = [0]
    for feature in features:
        slots.append(slots[-1] + feature.length)
    return slots


class ColumnarLog:
    """An opened columnar log. Arrays are read-only memory maps; opening reads no input.

    Attributes
    ----------
    command
        The command that makes it, named in errors.
    weight
        Name of the column of weights; None where the log has none.

    Raises
    ------
    ArtifactError
        If there is no columnar log at `path`, or it is damaged; the message names `command`.
    """

    def __init__(self, path: str | Path, *, command: str = "fae ingest RECIPE.toml") -> None:
        self.path = path = Path(path)
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        self.command = command
        fields = Fields(self.manifest.summary, "summary", path, command)
        self.features = read_features(fields)
        self.dense_names: tuple[str, ...] = tuple(fields.texts("dense"))
        self.num_inputs: int = fields.whole("num_inputs")
        splits = fields.part("splits")
        self._splits: dict[str, list[int]] = {
            name: sorted(splits.wholes(name, 0, self.num_inputs, count=2)) for name in SPLITS
        }
        for name in ("label_rate", "missing_share"):
            fields.numbers(name)
        fields.numbers("appended", nulls=False)
        self.weight: str | None = fields.text("weight") if "weight" in fields else None
        if "notes" in fields:
            fields.texts("notes")
        # The arrays' sizes bound what the schema may say, before anything is allocated by it.
        for name, dtype, shape in self._arrays():
            open_array(path, f"{name}.npy", dtype, shape, command)

    def _arrays(self) -> tuple[tuple[str, npt.DTypeLike, tuple[int, ...]], ...]:
        num_rows = sum(feature.num_embeddings for feature in self.features)
        return (
            ("ids", np.int32, (self.num_inputs, first_slots(self.features)[-1])),
            ("dense", np.float32, (self.num_inputs, len(self.dense_names))),
            ("labels", np.uint8, (self.num_inputs,)),
            ("counts", np.int64, (num_rows,)),
            *([("weights", np.float32, (self.num_inputs,))] if self.weight is not None else []),
        )

    def _open(self, name: str) -> npt.NDArray[Any]:
        dtype, shape = next((dtype, shape) for known, dtype, shape in self._arrays() if known == name)
        return open_array(self.path, f"{name}.npy", dtype, shape, self.command)

    def split(self, name: str) -> tuple[int, int]:
        """``(start, stop)`` of ``"train"``, ``"validation"`` or ``"test"`` in log order."""
        start, stop = self._splits[name]
        return start, stop

    @cached_property
    def ids(self) -> npt.NDArray[np.int32]:
        """int32 ``[num_inputs, S]``, -1 in unused slots."""
        array: npt.NDArray[np.int32] = self._open("ids")
        return array

    @cached_property
    def dense(self) -> npt.NDArray[np.float32]:
        """float32 ``[num_inputs, K]``."""
        array: npt.NDArray[np.float32] = self._open("dense")
        return array

    @cached_property
    def labels(self) -> npt.NDArray[np.uint8]:
        """uint8 ``[num_inputs]``, 0 or 1."""
        array: npt.NDArray[np.uint8] = self._open("labels")
        return array

    @cached_property
    def weights(self) -> npt.NDArray[np.float32] | None:
        """float32 ``[num_inputs]``, weights of the inputs, checked to be 0 or more; None where the log has none."""
        if self.weight is None:
            return None
        array: npt.NDArray[np.float32] = self._open("weights")
        if array.size and not (array.min() >= 0 and np.isfinite(array.max())):
            raise damaged(self.path, "weights.npy", self.command, "it has weights that are not positive numbers or 0")
        return array

    @cached_property
    def table_offsets(self) -> npt.NDArray[np.int64]:
        """int64 ``[F + 1]``: where each table begins in `counts`."""
        return np.concatenate([[0], np.cumsum([f.num_embeddings for f in self.features])]).astype(np.int64)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 ``[sum of num_embeddings]``: accesses in the training split, checked to be possible numbers."""
        array: npt.NDArray[np.int64] = self._open("counts")
        check_contents(self.path, self.manifest.files, "counts.npy", command=self.command)
        start, stop = self.split("train")
        most = (stop - start) * max((feature.length for feature in self.features), default=0)
        if array.size and (array.min() < 0 or array.max() > most):
            raise damaged(self.path, "counts.npy", self.command, f"it has counts outside 0 to {most}")
        return array
