"""Kills and faults of the machine at every moment: the same command then ends with the same bytes.

    python tests/campaigns/faults.py [--count 200] [--seed 1] [--only 7] [--put-back]

Each case runs a small recipe of two raw files in a new folder and disturbs it one to three times: SIGKILL, SIGTERM,
SIGINT, "no space left" from a file operation, a disk that is full or read-only (a small mounted one, where that is
allowed), few open files, a limit on the size of files, a full stderr, a process without HOME. Moments are drawn over
the file operations of the command (Python's audit events: open, rename, remove, ...), and over time. Then the same
command runs undisturbed. A finding is: a traceback, more than a line, another status than the signal's or 2, a file
that was left behind, another result than that of a run that was never disturbed.
"""

from __future__ import annotations

import atexit
import errno
import importlib
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

from artifacts import RECIPE  # noqa: E402
from campaign import Ended, Tried, fork_fae, results, run_campaign, warm_up  # noqa: E402

COMMAND = ["run", "recipe.toml", "--out", "disk/run", "--device", "cpu"]
_EVENTS = ("open", "os.", "shutil.", "tempfile.", "fcntl.")
_RENAMES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
STAGES = ("log", "profile", "hot_set", "packed", "checkpoint", "run.json")

_world: Path | None = None
_counter = mmap.mmap(-1, 8)
"""File operations of the latest command; the forked process counts in the same memory."""
_facts: dict[str, Any] = {}


def world() -> Path:
    """The folder with recipe and raw files that every case copies; made at the first call."""
    global _world
    if _world is None:
        _world = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, _world, ignore_errors=True)
        draw = random.Random(3)
        for name, count in (("a.csv", 500), ("b.csv", 400)):
            with (_world / name).open("w") as file:
                file.write("y,user,item,tags,code,x\n")
                for _ in range(count):
                    item = min(int(draw.paretovariate(0.5)), 90)
                    tags = "|".join(f"t{draw.randrange(12)}" for _ in range(draw.randrange(5)))
                    label = int(draw.random() < 0.3 + 0.3 * (item % 2))
                    file.write(f"{label},u{draw.randrange(300)},i{item},{tags},{item % 17},{draw.random():.3f}\n")
        text = RECIPE.format(budget="9KiB", epochs=2).replace(
            "early_stopping", "checkpoint_batches = 9\nearly_stopping"
        )
        (_world / "recipe.toml").write_text(text)
        (_world / "disk").mkdir()
        warm_up(COMMAND, _world)
        shutil.rmtree(_world / "disk" / "run")
        ended = fork_fae(COMMAND, _world, prepare=_at_event(None, renames=_world / "renames"))
        assert ended.status == 0, ended.stderr
        _facts.update(
            seconds=ended.seconds, events=_count(),
            renames=[*map(int, (_world / "renames").read_text().split())],
            expected=results(_world, "disk/run"), names=_names(_world),
            num_bytes=sum(path.stat().st_size for path in (_world / "disk" / "run").rglob("*") if path.is_file()),
        )  # fmt: skip
        shutil.rmtree(_world / "disk" / "run")
    return _world


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "disk")) for path in (folder / "disk").rglob("*"))


def _count() -> int:
    number: int = struct.unpack("q", _counter[:8])[0]
    return number


def _at_event(action: Callable[[], None] | None, number: int = -1, renames: Path | None = None) -> Callable[[], None]:
    """For the forked process: count file operations, and act at the one of that number.

    With `renames` the numbers of those that make, rename or remove a name go to that file.
    """

    def prepare() -> None:
        _counter[:8] = struct.pack("q", 0)
        lock = threading.Lock()
        descriptor = None if renames is None else os.open(renames, os.O_WRONLY | os.O_CREAT)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if not event.startswith(_EVENTS):
                return
            with lock:
                count = _count() + 1
                _counter[:8] = struct.pack("q", count)
            if descriptor is not None and event in _RENAMES:
                os.write(descriptor, f"{count} {count + 1} ".encode())
            if count == number and action is not None:
                action()

        sys.addaudithook(hook)

    return prepare


def _send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _full_stderr() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
_STATUS = {"KILL": -signal.SIGKILL, "TERM": 128 + signal.SIGTERM, "INT": 128 + signal.SIGINT}


def disturb(draw: random.Random, folder: Path, disk: Any) -> tuple[str, Ended, str]:
    """One disturbed run: what was done, how it ended, and what no user should see (empty if nothing)."""
    kinds = [
        "KILL",
        "KILL",
        "KILL",
        "TERM",
        "TERM",
        "INT",
        "late signal",
        "no stderr",
        "no space",
        "few files",
        "small files",
        "no HOME",
    ]
    kinds += ["full disk", "full disk", "read-only disk"] if disk is not None else []
    kind = draw.choice(kinds)
    # Half of the moments are those at which names change: there a kill finds something half done.
    number = draw.choice(_facts["renames"]) if draw.random() < 0.5 else draw.randint(1, _facts["events"])
    if kind in SIGNALS:
        ended = fork_fae(COMMAND, folder, prepare=_at_event(_send(SIGNALS[kind]), number))
        return kind, ended, _signal_fault(kind, ended)
    if kind == "late signal":
        name = draw.choice(list(SIGNALS))
        moment = draw.uniform(0, 1.1 * _facts["seconds"])

        def watch(child: int) -> None:
            time.sleep(moment)
            os.kill(child, SIGNALS[name])

        ended = fork_fae(COMMAND, folder, watch=watch)
        # A signal that comes before the command line has installed its handlers ends the process as it always did.
        fault = "" if ended.status == -SIGNALS[name] and ended.seconds < 0.2 else _signal_fault(name, ended)
        return f"{name} by time", ended, fault
    if kind == "no space":
        ended = fork_fae(COMMAND, folder, prepare=_at_event(_no_space, number))
        return kind, ended, ended.fault()
    if kind == "no stderr":
        ended = fork_fae(COMMAND, folder, prepare=_full_stderr)
        return kind, ended, f"status {ended.status}" if ended.status else ""
    if kind == "few files":
        most = draw.choice([8, 12, 16, 24, 40, 64])
        ended = fork_fae(COMMAND, folder, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))
        return f"{kind} ({most})", ended, ended.fault()
    if kind == "small files":
        most = draw.randint(200, 60_000)
        ended = fork_fae(COMMAND, folder, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
        return kind, ended, ended.fault()
    if kind == "no HOME":
        ended = fork_fae(COMMAND, folder, prepare=lambda: os.environ.update(HOME="/nonexistent"))
        return kind, ended, ended.fault() or ("" if ended.status == 0 else f"status {ended.status}")
    if kind == "full disk":
        disk.resize(draw.randint(0, 2 * _facts["num_bytes"]) + disk.used_bytes)
        ended = fork_fae(COMMAND, folder)
        disk.resize(64 << 20)
        return kind, ended, ended.fault()

    def lock_disk(child: int) -> None:
        time.sleep(draw.uniform(0, _facts["seconds"]))
        with suppress(AssertionError):  # a file that is open for writing keeps the disk writable
            disk.set_read_only(True)

    ended = fork_fae(COMMAND, folder, watch=lock_disk)
    disk.set_read_only(False)
    return kind, ended, ended.fault()


def _signal_fault(name: str, ended: Ended) -> str:
    if ended.status == 0:
        return ""  # it was over before
    if ended.status != _STATUS[name]:
        return ended.fault() or f"status {ended.status} after {name}: {ended.last_line}"
    if "Traceback" in ended.stderr:
        return "traceback"
    if name != "KILL" and not ended.last_line.startswith("fae: "):
        return f"no line after {name}"
    return ""


@contextmanager
def _disk(folder: Path) -> Iterator[Any]:
    """A small mounted disk, None where mounting is not allowed."""
    import pytest

    from disks import small_disk

    folder.rmdir()
    with ExitStack() as stack:
        try:
            disk: Any = stack.enter_context(small_disk(folder))
        except pytest.skip.Exception:
            disk = None
        yield disk


def case(draw: random.Random, folder: Path) -> Tried:
    """One to three faults, then the same command undisturbed."""
    base = world()
    copy = folder / "copy"
    shutil.copytree(base, copy)
    done = []
    with _disk(copy / "disk") as disk:
        for _ in range(draw.randint(1, 3)):
            kind, ended, fault = disturb(draw, copy, disk)
            done.append(kind)
            where = next((name for name in STAGES if not (copy / "disk" / "run" / name).exists()), "end")
            if fault:
                return Tried(kind, "fault", f"{' + '.join(done)} before {where}: {fault}: {ended.stderr[-600:]}")
        ended = fork_fae(COMMAND, copy)
        if ended.status != 0:
            return Tried(kind, "does not continue", f"{' + '.join(done)} before {where}: {ended.stderr[-600:]}")
        found = results(copy, "disk/run")
        if found != _facts["expected"]:
            different = [
                name for name in {*found, *_facts["expected"]} if found.get(name) != _facts["expected"].get(name)
            ]
            return Tried(kind, "another result", f"{' + '.join(done)} before {where}: {sorted(different)}")
        left = sorted({*_names(copy)} - {*_facts["names"]})
        if left:
            return Tried(kind, "left behind", f"{' + '.join(done)} before {where}: {left}")
    return Tried(kind, f"same bytes, disturbed before {where}")


def _renames_without_whole_folder() -> None:
    import fae.artifacts.manifest as manifest

    original = manifest.replace_folder

    def hasty(temporary: Path, path: Path) -> None:
        shutil.copytree(temporary, path, dirs_exist_ok=True)
        original(temporary, path)

    manifest.replace_folder = hasty


def _marks_without_rows() -> None:
    from fae.ingest.resume import IngestProgress

    original = IngestProgress._load

    def forgetful(self: Any) -> bool:
        found = original(self)
        if found:
            self._rows = max(0, self._rows - 1)
        return found

    IngestProgress._load = forgetful  # type: ignore[method-assign]


def _position_forgets_a_batch() -> None:
    import fae.training.trainer as trainer

    original = trainer.read_progress

    def forgetful(path: Path) -> dict[str, Any]:
        found = original(path)
        return {**found, "in_segment": max(0, found["in_segment"] - 1)}

    trainer.read_progress = forgetful


def _no_handlers() -> None:
    import fae.cli.main as main

    main.handled_signals = lambda line, **options: nullcontext()  # type: ignore[assignment]


def _others_stay() -> None:
    """What a killed process left half written stays in the folder, and becomes a part of the log."""
    from fae.ingest.resume import IngestProgress

    original = IngestProgress._remove_others

    def at_the_end_alone(self: Any) -> None:
        if self.phase == "done" and not self.num_read_again:
            original(self)

    start = IngestProgress.__init__

    def starting(self: Any, *arguments: Any, **named: Any) -> None:
        self.num_read_again = True
        start(self, *arguments, **named)
        self.num_read_again = False

    IngestProgress._remove_others = at_the_end_alone  # type: ignore[method-assign]
    IngestProgress.__init__ = starting  # type: ignore[method-assign]


def _cleaned_once() -> None:
    """A process that is killed while it removes its work files leaves the rest of them in the log."""
    from fae.ingest.resume import IngestProgress

    original = IngestProgress._remove_others

    def unless_done(self: Any) -> None:
        if self.phase != "done" or getattr(self, "_cleans", False):
            original(self)

    finish = IngestProgress.finish

    def finishing(self: Any) -> None:
        self._cleans = True
        finish(self)

    IngestProgress._remove_others = unless_done  # type: ignore[method-assign]
    IngestProgress.finish = finishing  # type: ignore[method-assign]


def _stderr_matters() -> None:
    import fae.core.printable as printable

    printable.contextlib = SimpleNamespace(suppress=lambda *kinds: nullcontext())  # type: ignore[assignment]


def _temporary_folders_stay() -> None:
    """What a killed writer of an artifact has left is nobody's to remove, and an old folder is not taken back."""

    def forget(path: Path) -> None:
        return None

    for name in ("fae.core.files", "fae.run.folder"):
        module: Any = importlib.import_module(name)
        module.recover_folder = forget


def _no_space_is_a_defect() -> None:
    import fae.cli.main as main

    main.machine_fault = lambda error: None  # type: ignore[assignment]


FAULTS: dict[str, Callable[[], None]] = {
    "artifacts are copied file by file": _renames_without_whole_folder,
    "a row before a mark is written twice": _marks_without_rows,
    "a batch before a checkpoint is trained twice": _position_forgets_a_batch,
    "SIGTERM has no handler": _no_handlers,
    "half written files become a part of the log": _others_stay,
    "work files stay where their removal was interrupted": _cleaned_once,
    "a line that stderr does not take ends the run": _stderr_matters,
    "what a killed writer has left stays": _temporary_folders_stay,
    "faults of the machine are tracebacks": _no_space_is_a_defect,
}

if __name__ == "__main__":
    sys.exit(run_campaign(__file__, case, count=200, faults=FAULTS, doc=__doc__ or "", arguments=sys.argv[1:]))
