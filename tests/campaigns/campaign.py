"""What the campaigns share: forked runs of the command line, counting, a record of findings, and faults put back.

A campaign tries many inputs that are drawn from a seed, and says what came out of each as one word; a *finding* is an
outcome that no user should see. The same seed and number give the same input, so one case can be run alone with
``--only``. With ``--put-back`` it runs with earlier faults of the code put back one by one, to show that it sees them.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import hashlib
import io
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MEMORY_LIMIT_BYTES = 6 << 30

PutBack = Mapping[str, Callable[[], None]]
"""Name of an earlier fault to a function that patches it into this process."""


@dataclass(frozen=True)
class Ended:
    """How one command ended.

    Attributes
    ----------
    status
        Exit status; the negative number of the signal that ended it, -1000 where it was given up.
    """

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line for people, or a word for its absence."""
        lines = self.stderr.strip().splitlines()
        return lines[-1] if lines else "(nothing on stderr)"

    def fault(self) -> str:
        """What no user should see: a traceback, a signal, a status of 1, more than one line; empty if there is none."""
        if self.status == -1000:
            return "no end"
        if self.status < 0:
            return f"signal {signal.Signals(-self.status).name}"
        if "Traceback" in self.stderr:
            return "traceback"
        if self.status not in (0, 2):
            return f"status {self.status}"
        if self.status == 2 and not self.last_line.startswith("fae: "):
            return "no line"
        return ""


class Forked:
    """One command line in a forked copy of this process, in `folder`: no imports to wait for.

    Parameters
    ----------
    prepare
        Called in the child before the command: limits, environment, faults.

    Attributes
    ----------
    pid
        Number of the child.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        folder: Path,
        *,
        prepare: Callable[[], None] | None = None,
        memory_bytes: int | None = MEMORY_LIMIT_BYTES,
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            out, err = (file.fileno() for file in self._files)
            _run_child(arguments, folder, out, err, prepare, memory_bytes)

    def end(self, stop: float) -> Ended:
        """Wait for its end; at the time `stop` of the monotonic clock it is killed and counts as without an end."""
        status = _wait(self.pid, stop)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
            file.close()
        return Ended(status, texts[0], texts[1], time.monotonic() - self.started)


def fork_fae(
    arguments: Sequence[object],
    folder: Path,
    *,
    seconds: float = 120.0,
    prepare: Callable[[], None] | None = None,
    watch: Callable[[int], None] | None = None,
    memory_bytes: int | None = MEMORY_LIMIT_BYTES,
) -> Ended:
    """Run one command line as `Forked` does, to its end.

    Parameters
    ----------
    seconds
        After this it is killed and counts as without an end.
    watch
        Called in this process with the child's number while it runs: it may send signals.
    """
    child = Forked(arguments, folder, prepare=prepare, memory_bytes=memory_bytes)
    if watch is not None:
        watch(child.pid)
    return child.end(child.started + seconds)


def _run_child(
    arguments: Sequence[object],
    folder: Path,
    out: int,
    err: int,
    prepare: Callable[[], None] | None,
    memory_bytes: int | None,
) -> None:
    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        if memory_bytes is not None:
            # A torch with CUDA maps several GiB before it does anything.
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = max(memory_bytes, pages * resource.getpagesize() + (2 << 30))
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if prepare is not None:
            prepare()
        from fae.cli.main import main

        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                status = status or 1
        os._exit(status & 255)


def _wait(child: int, stop: float) -> int:
    pause = 0.001
    while True:
        found, code = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(code)
        if time.monotonic() > stop:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1000
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def preload() -> None:
    """Import what commands need before forking; starts no thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    import fae.ingest.ingest
    import fae.run.folder
    import fae.run.record
    import fae.training.trainer  # noqa: F401


def warm_up(arguments: Sequence[object], folder: Path) -> None:
    """Run a command line in this process, in `folder`, so that forked ones find every compiled loop loaded."""
    from fae.cli.main import main

    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            assert main([str(argument) for argument in arguments]) == 0
    finally:
        os.chdir(before)


_TIMED = ("timings.json", ".lock", "log.sources.json", "progress.json", "metrics.jsonl")


def results(folder: Path, *runs: str | None) -> dict[str, str]:
    """Digests of what is computed in these run folders: arrays, tables, vocabularies; figures of run.json."""
    found = {}
    for run in filter(None, runs):
        for path in sorted((folder / run).rglob("*")) if (folder / run).is_dir() else ():
            name = str(path.relative_to(folder))
            if not path.is_file() or path.is_symlink() or ".partial" in name or path.name in _TIMED:
                continue
            if path.name == "run.json":
                found[name] = hashlib.blake2b(_figures(path.read_bytes())).hexdigest()
            elif path.suffix in (".npy", ".parquet", ".safetensors"):
                found[name] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return found


def _figures(data: bytes) -> bytes:
    """What a training came to, of a run record; its bytes where it is none."""
    try:
        record = json.loads(data)
        return json.dumps([record["test"], record["validation"], record["train"]["loss_curve"]]).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return data


@dataclass(frozen=True)
class Tried:
    """What one input of a campaign came to.

    Attributes
    ----------
    kind
        What was done, in a few words; counted in the record.
    outcome
        What came out, in a few words; counted in the record.
    finding
        Empty, or why no user should see this.
    """

    kind: str
    outcome: str
    finding: str = ""


Case = Callable[[random.Random, Path], Tried]


def run_campaign(
    script: str, case: Case, *, count: int, faults: PutBack, arguments: Sequence[str] | None = None, doc: str = ""
) -> int:
    """The command line of a campaign: run the cases, write the record beside the script.

    Returns
    -------
    int
        Exit status: 0 where there is no finding (with ``--put-back``: where every fault was seen).
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count, help=f"cases (default: {count})")
    parser.add_argument("--seed", type=int, default=1)
    shared = "processes that share the cases, not for faults.py (default: 1)"
    parser.add_argument("--jobs", type=int, default=1, help=shared)
    parser.add_argument("--only", type=int, help="run this case alone, and keep its folder")
    parser.add_argument("--fault", choices=sorted(faults), help="put this earlier fault back")
    parser.add_argument("--put-back", action="store_true", help="put each earlier fault back until a case sees it")
    parser.add_argument("--out", type=Path, help="where the record goes (default: beside the script)")
    options = parser.parse_args(arguments)
    preload()
    if options.fault:
        faults[options.fault]()
    if options.only is not None:
        folder = Path(tempfile.mkdtemp())
        print(folder, _try(case, options.seed, options.only, folder))
        return 0
    name = Path(script).stem
    out = options.out or Path(script).with_suffix(".json")
    record: dict[str, Any] = {
        "command": " ".join(["python", f"tests/campaigns/{name}.py", *(arguments or sys.argv[1:])]),
        **where(), "seed": options.seed,
    }  # fmt: skip
    if options.put_back:
        seen = _spread(lambda fault: [fault, _seen(case, faults[fault], options)], sorted(faults), options.jobs)
        record["faults"] = dict(sorted(seen))
        missed = [fault for fault, seen in record["faults"].items() if seen["case"] is None]
        out = options.out or Path(script).with_name(f"{name}_put_back.json")
    else:
        record.update(_all(case, options.seed, range(options.count), options.jobs))
        missed = record["findings"]
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({key: value for key, value in record.items() if key not in ("machine", "versions")}, indent=1))
    return 1 if missed else 0


def _try(case: Case, seed: int, number: int, folder: Path) -> Tried:
    return case(random.Random(f"{seed}/{number}"), folder)


def _all(case: Case, seed: int, numbers: Sequence[int], jobs: int) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    findings = []
    started = time.monotonic()
    for number, *facts in _spread(functools.partial(_try_apart, case, seed), numbers, jobs):
        tried = Tried(*facts)
        kinds[tried.kind] += 1
        outcomes[tried.outcome] += 1
        if tried.finding:
            findings.append({"case": number, "kind": tried.kind, "finding": tried.finding})
            print(f"case {number}, {tried.kind}: {tried.finding}", file=sys.stderr, flush=True)
        if kinds.total() % 50 == 0:
            print(f"{kinds.total()} cases after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    findings.sort(key=lambda found: found["case"])
    return {
        "cases": kinds.total(), "kinds": dict(sorted(kinds.items())), "outcomes": dict(sorted(outcomes.items())),
        "findings": findings, "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _try_apart(case: Case, seed: int, number: int) -> list[Any]:
    with tempfile.TemporaryDirectory() as temporary:
        tried = _try(case, seed, number, Path(temporary))
    return [number, tried.kind, tried.outcome, tried.finding]


def _spread(work: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Iterator[Any]:
    """What `work` makes of each item, as JSON values: here, or in forked processes that share them."""
    if jobs == 1:
        yield from map(work, items)
        return
    readers = []
    for job in range(jobs):
        reader, writer = os.pipe()
        if os.fork() == 0:
            status = 1
            try:
                with os.fdopen(writer, "w") as file:
                    for item in items[job::jobs]:
                        print(json.dumps(work(item)), file=file, flush=True)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                atexit._run_exitfuncs()
                os._exit(status)
        os.close(writer)
        readers.append(os.fdopen(reader))
    while readers:
        for ready in select.select(readers, [], [])[0]:
            if line := ready.readline():
                yield json.loads(line)
            else:
                readers.remove(ready)
    if sum(os.wait()[1] for _ in range(jobs)):
        raise SystemExit("one of the processes that share the cases has failed")


def _seen(case: Case, put_back: Callable[[], None], options: argparse.Namespace) -> dict[str, Any]:
    """In a forked process with the fault: the first case that is a finding, None where there is none."""
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                put_back()
                for number in range(options.count):
                    with tempfile.TemporaryDirectory() as temporary:
                        tried = _try(case, options.seed, number, Path(temporary))
                    if tried.finding:
                        text = json.dumps({"case": number, "kind": tried.kind, "finding": tried.finding})
                        os.write(file.fileno(), text.encode())
                        break
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        file.seek(0)
        found = file.read()
    if not found and status < 0:
        return {"case": -1, "kind": "", "finding": f"the campaign's own process died of {signal.Signals(-status).name}"}
    return json.loads(found) if found else {"case": None}


def where() -> dict[str, Any]:
    """Machine, versions and commit of a record."""
    from fae.run.record import library_versions, machine, source_commit

    return {"machine": machine(), "versions": library_versions(), "commit": source_commit()}
