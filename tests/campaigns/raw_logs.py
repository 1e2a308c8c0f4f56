"""Mutated raw logs of every format: ingest refuses them in a line or gives what a slow, strict reader gives.

    python tests/campaigns/raw_logs.py [--count 1000] [--seed 1] [--only 7] [--put-back]

Each case draws a log (one to three files; CSV with or without header, with quotes, without, with escapes, separators of
one and of several characters, decimal commas; JSON lines; Parquet of drawn types; Criteo; plain, gz or zst), changes it
in zero to three places (bytes flipped, inserted, removed, repeated; quotes, line ends, marks and odd values in fields;
blank lines; a missing last line end), ingests it with small and with usual block sizes, and compares labels, dense
values, ids and vocabularies with tests/support/raw_log_reference.py. A finding is: a traceback or a signal, a log that
is taken although it must be refused, one that is refused although it is fine, other values, more than 1.5 GiB of
memory.
"""

from __future__ import annotations

import functools
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

from campaign import Ended, Tried, fork_fae, run_campaign, warm_up  # noqa: E402
from raw_log_faults import FAULTS  # noqa: E402

MEMORY_BYTES = 3 << 29
"""Beyond what the process holds already; the bound of ingest is about 100 MB and its vocabularies."""


def parquet_case(draw: random.Random, folder: Path) -> tuple[list[list[Any]] | str, dict[str, Any], Any]:
    """Values stored as drawn types, file by file another one: they are the same values."""
    from raw_parquet import write_parquet_log
    from raw_text import draw_inputs

    from raw_log_reference import Form

    expected = write_parquet_log(draw, folder, draw_inputs)
    log: dict[str, Any] = {
        "train": "part_*.txt", "format": "parquet", "label": "y", "dense": ["x"],
        "categorical": [
            "user", "item", {"name": "code", "encoded": True}, {"name": "tags", "max_length": 3, "pooling": "mean"},
        ], "test_fraction": 0.0, "validation_fraction": 0.0,
    }  # fmt: skip
    return expected, log, Form()


def compare(folder: Path, inputs: list[dict[str, Any]], kind: str, form: Any) -> str:
    """What differs between the columnar log and the reference's inputs; empty if nothing does."""
    import numpy as np

    from case_folders import column_values, list_values
    from fae.artifacts.columnar_log import ColumnarLog
    from raw_log_reference import transformed

    log = ColumnarLog(folder / "out" / "log")
    label = {"criteo": "label", "avazu": "click"}.get(kind, form.label)
    if log.labels.tolist() != [found[label] for found in inputs]:
        return f"labels {log.labels.tolist()}, expected {[found[label] for found in inputs]}"
    for index, name in enumerate(log.dense_names):
        expected = transformed([found[name] for found in inputs])
        if not np.allclose(log.dense[:, index], expected, rtol=1e-6, atol=0):
            return f"dense {name}: {log.dense[:, index].tolist()}, expected {expected.tolist()}"
    for feature in log.features:
        if feature.length > 1:
            values: list[Any] = list_values(log, feature.name)
            wanted: list[Any] = [found[feature.name][-feature.length :] for found in inputs]
        else:
            values = column_values(log, feature.name)
            wanted = [found[feature.name] for found in inputs]
            if feature.encoded:
                wanted = [None if value is None else str(value) for value in wanted]
        if values != wanted:
            place = next(i for i, pair in enumerate(zip(values, wanted, strict=True)) if pair[0] != pair[1])
            return f"{feature.name} of input {place}: {values[place]!r}, expected {wanted[place]!r}"
    return ""


def small_blocks(draw: random.Random) -> Callable[[], None]:
    """For the forked process: blocks that are shorter than the log."""
    num_bytes = draw.choice([64, 97, 256, 1000])

    def prepare() -> None:
        from fae.ingest.readers import criteo, csv, parquet

        for module in (csv, criteo):
            module._BLOCK_BYTES = max(num_bytes, 4 * 400)
        parquet._BATCH_INPUTS = 5

    return prepare


@functools.cache
def _warm_up() -> None:
    """Load the compiled loops of all formats before anything is forked."""
    from raw_text import text_case

    from commands import toml

    for kind in ("csv", "jsonl", "criteo", "avazu"):
        draw = random.Random(0)
        with tempfile.TemporaryDirectory() as name:
            expected: Any = "unsure"
            while isinstance(expected, str):
                _remove(Path(name))
                Path(name).mkdir()
                expected, log, _ = text_case(draw, Path(name), kind)
            (Path(name) / "recipe.toml").write_text(toml({"log": log}), encoding="utf-8")
            warm_up(["ingest", "recipe.toml", "--out", "out"], Path(name))


def case(draw: random.Random, folder: Path) -> Tried:
    """One log, ingested twice."""
    from raw_text import text_case

    from commands import toml

    _warm_up()
    kind = draw.choice(["csv", "csv", "csv", "jsonl", "criteo", "parquet", "parquet", "avazu"])
    expected, log, form = parquet_case(draw, folder) if kind == "parquet" else text_case(draw, folder, kind)
    (folder / "recipe.toml").write_text(toml({"log": log}), encoding="utf-8")
    ended: list[Ended] = []
    for prepare in (small_blocks(draw), None):
        limit = MEMORY_BYTES + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + _mapped_bytes()
        ended.append(fork_fae(["ingest", "recipe.toml", "--out", "out"], folder, prepare=prepare, memory_bytes=limit))
        if fault := ended[-1].fault():
            if kind == "parquet" and expected == "unsure" and dies_alone(folder):
                return Tried(kind, "the library alone dies")
            return Tried(kind, fault, f"{fault}: {ended[-1].stderr[-500:]}")
        if ended[-1].status == 0:
            if isinstance(expected, str) and expected != "unsure":
                return Tried(kind, "taken", f"taken, expected {expected}")
            if isinstance(expected, list):
                inputs = [found for part in expected for found in part]
                if different := compare(folder, inputs, kind, form):
                    return Tried(kind, "other values", different)
        elif isinstance(expected, list):
            return Tried(kind, "refused though fine", ended[-1].last_line)
        _remove(folder / "out")
    if ended[0].status != ended[1].status:
        return Tried(kind, "depends on blocks", f"{ended[0].last_line} | {ended[1].last_line}")
    if expected == "unsure":
        return Tried(kind, "unsure")
    return Tried(kind, "refused in a line" if ended[0].status else "equal")


def dies_alone(folder: Path) -> bool:
    """Whether a signal ends a process that reads the Parquet files with the library and nothing else."""
    from raw_parquet import read_alone

    child = os.fork()
    if child == 0:
        try:
            read_alone(folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run_campaign(__file__, case, count=1000, faults=FAULTS, doc=__doc__ or "", arguments=sys.argv[1:]))
