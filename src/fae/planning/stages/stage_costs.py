"""The cost model of the data stages: seconds of each piece of work, from its rates on this machine and a log's counts.

A piece of work takes ``fixed + serial * amount + parallel * longest`` seconds by the clock. `amount` is what it grows
with, a field of `LogCounts`; `longest` is what the busiest worker does of it. The rates are those of the real stages on
a sample of the log at two sizes (`fae.planning.stages.stage_probe`):

* Seconds of processors and of the clock for each unit: what the larger size took more, over what it has more; the rest
  is ``fixed``.
* ``serial`` solves ``clock * amount = serial * amount + (processors - serial) * longest`` for the workers that were
  measured: time that other workers do not shorten, be it one thread's or a wait for the disk.
* ``parallel`` is what processors have beyond that.

What is read or written beyond the memory of the machine waits for the disk: the work then takes at least its bytes over
the disk's rates. Nothing here is a constant of the code as it is today but `WORK`, which says what each piece of work
grows with; work under a label that it does not know grows with the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fae.planning.stages.counts import LogCounts
from fae.planning.stages.stage_records import Phase, StageRecord

STAGES = ("ingest", "profile", "calibrate", "pack")

WORK: dict[str, tuple[str, str]] = {
    "ingest: naming the sources": ("raw_bytes", "evenly"),
    "ingest: reading the log": ("text_bytes", "shards"),
    "ingest: joining values": ("part_values", "columns"),
    "ingest: joining rows": ("inputs", "evenly"),
    "ingest: counting": ("training", "evenly"),
    "ingest: writing vocabularies": ("values", "columns"),
    "ingest: looking for unknown ids": ("held_out", "evenly"),
    "profile": ("counted", "evenly"),
    "calibrate": ("profiled", "evenly"),
}
"""By label: what the work grows with, and how it is spread over workers (`LogCounts.longest`)."""
_OTHER = ("inputs", "evenly")
_MUST_GROW = 1.3
"""Two sizes say how work grows only where the amounts differ by this factor at least."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The rates of one piece of work.

    Attributes
    ----------
    driver, spread
        What it grows with, and how it is spread.
    fixed
        Seconds of any log.
    serial, parallel
        Seconds of one worker for each unit: what more workers do not shorten, and what they do.
    read_bytes, written_bytes
        For each unit.
    """

    driver: str
    spread: str
    fixed: float
    serial: float
    parallel: float
    read_bytes: float
    written_bytes: float

    def seconds(self, counts: LogCounts, workers: int) -> float:
        """Seconds by the clock where no disk holds the work up."""
        longest = counts.longest(self.driver, self.spread, workers)
        return self.fixed + self.serial * counts.amount(self.driver) + self.parallel * longest


@dataclass(frozen=True, kw_only=True)
class DiskRates:
    """What a disk does, in bytes/s, and the memory beyond which its pages are not kept.

    Attributes
    ----------
    read, written
        One after the other, in large pieces.
    kept_bytes
        Bytes of files that memory keeps.
    """

    read: float
    written: float
    kept_bytes: float


@dataclass(frozen=True, kw_only=True)
class WorkTime:
    """Predicted time of one piece of work.

    Attributes
    ----------
    label
        As progress shows it.
    seconds
        By the clock.
    waits_for_disk
        Whether the disk is what takes longest.
    """

    label: str
    seconds: float
    waits_for_disk: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.label, "seconds": self.seconds, "waits_for_disk": self.waits_for_disk}


def fit_rates(label: str, sizes: Sequence[LogCounts], phases: Sequence[Phase], workers: int) -> Rates:
    """The rates of one piece of work that was timed at two sizes, the smaller first.

    Examples
    --------
    >>> def counts(inputs):
    ...     return LogCounts(
    ...         raw_bytes=0, text_bytes=0, inputs=inputs, training=0, held_out=0, values=0, largest_values=0,
    ...         part_values=0, rows=0, profiled=0, shards=())
    >>> phases = [Phase(seconds=1 + 0.6, processor_seconds=1 + 1.0), Phase(seconds=1 + 6, processor_seconds=1 + 10)]
    >>> rates = fit_rates("pack", [counts(10), counts(100)], phases, workers=2)
    >>> round(rates.fixed, 6), round(rates.serial, 6), round(rates.parallel, 6)
    (1.0, 0.02, 0.08)
    >>> round(rates.seconds(counts(1000), 2)), round(rates.seconds(counts(1000), 4))
    (61, 41)
    """
    driver, spread = WORK.get(label, _OTHER)
    small, large = sizes[0], sizes[-1]
    first, last = phases[0], phases[-1]
    amounts = (small.amount(driver), large.amount(driver))
    clock, fixed = _rate(amounts, (first.seconds, last.seconds))
    processors, _ = _rate(amounts, (first.processor_seconds, last.processor_seconds))
    longest = large.longest(driver, spread, workers)
    whole = max(amounts[1], 1e-9)
    serial = clock
    if longest < 0.99 * whole:
        serial = max(0.0, (clock * whole - processors * longest) / (whole - longest))
    return Rates(
        driver=driver, spread=spread, fixed=fixed, serial=min(serial, clock) if longest < 0.99 * whole else 0.0,
        parallel=max(0.0, processors - serial) if longest < 0.99 * whole else clock,
        read_bytes=_rate(amounts, (first.read_bytes, last.read_bytes))[0],
        written_bytes=_rate(amounts, (first.written_bytes, last.written_bytes))[0],
    )  # fmt: skip


def _rate(amounts: tuple[float, float], spent: tuple[float, float]) -> tuple[float, float]:
    """What is spent for each unit, and what is spent on any amount; never less than nothing."""
    small, large = amounts
    if large <= 0:
        return 0.0, max(spent)
    if large < _MUST_GROW * small or spent[1] <= spent[0]:
        return spent[1] / large, 0.0
    rate = (spent[1] - spent[0]) / (large - small)
    fixed = spent[1] - rate * large
    return (rate, fixed) if fixed > 0 else (spent[1] / large, 0.0)


@dataclass(frozen=True, kw_only=True)
class StageRates:
    """The rates of all work of one stage, and what its files and memory grow with.

    Attributes
    ----------
    work
        Rates by label.
    most_bytes
        Bytes of files at the most, for each unit of what they grow with.
    memory_bytes
        Private memory that it took on the sample at the most.
    """

    work: dict[str, Rates]
    most_bytes: dict[str, float]
    memory_bytes: int

    @classmethod
    def fit(cls, sizes: Sequence[LogCounts], records: Sequence[StageRecord], workers: int) -> StageRates:
        """From records at two sizes, the smaller first."""
        small, large = records[0], records[-1]
        work = {
            label: fit_rates(label, sizes, [small.phases.get(label, Phase()), phase], workers)
            for label, phase in large.phases.items()
        }
        most = {
            kind: size / max(1.0, sizes[-1].amount(kind))
            for kind, size in large.most_bytes.items()
            if kind != "scratch"
        }
        return cls(work=work, most_bytes=most, memory_bytes=large.memory_bytes)

    def times(self, counts: LogCounts, workers: int, disk: DiskRates, *, machines: int = 1) -> list[WorkTime]:
        """Predicted time of each piece of work.

        Parameters
        ----------
        machines
            Machines that read shards; the rest of the work is done by one of them.
        """
        found = []
        for label, rates in self.work.items():
            at_once = workers * machines if rates.spread == "shards" else workers
            seconds = rates.seconds(counts, at_once)
            amount = counts.amount(rates.driver)
            moved = (rates.read_bytes + rates.written_bytes) * amount
            waiting = 0.0
            if moved > disk.kept_bytes:
                waiting = rates.read_bytes * amount / disk.read + rates.written_bytes * amount / disk.written
            found.append(WorkTime(label=label, seconds=max(seconds, waiting), waits_for_disk=waiting > seconds))
        return found

    def files(self, counts: LogCounts) -> int:
        """Bytes of its files at the most."""
        return int(sum(size * counts.amount(kind) for kind, size in self.most_bytes.items()))
