"""Raw text to scores: rates and peak memory of `fae predict` and of an exported folder's check.py, the same scores.

    python benchmarks/predict.py [--inputs 800000] [--scale 0.1] [--repeats 3] [--folder DIR] [--out FILE] [--quick]

How many inputs a second does a finished run score, and in how much memory? Work: a synthetic log of Criteo's format
(docs/guide/synthetic.md); a DLRM of the default widths is trained on its first tenth and exported; then each way scores
the whole file, from the page cache. Scores must agree to 1e-6. Every run is another process; ways take turns. Seconds
and memory (the process' peak) are those of the whole process, with starting Python and importing. Writes
benchmarks/results/predict.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from common import made_once, record, save_record, working_folder

RECIPE = """
[log]
format = "criteo"
train = "train.tsv"
[hot]
budget = "64MiB"
"""
QUICK_MODEL = "[model]\nbottom_mlp = [16]\ntop_mlp = [16]\n"


def prepare(folder: Path, inputs: int, scale: float, *, quick: bool) -> None:
    """Write the log, train on its beginning, export the run."""
    from fae.exporting.export_run import export
    from fae.run.folder import RunFolder
    from fae.run.recipe import load_recipe
    from fae.synthetic.text_writer import SyntheticConfig, write_text

    write_text(SyntheticConfig(num_inputs=inputs, scale=scale), folder / "log.tsv")
    with (folder / "log.tsv").open("rb") as log, (folder / "train.tsv").open("wb") as train:
        for _ in range(inputs // 10):
            train.write(log.readline())
    (folder / "recipe.toml").write_text(RECIPE + (QUICK_MODEL if quick else ""))
    RunFolder(load_recipe(folder / "recipe.toml"), folder / "run", device="cpu").run()
    export(folder / "run", folder / "served")


def ways(folder: Path) -> dict[str, list[str]]:
    """The command of each way, without its result's file."""
    log = str(folder / "log.tsv")
    return {
        "predict": ["-m", "fae", "predict", str(folder / "run"), log, "--device", "cpu"],
        "check.py": [str(folder / "served" / "check.py"), log],
    }


def measure(command: list[str]) -> dict[str, float]:
    """Seconds and peak bytes of one process."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    page = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * page}


def main() -> None:
    """Read the command line, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=800_000)
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where log, run and export stay")
    parser.add_argument("--out", type=Path, default=None, help="the record, instead of benchmarks/results/predict.json")
    parser.add_argument("--quick", action="store_true", help="small log, one repeat: shows that it runs")
    options = parser.parse_args()
    inputs, scale, repeats = (4_000, 0.01, 1) if options.quick else (options.inputs, options.scale, options.repeats)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with working_folder(options.folder) as folder:
        made_of = {"inputs": inputs, "scale": scale, "quick": options.quick}
        made_once(folder / "served", made_of, lambda: prepare(folder, inputs, scale, quick=options.quick))
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways(folder)}
        scores: dict[str, np.ndarray[Any, Any]] = {}
        for _ in range(repeats):
            for name, command in ways(folder).items():
                out = folder / f"{name}.parquet"
                runs[name].append(measure([*command, "--out", str(out)]))
                scores[name] = pq.read_table(out).column("score").to_numpy()
        difference = float(np.abs(scores["predict"] - scores["check.py"]).max())
        if difference > 1e-6:
            raise SystemExit(f"scores differ by {difference}")
        manifest = json.loads((folder / "run" / "checkpoint" / "manifest.json").read_text())
        rows = [
            {
                "way": name, "runs": each,
                "inputs_per_second": inputs / statistics.median(run["seconds"] for run in each),
                "peak_bytes": max(run["peak_bytes"] for run in each),
            }
            for name, each in runs.items()
        ]  # fmt: skip
        result = record(
            num_inputs=inputs, scale=scale, text_bytes=(folder / "log.tsv").stat().st_size,
            num_rows=sum(table["num_embeddings"] for table in manifest["summary"]["tables"]),
            largest_difference=difference, rows=rows,
        )  # fmt: skip
    save_record(options.out or "predict", result)


if __name__ == "__main__":
    main()
