"""Run the GPU tests and every benchmark that needs a GPU, one after the other, within a limit of time.

    python benchmarks/gpu_session.py --folder DIR [--seconds 3000] [--only NAME ...] [--list]

What is there to run on a machine with a GPU, and in which order? Each step is a command that works alone (``--list``
prints it). A step that ended well is not run again, and most continue where they were cut off, so the same command
continues after a stop. Results go to benchmarks/results/<name>_<gpu>.json (``--results`` for another folder), logs of
the steps to the folder of the data.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common import RESULTS, ROOT

PLACEMENTS = "benchmarks/placements.py --folder {data}/placements --seconds 0.4 --out {results}/placements_{gpu}.json"
PAPER = "-m fae.cli.main bench paper {0} --out {{data}}/{0}"
TESTS = "-m pytest -q -p no:cacheprovider tests/gpu"
_LEAST_SECONDS = 12.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command.

    Attributes
    ----------
    command
        Arguments of Python; ``{data}``, ``{results}``, ``{gpu}`` and ``{left}`` (seconds) are filled in.
    limit
        Seconds after which it is cut off.
    keep
        A file of the data that is copied to the results afterwards, and its name there.
    """

    name: str
    command: str
    limit: float
    keep: tuple[str, str] | None = None


def _micro(name: str, command: str, limit: float = 100) -> Step:
    command = f"benchmarks/{command} --folder {{data}}/placements --out {{results}}/{name}_{{gpu}}.json"
    return Step(name=name, command=command, limit=limit)


def _paper(name: str, more: str, limit: float) -> Step:
    keep = (f"{name}/paper.json", f"paper_{name}_{{gpu}}.json")
    return Step(name=name, command=f"{PAPER.format(name)} {more} --until {{left}}", limit=limit, keep=keep)


STEPS = (
    Step(name="tests", command=TESTS, limit=1200),
    Step(name="prepare", command=f"{PLACEMENTS} --prepare", limit=600),
    Step(name="placements", command=f"{PLACEMENTS} --until {{left}}", limit=900),
    _paper("rmc2", "--seconds 0.7", 300),
    _paper("rmc1", "--seconds 0.7", 300),
    _paper("rmc3", "--inputs 4000000 --accuracy none --seconds 0.6", 300),
    _micro("train_from_disk", "from_disk.py", 200),
    _micro("limits_rows", "limits.py rows --steps 400"),
    _micro("limits_threads", "limits.py threads --steps 400", 130),
    _micro("gpu_step", "gpu_step.py dlrm --inputs 4000000"),
    _micro("gpu_pipeline", "pipeline.py gpu --steps 400 --settings 'depth 4' 'depth 8'"),
    _micro("gpu_pipeline_dim64", "pipeline.py gpu --dims 64 --shares 0.05 --settings 'depth 8'"),
    _micro("gpu_pipeline_2048", "pipeline.py gpu --batch-size 2048 --shares 0.05 --steps 2000"),
    Step(
        name="workload_kernels", limit=100,
        command="benchmarks/gpu_step.py rmc1 --folder {data}/rmc1 --out {results}/workload_kernels_rmc1_{gpu}.json",
    ),
    _micro("baseline_roofline", "roofline.py --until {left}", 200),
    Step(
        name="accuracy", limit=600,
        command="benchmarks/studies/accuracy.py rmc2 --orders shuffled interleaved --seeds 20 --folder {data}/accuracy "
        "--until {left} --name accuracy_rmc2_{gpu}",
    ),
)  # fmt: skip


def words(step: Step, left: float, options: argparse.Namespace) -> list[str]:
    """The command line of a step."""
    text = step.command.format(data=options.folder, results=options.results, gpu=options.gpu, left=int(left))
    return [sys.executable, *shlex.split(text)]


def run(step: Step, deadline: float, options: argparse.Namespace) -> str:
    """Run one step, unless it is done or there is no time for it; return what came of it."""
    done, left = options.folder / "done" / step.name, min(step.limit, deadline - time.monotonic())
    if done.exists():
        return "done before"
    if left < _LEAST_SECONDS:
        return "no time"
    told, begun = left - _LEAST_SECONDS / 2, time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    with (options.folder / f"{step.name}.log").open("a") as log:
        process = subprocess.Popen(
            words(step, told, options), cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            outcome = f"status {process.wait(left)}"
        except subprocess.TimeoutExpired:
            outcome = "cut off"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    # A command that was told to start nothing more ends well too, with work left over.
    if process.returncode == 0 and not ("{left}" in step.command and time.monotonic() - begun >= int(told)):
        done.touch()
    if step.keep and (options.folder / step.keep[0]).exists():
        target = options.results / step.keep[1].format(gpu=options.gpu)
        target.write_bytes((options.folder / step.keep[0]).read_bytes())
    return f"{outcome}, {time.monotonic() - begun:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [step.name for step in STEPS]
    parser.add_argument("--folder", type=Path, required=True, help="for logs, packed batches and the steps' output")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start and continue nothing after that")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--gpu", help="part of the results' names (default: the name that torch gives)")
    parser.add_argument("--list", action="store_true", help="print the commands and do nothing else")
    options = parser.parse_args()
    if not options.gpu:
        import torch

        has_gpu = torch.cuda.is_available()
        options.gpu = torch.cuda.get_device_name().split()[1].lower() if has_gpu else "cpu"
    deadline = time.monotonic() + options.seconds
    for step in [step for step in STEPS if step.name in options.only]:
        if options.list:
            print(f"{step.name:18} {step.limit:4.0f} s  {shlex.join(words(step, step.limit, options))}")
            continue
        for folder in (options.folder / "done", options.results):
            folder.mkdir(parents=True, exist_ok=True)
        print(f"== {step.name}: {run(step, deadline, options)}", flush=True)


if __name__ == "__main__":
    main()
