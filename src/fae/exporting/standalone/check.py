"""Check an exported folder, and score files with it: torch, safetensors and pyarrow are all it needs.

python check.py                                checksums, and the scores of golden.parquet to 1e-6
python check.py FILE --out scores.parquet      scores of a raw file, in the format of the run's own log
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: python -I leaves its folder out of the path
    sys.dont_write_bytecode = True  # the folder stays as it is
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # torch works without it, and says so

import pyarrow as pa
import pyarrow.parquet as pq

from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.scoring.input_text import InputError

_TOLERANCE = 1e-6
_BLOCK = 1 << 22


def check_sums(folder: Path) -> int:
    """Compare every file with its checksum in manifest.json; return the number of files.

    Raises
    ------
    InputError
        If a file is missing or differs.
    """
    try:
        files = json.loads((folder / "manifest.json").read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no manifest that can be read: {error}") from None
    for name, facts in files.items():
        digest = hashlib.sha256()
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{folder / name} cannot be read: {error}") from None
        if digest.hexdigest() != facts["sha256"]:
            raise InputError(f"{folder / name} is damaged: its sha256 is not that of manifest.json; export it again")
    return len(files)


def check_golden(model: ExportedModel) -> tuple[int, float]:
    """Score golden.parquet; return the number of inputs and the largest difference from its scores.

    Raises
    ------
    InputError
        If a score differs by more than 1e-6.
    """
    facts = model.schema["golden"]
    table = pq.read_table(model.folder / facts["file"])
    expected = table.column(facts["score"]).to_pylist()
    found: list[float] = []
    for columns in model.files(model.folder / facts["file"]):
        found += model.score(columns).tolist()
    worst = max((abs(a - b) for a, b in zip(found, expected, strict=True)), default=0.0)
    if not worst <= _TOLERANCE:
        raise InputError(f"a score of {facts['file']} differs by {worst:.3g}, at most {_TOLERANCE} is expected")
    return len(found), worst


def score_file(model: ExportedModel, path: Path, out: Path | None) -> tuple[int, float]:
    """Score a raw file; return the number of inputs and the mean score. `out` ends in .parquet or .csv."""
    if out is not None and out.exists() and path.exists() and out.samefile(path):
        raise InputError(f"{out} is the file that is scored; choose another name")
    count, total = 0, 0.0
    schema = pa.schema([("score", pa.float64())])
    parts = []
    for columns in model.files(path):
        scores = model.score(columns)
        parts.append(pa.array(scores.tolist(), pa.float64()))
        count, total = count + len(scores), total + float(scores.sum())
    if not count:
        raise InputError(f"{path} holds no inputs")
    if out is not None:
        table = pa.table([pa.chunked_array(parts, pa.float64())], schema=schema)
        partial = out.with_name(f".{out.name}.writing")
        try:
            if out.suffix == ".parquet":
                pq.write_table(table, partial)
            else:
                partial.write_text("score\n" + "".join(f"{each!r}\n" for each in table.column(0).to_pylist()))
            partial.replace(out)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(f"{out} cannot be written: {error}") from None
    return count, total / count


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="raw files to score")
    parser.add_argument("--out", type=Path, metavar="SCORES", help="a .parquet or .csv file for the scores of one FILE")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent, help="the exported folder")
    parser.add_argument("--no-checksums", action="store_true", help="read no more of the tables than is looked up")
    options = parser.parse_args(arguments)
    if options.out is not None and (len(options.files) != 1 or options.out.suffix not in (".parquet", ".csv")):
        parser.error("--out takes the scores of one FILE, and ends in .parquet or .csv")
    try:
        if not options.no_checksums:
            print(f"checksums of {check_sums(options.folder)} files are right")
        model = ExportedModel(options.folder)
        count, worst = check_golden(model)
        print(f"{count} golden inputs: the largest difference of a score is {worst:.2g}")
        for path in options.files:
            count, mean = score_file(model, path, options.out)
            line = f"{path}: {count:,} inputs, mean score {mean:.4f}" + (f": {options.out}" if options.out else "")
            print(line.encode(errors="backslashreplace").decode())
    except InputError as error:
        print(f"check.py: {error}".encode(errors="backslashreplace").decode(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
