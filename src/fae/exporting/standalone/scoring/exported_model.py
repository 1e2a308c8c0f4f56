"""An exported model: raw columns to ids and dense features, ids to rows, rows to the probability of label 1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors import SafetensorError
from torch import Tensor

from fae.exporting.standalone.scoring.input_files import read_columns
from fae.exporting.standalone.scoring.input_lists import kept_items
from fae.exporting.standalone.scoring.input_numbers import dense_numbers, transform_dense
from fae.exporting.standalone.scoring.input_objects import Columns, numbers_of
from fae.exporting.standalone.scoring.input_text import InputError, plain_values, to_text
from fae.exporting.standalone.scoring.input_times import time_parts
from fae.exporting.standalone.scoring.stored_tables import RowTable
from fae.exporting.standalone.scoring.value_ids import ValueIds

BATCH_INPUTS = 2048
FORMAT_VERSION = 1


def check_sizes(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare the size of every file with manifest.json; checksums are left to check.py.

    Raises
    ------
    InputError
        If a file is missing or has another size.
    """
    for name, facts in manifest.get("files", {}).items():
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise InputError(f"{folder / name} cannot be read: {error.strerror}; export it again") from None
        if size != facts["bytes"]:
            raise InputError(
                f"{folder / name} has {size} bytes, and manifest.json says {facts['bytes']}; export it again"
            )


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


class ExportedModel:
    """The model in a folder that `fae export` wrote; nothing else is needed.

    Parameters
    ----------
    folder
        The folder, with manifest.json in it.

    Attributes
    ----------
    schema
        Content of schema.json.

    Raises
    ------
    InputError
        If a file is missing, or of a format that this code does not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
            self.schema: dict[str, Any] = json.loads((folder / "schema.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} is no exported folder: {error}") from None
        if self.manifest.get("kind") != "fae_export":
            raise InputError(f"{folder} holds {self.manifest.get('kind')!r}, expected 'fae_export'")
        found = {each.get("format_version") for each in (self.manifest, self.schema)}
        if found != {FORMAT_VERSION}:
            raise InputError(
                f"{folder} is of format {', '.join(map(str, found))}, and this reads {FORMAT_VERSION}; use its scripts"
            )
        check_sizes(folder, self.manifest)
        try:
            self._open()
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, pa.ArrowException) as error:
            raise InputError(f"{folder} is damaged: {_line(error)}; check.py compares checksums") from None

    def _open(self) -> None:
        folder = self.folder
        self._ids = {
            table["name"]: ValueIds(folder / table["vocabulary"], table["unknown_id"], encoded=table["encoded"])
            for table in self.schema["tables"]
        }
        self._rows = {table["name"]: RowTable(folder, table) for table in self.schema["tables"]}
        try:
            self._model = torch.export.load(folder / self.schema["model"]["file"]).module()
        except Exception as error:  # torch has no common class of errors of files
            raise InputError(f"{folder / self.schema['model']['file']} is damaged: {_line(error)}") from None
        self.num_slots = sum(feature["length"] for feature in self.schema["features"])

    def files(self, path: Path) -> Iterator[Columns]:
        """Raw columns of a file, some inputs at a time."""
        return read_columns(path, self.schema)

    def encode(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """Ids, int32 ``[n, S]``, -1 in unused slots, and dense features, float32 ``[n, K]``, of raw columns.

        Raises
        ------
        InputError
            For a value that its column cannot hold.
        """
        missing = self.schema["input"]["missing"]
        count = len(next(iter(columns.values())))
        ids = torch.full((count, self.num_slots), -1, dtype=torch.int32)
        for feature in self.schema["features"]:
            first, values = feature["first_slot"], columns[feature["column"]]
            known = self._ids[feature["table"]]
            if feature["length"] == 1:
                ids[:, first] = known.find(_texts_of(values, feature, missing), feature["name"])
                continue
            items = kept_items(values, feature, missing)
            slots = torch.tensor(items.slots, dtype=torch.int64) + first
            ids[torch.tensor(items.rows, dtype=torch.int64), slots] = known.find(items.values, feature["name"])
        dense = torch.empty((count, len(self.schema["dense"])))
        for index, each in enumerate(self.schema["dense"]):
            values = columns.get(numbers_of(each["column"]), columns[each["column"]])
            numbers = dense_numbers(values, each["name"], missing, self.schema["input"]["decimal"])
            dense[:, index] = transform_dense(plain_values(numbers), each)
        return ids, dense

    def boundary(self, ids: Tensor, dense: Tensor) -> dict[str, Tensor]:
        """What the model takes, by name: dense features, looked-up rows, and lengths of kept sequences."""
        found: dict[str, Tensor] = {}
        by_name = {feature["name"]: feature for feature in self.schema["features"]}
        for entry in self.schema["model"]["inputs"]:
            if entry["holds"] == "dense":
                found[entry["name"]] = dense
                continue
            feature = by_name[entry["feature"]]
            own = ids[:, feature["first_slot"] : feature["first_slot"] + feature["length"]]
            found[entry["name"]] = (own >= 0).sum(1) if entry["holds"] == "length" else self._pooled(feature, own)
        return found

    def _pooled(self, feature: dict[str, Any], ids: Tensor) -> Tensor:
        table = self._rows[feature["table"]]
        vectors = table.rows(ids.flatten()).view(*ids.shape, table.embedding_dim)
        if feature["pooling"] == "none":
            return vectors
        pooled = vectors[:, 0]
        for slot in range(1, feature["length"]):  # in order of slots, as in training
            pooled = pooled + vectors[:, slot]
        if feature["pooling"] == "mean":
            pooled = pooled * (1.0 / (ids >= 0).sum(1).clamp(min=1)).unsqueeze(1)
        return pooled

    def score_ids(self, ids: Tensor, dense: Tensor) -> Tensor:
        """Probabilities of label 1, float64 ``[n]``, of ids ``[n, S]`` and dense features ``[n, K]``."""
        scores = [torch.empty(0, dtype=torch.float64)]
        with torch.no_grad():
            for start in range(0, len(ids), BATCH_INPUTS):
                stop = start + BATCH_INPUTS
                scores.append(self._model(self.boundary(ids[start:stop], dense[start:stop])))
        return torch.cat(scores)

    def score(self, columns: Columns) -> Tensor:
        """Probabilities of label 1, float64 ``[n]``, of raw columns.

        Raises
        ------
        InputError
            For a value that its column cannot hold.
        """
        return self.score_ids(*self.encode(columns))


_PATTERNS = {
    "hex": ("^[0-9a-f]{0,8}$", "up to eight digits 0-9, a-f"),
    "YYMMDDHH": ("^[0-9]{6}([01][0-9]|2[0-3])$", "eight digits, YYMMDDHH"),
}


def _texts_of(values: Any, feature: Mapping[str, Any], missing: Sequence[str]) -> Any:
    """Arrow string array ``[n]``: what is looked up of a plain column."""
    if feature["part"] is not None:
        return time_parts(values, feature, missing)
    text = to_text(values, feature["name"], missing)
    if feature["text"] is None:
        return text
    pattern, expected = _PATTERNS[feature["text"]]
    good = pc.match_substring_regex(text, pattern=pattern)
    if not pc.all(good, min_count=0).as_py():
        bad = text.filter(pc.invert(good))[0].as_py()
        raise InputError(f"the column {feature['column']!r} is {bad!r}, expected {expected}")
    return pc.utf8_slice_codeunits(text, 6) if feature["text"] == "YYMMDDHH" else text
