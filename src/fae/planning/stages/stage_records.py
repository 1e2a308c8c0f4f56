"""Take the time of what this process and its workers do, piece by piece: clock, processors, bytes moved, files."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fae.core import progress

_LOOK_SECONDS = 0.02
_FIND_EVERY = 10


@dataclass(kw_only=True)
class Phase:
    """What one piece of work took.

    Attributes
    ----------
    seconds
        By the clock, as on a quiet machine: without the time for which threads were ready and other processes ran.
    processor_seconds
        Seconds of all threads together.
    read_bytes, written_bytes
        Bytes that went through calls of the system; pages of mapped files are not among them.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0


@dataclass(kw_only=True)
class StageRecord:
    """What a stage took.

    Attributes
    ----------
    phases
        By the label of each piece of work, as progress shows it; what lies between them under the stage's name.
    most_bytes
        Bytes of files in the folder at the most, by kind (`file_kind`); each kind at its own time.
    folder_bytes
        Bytes of all files in the folder at the most.
    memory_bytes
        Private memory at the most, beyond what the process had before.
    """

    phases: dict[str, Phase] = field(default_factory=dict)
    most_bytes: dict[str, int] = field(default_factory=dict)
    folder_bytes: int = 0
    memory_bytes: int = 0


def file_kind(path: Path) -> str:
    """What the bytes of a file of an unfinished artifact grow with, as `fae.planning.stages.counts` names it.

    >>> [file_kind(Path(name)) for name in ("work/parts/1-2/values", "work/parts/1-2/ids.npy", "vocabulary/3.parquet")]
    ['part_values', 'inputs', 'values']
    """
    if "scratch" in path.parts:
        return "scratch"
    if "parts" in path.parts:
        return "part_values" if path.name in ("values", "counts") else "inputs"
    if path.name.startswith("part_maps"):
        return "part_values"
    is_of_values = "vocabulary" in path.parts or path.name in ("counts.npy", "journal")
    return "values" if is_of_values or path.name.startswith(("final_", "ranks")) else "inputs"


def _folder_bytes(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            with contextlib.suppress(OSError):  # gone meanwhile
                kind = file_kind(path.relative_to(folder))
                found[kind] = found.get(kind, 0) + path.stat().st_size
    return found


class Family:
    """This process and those that descend from it: what they have taken so far, ended ones included as last seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processors: dict[int, float] = {}
        self._delays: dict[str, float] = {}
        self._moved: dict[int, tuple[int, int]] = {}
        self._left_out: set[str] = set()
        self.find()

    def leave_out(self, thread: int) -> None:
        """Do not count the waits of a thread, by its native number: it only watches, and keeps nobody waiting."""
        self._left_out.add(str(thread))

    def find(self) -> None:
        """Look for processes that are new."""
        parents = {}
        for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(name)] = int(_stat_fields(int(name))[1])
        found, grows = {os.getpid()}, True
        while grows:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found, grows = found | more, bool(more)
        self._pids = sorted(found)

    def spent(self) -> tuple[float, float, int, int]:
        """Seconds of processors, seconds for which threads were ready while others ran, bytes read and written."""
        with self._lock:
            for pid in self._pids:
                with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
                    self._look(pid)
            self._processors[os.getpid()] = time.process_time()
            moved = self._moved.values()
            return (
                sum(self._processors.values()), sum(self._delays.values()),
                sum(read for read, _ in moved), sum(written for _, written in moved),
            )  # fmt: skip

    def _look(self, pid: int) -> None:
        for name in os.listdir(f"/proc/{pid}/task"):
            if name in self._left_out:
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = Path(f"/proc/{pid}/task/{name}/schedstat").read_text()
                self._delays[name] = max(self._delays.get(name, 0.0), int(text.split()[1]) / 1e9)
        fields = _stat_fields(pid)
        self._processors[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        facts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        self._moved[pid] = int(facts["rchar"]), int(facts["wchar"])

    def private_memory(self) -> int:
        """Bytes of memory of all of them that no file holds; 0 where the system does not say."""
        return sum(private_memory(pid) for pid in self._pids)


def _stat_fields(pid: int) -> list[str]:
    """What the system says of a process, behind its name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def private_memory(pid: int) -> int:
    """Bytes of memory of a process that no file holds; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0


def on_quiet_machine(seconds: float, processor_seconds: float, delay: float, cores: int) -> float:
    """Seconds by the clock without those for which threads waited for a processor, `delay` seconds of all together.

    As many threads waited at once as were ready on average. Where more of them are ready than there are cores, they
    would wait on a quiet machine too: all cores are then busy.

    >>> on_quiet_machine(10.0, 5.0, 5.0, 2), on_quiet_machine(10.0, 10.0, 10.0, 2), on_quiet_machine(10.0, 2.0, 0.0, 2)
    (5.0, 5.0, 10.0)
    >>> on_quiet_machine(10.0, 16.0, 24.0, 2)
    8.0
    """
    ready = max(1.0, (processor_seconds + delay) / max(seconds, 1e-9))
    return max(0.0, seconds - delay / ready, min(seconds, processor_seconds / cores))


def num_cores() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


class _Clock:
    """Shares out time to the piece of work that runs, of several that run beside each other to the last that began."""

    def __init__(self, name: str, family: Family) -> None:
        self.phases: dict[str, Phase] = {}
        self._labels = [name]
        self._family = family
        self._lock, self._cores = threading.Lock(), num_cores()
        self._mark = self._now()

    def _now(self) -> tuple[float, ...]:
        return (time.perf_counter(), *self._family.spent())

    def turn(self, label: str, begins: bool) -> None:
        """Another piece of work begins or ends, in any thread."""
        with self._lock:
            self.close()
            if begins:
                self._labels.append(label)
            elif label in self._labels[1:]:
                place = len(self._labels) - 1 - self._labels[::-1].index(label)
                del self._labels[place]

    def close(self) -> None:
        """Add what was spent since the last mark."""
        now = self._now()
        spent = [after - before for after, before in zip(now, self._mark, strict=True)]
        phase = self.phases.setdefault(self._labels[-1], Phase())
        phase.seconds += on_quiet_machine(spent[0], spent[1], spent[2], self._cores)
        phase.processor_seconds += spent[1]
        phase.read_bytes += spent[3]
        phase.written_bytes += spent[4]
        self._mark = now


@contextlib.contextmanager
def recorded(name: str, folder: Path) -> Iterator[StageRecord]:
    """Record the work of this process and of those that it starts while the block runs.

    Parameters
    ----------
    name
        Name of the stage; what is done under no label of its own counts under it.
    folder
        Where its files grow.
    """
    record, family, ended = StageRecord(), Family(), threading.Event()
    before = family.private_memory()

    def note() -> None:
        found = _folder_bytes(folder)
        record.folder_bytes = max(record.folder_bytes, sum(found.values()))
        for kind, size in found.items():
            record.most_bytes[kind] = max(record.most_bytes.get(kind, 0), size)
        record.memory_bytes = max(record.memory_bytes, family.private_memory() - before)

    def watch() -> None:
        number = 0
        family.leave_out(threading.get_native_id())
        while not ended.wait(_LOOK_SECONDS):
            number += 1
            if number % _FIND_EVERY == 0:
                family.find()
            note()
            family.spent()

    clock, watcher = _Clock(name, family), threading.Thread(target=watch, daemon=True)
    progress.watchers.append(clock.turn)
    watcher.start()
    try:
        yield record
        clock.close()
        note()
    finally:
        progress.watchers.remove(clock.turn)
        ended.set()
        watcher.join()
    record.phases = clock.phases


def least(records: list[StageRecord]) -> StageRecord:
    """The least seconds of each phase in several records of the same work: what else runs on a machine only adds."""

    def lowest(label: str, name: str) -> float:
        return min(float(getattr(record.phases[label], name)) for record in records if label in record.phases)

    labels = dict.fromkeys(label for record in records for label in record.phases)
    return StageRecord(
        phases={
            label: Phase(
                seconds=lowest(label, "seconds"), processor_seconds=lowest(label, "processor_seconds"),
                read_bytes=lowest(label, "read_bytes"), written_bytes=lowest(label, "written_bytes"),
            )
            for label in labels
        },
        most_bytes={
            kind: max(record.most_bytes.get(kind, 0) for record in records)
            for kind in dict.fromkeys(kind for record in records for kind in record.most_bytes)
        },
        folder_bytes=max(record.folder_bytes for record in records),
        memory_bytes=max(record.memory_bytes for record in records),
    )  # fmt: skip
