"""Memory that the data stages take at their peak, and what ingest keeps in files beyond its limit: bytes, as formulas.

They are sums of the buffers that the stages say they have (docstrings of `fae.ingest.ingest.ingest`,
`fae.profile.profile.profile`, `fae.profile.sampling` and `fae.pack.pack.pack`). What no docstring says is measured:
`benchmarks/plan_stages.py` runs each stage in a process of its own at three sizes and compares. Private memory is
meant: pages of mapped files are the system's, which takes them back when it needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fae.planning.stages.counts import LogCounts, ValueGrowth
from fae.profile.sampling import CACHE_BYTES

_GIB, _MIB = 2**30, 2**20
BASE = 110 * _MIB
"""A process with the libraries of the data stages, and their compiled loops, before it does anything."""
VALUE = 36
"""Bytes of a distinct value in a vocabulary: its key or text, and the table that finds it, of two to four entries."""
_GROWING = 2
"""An array that grows is there twice while it is copied."""
_LIMIT, _OF_SHARD = _GIB, 128 * _MIB
"""Memory of all vocabularies of ingest, and the least that each worker has of it (`memory_bytes`)."""
_WORKER = 64 * _MIB
"""A worker of ingest: a block of text, its columns, and the rows that come of it."""
_PROCESSES_FROM = 4, _GIB
"""Cores and bytes of raw files from which workers of ingest are processes (`fae.engine.local.LocalEngine`)."""
_PIECE = 32 * _MIB
"""Ids that profile reads at once."""
_ROW_OF_PROFILE = 8
_ROW_OF_CALIBRATE = 40
"""Counts and orders of a row while hot rows are chosen."""
_DRAWN = 32
_MOST_MARKS = 32
_PACKED_INPUT, _OF_TWO_KINDS = 9, 8
"""An input of pack whose order is held, and more where hot and cold inputs have an order each (`fae.pack.shuffle`)."""
_PACK_WORKER = 16 * _MIB
"""A worker of pack: a group of batches that is composed, and one that is written."""


@dataclass(frozen=True, kw_only=True)
class IngestMemory:
    """Vocabularies of ingest.

    Attributes
    ----------
    memory_bytes
        Private memory at the most.
    spilled_bytes
        Bytes of the vocabularies that are in temporary files instead, since they are beyond the limit.
    """

    memory_bytes: int
    spilled_bytes: int


def ingest_memory(counts: LogCounts, growth: Sequence[ValueGrowth], workers: int) -> IngestMemory:
    """Memory of ingest with `workers` workers on one machine."""
    largest = max(counts.shards, default=0.0) / max(1.0, counts.text_bytes) * counts.inputs
    of_shard = VALUE * sum(each.at(largest) for each in growth)
    share = max(_LIMIT / workers, _OF_SHARD)
    busy = min(workers, max(1, len(counts.shards)))
    are_processes = workers >= _PROCESSES_FROM[0] and counts.raw_bytes >= _PROCESSES_FROM[1]
    reading = busy * (_WORKER + min(of_shard, share) + are_processes * BASE)
    whole = VALUE * counts.values + 4 * counts.part_values
    spilled = max(busy * max(0.0, of_shard - share), whole - _LIMIT, 0.0)
    joined = min(_GROWING * whole, _LIMIT) + _WORKER
    return IngestMemory(memory_bytes=int(BASE + max(reading, joined)), spilled_bytes=int(spilled))


def stage_memory(
    name: str, counts: LogCounts, *, id_bytes: int, input_bytes: int, workers: int, sampled: bool, mixed: bool,
    pack_memory: int,
) -> int:  # fmt: skip
    """Private memory of profile, calibrate or pack.

    Parameters
    ----------
    id_bytes, input_bytes
        Bytes of the ids of an input, and of all of it.
    sampled
        Whether the profile reads a sample.
    mixed
        Whether hot and cold inputs are packed together.
    pack_memory
        Bytes of inputs that pack holds at once (`fae.pack.pack.default_memory`).
    """
    if name == "profile":
        drawn = 0.0
        if sampled:
            marks = counts.training if counts.training <= _MOST_MARKS * counts.profiled else 0.0
            drawn = _DRAWN * counts.profiled + marks
        return int(BASE + _PIECE + _ROW_OF_PROFILE * counts.rows + drawn)
    if name == "calibrate":
        cached = counts.profiled * (id_bytes + 9)
        return int(BASE + _ROW_OF_CALIBRATE * counts.rows + (cached if cached <= CACHE_BYTES else _PIECE))
    whole, ordered = counts.training * input_bytes, _PACKED_INPUT + (0 if mixed else _OF_TWO_KINDS)
    # A log that fits stays in mapped pages; else half of the memory is for the inputs that are loaded from the disk.
    held = ordered * counts.training if whole <= pack_memory else pack_memory / 2 * (1 + ordered / input_bytes)
    return int(BASE + held + workers * _PACK_WORKER)
