"""Make a whole exported folder of an earlier one and this folder, which holds only what has changed since.

    python apply.py EARLIER OUT

Rows: those of `tables/` in this folder replace the rows of EARLIER with the same ids, or are appended behind them.
Vocabularies: the entries of `vocabulary/` are added, in ascending order of ids. Every other file is taken from here.
Every file that is written is compared with its checksum.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: python -I leaves its folder out of the path
    sys.dont_write_bytecode = True  # the folder stays as it is
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # torch works without it, and says so

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fae.exporting.standalone.check import check_sums
from fae.exporting.standalone.scoring.exported_model import FORMAT_VERSION
from fae.exporting.standalone.scoring.input_text import InputError
from fae.exporting.standalone.scoring.row_files import StoredRows, write_rows, write_vocabulary_parts
from fae.exporting.standalone.scoring.stored_tables import RowTable

_BLOCK_ROWS = 1 << 16


def apply_changes(changes: Path, earlier: Path, out: Path) -> int:
    """Write the folder `out`, which must not be there; return the number of its files.

    Raises
    ------
    InputError
        If a folder is not what it should be, or a file that was written is not the one that was expected.
    """
    manifest = _manifest(changes, "fae_export_delta")
    check_sums(changes)
    base = _manifest(earlier, "fae_export")
    digest = hashlib.sha256((earlier / "manifest.json").read_bytes()).hexdigest()
    if digest != manifest["base"]["manifest_sha256"]:
        raise InputError(
            f"{earlier} is the export of {base['fingerprints']['checkpoint'][:8]}, and {changes} was made since that "
            f"of {manifest['base']['fingerprints']['checkpoint'][:8]}; name that one"
        )
    if out.exists() or out.is_symlink() or not out.name:
        raise InputError(f"{out} is there already; choose another folder")
    partial = out.with_name(f".{out.name}.writing")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(changes, earlier, partial, manifest)
        check_sums(partial)
        partial.rename(out)
    except InputError:
        check_sums(earlier)  # says which of its files is damaged
        raise
    except OSError as error:
        check_sums(earlier)
        raise InputError(f"{out} cannot be written: {error}") from None
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, pa.ArrowException) as error:
        check_sums(earlier)
        line = " ".join(str(error).split())
        raise InputError(f"{changes} cannot be applied to {earlier}: {line}; export the whole folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(manifest["result"]["files"])


def _manifest(folder: Path, kind: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} has no manifest that can be read: {error}") from None
    if not isinstance(found, dict) or found.get("kind") != kind:
        held = found.get("kind") if isinstance(found, dict) else None
        raise InputError(f"{folder} holds {held!r}, expected {kind!r}")
    if found.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{folder} is of format {found.get('format_version')}, and this script reads {FORMAT_VERSION}")
    return found


def _write(changes: Path, earlier: Path, out: Path, manifest: dict[str, Any]) -> None:
    result = manifest["result"]
    for name in manifest["copied"]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(changes / name, out / name)
    schema = json.loads((out / "schema.json").read_text())
    before = {table["name"]: table for table in json.loads((earlier / "schema.json").read_text())["tables"]}
    for name in ("vocabulary", "tables"):
        (out / name).mkdir(exist_ok=True)
    for table in schema["tables"]:
        known, added = pq.read_table(earlier / before[table["name"]]["vocabulary"]), changes / table["vocabulary"]
        if added.exists():
            known = pa.concat_tables([known, pq.read_table(added)]).sort_by("id")
        write_vocabulary_parts(out / table["vocabulary"], [known])
        facts = manifest["tables"].get(table["name"])
        changed = None if facts is None else _Changed(changes / facts["file"], int(table["embedding_dim"]))
        _write_rows(out, table, RowTable(earlier, before[table["name"]]), changed)
    # As fae writes it, so that the whole folder is the same to the byte.
    (out / "manifest.json").write_text(json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _write_rows(out: Path, table: dict[str, Any], old: RowTable, changed: _Changed | None) -> None:
    dim = int(table["embedding_dim"])
    index = table["rows"].endswith(".index.json")
    facts = json.loads((out / table["rows"]).read_text()) if index else {}
    count = int(table["num_rows"])
    rows_a_file = int(facts["metadata"]["rows_a_file"]) if index else max(count, 1)
    dtype = old.stored(0, 0)[0].dtype
    for part, first in enumerate(range(0, count, rows_a_file)):
        last = min(first + rows_a_file, count)
        name = f"tables/{facts['weight_map'][f'weight.{part}']}" if index else table["rows"]

        def blocks(first: int = first, last: int = last) -> Iterator[StoredRows]:
            for start in range(first, last, _BLOCK_ROWS):
                yield _merged(old, changed, start, min(start + _BLOCK_ROWS, last), dim)

        write_rows(out / name, (last - first, dim), dtype, blocks, suffix=f".{part}" if index else "")


class _Changed:
    """The changed rows of one table: ids in ascending order, and the rows as they are stored."""

    def __init__(self, path: Path, dim: int) -> None:
        with safe_open(str(path), framework="pt") as file:
            self.ids = file.get_tensor("ids")
            self.weight = file.get_tensor("weight").view(-1, dim)
            self.scale = file.get_tensor("scale") if "scale" in file.keys() else None  # noqa: SIM118


def _merged(old: RowTable, changed: _Changed | None, first: int, last: int, dim: int) -> StoredRows:
    """Rows ``[first, last)``: the changed ones, and else those of the earlier folder."""
    like, like_scale = old.stored(0, 0)
    weight = torch.zeros((last - first, dim), dtype=like.dtype)
    scale: Tensor | None = None if like_scale is None else torch.zeros(last - first)
    for start, stop in old.pieces(_BLOCK_ROWS):
        start, stop = max(start, first), min(stop, last)
        if start < stop:
            rows, scales = old.stored(start, stop)
            weight[start - first : stop - first] = rows
            if scale is not None and scales is not None:
                scale[start - first : stop - first] = scales
    if changed is not None:
        low, high = torch.searchsorted(changed.ids, torch.tensor([first, last])).tolist()
        places = changed.ids[low:high] - first
        weight[places] = changed.weight[low:high]
        if scale is not None and changed.scale is not None:
            scale[places] = changed.scale[low:high]
    return weight, scale


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", metavar="EARLIER", type=Path, help="the whole folder that this one was made since")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; it must not be there")
    options = parser.parse_args(arguments)
    here = Path(__file__).resolve().parent
    try:
        count = apply_changes(here, options.earlier, options.out)
    except InputError as error:
        print(f"apply.py: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {count} files, all with the checksums of the whole export")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
