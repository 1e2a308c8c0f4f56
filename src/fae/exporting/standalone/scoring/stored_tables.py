"""Rows of one table, read where they are: files are memory-mapped, and only the rows that are looked up are copied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fae.exporting.standalone.scoring.input_text import InputError


class RowTable:
    """A table in one safetensors file, or in several of them with an index.

    Parameters
    ----------
    folder
        The exported folder.
    table
        The table's entry of schema.json.
    """

    def __init__(self, folder: Path, table: Mapping[str, Any]) -> None:
        self.embedding_dim = int(table["embedding_dim"])
        name = table["rows"]
        parts = {0: (folder / name, "weight", "scale")}
        self._rows_a_part = max(int(table["num_rows"]), 1)
        if name.endswith(".index.json"):
            index = json.loads((folder / name).read_text())
            self._rows_a_part = int(index["metadata"]["rows_a_file"])
            places = index["weight_map"]
            count = sum(key.startswith("weight.") for key in places)
            base = (folder / name).parent
            parts = {p: (base / places[f"weight.{p}"], f"weight.{p}", f"scale.{p}") for p in range(count)}
        self.num_rows = int(table["num_rows"])
        self._weights: list[Tensor] = []
        self._scales: list[Tensor | None] = []
        for path, weight, scale in parts.values():
            with safe_open(str(path), framework="pt") as file:
                self._weights.append(file.get_tensor(weight))
                self._scales.append(file.get_tensor(scale) if table["dtype"] == "int8" else None)
        shape = [sum(map(len, self._weights)), self._weights[0].shape[1]]
        if shape != [table["num_rows"], self.embedding_dim]:
            raise InputError(f"{folder / name} holds {shape}, expected {[table['num_rows'], self.embedding_dim]}")

    def rows(self, ids: Tensor) -> Tensor:
        """float32 ``[n, D]``: the rows of ids ``[n]``, zeros where an id is -1."""
        safe = ids.clamp(min=0).long()
        if len(self._weights) == 1:
            found = self._read(0, safe)
        else:
            found = torch.empty((len(ids), self.embedding_dim))
            part_of = torch.div(safe, self._rows_a_part, rounding_mode="floor")
            for part in sorted(set(part_of.tolist())):
                here = part_of == part
                found[here] = self._read(part, safe[here] - part * self._rows_a_part)
        return found * (ids >= 0).unsqueeze(1)

    def stored(self, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        """Rows ``[first, last)`` as they are stored, and for int8 their scales; they must be of one file."""
        part = first // self._rows_a_part
        here = slice(first - part * self._rows_a_part, last - part * self._rows_a_part)
        scale = self._scales[part]
        return self._weights[part][here], None if scale is None else scale[here]

    def pieces(self, num_rows: int) -> list[tuple[int, int]]:
        """Ranges of at most `num_rows` rows, each within one file, in order."""
        found = []
        for part, weight in enumerate(self._weights):
            begin = part * self._rows_a_part
            found += [(begin + at, begin + min(at + num_rows, len(weight))) for at in range(0, len(weight), num_rows)]
        return found

    def _read(self, part: int, rows: Tensor) -> Tensor:
        found = self._weights[part].index_select(0, rows).float()
        scale = self._scales[part]
        return found if scale is None else found * scale.index_select(0, rows).unsqueeze(1)
