"""Everything that a GPU is asked, one after the other, within a limit of time; the same command goes on.

    python benchmarks/gpu_session.py --folder /dev/shm/fae --seconds 560 [--only NAME ...] [--list]

Whoever rents a machine by the minute wants the order of things settled before. Logs, packed batches and compiled
kernels are made first, side by side, untimed. Contenders that compute on the CPU then have the machine to themselves,
on the cores that one GPU's share of it has. What times a GPU alone has a GPU and those cores; where there are two
GPUs, tests and studies, which nobody times, run on the other one with the other cores meanwhile, else behind it. A step
that ended well, and before it was to start nothing more, is not run again; each is a command that anybody can type
(``--list``), and most go on where they were cut off. Results go to ``benchmarks/results/<name>_<gpu>.json``, or
``--results``; logs of the steps beside the data; both, after every step, to ``--archive``: whoever is cut off has what
was measured until then.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import RESULTS

ROOT = Path(__file__).resolve().parents[1]
PLACEMENTS = "end_to_end/placements.py --folder {data}/placements --seconds 0.4 --out {results}/placements_{gpu}.json"
PAPER = "-m fae.cli.main bench paper {0} --out {{data}}/{0}"
SMALL = (
    " --scale 0.01 --inputs 100000 --rounds 1 --seconds 0.05 --min-batches 1 --accuracy none --contenders paper,tiered"
)
CORE = "'zipf 32768 16 sgd' 'criteo 32768 16 sgd'"
TESTS = "-m pytest -q -p no:cacheprovider --durations=4 tests/gpu/"
_LEAST = 12.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command.

    Attributes
    ----------
    command
        Arguments of Python: a script under ``benchmarks/`` or ``-m``; ``{data}``, ``{results}``, ``{gpu}`` and
        ``{left}`` (seconds) are filled in.
    limit
        Seconds after which it is cut off; what cannot be told to end in time does not begin with less than half of it.
    when
        ``before``: made ready side by side with others, untimed. ``alone``: nothing else may run. ``apart``: timed on
        one GPU; steps ``beside`` it, untimed, may run on another one.
    keep
        File of the data that is copied to the results afterwards, and its name there.
    under
        Program that runs Python.
    """

    name: str
    command: str
    limit: float
    when: Literal["before", "alone", "apart", "beside"]
    keep: tuple[str, str] | None = None
    under: tuple[str, ...] = ()


STEPS = (
    Step(name="prepare_core", command=f"{PLACEMENTS} --prepare --only {CORE}", limit=170, when="before"),
    Step(name="prepare_rmc2", command=PAPER.format("rmc2") + " --prepare", limit=170, when="before"),
    Step(name="prepare_rmc1", command=PAPER.format("rmc1") + " --prepare", limit=170, when="before"),
    Step(
        name="compile", limit=150, when="before",
        command="end_to_end/placements.py --folder {data}/small --inputs 300000 --cap 20000 --rounds 1 --seconds 0.01 "
        "--out {data}/small.json --only 'zipf 32768 16 sgd' 'zipf 2048 16 rowwise_adagrad' 'zipf 32768 64 sgd' "
        "'zipf 32768 64 rowwise_adagrad'",
    ),
    Step(
        name="compile_rmc1", command=PAPER.format("rmc1").replace("/rmc1", "/small1") + SMALL, limit=150, when="before",
    ),
    Step(
        name="compile_rmc3", command=PAPER.format("rmc3").replace("/rmc3", "/small3") + SMALL, limit=150, when="before",
    ),
    Step(name="core", command=f"{PLACEMENTS} --until {{left}} --only {CORE}", limit=220, when="alone"),
    Step(
        name="rmc2", command=PAPER.format("rmc2") + " --seconds 0.7 --until {left}", limit=190, when="alone",
        keep=("rmc2/paper.json", "paper_rmc2_{gpu}.json"),
    ),
    Step(
        name="rmc1", command=PAPER.format("rmc1") + " --seconds 0.7 --until {left}", limit=190, when="alone",
        keep=("rmc1/paper.json", "paper_rmc1_{gpu}.json"),
    ),
    Step(
        name="rmc3", limit=240, when="alone",
        command=PAPER.format("rmc3") + " --inputs 4000000 --accuracy none --seconds 0.6 --until {left}",
        keep=("rmc3/paper.json", "paper_rmc3_{gpu}.json"),
    ),
    Step(
        name="dim64", limit=110, when="apart",
        command=f"{PLACEMENTS} --until {{left}} --only 'zipf 32768 64 sgd' 'zipf 32768 64 rowwise_adagrad'",
    ),
    Step(
        name="disk", limit=110, when="apart",
        command="end_to_end/train_from_disk.py --folder {data} --out {results}/train_from_disk_{gpu}.json",
    ),
    Step(
        name="rows", limit=100, when="apart",
        command="end_to_end/limits.py rows --folder {data}/placements --steps 400 "
        "--out {results}/limits_rows_{gpu}.json",
    ),
    Step(
        name="threads", limit=130, when="apart",
        command="end_to_end/limits.py threads --folder {data}/placements --steps 400 "
        "--out {results}/limits_threads_{gpu}.json",
    ),
    Step(name="others", command=f"{PLACEMENTS} --until {{left}}", limit=420, when="apart"),
    Step(
        name="step", limit=70, when="apart",
        command="micro/gpu_step.py --inputs 4000000 --folder {data}/placements --out {results}/gpu_step_{gpu}.json",
    ),
    Step(
        name="pipeline", limit=60, when="apart",
        command="micro/gpu_pipeline.py --folder {data}/placements --steps 400 --settings 'depth 8' 'depth 8, 6 6' "
        "--out {results}/gpu_pipeline_{gpu}.json",
    ),
    Step(
        name="pipeline_64", limit=60, when="apart",
        command="micro/gpu_pipeline.py --folder {data}/placements --dim 64 --shares 0.05 --steps 200 "
        "--settings 'depth 8' 'depth 8, 6 6' --out {results}/gpu_pipeline_dim64_{gpu}.json",
    ),
    Step(
        name="pipeline_2048", limit=60, when="apart",
        command="micro/gpu_pipeline.py --folder {data}/placements --batch-size 2048 --shares 0.05 --steps 2000 "
        "--settings 'as it is' 'depth 8' 'depth 16' --out {results}/gpu_pipeline_2048_{gpu}.json",
    ),
    Step(
        name="kernels_rmc1", limit=100, when="apart",
        command="micro/workload_kernels.py rmc1 --folder {data}/rmc1 --out {results}/workload_kernels_rmc1_{gpu}.json",
    ),
    Step(name="tests_engine", command=TESTS + "test_engine_gpu.py", limit=400, when="beside"),
    Step(
        name="tests_models", command=TESTS + "test_models_gpu.py tests/gpu/test_memory_gpu.py", limit=400,
        when="beside",
    ),
    Step(name="tests_placements", command=TESTS + "test_placements_gpu.py", limit=400, when="beside"),
    Step(
        name="memcheck", command=TESTS + "test_engine_gpu.py -k 'captured_steps and sgd'", limit=150, when="beside",
        under=("compute-sanitizer", "--tool", "memcheck"),
    ),
    Step(
        name="accuracy", limit=400, when="beside",
        command="studies/accuracy.py rmc2 --orders shuffled interleaved --seeds 20 --folder {data}/accuracy "
        "--until {left} --out {results}/accuracy_rmc2.json",
    ),
    Step(
        name="baselines", command="micro/baseline_roofline.py --out {results}/baseline_roofline_{gpu}.json", limit=110,
        when="alone",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Share:
    """A part of the machine: cores of the host, and which of the GPUs that the environment names (None: all)."""

    cores: tuple[int, ...]
    gpu: int | None = None

    def halves(self) -> tuple[Share, Share]:
        """The same for each of two GPUs."""
        middle = len(self.cores) // 2
        return Share(self.cores[:middle], 0), Share(self.cores[middle:], 1)


def phases(steps: list[Step]) -> Iterator[tuple[str, list[Step]]]:
    """Steps that belong together, in order: ``before``, ``alone`` or ``apart`` (with those beside)."""
    for when, together in groupby(steps, lambda step: "apart" if step.when == "beside" else step.when):
        yield when, list(together)


class Session:
    """Runs steps until `deadline` (of `time.monotonic`)."""

    def __init__(self, data: Path, results: Path, gpu: str, deadline: float, archive: Path | None = None) -> None:
        self._data, self._results, self._gpu, self._deadline = data, results, gpu, deadline
        self._archive = archive
        self._started, self._say = time.monotonic(), threading.Lock()
        for folder in (data, results, data / "done", *([archive.parent] if archive else [])):
            folder.mkdir(parents=True, exist_ok=True)

    def words(self, step: Step, left: float) -> list[str]:
        """What is typed."""
        text = step.command.format(data=self._data, results=self._results, gpu=self._gpu, left=int(left))
        first, *rest = shlex.split(text)
        return [*step.under, sys.executable, *([first] if first == "-m" else [str(ROOT / "benchmarks" / first)]), *rest]

    def is_done(self, step: Step) -> bool:
        """Whether it has ended well before."""
        return (self._data / "done" / step.name).exists()

    def run(self, step: Step, share: Share, threads: int = 0) -> None:
        """One step, unless it is done or there is no time for it."""
        left = min(step.limit, self._deadline - time.monotonic())
        if self.is_done(step) or left < (_LEAST if "{left}" in step.command else max(_LEAST, step.limit / 2)):
            self._tell(step, "done before" if self.is_done(step) else "no time", 0.0)
            return
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        }
        if share.gpu is not None:
            named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
            environment["CUDA_VISIBLE_DEVICES"] = named[share.gpu] if named else str(share.gpu)
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), "FAE_NUM_THREADS": str(threads)}
        begun, log, told = time.monotonic(), self._data / f"{step.name}.log", left - _LEAST / 2
        os.sched_setaffinity(0, share.cores)  # of this thread, and of what it starts
        with log.open("a") as output:
            try:
                process = subprocess.Popen(
                    self.words(step, told), cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                self._tell(step, f"cannot be started: {error}", 0.0)
                return
            try:
                how = f"status {process.wait(left)}"
            except subprocess.TimeoutExpired:
                how = "cut off"
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        # Whoever is told when to start nothing more ends well then too, with work left over.
        hurried = "{left}" in step.command and time.monotonic() - begun >= int(told)
        if process.returncode == 0 and not hurried:
            (self._data / "done" / step.name).touch()
        if step.keep and (self._data / step.keep[0]).exists():
            target = self._results / step.keep[1].format(gpu=self._gpu)
            target.write_bytes((self._data / step.keep[0]).read_bytes())
        self._tell(step, how, time.monotonic() - begun, log.read_text(errors="replace")[-400:])

    def _tell(self, step: Step, how: str, seconds: float, end: str = "") -> None:
        with self._say:
            print(
                f"== {step.name}: {how}, {seconds:.0f} s, at {time.monotonic() - self._started:.0f} s\n{end}",
                flush=True,
            )
            if self._archive:
                self._pack(self._archive)

    def _pack(self, archive: Path) -> None:
        """Never the end of a session: what cannot be read or written is said, and there is a next step."""
        part = archive.with_name(f"{archive.name}.part")
        unfinished = [self._data / step.keep[0] for step in STEPS if step.keep]
        named = {f"results/{path.name}": path for path in self._results.glob("*.json")}
        named |= {f"unfinished/{path.parent.name}_{path.name}": path for path in unfinished if path.exists()}
        named |= {f"logs/{path.name}": path for path in self._data.glob("*.log")}
        try:
            with tarfile.open(part, "w:gz") as tar:
                for name, path in sorted(named.items()):
                    content = path.read_bytes()  # at once: it may be written meanwhile
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mtime = len(content), int(time.time())
                    tar.addfile(entry, io.BytesIO(content))
            part.replace(archive)
        except OSError as error:
            print(f"== the archive was not written: {error}", flush=True)

    def run_together(self, steps: list[Step], shares: list[Share]) -> None:
        """All of these at once, on these shares by turns, each with a part of the cores."""
        cores = {core for share in shares for core in share.cores}  # shares of several GPUs have the same cores
        threads = max(1, len(cores) // max(1, min(4, len(steps))))
        running = [
            threading.Thread(target=self.run, args=(step, shares[place % len(shares)], threads))
            for place, step in enumerate(steps)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    def run_all(self, steps: list[Step], machine: Share, num_gpus: int) -> None:
        """Phase after phase."""
        first, other = machine.halves() if num_gpus > 1 else (machine, None)
        everywhere = [Share(machine.cores, gpu) for gpu in range(num_gpus)] if other else [machine]
        for when, together in phases(steps):
            if when == "before":
                self.run_together([step for step in together if not self.is_done(step)], everywhere)
                continue
            beside = [step for step in together if step.when == "beside"]
            behind = threading.Thread(target=self.run_together, args=(beside, [other or machine]))
            if other:
                behind.start()
            for step in together:
                if step.when != "beside":
                    self.run(step, first)
            if not other:
                behind.start()
            behind.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [step.name for step in STEPS]
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fae_gpu_session"), help="for logs and packed batches")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="no step lasts longer than so long from now"
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--without", nargs="+", choices=names, default=[], metavar="NAME", help="leave these out")
    parser.add_argument("--archive", type=Path, metavar="TGZ", help="results and logs, written anew after every step")
    parser.add_argument("--gpu", help="part of the results' names (default: what torch calls it)")
    parser.add_argument("--list", action="store_true", help="print the commands and do nothing else")
    options = parser.parse_args()
    steps = [step for step in STEPS if step.name in (options.only or names) and step.name not in options.without]
    num_gpus = 1
    if not (options.gpu and options.list):
        import torch

        num_gpus = max(1, torch.cuda.device_count())
        options.gpu = options.gpu or (
            torch.cuda.get_device_name().split()[1].lower() if torch.cuda.is_available() else "cpu"
        )
    session = Session(
        options.folder, options.results, options.gpu, time.monotonic() + options.seconds, options.archive
    )  # fmt: skip
    if options.list:
        for step in steps:
            print(f"{step.name:16} {step.when:6} {step.limit:4.0f} s  {shlex.join(session.words(step, step.limit))}")
        return
    session.run_all(steps, Share(tuple(sorted(os.sched_getaffinity(0)))), num_gpus)


if __name__ == "__main__":
    main()
