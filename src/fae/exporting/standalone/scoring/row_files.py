"""Write rows as safetensors and vocabularies as Parquet, piece by piece, so that equal contents are equal bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

StoredRows = tuple[Tensor, Tensor | None]
"""Some rows as they are stored, ``[n, D]``, and for int8 their scales, float32 ``[n]``."""

VOCABULARY = pa.schema([pa.field("value", pa.string(), False), pa.field("id", pa.int32(), False)])
_CODES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8", torch.int64: "I64",
}  # fmt: skip
_GROUP_ROWS = 1 << 20


def safetensors_header(tensors: list[tuple[str, torch.dtype, list[int]]]) -> bytes:
    """The header of a safetensors file: of each tensor name, type and shape, in the order of their data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dtype, shape in tensors:
        size = dtype.itemsize
        for length in shape:
            size *= length
        header[name] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_rows(
    path: Path,
    shape: tuple[int, int],
    dtype: torch.dtype,
    blocks: Callable[[], Iterable[StoredRows]],
    *,
    suffix: str = "",
    ids: Tensor | None = None,
) -> None:
    """Write one file: ``ids``, ``scale``, ``weight``, each where it is there, the wider types first.

    Parameters
    ----------
    shape, dtype
        Rows and width of the table part, and its type.
    blocks
        Gives the rows in pieces; called once, or twice where there are scales.
    suffix
        Behind the names ``scale`` and ``weight``.
    ids
        int64 ``[n]``, of rows that replace others.
    """
    has_scale = dtype == torch.int8
    tensors: list[tuple[str, torch.dtype, list[int]]] = []
    if ids is not None:
        tensors.append(("ids", torch.int64, [len(ids)]))
    if has_scale:
        tensors.append((f"scale{suffix}", torch.float32, [shape[0]]))
    tensors.append((f"weight{suffix}", dtype, list(shape)))
    with path.open("xb") as file:
        file.write(safetensors_header(tensors))
        if ids is not None:
            file.write(_bytes(ids))
        if has_scale:
            for _, scale in blocks():
                assert scale is not None
                file.write(_bytes(scale))
        for weight, _ in blocks():
            file.write(_bytes(weight))


def _bytes(values: Tensor) -> bytearray:
    flat = values.contiguous().view(-1)
    target = bytearray(len(flat) * flat.element_size())
    if len(flat):
        torch.frombuffer(target, dtype=flat.dtype).copy_(flat)
    return target


def write_vocabulary_parts(path: Path, parts: Iterable[Any]) -> None:
    """Write Arrow tables of ``value`` and ``id`` as one Parquet file, whose bytes do not depend on how they are cut."""
    with path.open("xb") as file, pq.ParquetWriter(file, VOCABULARY, compression="zstd") as writer:
        for group in _groups(parts):
            writer.write_table(group, row_group_size=_GROUP_ROWS)


def _groups(parts: Iterable[Any]) -> Iterator[Any]:
    waiting = VOCABULARY.empty_table()
    for part in parts:
        waiting = pa.concat_tables([waiting, part.cast(VOCABULARY)])
        while waiting.num_rows >= _GROUP_ROWS:
            yield waiting.slice(0, _GROUP_ROWS).combine_chunks()
            waiting = waiting.slice(_GROUP_ROWS)
    if waiting.num_rows:
        yield waiting.combine_chunks()
