"""Predicted and measured stages side by side: time, memory and disk that `fae plan` says of a log, at several sizes.

    python benchmarks/plan_stages.py [--inputs 250000 1000000 4000000] [--cores N] [--repeats 2] [--folder DIR]
                                     [--out FILE] [--quick]
    python benchmarks/plan_stages.py --table FILE ...

How near is the cost model of the data stages (`fae.planning.stages`)? Work: synthetic text of Criteo's format with the
Terabyte log's tables (scale 1), rows of 16 floats, SGD, batches of 2,048. The model's rates come from one sample of the
longest log, as `fae plan` takes it. Then the stages run at each size in another process, on that many cores. Seconds
are those of a quiet machine, on both sides: time for which threads were ready while other processes ran is taken off;
the clock and the processors' seconds are in the record beside them. Memory is private memory beside libraries, for
which the same is added on both sides; disk is all files of the run's folder; both at their peak. Writes
benchmarks/results/plan_stages.json as it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

from fae.planning.sample.log_reading import read_log
from fae.planning.stages.disk_speed import measure_disk
from fae.planning.stages.stage_costs import STAGES
from fae.planning.stages.stage_memory import BASE
from fae.planning.stages.stage_plan import TrainingCost, plan_stages, whole_counts
from fae.planning.stages.stage_probe import probe_bytes, probe_stages
from fae.planning.stages.stage_records import recorded
from fae.run.folder import RunFolder
from fae.run.recipe import load_recipe
from fae.synthetic.config import SyntheticConfig
from text_to_model import RECIPE, write_criteo

from common import ROOT, made_once, record, save_record, working_folder

SIZES, QUICK_SIZES = [250_000, 1_000_000, 4_000_000], [8_000, 16_000, 40_000]
_BLOCK, _TINY = 1 << 24, 4000


def take_lines(source: Path, target: Path, number: int) -> None:
    """Copy the first lines of a file."""
    with source.open("rb") as text, target.open("wb") as file:
        while number and (block := text.read(_BLOCK)):
            here = block.count(b"\n")
            if here > number:
                end = -1
                for _ in range(number):
                    end = block.index(b"\n", end + 1)
                block, here = block[: end + 1], number
            number -= here
            file.write(block)


def write_logs(folder: Path, sizes: list[int], *, scale: float, quick: bool) -> list[Path]:
    """The recipes of all sizes, ascending; the logs are the first lines of the longest."""
    longest = folder / f"log_{sizes[-1]}.tsv"
    config = SyntheticConfig(shape="terabyte", num_inputs=sizes[-1], scale=scale, drift=0.0)
    made_once(longest, asdict(config), lambda: write_criteo(config, longest))
    recipes = []
    for size in sizes:
        text = folder / f"log_{size}.tsv"
        if text != longest:
            made_of = asdict(config) | {"first lines": size}
            made_once(text, made_of, partial(take_lines, longest, text, size))
        recipes.append(folder / f"{size}.toml")
        recipes[-1].write_text(
            RECIPE.format(
                format="criteo",
                train=text.name,
                columns="",
                budget="512KiB" if quick else "64MiB",
                batch_size=256 if quick else 2048,
            )
        )
    return recipes


def predict(recipes: list[Path], folder: Path, *, cores: int, quick: bool) -> list[dict[str, Any]]:
    """What a plan says of each size, from one sample of the longest log."""
    loaded = [load_recipe(name) for name in recipes]
    number, found, probe = (2**20 if quick else probe_bytes(cores)), [], None
    for recipe in reversed(loaded):
        place = folder / "plan"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        # The sample that a plan of a log of many gigabytes reads.
        reading = read_log(recipe, None, place, read_bytes=number // 2)
        if probe is None:
            started = time.perf_counter()
            probe = probe_stages(recipe, reading, place / "stages", largest=number)
            print(
                f"rates from a sample of {number / 2**20:.0f} MiB in {time.perf_counter() - started:.1f} s", flush=True
            )
            disk = measure_disk(place)
        training = TrainingCost(epoch_seconds=0.0, num_epochs=1, evaluation_seconds=0.0, memory_bytes=0, gpu_bytes=0)
        counts, _ = whole_counts(recipe, reading, probe)
        stays = dict.fromkeys(("hot_set", "packed", "checkpoint"), 0)
        stays |= {"log": reading.log_bytes, "profile": int(8 * (counts.rows + counts.profiled))}
        found.append(plan_stages(recipe, reading, probe, disk, training, stays, cores=cores, machines=1))
        shutil.rmtree(place, ignore_errors=True)
    return found[::-1]


def run_stages(recipe: Path, out: Path, warm_up: Path) -> None:
    """Run the stages in this process, after those of a tiny log that load what is compiled; print what each took."""
    with tempfile.TemporaryDirectory(dir=out.parent.parent) as place:
        tiny = RunFolder(load_recipe(warm_up), Path(place) / "run")
        for name in STAGES:
            tiny.stage(name)
    out.mkdir(parents=True, exist_ok=True)
    run, results = RunFolder(load_recipe(recipe), out), {}
    for name in STAGES:
        give_back_memory()
        started = time.perf_counter()
        with recorded(name, out) as found:
            run.stage(name)
        results[name] = {
            "clock_seconds": time.perf_counter() - started,
            "processor_seconds": sum(phase.processor_seconds for phase in found.phases.values()),
            "seconds": sum(phase.seconds for phase in found.phases.values()),
            # This process has libraries that the commands do not load.
            "memory_bytes": BASE + found.memory_bytes,
            "disk_bytes": found.folder_bytes,
            "phases": {label: dataclasses.asdict(phase) for label, phase in found.phases.items()},
        }
    print(json.dumps(results))


def give_back_memory() -> None:
    """Return memory that was freed to the system, so that it does not count for the next stage."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def start_stages(recipe: Path, out: Path, warm_up: Path, cores: int) -> dict[str, Any]:
    """Run the stages in a process of their own."""
    command = [sys.executable, __file__, "--child", *map(str, (recipe, out, warm_up))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "FAE_NUM_THREADS": str(cores)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(
    recipes: list[Path], folder: Path, warm_up: Path, cores: int, repeats: int
) -> list[dict[str, list[dict[str, Any]]]]:
    """Samples of every stage at every size, in turns."""
    samples: list[dict[str, list[dict[str, Any]]]] = [{name: [] for name in STAGES} for _ in recipes]
    for _ in range(repeats):
        for recipe, found in zip(recipes, samples, strict=True):
            # No run beside it: it would be found, and its log linked to.
            out = folder / "measured" / "run"
            shutil.rmtree(out.parent, ignore_errors=True)
            out.parent.mkdir()
            for name, sample in start_stages(recipe, out, warm_up, cores).items():
                found[name].append(sample)
            shutil.rmtree(out.parent)
    return samples


def compare(size: int, plan: dict[str, Any], samples: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Predictions and measurements of one size, stage by stage and all together."""
    predicted = {each["name"]: each for each in plan["stages"]}
    rows = []
    for name in STAGES:
        best = min(samples[name], key=lambda sample: sample["seconds"])
        rows.append(
            {
                "inputs": size, "stage": name,
                "predicted": {key: predicted[name][key] for key in ("seconds", "memory_bytes", "disk_bytes")},
                "measured": {key: best[key] for key in ("seconds", "memory_bytes", "disk_bytes")},
                "clock_seconds": best["clock_seconds"], "processor_seconds": best["processor_seconds"],
                "work": {
                    each["name"]: [each["seconds"], best["phases"].get(each["name"], {"seconds": 0.0})["seconds"]]
                    for each in predicted[name]["work"]
                },
            }
        )  # fmt: skip
    whole = {"inputs": size, "stage": "all"}
    for side in ("predicted", "measured"):
        parts = [row[side] for row in rows]
        whole[side] = {
            "seconds": sum(part["seconds"] for part in parts),
            "memory_bytes": max(part["memory_bytes"] for part in parts),
            "disk_bytes": max(part["disk_bytes"] for part in parts),
        }
    return [*rows, whole]


def table_of(paths: list[Path]) -> list[str]:
    """Records as Markdown."""
    lines = []
    for path in paths:
        result = json.loads(path.read_text())
        lines += [
            f"`{result['command']}`, {result['machine']['processor']}, {result['cores']} threads", "",
            "| inputs | stage | seconds predicted | measured | error | memory | measured | disk at most | measured |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for row in result["rows"]:
            told, seen = row["predicted"], row["measured"]
            cells = [f"{row['inputs']:,}", row["stage"], f"{told['seconds']:.2f}", f"{seen['seconds']:.2f}"]
            cells.append(f"{100 * (told['seconds'] / seen['seconds'] - 1):+.0f} %")
            for name in ("memory_bytes", "disk_bytes"):
                cells += [f"{told[name] / 2**20:,.0f} MiB", f"{seen[name] / 2**20:,.0f} MiB"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def main() -> None:
    """Predict, measure and write the record."""
    if sys.argv[1:2] == ["--child"]:
        run_stages(*map(Path, sys.argv[2:5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, nargs="+", default=SIZES, help="sizes of the log")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=2, help="runs of each size, of which the fastest counts")
    parser.add_argument("--folder", type=Path, help="for the logs, which stay there, and for runs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny logs: shows that it runs")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="print these results, measure nothing")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table_of(options.table)))
        return
    sizes = sorted(QUICK_SIZES if options.quick else options.inputs)
    repeats = 1 if options.quick else options.repeats
    cores = min(options.cores, len(os.sched_getaffinity(0)))
    with working_folder(options.folder) as folder:
        recipes = write_logs(folder, sizes, scale=0.01 if options.quick else 1.0, quick=options.quick)
        print(f"text of {(folder / f'log_{sizes[-1]}.tsv').stat().st_size / 1e9:.2f} GB is there", flush=True)
        # From here on, in this process and those that it starts.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        os.environ["FAE_NUM_THREADS"] = str(cores)
        plans = predict(recipes, folder, cores=cores, quick=options.quick)
        (folder / "tiny").mkdir(exist_ok=True)
        (warm_up,) = write_logs(folder / "tiny", [_TINY], scale=0.01, quick=True)
        samples = measure(recipes, folder, warm_up, cores, repeats)
        rows = [
            row for size, plan, found in zip(sizes, plans, samples, strict=True) for row in compare(size, plan, found)
        ]
        for row in rows:
            told, seen = row["predicted"]["seconds"], row["measured"]["seconds"]
            print(f"{row['inputs']:>11,} {row['stage']:10} {told:8.2f} s predicted {seen:8.2f} s measured", flush=True)
        name = "plan_stages_quick" if options.quick else "plan_stages"
        save_record(options.out or name, record(sizes=sizes, cores=cores, rows=rows, plans=plans, samples=samples))


if __name__ == "__main__":
    main()
