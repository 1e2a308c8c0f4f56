"""Write what has changed since an earlier export: rows whose bytes differ, and new entries of vocabularies."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST
from fae.core.progress import say, task
from fae.core.units import format_count
from fae.core.whole_files import read_json
from fae.exporting.standalone.scoring.row_files import StoredRows, write_rows, write_vocabulary_parts
from fae.exporting.standalone.scoring.stored_tables import RowTable

KIND, DELTA_KIND, FORMAT_VERSION = "fae_export", "fae_export_delta", 1
_BLOCK_ROWS = 1 << 16


def check_earlier(earlier: Path, dtype: str) -> dict[str, Any]:
    """The manifest of an earlier export that changes can be written since.

    Raises
    ------
    ArtifactError
        If it is no whole export, or of another type of rows.
    """
    try:
        manifest = read_json(earlier / MANIFEST)
        kind, found = manifest["kind"], manifest.get("dtype")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"--since {earlier} is no exported folder; name the folder of an earlier export") from error
    if kind == DELTA_KIND:
        raise ArtifactError(
            f"--since {earlier} holds changes alone; name the whole folder that its apply.py has made of them"
        )
    if kind != KIND or found != dtype:
        raise ArtifactError(f"--since {earlier} has rows of {found}, and this export {dtype}; give --dtype {found}")
    checked: dict[str, Any] = manifest
    return checked


def write_changes(earlier: Path, whole: Path, out: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write into the empty folder `out` what turns `earlier` into `whole`; return its manifest without ``files``.

    Parameters
    ----------
    facts
        Manifest of `earlier`.

    Raises
    ------
    ArtifactError
        If ids of `earlier` mean other values in `whole`, or tables have other widths.
    """
    result, schema = read_json(whole / MANIFEST), read_json(whole / "schema.json")
    before = {table["name"]: table for table in read_json(earlier / "schema.json")["tables"]}
    copied = [
        name for name in result["files"]
        if not name.startswith(("vocabulary/", "tables/")) or name.endswith(".index.json")
    ]  # fmt: skip
    for name in copied:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole / name, out / name)
    for name in ("vocabulary", "tables"):
        (out / name).mkdir(exist_ok=True)
    tables: dict[str, Any] = {}
    with task("export: comparing rows", sum(table["num_rows"] for table in schema["tables"]), "rows") as progress:
        for table in schema["tables"]:
            old = before.get(table["name"])
            if old is None or old["embedding_dim"] != table["embedding_dim"]:
                raise ArtifactError(
                    f"{earlier} has no table {table['name']!r} of width {table['embedding_dim']}; export the whole "
                    "folder"
                )
            _write_new_values(earlier / old["vocabulary"], whole / table["vocabulary"], out / table["vocabulary"])
            name = f"tables/{Path(table['vocabulary']).stem}.safetensors"
            count = _write_changed_rows(RowTable(earlier, old), RowTable(whole, table), out / name)
            if count:
                tables[table["name"]] = {"file": name, "rows": count, "of": table["num_rows"]}
            progress.advance(table["num_rows"])
    changed = sum(each["rows"] for each in tables.values())
    rows = sum(table["num_rows"] for table in schema["tables"])
    say(f"export: {format_count(changed)} of {format_count(rows)} rows have changed since {earlier}")
    digest = hashlib.sha256((earlier / MANIFEST).read_bytes()).hexdigest()
    return {
        "kind": DELTA_KIND, "format_version": FORMAT_VERSION, "run": result["run"],
        "fingerprints": result["fingerprints"], "versions": result["versions"], "dtype": result["dtype"],
        "base": {"manifest_sha256": digest, "fingerprints": facts["fingerprints"]},
        "tables": tables, "copied": copied, "result": result,
    }  # fmt: skip


def _write_new_values(old: Path, new: Path, out: Path) -> None:
    """Write the entries that `old` lacks, if there are any."""
    known, found = pq.read_table(old), pq.read_table(new)
    is_known = pa.array(np.isin(found.column("id").to_numpy(), known.column("id").to_numpy()))
    if not found.filter(is_known).equals(known):
        raise ArtifactError(
            f"ids of {old} mean other values now, so rows cannot be replaced by their ids; export the whole folder "
            "(runs of one line of days, [train] from, keep their ids)"
        )
    added = found.filter(pa.array(~np.asarray(is_known)))
    if added.num_rows:
        write_vocabulary_parts(out, [added])


def _write_changed_rows(old: RowTable, new: RowTable, out: Path) -> int:
    """Write the rows of `new` that `old` has not, or with other bytes; return their number."""
    parts = [torch.empty(0, dtype=torch.int64)]
    for first, last in new.pieces(_BLOCK_ROWS):
        differs = torch.ones(last - first, dtype=torch.bool)
        rows, scales = new.stored(first, last)
        for start, stop in old.pieces(_BLOCK_ROWS):
            start, stop = max(start, first), min(stop, last)
            if start >= stop:
                continue
            here = slice(start - first, stop - first)
            old_rows, old_scales = old.stored(start, stop)
            differs[here] = (_as_bytes(rows[here]) != _as_bytes(old_rows)).any(1)
            if scales is not None and old_scales is not None:
                differs[here] |= scales[here] != old_scales
        parts.append(differs.nonzero().view(-1) + first)
    ids = torch.cat(parts)
    if not len(ids):
        return 0

    def blocks() -> Iterator[StoredRows]:
        for first, last in new.pieces(_BLOCK_ROWS):
            low, high = torch.searchsorted(ids, torch.tensor([first, last])).tolist()
            if low < high:
                rows, scales = new.stored(first, last)
                chosen = ids[low:high] - first
                yield rows[chosen], None if scales is None else scales[chosen]

    write_rows(out, (len(ids), new.embedding_dim), new.stored(0, 0)[0].dtype, blocks, ids=ids)
    return len(ids)


def _as_bytes(rows: Tensor) -> Tensor:
    """The bytes of rows: NaN equals itself there, and 0 is not -0."""
    return rows.contiguous().view(torch.uint8)
