"""How long until the first training step, and until the help: warm, and without anything that an earlier run compiled.

    python benchmarks/start.py [--against SRC] [--inputs 20000 500000] [--repeats 3] [--device cpu] [--folder DIR]
                               [--out FILE] [--quick]

Cases: ``help`` is `fae --help`. In all others the data stages of a run are done, and `fae run` is stopped behind its
second training step. ``warm``: compiled loops, Triton's kernels and bytecode are there. ``cold``: no compiled loops or
kernels. ``fresh``: no bytecode of any library either, as behind an installation that writes none. ``text``: as
``cold``, and no stage is done. Each start is another process; cases and source trees take turns. `--against` names the
``src`` folder of another commit, for before and after. Seconds are those since the process was started, processor
seconds those of all its threads, without the processes that compile for it. On a machine that is busy with other work
only the latter can be compared. Writes
benchmarks/results/start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import ROOT, made_once, record, save_record, working_folder

RECIPE = """
[log]
format = "criteo"
train = "log.tsv"
test_fraction = 0.2
[model]
bottom_mlp = [512, 256, 64]
top_mlp = [512, 256]
[hot]
budget = "{budget}"
ring_depth = 2
[train]
batch_size = {batch_size}
placement = "tiered"
"""
PROGRAM = """
import json, os, sys, time
from fae.run.train_stage import TrainStage

def watched(self, run, plan, path):
    from fae.training import trainer
    call, marks = trainer.StepRunner.__call__, []

    def step(runner, batch):
        call(runner, batch)
        times = os.times()
        marks.append([time.time() - float(os.environ["FAE_STARTED"]), times.user + times.system])
        if len(marks) == 2:
            print(json.dumps(marks[0]), flush=True)
            os._exit(0)

    trainer.StepRunner.__call__ = step
    work(self, run, plan, path)

work, TrainStage.work = TrainStage.work, watched
from fae.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
CASES = ("help", "warm", "cold", "fresh", "text")


def prepare(folder: Path, inputs: int, device: str, source: Path) -> Path:
    """Write a log and its recipe, and run its data stages; returns the recipe."""
    from fae.synthetic.config import SyntheticConfig
    from fae.synthetic.text_writer import write_criteo_tsv

    place = folder / str(inputs)
    place.mkdir(parents=True, exist_ok=True)
    config, small = SyntheticConfig(num_inputs=inputs, scale=0.05), inputs < 100_000
    made_once(place / "log.tsv", asdict(config), lambda: write_criteo_tsv(config, place / "log.tsv"))
    (place / "recipe.toml").write_text(
        RECIPE.format(budget="1MiB" if small else "8MiB", batch_size=512 if small else 2048)
    )
    for stage in ("ingest", "profile", "calibrate", "pack"):
        command = [sys.executable, "-m", "fae", stage, str(place / "recipe.toml"), "--out", str(place / "run")]
        subprocess.run(command, check=True, capture_output=True, env=environment(source))
    start(place / "recipe.toml", "warm", device, source)
    return place / "recipe.toml"


def environment(source: Path, **changes: str) -> dict[str, str]:
    """Variables of a process that imports fae from `source`."""
    return {**os.environ, "PYTHONPATH": str(source), **changes}


def start(recipe: Path, case: str, device: str, source: Path) -> tuple[float, float]:
    """Seconds and processor seconds until the first step is done, or the help is there."""
    if case == "help":
        return seconds_of_help(source)
    run = recipe.parent / ("text" if case == "text" else "run")
    if case == "text":
        shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(run / "checkpoint", ignore_errors=True)
    with tempfile.TemporaryDirectory() as caches:
        changes = {}
        if case != "warm":
            changes = {
                name: f"{caches}/{name}" for name in ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
            }
        if case == "fresh":
            changes["PYTHONPYCACHEPREFIX"] = f"{caches}/bytecode"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "run", str(recipe), "--out", str(run), "--device", device, "--quiet"],
            capture_output=True, text=True, check=False,
            env=environment(source, FAE_STARTED=repr(time.time()), **changes),
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    wall, processor = json.loads(done.stdout.splitlines()[-1])
    return wall, processor


def seconds_of_help(source: Path) -> tuple[float, float]:
    """Seconds and processor seconds of `fae --help`."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "fae", "--help"], check=True, capture_output=True, env=environment(source))
    wall, after = time.perf_counter() - started, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="SRC")
    parser.add_argument("--inputs", type=int, nargs="+", default=[20_000, 500_000])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sizes, repeats = ([6_000], 1) if options.quick else (options.inputs, options.repeats)
    cases = ["help", "warm"] if options.quick else options.cases
    trees = {"this": ROOT / "src"} | ({"before": options.against.resolve()} if options.against else {})
    samples: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with working_folder(options.folder) as folder:
        for inputs in sizes:
            recipes = {name: prepare(folder / name, inputs, options.device, source) for name, source in trees.items()}
            for _ in range(repeats):
                for case in cases:
                    for name, source in trees.items():
                        found = start(recipes[name], case, options.device, source)
                        samples.setdefault(f"{case}, {inputs} inputs", {}).setdefault(name, []).append(found)
                        print(
                            f"{case:6} {inputs:8} {name:7} {found[0]:7.2f} s {found[1]:7.2f} s of processor", flush=True
                        )
    result: dict[str, Any] = record(device=options.device, samples=samples, medians={}, load=os.getloadavg())
    for case, by_tree in samples.items():
        result["medians"][case] = {
            name: {
                "seconds": statistics.median(wall for wall, _ in found),
                "processor_seconds": statistics.median(processor for _, processor in found),
            }
            for name, found in by_tree.items()
        }
    save_record(options.out or "start", result)


if __name__ == "__main__":
    main()
