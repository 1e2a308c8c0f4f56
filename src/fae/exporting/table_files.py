"""Write the rows of a table as safetensors, piece by piece: memory does not grow with the table.

A table larger than the limit is cut by rows into several files with an index, named as the safetensors convention names
them: ``user-00001-of-00003.safetensors`` and ``user.safetensors.index.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fae.core.progress import Task
from fae.exporting.standalone.scoring.row_files import write_rows

RowType = Literal["float32", "float16", "bfloat16", "int8"]
ROW_TYPES: tuple[RowType, ...] = ("float32", "float16", "bfloat16", "int8")
FILE_BYTES = 4 * 2**30
"""Largest file of rows; a larger table is cut."""

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}
_BLOCK_BYTES = 2**26
_LARGEST = 127


@dataclass(frozen=True, kw_only=True)
class WrittenTable:
    """Where a table's rows are.

    Attributes
    ----------
    entry
        The file that leads to them, relative to the exported folder: the one file, or the index.
    """

    entry: str


def stored_row_bytes(dtype: RowType, dim: int) -> int:
    """Bytes of one row; of int8 with its scale, float32."""
    return dim + 4 if dtype == "int8" else dim * _DTYPES[dtype].itemsize


def write_table(
    folder: Path, stem: str, weight: Tensor, dtype: RowType, *, file_bytes: int, progress: Task
) -> WrittenTable:
    """Write ``tables/<stem>...`` in `folder`.

    Parameters
    ----------
    weight
        float32 ``[N, D]``, may be memory-mapped; read once (twice for int8).
    file_bytes
        Largest size of the rows in one file.
    progress
        Advanced by the bytes of rows read.
    """
    count, dim = weight.shape
    rows_a_file = max(1, file_bytes // stored_row_bytes(dtype, dim))
    num_files = max(1, -(-count // rows_a_file))
    places = {}
    for part in range(num_files):
        whole = num_files == 1
        name = f"{stem}.safetensors" if whole else f"{stem}-{part + 1:05d}-of-{num_files:05d}.safetensors"
        rows, suffix = weight[part * rows_a_file : (part + 1) * rows_a_file], "" if whole else f".{part}"

        def blocks(rows: Tensor = rows) -> Iterator[tuple[Tensor, Tensor | None]]:
            return (converted(block, dtype) for block in row_blocks(rows))

        write_rows(folder / "tables" / name, (len(rows), dim), _DTYPES[dtype], blocks, suffix=suffix)
        progress.advance(4 * rows.numel())
        for kind in ("weight", *(["scale"] if dtype == "int8" else [])):
            places[f"{kind}{suffix}"] = name
    if num_files == 1:
        return WrittenTable(entry=f"tables/{stem}.safetensors")
    index: dict[str, Any] = {
        "metadata": {"total_size": count * stored_row_bytes(dtype, dim), "num_rows": count, "rows_a_file": rows_a_file},
        "weight_map": places,
    }
    entry = f"tables/{stem}.safetensors.index.json"
    (folder / entry).write_text(json.dumps(index, indent=1) + "\n")
    return WrittenTable(entry=entry)


def converted(rows: Tensor, dtype: RowType) -> tuple[Tensor, Tensor | None]:
    """Rows ``[n, D]`` in `dtype`, and for int8 the scale of each row, float32 ``[n]``.

    int8: the scale is the largest absolute value of the row over 127, and the row is rounded to the nearest multiple of
    it; a row of zeros has scale 0.
    """
    if dtype != "int8":
        return rows.to(_DTYPES[dtype]), None
    scale = row_scales(rows)
    quotient = rows / torch.where(scale > 0, scale, 1.0).unsqueeze(1)
    return quotient.round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scale


def row_scales(rows: Tensor) -> Tensor:
    """float32 ``[n]``."""
    return rows.abs().amax(1) / _LARGEST


def row_blocks(weight: Tensor) -> Iterator[Tensor]:
    """A table's rows, in pieces of some MiB."""
    step = max(1, _BLOCK_BYTES // (4 * weight.shape[1]))
    for start in range(0, len(weight), step):
        yield weight[start : start + step]
