"""Pretrained rows as first values: ``[train] rows_from`` and ``fae import``.

A folder holds ``vocabulary/<table>.parquet`` (``value``, text, and ``id``, whole numbers) and
``tables/<table>.safetensors`` (``weight`` ``[n, D]``: row ``id`` belongs to the value), as `fae export` writes them.
Rows are matched by their values' text; each keeps its bytes, whatever the placement.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.table_names import file_stems
from fae.core.compiled import Int64
from fae.core.errors import ArtifactError, RecipeError
from fae.core.progress import say, task
from fae.core.units import format_count
from fae.embedding.base import Embeddings

_LAYOUT = "vocabulary/<table>.parquet (value, id) and tables/<table>.safetensors (weight)"
_BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class MatchedRows:
    """Rows of a folder that belong to values of one table of a log.

    Attributes
    ----------
    ids, sources
        int64 ``[n]``: ids in the log, and numbers of the rows in the folder.
    num_values, num_matched
        Values of the folder's vocabulary, and how many of them the log has; the row of unknown values, which belongs to
        none, may be among `ids` too.
    """

    ids: Int64
    sources: Int64
    num_values: int
    num_matched: int


def find_rows(name: str, base: Path) -> Path:
    """The folder that ``[train] rows_from`` names, from the recipe's folder on or else from the current one.

    Raises
    ------
    RecipeError
        If there is no folder of rows.
    """
    places = list(dict.fromkeys((base / Path(name).expanduser(), Path(name).expanduser())))
    for place in places:
        if (place / "tables").is_dir() and (place / "vocabulary").is_dir():
            _check_exported(place)
            return place
    raise RecipeError(
        f"[train] rows_from = {name!r}: there are no rows in {' or in '.join(map(str, places))}, expected {_LAYOUT}; "
        "`fae export RUN DIR` writes them"
    )


def _check_exported(folder: Path) -> None:
    """Refuse changes of `fae export --since`, and rows that are not those of their manifest, where there is one.

    Raises
    ------
    ArtifactError
        If so.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        kind, files = manifest["kind"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if kind == "fae_export_delta":
        raise ArtifactError(f"{folder} holds changes alone; name the whole folder that its apply.py has made of them")
    for name, facts in files.items():
        if name.startswith(("tables/", "vocabulary/")):
            path = folder / name
            size = path.stat().st_size if path.is_file() else -1
            time = path.stat().st_mtime_ns if size >= 0 else 0
            if size != facts["bytes"] or _sha256(str(path), size, time) != facts["sha256"]:
                raise ArtifactError(f"{path} is missing or damaged: it is not that of manifest.json; export it again")


@cache
def _sha256(path: str, size: int, time: int) -> str:
    del size, time  # another one is another file
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_fingerprint(folder: Path) -> str:
    """Hex digest of the files of a folder of rows; those of an exported folder are named by its manifest."""
    manifest = folder / "manifest.json"
    paths = [manifest] if manifest.is_file() else sorted(path for path in folder.glob("*/*") if path.is_file())
    return _digest(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, size, _ in files:
        digest.update(f"{Path(name).name} {size}\n".encode())
        with Path(name).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def match_rows(folder: Path, log: ColumnarLog, dims: list[int]) -> dict[int, MatchedRows]:
    """By table, the rows of a folder that a log has values for; says what matched.

    Raises
    ------
    ArtifactError
        If a file is damaged, widths differ, or no table of the log is there.
    """
    found = {}
    for table, (feature, stem, dim) in enumerate(
        zip(log.features, file_stems([feature.name for feature in log.features]), dims, strict=True)
    ):
        path = folder / "vocabulary" / f"{stem}.parquet"
        if not path.is_file():
            say(f"import: {feature.name}: not in {folder}; its rows begin as always")
            continue
        rows = _RowFiles(folder, stem)
        if rows.dim != dim:
            raise ArtifactError(
                f"{folder} has rows of {rows.dim} numbers for {feature.name!r}, and the recipe's have {dim}; set "
                f"[model] embedding_dims.{feature.name} = {rows.dim}, or take its files out of the folder"
            )
        found[table] = _matched(path, log, table, rows.count, reserved=_reserved(folder, feature))
        count = found[table].num_matched
        say(
            f"import: {feature.name}: {format_count(count)} of {format_count(feature.num_embeddings)} rows; "
            f"{format_count(found[table].num_values - count)} of {format_count(found[table].num_values)} values of the "
            "folder are not in the log"
        )
    if not found:
        raise ArtifactError(
            f"{folder} has none of the tables {', '.join(feature.name for feature in log.features)}; expected {_LAYOUT}"
        )
    return found


def import_rows(folder: Path, log: ColumnarLog, embeddings: Embeddings) -> None:
    """Give rows the values of a folder; optimizer state stays as it is. One table at a time in host memory.

    Raises
    ------
    ArtifactError
        As `match_rows`.
    """
    stems = file_stems([feature.name for feature in log.features])
    matched = match_rows(folder, log, list(embeddings.layout.embedding_dims))
    with task("train: pretrained rows", len(matched), "tables") as progress:
        for table, rows in matched.items():
            weight, state = embeddings.export_table(table)
            found = _RowFiles(folder, stems[table]).read(rows.sources)
            if not bool(torch.isfinite(found).all()):
                raise ArtifactError(
                    f"{folder} has rows of {log.features[table].name!r} that are not finite numbers; take them out"
                )
            weight[torch.from_numpy(rows.ids)] = found
            embeddings.import_table(table, weight, state)
            progress.advance(1)


def _matched(path: Path, log: ColumnarLog, table: int, num_rows: int, *, reserved: int | None) -> MatchedRows:
    name = f"vocabulary/{table}.parquet"
    if name not in log.manifest.files:
        raise ArtifactError(f"{log.path} has no vocabulary, so no value can be matched; use a log of `fae ingest`")
    try:
        theirs = pq.read_table(path, columns=["value", "id"])
        ours = pq.read_table(log.path / name, columns=["value"]).column("value").combine_chunks()
        values, numbers = theirs.column("value").combine_chunks(), theirs.column("id").cast(pa.int64()).to_numpy()
        places = pc.index_in(ours, value_set=values.cast(ours.type), skip_nulls=True)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read ({' '.join(str(error).split())}); expected {_LAYOUT}") from error
    if theirs.column("id").null_count:
        raise ArtifactError(f"{path} has values without an id; expected {_LAYOUT}")
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= num_rows):
        raise ArtifactError(f"{path} names the rows {numbers.min()} to {numbers.max()}, and there are {num_rows}")
    has = np.asarray(places.is_valid())
    ids, sources = np.flatnonzero(has).astype(np.int64), numbers[np.asarray(places.drop_null())].astype(np.int64)
    num_matched = len(ids)
    unknown = log.features[table].unknown_id
    if reserved is not None and 0 <= reserved < num_rows and unknown >= 0 and not has[unknown]:
        ids, sources = np.append(ids, unknown), np.append(sources, reserved)
    return MatchedRows(ids=ids, sources=sources, num_values=len(numbers), num_matched=num_matched)


def _reserved(folder: Path, feature: FeatureSchema) -> int | None:
    """Number of the folder's row of unknown values, where it has a schema.json that says so."""
    try:
        tables = json.loads((folder / "schema.json").read_text())["tables"]
        return next((int(each["unknown_id"]) for each in tables if each["name"] == feature.name), None)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _RowFiles:
    """The rows of one table: one safetensors file, or several with an index."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._path = folder / "tables" / f"{stem}.safetensors"
        index = self._path.with_name(f"{self._path.name}.index.json")
        try:
            names = [("weight", self._path)]
            if index.is_file():
                places: dict[str, Any] = json.loads(index.read_text())["weight_map"]
                count = sum(name.startswith("weight.") for name in places)
                names = [(f"weight.{part}", folder / "tables" / places[f"weight.{part}"]) for part in range(count)]
            self._parts = [self._open(path, name) for name, path in names]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{self._path} cannot be read ({' '.join(str(error).split())}); expected {_LAYOUT}"
            ) from error
        self.count, self.dim = sum(len(weight) for weight, _ in self._parts), int(self._parts[0][0].shape[1])

    @staticmethod
    def _open(path: Path, name: str) -> tuple[Tensor, Tensor | None]:
        scale = name.replace("weight", "scale")
        with safe_open(path, framework="pt") as file:
            weight = file.get_tensor(name)
            if weight.dim() != 2 or not (weight.is_floating_point() or weight.dtype == torch.int8):
                raise ValueError(f"{name} is {weight.dtype} {list(weight.shape)}, expected numbers [rows, width]")
            return weight, file.get_tensor(scale) if weight.dtype == torch.int8 else None

    def read(self, numbers: Int64) -> Tensor:
        """float32 ``[n, D]``: rows of these numbers."""
        found, wanted = torch.empty((len(numbers), self.dim)), torch.from_numpy(numbers)
        first = 0
        for weight, scale in self._parts:
            here = (wanted >= first) & (wanted < first + len(weight))
            rows = weight[wanted[here] - first].float()
            found[here] = rows if scale is None else rows * scale[wanted[here] - first].unsqueeze(1)
            first += len(weight)
        return found
