"""Criteo's text to ids: FAE's ingest beside polars and pyarrow doing the same, MB/s and peak memory, same ids checked.

    python benchmarks/ingest.py [--inputs 2000000] [--scale 1.0] [--repeats 5] [--folder DIR] [--quick]

Is ingest as fast as the libraries for tables, and in how much memory? Work: a synthetic log of Criteo's format
(docs/guide/synthetic.md), one file, in the page cache. Each way reads it and writes ``labels.npy``, ``dense.npy``
(log1p, float32), ``ids.npy`` (int32, by popularity in the training split, ties by first appearance, one more id for
values that this split never shows) and ``counts.npy``. Their bytes must be equal.

FAE's ingest does more: it names the source by a digest of its bytes, checks every field, writes vocabularies and
checksums, and can continue after a kill; all of that is counted. The others parse with the types that serve them best:

* ``polars``: eager, all threads, ids by a join per column: its fastest way;
* ``pyarrow``: all threads, dictionaries made while parsing and unified.

Every run is another process; ways take turns; a first run of each is not counted (compiled code, page cache).
Seconds are those of the work, without starting Python and importing; memory is the process' peak, with both. Writes
benchmarks/results/ingest.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

IDS = [f"C{i}" for i in range(1, 27)]
COUNTS = [f"I{i}" for i in range(1, 14)]
COLUMNS = ["label", *COUNTS, *IDS]
FILES = ("labels.npy", "dense.npy", "ids.npy", "counts.npy")
TEST, VALIDATION = 0.1, 0.05


def training_inputs(num_inputs: int) -> int:
    """As ingest splits by default."""
    test_start = num_inputs - int(num_inputs * TEST + 0.5)
    return test_start - int(test_start * VALIDATION + 0.5)


def run_fae(text: Path, out: Path) -> None:
    """The stage as a recipe runs it."""
    from fae.ingest.config import LogConfig
    from fae.ingest.ingest import ingest

    ingest(LogConfig(train=text.name, format="criteo"), out / "log", base=text.parent)
    for name in FILES:
        (out / "log" / name).rename(out / name)


def save(out: Path, labels: Any, dense: np.ndarray, ids: np.ndarray, counts: list[np.ndarray]) -> None:
    """Write the files in ingest's layout."""
    np.save(out / "labels.npy", labels.astype(np.uint8))
    np.save(out / "dense.npy", dense)
    np.save(out / "ids.npy", ids)
    np.save(out / "counts.npy", np.concatenate(counts))


def run_polars(text: Path, out: Path) -> None:
    """Everything in memory, every operation on all threads."""
    import polars as pl

    frame = pl.read_csv(text, **polars_options(pl))
    labels = frame["label"].to_numpy()
    dense = frame.select(polars_dense(pl)).to_numpy(order="c")
    polars_finish(pl, lambda name: frame.select(name), labels, dense, out)


def polars_options(pl: Any) -> dict[str, Any]:
    """How to read the text."""
    schema = {"label": pl.UInt8} | dict.fromkeys(COUNTS, pl.Int64) | dict.fromkeys(IDS, pl.String)
    return {
        "separator": "\t", "has_header": False, "schema": schema, "quote_char": None,
    }  # fmt: skip


def polars_dense(pl: Any) -> Any:
    """log(1 + max(x, 0)), a missing one 0."""
    return pl.col(COUNTS).fill_null(0).clip(lower_bound=0).cast(pl.Float64).log1p().cast(pl.Float32)


def polars_finish(pl: Any, column: Callable[[str], Any], labels: Any, dense: Any, out: Path) -> None:
    """Number the values of every column by popularity."""
    num_training = training_inputs(len(labels))
    ids, counts = np.empty((len(labels), len(IDS)), np.int32), []
    for index, name in enumerate(IDS):
        values = column(name)
        ranked = (
            values.head(num_training)
            .with_row_index("first")
            .group_by(name)
            .agg(pl.len(), pl.col("first").min())
            .sort(["len", "first"], descending=[True, False])
            .with_row_index("id")
        )
        joined = values.join(ranked.select(name, "id"), on=name, how="left", nulls_equal=True, maintain_order="left")
        ids[:, index] = joined["id"].fill_null(len(ranked)).to_numpy()
        counts.append(np.append(ranked["len"].to_numpy().astype(np.int64), 0))
    save(out, labels, dense, ids, counts)


def run_pyarrow(text: Path, out: Path) -> None:
    """Dictionaries made by the parser's threads, one block of text at a time, then unified."""
    import pyarrow as pa
    import pyarrow.csv

    types: dict[str, Any] = {"label": pa.uint8()} | dict.fromkeys(COUNTS, pa.int64())
    types |= dict.fromkeys(IDS, pa.dictionary(pa.int32(), pa.string()))
    table = pyarrow.csv.read_csv(
        text,
        read_options=pyarrow.csv.ReadOptions(column_names=COLUMNS, block_size=16 << 20),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False),
    )
    num_inputs = table.num_rows
    num_training = training_inputs(num_inputs)
    labels = table["label"].to_numpy()
    dense = np.empty((num_inputs, len(COUNTS)), np.float32)
    for index, name in enumerate(COUNTS):
        dense[:, index] = np.log1p(np.maximum(table[name].fill_null(0).to_numpy().astype(np.float64), 0))
    table = table.select(IDS).unify_dictionaries()
    ids, counts = np.empty((num_inputs, len(IDS)), np.int32), []
    for index, name in enumerate(IDS):
        # The unified dictionary is in order of first appearance, so a stable sort settles ties as it should.
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in table[name].chunks])
        seen = np.bincount(codes[:num_training], minlength=len(table[name].chunk(0).dictionary))
        order = np.argsort(-seen, kind="stable")[: np.count_nonzero(seen)]
        rank = np.full(len(seen), len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        ids[:, index] = rank[codes]
        counts.append(np.append(seen[order], 0))
    save(out, labels, dense, ids, counts)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "fae": run_fae, "polars": run_polars, "pyarrow": run_pyarrow,
}  # fmt: skip


def child(way: str, text: Path, out: Path) -> None:
    """One run in this process; prints its seconds, memory and digests."""
    if way == "fae":
        import fae.ingest.ingest  # noqa: F401
    else:
        __import__(way)
    start, cpu = time.perf_counter(), time.process_time()
    WAYS[way](text, out)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    digests = {name: contents_digest(out / name) for name in FILES}
    facts = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak, "digests": digests}
    print(json.dumps(facts))


def contents_digest(path: Path) -> str:
    """Digest of the array's type, shape and bytes: two writers of ``.npy`` may pad the header differently."""
    array = np.load(path, mmap_mode="r")
    digest = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def measure(text: Path, folder: Path, repeats: int, ways: list[str]) -> list[dict[str, Any]]:
    """All ways in turns."""
    samples: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way in ways:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            done = subprocess.run(
                [sys.executable, __file__, "--child", way, str(text), str(out)],
                capture_output=True,
                text=True,
                check=True,
            )
            facts = json.loads(done.stdout)
            facts["load"] = os.getloadavg()[0]
            print(f"{way}: {facts['seconds']:.2f} s, peak {facts['peak_bytes'] / 1e6:.0f} MB", file=sys.stderr)
            if repeat:
                samples[way].append(facts)
    shutil.rmtree(folder / "out", ignore_errors=True)
    num_bytes = text.stat().st_size
    rows = []
    for way, runs in samples.items():
        seconds = [run["seconds"] for run in runs]
        cpu, peaks = ([run[key] for run in runs] for key in ("cpu_seconds", "peak_bytes"))
        rows.append({
            "way": way, "samples_seconds": seconds, "samples_cpu_seconds": cpu, "samples_peak_bytes": peaks,
            "samples_load": [run["load"] for run in runs],
            "median_mb_per_second": num_bytes / 1e6 / statistics.median(seconds),
            "median_mb_per_cpu_second": num_bytes / 1e6 / statistics.median(cpu), "peak_bytes": max(peaks),
            "ratio_to_fae": statistics.median(
                run["seconds"] / mine["seconds"] for run, mine in zip(runs, samples["fae"], strict=True)
            ),
            "same_bytes_as_fae": {
                name: all(run["digests"][name] == samples["fae"][0]["digests"][name] for run in runs) for name in FILES
            },
        })  # fmt: skip
    return rows


def main() -> None:
    """Read the command line, measure, write the result."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    from fae.synthetic.text_writer import SyntheticConfig, write_text

    from common import record, save_record

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2_000_000)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to put 2 GB for a while")
    parser.add_argument("--quick", action="store_true", help="small log, one repeat: shows that it runs")
    options = parser.parse_args()
    inputs, scale, repeats = (20_000, 0.01, 1) if options.quick else (options.inputs, options.scale, options.repeats)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        text = folder / "log.tsv"
        write_text(SyntheticConfig(num_inputs=inputs, scale=scale), text)
        ways = [way for way in WAYS if way == "fae" or find_spec(way)]  # polars is in no extra of this package
        rows = measure(text, folder, repeats, ways)
        versions = {way: version(way) for way in ways if way != "fae"}
        result = record(
            num_inputs=inputs, scale=scale, text_bytes=text.stat().st_size, baseline_versions=versions, rows=rows
        )
    if options.quick:
        print(json.dumps(result, indent=1))
    else:
        save_record("ingest", result)


if __name__ == "__main__":
    main()
