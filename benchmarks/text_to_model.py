"""From text to a trained model: every stage of `fae run` on all cores of this machine, and on fewer.

    python benchmarks/text_to_model.py [--inputs 20000000] [--cases ingest stages run ...] [--cores 1 2 16]
                                       [--device cuda] [--repeats 2] [--memory] [--folder DIR] [--out FILE] [--quick]

Work: synthetic text of Criteo's format with the published tables (33.8 M rows at scale 1), DLRM 512-256-64 / 512-256,
SGD, batches of 32,768, a budget of 256 MiB. Cases:

* ``ingest``: `fae ingest` held to this number of cores (its affinity), in turns;
* ``stages``: `fae profile`, `fae calibrate` and `fae pack` one after the other, held to this number of cores;
* ``run``: `fae run` of text to a trained, evaluated and saved model, with all that earlier runs compiled;
* ``fresh``: the same without compiled loops and kernels;
* ``csv`` and ``parquet``: `fae ingest` of a quoted CSV of 20 columns and of Parquet with the same values, beside
  pyarrow (and polars, where it is installed) reading the same file to ids, without vocabularies and without checks;
* ``longer``: `fae ingest` of a log a tenth as long.

Every run is another process: seconds are those since it was started, processor seconds those of it and all that it
started. With ``--memory`` so is memory, its peak, looked at every half second; the system stops a process while it
counts its pages, so seconds of such a run are not those of others. The log lies in the page cache. Writes
benchmarks/results/text_to_model.json after each command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from fae.synthetic.click_log import SyntheticLog
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS
from fae.synthetic.text_writer import encode_lines

from common import ROOT, made_once, record, save_record, working_folder

RECIPE = """
[log]
format = "{format}"
train = "{train}"
{columns}
[model]
name = "dlrm"
embedding_dim = 16
bottom_mlp = [512, 256, 64]
top_mlp = [512, 256]

[hot]
budget = "{budget}"

[train]
batch_size = {batch_size}
optimizer = "sgd"
learning_rate = 0.1
"""
CASES = ("ingest", "stages", "run", "fresh", "csv", "parquet", "longer")
NUM_COLUMNS = 20


def _lines(task: tuple[SyntheticConfig, int]) -> bytes:
    config, index = task
    log = SyntheticLog(config)
    chunk = log.chunk(index)
    keep = slice(0, min(CHUNK_INPUTS, config.num_inputs - index * CHUNK_INPUTS))
    return encode_lines(chunk.labels[keep], chunk.counts[keep], chunk.ids[keep], log.columns)


def _texts(config: SyntheticConfig) -> Iterator[bytes]:
    """The chunks of the log's text, made by all cores."""
    os.environ["FAE_NUM_THREADS"] = "1"
    tasks = ((config, index) for index in range(-(-config.num_inputs // CHUNK_INPUTS)))
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        while batch := list(islice(tasks, 4 * (os.cpu_count() or 1))):
            yield from pool.imap(_lines, batch)
    del os.environ["FAE_NUM_THREADS"]


def write_criteo(config: SyntheticConfig, path: Path) -> None:
    """Write the bytes of `fae.synthetic.text_writer.write_text`, by all cores."""
    with path.open("wb") as file:
        for text in _texts(config):
            file.write(text)


def write_tables(source: Path, folder: Path, num_inputs: int) -> None:
    """Write the first columns of a Criteo log as a quoted CSV and as Parquet."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    names = ["label", *(f"C{i}" for i in range(1, NUM_COLUMNS))]
    keep = ["f0", *(f"f{i}" for i in range(14, 14 + NUM_COLUMNS - 1))]
    reader = pyarrow.csv.open_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=True, block_size=32 << 20),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(keep, pa.string()), include_columns=keep),
    )
    schema, written = pa.schema([(name, pa.string()) for name in names]), 0
    options = pyarrow.csv.WriteOptions(quoting_style="all_valid", batch_size=1 << 16)
    with (
        pyarrow.csv.CSVWriter(folder / "log.csv", schema, write_options=options) as csv,
        pyarrow.parquet.ParquetWriter(folder / "log.parquet", schema) as parquet,
    ):
        for batch in reader:
            table = pa.table(list(batch.columns), names=names).slice(0, num_inputs - written)
            csv.write(table)
            parquet.write_table(table, row_group_size=1 << 17)
            written += len(table)
            if written == num_inputs:
                return


def read_to_ids(library: str, path: Path) -> None:
    """Ids by popularity of all columns of a table, the fastest way of the library; held in memory."""
    names = [f"C{i}" for i in range(1, NUM_COLUMNS)]
    if library == "polars":
        import polars as pl

        schema = {"label": pl.UInt8} | dict.fromkeys(names, pl.String)
        frame = pl.read_csv(path, schema=schema) if path.suffix == ".csv" else pl.read_parquet(path)
        for name in names:
            ranked = frame.group_by(name).agg(pl.len()).sort("len", descending=True).with_row_index("id")
            frame.select(name).join(ranked.select(name, "id"), on=name, how="left", maintain_order="left")[
                "id"
            ].to_numpy()
        return
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if path.suffix == ".csv":
        types = dict.fromkeys(names, pa.dictionary(pa.int32(), pa.string()))
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=16 << 20),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )
    else:
        table = pyarrow.parquet.read_table(path, read_dictionary=names)

    def number(name: str) -> Any:
        column = table[name].unify_dictionaries()
        codes = np.concatenate([chunk.indices.fill_null(0).to_numpy() for chunk in column.chunks])
        order = np.argsort(-np.bincount(codes, minlength=len(column.chunk(0).dictionary)), kind="stable")
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return rank[codes]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(number, names))


def processes_below(pid: int) -> list[int]:
    """A process and all that it and they have started."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += processes_below(int(child))
    return found


def memory_of(pid: int) -> int:
    """Bytes of memory that a process and those below it hold, pages that several share counted once."""
    total = 0
    for each in processes_below(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def timed(command: list[str], cores: int | None = None, *, memory: bool, **variables: str) -> dict[str, Any]:
    """Run a command, held to the first `cores` cores; its seconds, processor seconds and, if wanted, peak memory."""
    peaks = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores])), *command],
            stdout=subprocess.DEVNULL, stderr=errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path[1:]]), **variables},
        )  # fmt: skip
        while True:
            try:
                process.wait(0.5 if memory else None)
                break
            except subprocess.TimeoutExpired:
                peaks.append(memory_of(process.pid))
        seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{errors.read().decode()}")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
        **({"peak_bytes": max(peaks, default=0)} if memory else {}), "load": os.getloadavg()[0],
    }  # fmt: skip


class Session:
    """Measures commands of one recipe and keeps the record after each command."""

    def __init__(self, folder: Path, out: Path | str, facts: dict[str, Any], *, memory: bool) -> None:
        self.folder, self.out, self.facts, self.memory = folder, out, facts, memory
        self.samples: dict[str, list[dict[str, Any]]] = {}

    def fae(
        self, name: str, recipe: Path, command: str, *options: str, cores: int | None = None, **variables: str
    ) -> None:
        """Measure `fae COMMAND` on the recipe; its timeline is kept with the sample."""
        timeline = self.folder / "timeline.txt"
        timeline.unlink(missing_ok=True)
        found = timed(
            [sys.executable, "-m", "fae", command, str(recipe), "--out", str(self.folder / "run"), *options,
             "--log-file", str(timeline)],
            cores, memory=self.memory, **variables,
        )  # fmt: skip
        self.add(name, found | {"timeline": timeline.read_text().splitlines()})

    def add(self, name: str, found: dict[str, Any]) -> None:
        """Keep a sample."""
        self.samples.setdefault(name, []).append(found)
        print(
            f"{name:24} {found['seconds']:7.2f} s {found['processor_seconds']:8.2f} s of processor "
            + (f"{found['peak_bytes'] / 2**20:7.0f} MiB" if self.memory else ""),
            flush=True,
        )
        save_record(self.out, record(**self.facts, samples=self.samples))

    def clear(self) -> None:
        """Remove the run folder."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)


def write_logs(config: SyntheticConfig, path: Path) -> None:
    """Write the log and, beside it, its first tenth."""
    write_criteo(config, path)
    with path.open("rb") as source, path.with_name("tenth.tsv").open("wb") as file:
        file.writelines(islice(source, config.num_inputs // 10))


def write_recipe(folder: Path, train: str, quick: bool) -> Path:
    """Write the recipe of one log."""
    name = folder / f"{Path(train).name}.toml"
    columns = "" if train.endswith(".tsv") else f"categorical = {json.dumps([f'C{i}' for i in range(1, NUM_COLUMNS)])}"
    log_format = "criteo" if train.endswith(".tsv") else train.rpartition(".")[2]
    name.write_text(
        RECIPE.format(
            format=log_format, train=train, columns=columns, budget="1MiB" if quick else "256MiB",
            batch_size=512 if quick else 32768,
        )
    )  # fmt: skip
    return name


def measure(session: Session, case: str, recipe: Path, cores: list[int], device: str, table_inputs: int) -> None:
    """One case, once."""
    folder = session.folder
    if case == "ingest":
        for count in cores:
            session.clear()
            session.fae(f"ingest, {count} cores", recipe, "ingest", cores=count)
    elif case == "longer":
        tenth = recipe.with_name("tenth.tsv.toml")
        for count in cores[-1:]:
            session.clear()
            session.fae(f"ingest of a tenth, {count} cores", tenth, "ingest", cores=count)
        session.clear()  # what comes next takes the log that lies there
    elif case == "stages":
        for count in [count for count in cores if count > 1]:
            if not (folder / "run" / "log").exists():
                session.fae(f"ingest, {count} cores", recipe, "ingest", cores=count)
            for name in ("profile", "calibrate", "pack"):
                shutil.rmtree(
                    folder / "run" / {"calibrate": "hot_set", "pack": "packed"}.get(name, name), ignore_errors=True
                )
                session.fae(f"{name}, {count} cores", recipe, name, cores=count)
    elif case in ("run", "fresh"):
        session.clear()
        with tempfile.TemporaryDirectory() as caches:
            names = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "PYTHONPYCACHEPREFIX")
            changes = {name: f"{caches}/{name}" for name in names} if case == "fresh" else {}
            session.fae(case, recipe, "run", "--device", device, **changes)
    else:
        made_of = {"log": (folder / "log.tsv").stat().st_mtime_ns, "inputs": table_inputs}
        made_once(folder / "log.parquet", made_of, lambda: write_tables(folder / "log.tsv", folder, table_inputs))
        session.clear()
        session.fae(f"ingest of {case}", folder / f"log.{case}.toml", "ingest")
        session.clear()
        for library in ("pyarrow", "polars"):
            try:
                __import__(library)
            except ImportError:
                continue
            command = [sys.executable, __file__, "--child", library, str(folder / f"log.{case}")]
            session.add(f"{library}, {case}", timed(command, memory=session.memory))


def main() -> None:
    """Measure and write the record."""
    if sys.argv[1:2] == ["--child"]:
        read_to_ids(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000_000)
    parser.add_argument("--table-inputs", type=int, default=4_000_000, help="of the CSV and the Parquet file")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2, os.cpu_count()])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--memory", action="store_true", help="look at the memory of each command, too")
    parser.add_argument("--folder", type=Path, help="where to put 20 GB for a while; a log in it is used again")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    inputs, repeats = (40_000, 1) if options.quick else (options.inputs, options.repeats)
    table_inputs = min(options.table_inputs, inputs)
    with working_folder(options.folder) as folder:
        config = SyntheticConfig(num_inputs=inputs, scale=0.01 if options.quick else 1.0)
        made_once(folder / "log.tsv", asdict(config), lambda: write_logs(config, folder / "log.tsv"))
        for train in ("log.tsv", "tenth.tsv", "log.csv", "log.parquet"):
            recipe = write_recipe(folder, train, options.quick)
        recipe = folder / "log.tsv.toml"
        facts: dict[str, Any] = {
            "num_inputs": inputs, "text_bytes": (folder / "log.tsv").stat().st_size, "cores": os.cpu_count(),
            "scale": config.scale, "table_inputs": table_inputs, "device": options.device,
        }  # fmt: skip
        session = Session(
            folder,
            options.out or ("text_to_model_quick" if options.quick else "text_to_model"),
            facts,
            memory=options.memory,
        )
        for _ in range(repeats):
            for case in options.cases:
                measure(session, case, recipe, options.cores, options.device, table_inputs)
            for name in ("log.csv", "log.parquet"):
                if (folder / name).exists():
                    session.facts[f"{name}_bytes"] = (folder / name).stat().st_size


if __name__ == "__main__":
    main()
