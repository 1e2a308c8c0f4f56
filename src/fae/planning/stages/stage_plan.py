"""Time, memory and disk of every stage of a run on machines of any number of cores, and of all of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fae.core.units import format_bytes, format_count
from fae.ingest.shards.shard_cuts import cut_log
from fae.pack.pack import default_memory
from fae.planning.stages.counts import LogCounts, ValueGrowth
from fae.planning.stages.stage_costs import STAGES, DiskRates, WorkTime
from fae.planning.stages.stage_memory import ingest_memory, stage_memory
from fae.planning.stages.stage_probe import StageProbe, part_values
from fae.profile.profile import sample_size
from fae.profile.sampling import CACHE_BYTES

if TYPE_CHECKING:
    from fae.planning.sample.log_reading import LogReading
    from fae.run.recipe import Recipe

EVALUATION_SHARE = 0.5
"""A step of evaluation, of one of training: it has no backward pass and no update, which are more than half of one."""
_READ_AHEAD = 128 * 2**10
"""Bytes that the system reads for one input of a sample (``read_ahead_kb`` of Linux)."""
_PASSES = 3
"""Passes of calibrate over its sample beside those of the peeling: the threshold, and what both serve."""
_KINDS = {"ingest": "log", "profile": "profile", "calibrate": "hot_set", "pack": "packed"}


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What training takes, as the rest of the plan says it.

    Attributes
    ----------
    epoch_seconds, num_epochs
        Of one epoch, and their number.
    evaluation_seconds
        Validation after every epoch, and the test.
    memory_bytes, gpu_bytes
        Host memory, and memory of the GPU.
    """

    epoch_seconds: float
    num_epochs: int
    evaluation_seconds: float
    memory_bytes: int
    gpu_bytes: int


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage.

    Attributes
    ----------
    seconds
        By the clock.
    memory_bytes
        Private memory of a machine that does it, at the most.
    disk_bytes
        Bytes in the run's folder at the most, with what earlier stages have left there.
    stays_bytes
        Bytes that it leaves.
    work
        Its pieces.
    """

    name: str
    seconds: float
    memory_bytes: int
    disk_bytes: int
    stays_bytes: int
    work: tuple[WorkTime, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name, "seconds": self.seconds, "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes, "stays_bytes": self.stays_bytes,
            "work": [each.to_json() for each in self.work],
        }  # fmt: skip


def whole_counts(recipe: Recipe, reading: LogReading, probe: StageProbe) -> tuple[LogCounts, tuple[ValueGrowth, ...]]:
    """The counts of the whole log, and how its distinct values grow."""
    inputs, training = reading.num_inputs.value, reading.split_sizes["train"]
    growth = tuple(_to_the_end(reading, table, each) for table, each in enumerate(probe.growth))
    values = [each.at(inputs) for each in growth]
    raw = float(reading.raw_bytes)
    sample = probe.sizes[-1]
    text = inputs * sample.text_bytes / max(1.0, sample.inputs)
    here = sum(source.num_bytes for source in reading.sources)
    shards: list[float] = []
    if here:
        # Of a part of a log, the rest is taken to be in more files of the same sizes.
        grown, times = text / max(raw, 1.0), max(1, round(raw / here))
        shards = [
            grown * raw / here / times * shard.num_bytes for shard in cut_log(recipe.log, reading.sources)
        ] * times
    counts = LogCounts(
        raw_bytes=raw, text_bytes=text, inputs=inputs, training=training, held_out=inputs - training,
        values=sum(values), largest_values=max(values, default=0.0), part_values=0.0,
        rows=sum(rows.value for rows in reading.rows), profiled=sample_size(max(1, training), recipe.hot),
        shards=tuple(shards),
    )  # fmt: skip
    return dataclasses.replace(counts, part_values=part_values(shards, inputs, growth)), growth


def _to_the_end(reading: LogReading, table: int, seen: ValueGrowth) -> ValueGrowth:
    """Growth of a table's values from the probe's samples to the whole log."""
    inputs, last = float(reading.num_inputs.value), seen.points[-1]
    if reading.published is not None:
        end = (float(reading.published.num_inputs), float(reading.published.values[table]))
    else:
        end = (inputs, max(float(reading.rows[table].value), last[1]))
    return seen if end[0] <= last[0] else ValueGrowth(points=(*seen.points, (end[0], max(end[1], last[1]))))


def plan_stages(
    recipe: Recipe, reading: LogReading, probe: StageProbe, disk: DiskRates, training: TrainingCost,
    stays: Mapping[str, int], *, cores: int, machines: int,
) -> dict[str, Any]:  # fmt: skip
    """All stages, as JSON values; docs/guide/plan.md lists them.

    Parameters
    ----------
    stays
        Bytes of each artifact, by its kind.
    cores, machines
        Cores of each machine, and machines that share the reading of the log (``--worker i/N``).
    """
    counts, growth = whole_counts(recipe, reading, probe)
    slots = int(reading.log.ids.shape[1])
    input_bytes = 4 * slots + 4 * len(reading.log.dense_names) + 1
    before, spilled, found, passes = 0, 0, [], _PASSES + recipe.hot.peeling_passes
    for name in STAGES:
        stay = int(stays[_KINDS[name]])
        if name not in probe.rates:  # the log is there
            before += stay if name == "ingest" else 0
            continue
        rates = probe.rates[name]
        most = max(rates.files(counts), stay)
        if name == "ingest":
            needs = ingest_memory(counts, growth, cores)
            memory, most, spilled = needs.memory_bytes, most + needs.spilled_bytes, needs.spilled_bytes
        else:
            memory = stage_memory(
                name, counts, id_bytes=4 * slots, input_bytes=input_bytes, workers=cores,
                sampled=counts.profiled < counts.training, mixed=recipe.train.order == "shuffled",
                pack_memory=default_memory(),
            )  # fmt: skip
        work = rates.times(counts, cores, disk, machines=machines)
        pages = page_seconds(name, counts, disk, id_bytes=4 * slots, input_bytes=input_bytes, passes=passes)
        if pages:
            work.append(WorkTime(label="pages of the log", seconds=pages, waits_for_disk=True))
        found.append(
            StagePlan(
                name=name, seconds=sum(each.seconds for each in work), memory_bytes=memory, disk_bytes=before + most,
                stays_bytes=stay, work=tuple(work),
            )
        )  # fmt: skip
        before += stay
    checkpoint = int(stays["checkpoint"])
    found.append(_training_stage(training, checkpoint, before, disk))
    return {
        "cores": cores,
        "machines": machines,
        "measured": {
            "workers": probe.workers, "num_inputs": int(probe.sizes[-1].inputs),
            "text_bytes": int(probe.sizes[-1].text_bytes), "is_synthetic": reading.published is not None,
            "disk_read_rate": disk.read, "disk_write_rate": disk.written,
        },
        "counts": {
            "num_values": int(counts.values), "num_part_values": int(counts.part_values),
            "num_shards": len(counts.shards), "text_bytes": int(counts.text_bytes), "raw_bytes": int(counts.raw_bytes),
        },
        "epoch_seconds": training.epoch_seconds,
        "num_epochs": training.num_epochs,
        "gpu_bytes": training.gpu_bytes,
        "stages": [each.to_json() for each in found],
        "total": {
            "seconds": sum(each.seconds for each in found),
            "memory_bytes": max(each.memory_bytes for each in found),
            "disk_bytes": max(each.disk_bytes for each in found),
            "stays_bytes": before + checkpoint,
        },
        "notes": _notes(recipe, counts, cores * machines, disk, spilled, found),
    }  # fmt: skip


def _training_stage(training: TrainingCost, checkpoint: int, before: int, disk: DiskRates) -> StagePlan:
    parts = (
        WorkTime(label="epochs", seconds=training.epoch_seconds * training.num_epochs, waits_for_disk=False),
        WorkTime(label="evaluation", seconds=training.evaluation_seconds, waits_for_disk=False),
        WorkTime(label="checkpoint", seconds=2 * checkpoint / disk.written, waits_for_disk=True),
    )
    return StagePlan(
        name="train", seconds=sum(each.seconds for each in parts), memory_bytes=training.memory_bytes,
        disk_bytes=before + 2 * checkpoint, stays_bytes=checkpoint, work=parts,
    )  # fmt: skip


def page_seconds(
    name: str, counts: LogCounts, disk: DiskRates, *, id_bytes: int, input_bytes: int, passes: int
) -> float:
    """Seconds that a stage waits for pages of a log that memory does not keep: they are read through mapped files.

    Parameters
    ----------
    passes
        Times that calibrate reads a sample that it does not keep in memory.
    """
    if name == "ingest" or counts.inputs * input_bytes <= disk.kept_bytes:
        return 0.0
    if name == "pack":
        return counts.inputs * input_bytes / disk.read
    pages = min(counts.training * id_bytes, counts.profiled * _READ_AHEAD)
    is_kept = counts.profiled * id_bytes <= CACHE_BYTES
    return (1 if name == "profile" or is_kept else passes) * pages / disk.read


def _notes(
    recipe: Recipe, counts: LogCounts, workers: int, disk: DiskRates, spilled: int, stages: Sequence[StagePlan]
) -> list[str]:
    """What a person could do about the longest times."""
    notes = []
    fair = counts.text_bytes / workers
    if counts.shards and counts.longest("text_bytes", "shards", workers) > 1.15 * fair:
        packed = any(str(name).endswith((".gz", ".zst")) for name in _names(recipe))
        notes.append(
            f"{workers} workers share {format_count(len(counts.shards))} pieces of the log, which do not keep all of "
            "them busy" + ("; packed files cannot be cut, and unpacked ones can" if packed else "")
        )
    if spilled:
        notes.append(
            f"ingest keeps {format_bytes(spilled)} of vocabularies in temporary files and goes back and forth in them: "
            "as much memory should be free for the system to keep them"
        )
    if any(each.waits_for_disk for stage in stages if stage.name != "train" for each in stage.work):
        notes.append(
            f"some work waits for the disk: {format_bytes(int(disk.read))}/s read, {format_bytes(int(disk.written))}/s "
            "written, measured where temporary files are"
        )
    return notes


def _names(recipe: Recipe) -> Sequence[str]:
    return (recipe.log.train,) if isinstance(recipe.log.train, str) else recipe.log.train
