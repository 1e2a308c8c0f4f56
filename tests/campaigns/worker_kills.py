"""Kills of runs, of their workers and of their schedulers on every engine: the same bytes, or one line and a retry.

    python tests/campaigns/worker_kills.py [--count 60] [--seed 1] [--only 7] [--put-back]

Each case draws a small log (CSV, one CSV file cut into ranges, gz among CSV, Parquet, Criteo), an engine (threads,
processes, a Dask cluster of real processes, three workers of a shared folder, of which some say that they are on
another machine) and types `fae run` once or twice. Each time one or two kills (SIGKILL, SIGTERM, SIGINT) hit the run
itself, a process of its pool, the Dask scheduler, a Dask worker or another worker of the folder, in any stage: after a
drawn share of the stage's time, or at a drawn file operation. Sometimes the command was typed twice at once, sometimes
worker 1 is started again while the others wait, sometimes a part that was kept is cut, as a power failure does. Then
the command is typed undisturbed, sometimes with another engine.

A finding is: a traceback, no end, another status than the signal's or 2 with a line; status 2 where another worker or
process could do the rest; a process that outlives the run; another result than that of an undisturbed run; a file that
was left behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

from campaign import Ended, Tried, results, run_campaign  # noqa: E402
from engine_commands import (  # noqa: E402
    STALE_SECONDS,
    Command,
    close_cluster,
    cluster,
    pool_processes,
    prepare_campaign,
    started_by,
)
from kill_worlds import COMMAND, KINDS, RUN, STAGES, World, names_below, world  # noqa: E402
from worker_kill_faults import FAULT, FAULTS  # noqa: E402

ENGINES = ("threads", "processes", "dask", "shared folder")
SIGNALS = ("KILL", "KILL", "TERM", "INT")
_VICTIMS = {
    "threads": ("run",),
    "processes": ("run", "pool process", "pool process"),
    "dask": ("run", "Dask scheduler", "Dask worker", "Dask worker"),
    "shared folder": ("run", "other worker", "other worker"),
}
_STATUS = {"KILL": -signal.SIGKILL, "TERM": 128 + signal.SIGTERM, "INT": 128 + signal.SIGINT}
_LONGEST_SECONDS = float(os.environ.get("FAE_CAMPAIGN_SECONDS", "240"))
"""Many times what a command takes on two cores that are busy otherwise."""
_MOST_OPERATIONS = 2500
_EVENTS = ("open", "os.", "shutil.", "tempfile.", "fcntl.")


@dataclass
class Round:
    """One typing of the command: its processes, the kills to come, and what was done."""

    folder: Path
    engine: str
    commands: dict[str, Command] = field(default_factory=dict)
    pending: list[tuple[Callable[[], bool], Callable[[], None]]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    planned: dict[str, str] = field(default_factory=dict)

    def stage(self) -> str:
        """The stage that has not ended."""
        return next((stage for stage, name in STAGES.items() if not (self.folder / RUN / name).exists()), "end")

    def run(self) -> dict[str, Ended]:
        """Kill as planned, and wait for the end of all."""
        stop = time.monotonic() + _LONGEST_SECONDS
        while self.pending and time.monotonic() < stop and any(each.is_running() for each in self.commands.values()):
            for each in list(self.pending):
                if each[0]():
                    self.pending.remove(each)
                    each[1]()
            time.sleep(0.003)
        return {name: command.end(stop) for name, command in self.commands.items()}


def engine_options(engine: str, draw: random.Random) -> tuple[str, ...]:
    """The options of one process of that engine."""
    if engine == "threads":
        return ("--engine", "threads:2") if draw.random() < 0.5 else ()
    if engine == "processes":
        return ("--engine", "processes:2")
    if engine == "dask":
        found: Any = cluster()
        return ("--engine", f"dask://{found.address}")
    return ("--engine", draw.choice(["threads:1", "threads:2", "processes:1"]))


def begin(draw: random.Random, this: Round, prepare: dict[str, Callable[[], None]]) -> None:
    """Start the processes of the command."""
    options = (*COMMAND, *engine_options(this.engine, draw))
    if this.engine != "shared folder":
        is_real = draw.random() < 0.3 and "run" not in prepare
        this.commands["run"] = Command(options, this.folder, is_real=is_real, prepare=prepare.get("run"))
        return
    names = ["run", "worker 2", "worker 3"]
    numbers = {"run": "1/3", "worker 2": "2/3", "worker 3": "3/3"}
    draw.shuffle(names)
    for name in names:
        host = "node7" if name != "run" and draw.random() < 0.5 else None
        this.commands[name] = Command(
            (*options, "--worker", numbers[name]), this.folder, host=host, prepare=prepare.get(name)
        )
        time.sleep(draw.choice([0.0, 0.0, 0.2]))


def plan_kill(draw: random.Random, this: Round, base: World, prepare: dict[str, Callable[[], None]]) -> None:
    """Draw a victim, a signal and a moment; before the processes are started."""
    victim, name = draw.choice(_VICTIMS[this.engine]), draw.choice(SIGNALS)
    target = draw.choice(["worker 2", "worker 3"]) if victim == "other worker" else victim
    if victim in ("run", "other worker") and draw.random() < 0.35 and target not in prepare:
        number = draw.randint(1, _MOST_OPERATIONS if victim == "run" else 400)
        prepare[target] = at_operation(number, name)
        this.planned[target] = name
        this.done.append(f"{name} of {victim} at file operation {number}")
        return
    stage = draw.choice(list(STAGES)) if victim == "run" or draw.random() < 0.25 else "ingest"
    before = list(STAGES.values())[list(STAGES).index(stage) - 1] if stage != "ingest" else ".lock"
    parts = ".log.partial/work/parts"
    path = this.folder / RUN / (parts if stage == "ingest" and draw.random() < 0.7 else before)
    share, which, is_server = draw.uniform(0, 1), draw.randrange(3), draw.random() < 0.2
    moment = _after(path, share * base.seconds[stage])
    if victim == "pool process":
        moment = _both(moment, lambda: len(pool_processes(this.folder, this.commands["run"].pid)) > 1)
    if victim == "run":
        moment = _both(moment, lambda: this.commands["run"].is_ready())

    def kill() -> None:
        stage = this.stage()
        if target in this.commands and not this.commands[target].send(name):
            return
        this.done.append(f"{name} of {victim} in {stage}")
        if target in this.commands:
            return
        if victim == "pool process":
            found = pool_processes(this.folder, this.commands["run"].pid)
            if not found:  # they have ended in this moment
                this.done.pop()
                return
            pid = found[-1] if is_server or len(found) == 1 else found[which % (len(found) - 1)]
            os.kill(pid, signal.Signals[f"SIG{name}"])
        else:
            dask: Any = cluster_of_now()
            process = dask.scheduler if victim == "Dask scheduler" else dask.workers[which]
            process.send_signal(signal.Signals[f"SIG{name}"])

    this.pending.append((moment, kill))


def cluster_of_now() -> object:
    """The Dask cluster as it is, without new workers."""
    import engine_commands

    return engine_commands._cluster[0][1]


def _after(path: Path, seconds: float) -> Callable[[], bool]:
    return _for_a_while(path.exists, seconds)


def _for_a_while(condition: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    seen: list[float] = []

    def is_now() -> bool:
        if not seen and condition():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] >= seconds

    return is_now


def _both(first: Callable[[], bool], second: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: first() and second()


def at_operation(number: int, name: str) -> Callable[[], None]:
    """For a forked process: send it a signal at its file operation of that number."""

    def prepare() -> None:
        lock, count = threading.Lock(), 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event.startswith(_EVENTS):
                with lock:
                    count += 1
                    is_now = count == number
                if is_now:
                    os.kill(os.getpid(), signal.Signals[f"SIG{name}"])

        sys.addaudithook(hook)

    return prepare


def one_round(draw: random.Random, folder: Path, engine: str, base: World) -> tuple[Round, str]:
    """Type the command, disturb it, and return what no user should see of it."""
    this = Round(folder, engine)
    prepare: dict[str, Callable[[], None]] = {}
    for _ in range(draw.choice([1, 1, 1, 2])):
        plan_kill(draw, this, base, prepare)
    is_twice, is_relaunched = draw.random() < 0.2, engine == "shared folder" and draw.random() < 0.5
    begin(draw, this, prepare)
    if is_twice:
        delay, started = draw.uniform(0, 2), time.monotonic()
        arguments = this.commands["run"].arguments

        def again() -> None:
            this.done.append(f"typed twice in {this.stage()}")
            this.commands["second run"] = Command(arguments, folder)

        this.pending.append((lambda: time.monotonic() - started >= delay, again))
    if engine == "shared folder":
        # Others wait for a worker 1 that they have never seen: it is started again in the end.
        run, patience = this.commands["run"], 0.0 if is_relaunched else 6 * STALE_SECONDS

        def relaunch() -> None:
            if run.signals or "run" in this.planned:
                this.done.append(f"worker 1 again in {this.stage()}")
                this.commands["run again"] = Command(run.arguments, folder)

        this.pending.append((_for_a_while(lambda: not run.is_running(), patience), relaunch))
    ended = this.run()
    faults = [f"{name}: {fault}" for name in ended if (fault := judge(this, name, ended[name]))]
    for name, each in ended.items():
        if faults and (each.status or "Traceback" in each.stderr):
            faults.append(f"{name} ended with {each.status}: {each.stderr[-8000:]}")
    return this, "; ".join(faults)


def judge(this: Round, name: str, ended: Ended) -> str:
    """What no user should see of one process; empty if there is nothing."""
    if "Traceback" in ended.stderr and ended.status != -1000:
        return "traceback"
    if "distributed." in ended.stderr:
        return "lines of a library"
    signals = [*this.commands[name].signals, *([this.planned[name]] if name in this.planned else [])]
    if ended.status == 0:
        return ""
    if any(ended.status == _STATUS[each] for each in signals):
        is_line = ended.last_line.startswith("fae: ")
        return "" if is_line or ended.status == -signal.SIGKILL else f"no line: {ended.last_line}"
    has_no_handlers = ended.seconds < 0.3 or ended.last_line.startswith("run: the whole record")  # not yet, or no more
    if has_no_handlers and any(ended.status == -signal.Signals[f"SIG{each}"] for each in signals):
        return ""
    if fault := ended.fault():
        return fault
    hit = " ".join(this.done)
    allowed = (
        name == "second run" or "second run" in this.commands  # one of the two is refused
        or (this.engine == "dask" and "Dask scheduler" in hit)
        or (name.startswith("worker") and ("of run" in hit or "again" in hit))
    )  # fmt: skip
    return "" if allowed else f"gave up: {ended.last_line}"


def cut_a_part(draw: random.Random, folder: Path) -> str:
    """Cut a file of a part that is kept, as a power failure does; returns what was done."""
    # os.walk passes over what a process removes meanwhile.
    found = sorted(
        path
        for place, _, names in os.walk(folder / RUN / ".log.partial" / "work" / "parts")
        for path in (Path(place) / name for name in names)
        if path.parent.parent.name == "parts" and not path.parent.name.startswith(".") and _size(path)
    )
    if not found:
        return ""
    path = draw.choice(found)
    with contextlib.suppress(FileNotFoundError):
        os.truncate(path, draw.randrange(path.stat().st_size))
        return f"{path.name} of a part cut"
    return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def case(draw: random.Random, folder: Path) -> Tried:
    """One or two disturbed typings of the command, then an undisturbed one."""
    prepare_campaign()
    kind, engine = draw.choice(list(KINDS)), draw.choice(ENGINES)
    base = world(kind)
    copy = folder / "copy"
    shutil.copytree(base.folder, copy)
    told: list[str] = []
    try:
        found = _try(draw, copy, kind, engine, base, told)
    finally:
        for pid in started_by(copy):
            os.kill(pid, signal.SIGKILL)
        if FAULT in os.environ:
            close_cluster()
    what, finding = found
    print(f"{kind} on {engine}: {'; '.join(told)}: {what}", file=sys.stderr, flush=True)
    text = f"{kind} on {engine}: {'; '.join(told)}: {finding}" if finding else ""
    return Tried(engine, what, text)


def _try(draw: random.Random, copy: Path, kind: str, engine: str, base: World, told: list[str]) -> tuple[str, str]:
    for _ in range(draw.choice([1, 1, 2])):
        this, fault = one_round(draw, copy, engine, base)
        told += this.done or ["over before its kill"]
        if fault:
            return "fault", fault
        if draw.random() < 0.2 and (what := cut_a_part(draw, copy)):
            told.append(what)
    last = Round(copy, engine if draw.random() < 0.6 else draw.choice(ENGINES))
    begin(draw, last, {})
    told.append(f"then {last.engine}")
    for name, ended in last.run().items():
        if ended.status or "Traceback" in ended.stderr:
            return "does not continue", f"{name} ended with {ended.status}: {ended.stderr[-8000:]}"
    found = results(copy, RUN)
    if found != base.expected:
        different = sorted(name for name in {*found, *base.expected} if found.get(name) != base.expected.get(name))
        return "another result", str(different)
    if left := sorted({*names_below(copy / RUN)} - {*base.names}):
        return "left behind", str(left)
    end = time.monotonic() + 10
    while (pids := started_by(copy)) and time.monotonic() < end:
        time.sleep(0.05)
    if pids:
        return "processes left", str([Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids])
    fell = sorted({text.rpartition(" in ")[2] for text in told if " in " in text})
    return f"same bytes, disturbed in {' and '.join(fell) or 'a file operation'}", ""


if __name__ == "__main__":
    sys.exit(run_campaign(__file__, case, count=60, faults=FAULTS, doc=__doc__ or "", arguments=sys.argv[1:]))
