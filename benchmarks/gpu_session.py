"""Run the GPU tests and every benchmark that needs a GPU, one after the other, within a limit of time.

    python benchmarks/gpu_session.py --folder DIR [--seconds 3000] [--only NAME ...] [--list]

What is there to run on a machine with a GPU, and in which order? Each step is a command that works alone (``--list``
prints it). A step that ended well is not run again, and most continue where they were cut off, so the same command
continues after a stop; what `ranks.py` has measured stays until it begins anew. Results go to
benchmarks/results/<name>_<gpu>.json (``--results`` for another folder), logs of the steps to the folder of the data.
Steps of several GPUs take as many as can train together; their results are named <name>_<gpus>x<gpu>.json.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from fae.distributed.places import RANK_COUNTS

from common import RESULTS, ROOT

PLACEMENTS = "benchmarks/placements.py --folder {data}/placements --seconds 0.4 --out {results}/placements_{gpu}.json"
_LEAST_SECONDS = 12.0


class Step(NamedTuple):
    """A command that is cut off after `limit` seconds.

    In `command`, ``{data}``, ``{results}``, ``{gpu}``, ``{gpus}`` (how many) and ``{left}`` (seconds) are filled in.
    `keep` names a file of the data that is copied to the results afterwards, and its name there. A step that names
    ``{gpus}`` needs several.
    """

    name: str
    limit: float
    command: str
    keep: tuple[str, str] | None = None

    @property
    def is_of_several(self) -> bool:
        """Whether it needs several GPUs."""
        return "{gpus}" in self.command


def _script(name: str, limit: float, command: str) -> Step:
    return Step(name, limit, f"benchmarks/{command} --folder {{data}}/placements --out {{results}}/{name}_{{gpu}}.json")


def _paper(name: str, more: str) -> Step:
    keep = (f"{name}/paper.json", f"paper_{name}_{{gpu}}.json")
    return Step(name, 300, f"-m fae.cli.main bench paper {name} --out {{data}}/{name} {more} --until {{left}}", keep)


def _several(name: str, limit: float, command: str) -> Step:
    result = f"--out {{results}}/{name}_{{gpus}}x{{gpu}}.json"
    return Step(name, limit, f"benchmarks/{command} --folder {{data}}/ranks {result}")


def _ranks(name: str, limit: float, cases: str) -> Step:
    return _several(name, limit, f"ranks.py {cases} --ranks {{gpus}} --inputs 600000 --steps 400")


STEPS = (
    Step("tests", 1200, "-m pytest -q -p no:cacheprovider tests/gpu"),
    _ranks("ranks_device", 300, "device adagrad dim64 strong --rounds 3"),
    _ranks("ranks_tiered", 300, "tiered interleaved rmc2 rmc3 rmc3_spread --rounds 5 --no-check"),
    _ranks("ranks_others", 300, "criteo criteo_tiered spread reproducible --rounds 3 --no-check"),
    _several("rank_timeline", 120, "studies/rank_timeline.py device interleaved --ranks {gpus} --inputs 600000"),
    _several("auc_of_ranks", 500, "studies/auc_of_ranks.py --ranks 1 {gpus}"),
    Step("prepare", 600, f"{PLACEMENTS} --prepare"),
    Step("placements", 900, f"{PLACEMENTS} --until {{left}}"),
    _paper("rmc2", "--seconds 0.7"),
    _paper("rmc1", "--seconds 0.7"),
    _paper("rmc3", "--inputs 4000000 --accuracy none --seconds 0.6"),
    _script("limits_rows", 100, "limits.py rows --steps 400"),
    _script("limits_threads", 130, "limits.py threads --steps 400"),
    _script("gpu_step", 100, "gpu_step.py dlrm --inputs 4000000"),
    _script("gpu_pipeline", 100, "pipeline.py --steps 400 --settings 'depth 4' 'depth 8'"),
    _script("gpu_pipeline_dim64", 100, "pipeline.py --dim 64 --shares 0.05 --settings 'depth 8'"),
    _script("gpu_pipeline_2048", 100, "pipeline.py --batch-size 2048 --shares 0.05 --steps 2000"),
    Step(
        "workload_kernels", 100,
        "benchmarks/gpu_step.py rmc1 --folder {data}/rmc1 --out {results}/workload_kernels_rmc1_{gpu}.json",
    ),
    _script("baseline_roofline", 200, "roofline.py --until {left}"),
    Step(
        "accuracy", 600,
        "benchmarks/studies/accuracy.py rmc2 --orders shuffled interleaved --seeds 20 --folder {data}/accuracy "
        "--until {left} --out {results}/accuracy_rmc2_{gpu}.json",
    ),
)  # fmt: skip


def words(step: Step, left: float, options: argparse.Namespace) -> list[str]:
    """The command line of a step."""
    text = step.command.format(
        data=options.folder, results=options.results, gpu=options.gpu, gpus=options.gpus, left=int(left)
    )
    return [sys.executable, *shlex.split(text)]


def run(step: Step, deadline: float, options: argparse.Namespace) -> str:
    """Run one step, unless it is done or there is no time for it; return what came of it."""
    done, left = options.folder / "done" / step.name, min(step.limit, deadline - time.monotonic())
    if done.exists():
        return "done before"
    if step.is_of_several and options.gpus < 2:
        return "needs several GPUs"
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
    parser.add_argument("--gpus", type=int, choices=RANK_COUNTS, help="how many to train with (default: all)")
    parser.add_argument("--list", action="store_true", help="print the commands and do nothing else")
    options = parser.parse_args()
    if not options.gpu or not options.gpus:
        import torch

        there = torch.cuda.device_count()
        options.gpu = options.gpu or (torch.cuda.get_device_name().split()[1].lower() if there else "cpu")
        options.gpus = options.gpus or max(count for count in RANK_COUNTS if count <= max(there, 1))
    deadline = time.monotonic() + options.seconds
    for step in [step for step in STEPS if step.name in options.only]:
        if options.list:
            if step.is_of_several and options.gpus < 2:
                print(f"{step.name:18} needs several GPUs")
                continue
            print(f"{step.name:18} {step.limit:4.0f} s  {shlex.join(words(step, step.limit, options))}")
            continue
        for folder in (options.folder / "done", options.results):
            folder.mkdir(parents=True, exist_ok=True)
        print(f"== {step.name}: {run(step, deadline, options)}", flush=True)


if __name__ == "__main__":
    main()
