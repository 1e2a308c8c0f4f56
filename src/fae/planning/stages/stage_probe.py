"""Time the real data stages on a sample of a recipe's log, at two sizes: what the cost model takes its rates from."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.hot_set import HotSet
from fae.calibrate.calibrator import Calibrator
from fae.core.optimizers import row_bytes
from fae.core.progress import say
from fae.core.threads import num_threads, run_jobs
from fae.engine.local import LocalEngine, ProcessesEngine
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.shards.shard_cuts import cut_log
from fae.ingest.shards.shard_reading import read_shard
from fae.ingest.sources import SourceFile, find_sources
from fae.pack.pack import default_memory, pack
from fae.planning.sample.planned_log import make_planned_log
from fae.planning.sample.published_logs import sample_published
from fae.planning.sample.raw_sample import sample_raw
from fae.planning.stages.counts import LogCounts, ValueGrowth
from fae.planning.stages.stage_costs import STAGES, StageRates
from fae.planning.stages.stage_records import StageRecord, least, recorded
from fae.profile.profile import sample_size
from fae.run.prepare import PackOptions, make_hot_set, make_profile

if TYPE_CHECKING:
    from fae.planning.sample.log_reading import LogReading
    from fae.run.recipe import Recipe

SMALLEST_BYTES = 2**20
"""Text of a log that is worth timing: less is over before it is timed."""
_OF_WORKER, _LEAST, _MOST = 32 * 2**20, 64 * 2**20, 2**30
"""Bytes of text of the larger sample: two shards a worker, within bounds."""
_SMALLER = 4
_ROUNDS = 2
_HOT_SAMPLE = 0.5
_PACK_PARTS = 4
"""Parts in which the sample is packed where the training split will not fit into memory."""
_PAUSE = 0.1  # seconds that a worker is busy for, so that each task needs another one
_ROOM = 1.25
"""A budget of a sample is this much more than the smallest that trains, at least."""


@dataclass(frozen=True, kw_only=True)
class StageProbe:
    """What was timed.

    Attributes
    ----------
    rates
        Rates of each stage; `ingest` is missing where the log is there already.
    sizes
        The counts of the two samples, the smaller first.
    growth
        Distinct values of each table in the inputs of the two samples.
    workers
        Threads that did the work.
    """

    rates: dict[str, StageRates]
    sizes: tuple[LogCounts, ...]
    growth: tuple[ValueGrowth, ...]
    workers: int


@dataclass(kw_only=True)
class _Sample:
    """A sample of one size: its raw files, or a columnar log."""

    config: LogConfig | None = None
    log: ColumnarLog | None = None
    text_bytes: float = 0.0
    budget: int | None = None


def probe_bytes(workers: int) -> int:
    """Bytes of text of the larger sample.

    >>> [probe_bytes(workers) // 2**20 for workers in (1, 2, 16, 64)]
    [64, 64, 512, 1024]
    """
    return min(max(_OF_WORKER * workers, _LEAST), _MOST)


def probe_stages(
    recipe: Recipe, reading: LogReading, folder: Path, *, largest: int | None = None, rounds: int = _ROUNDS
) -> StageProbe:
    """Run the data stages on samples, in turns, and keep the least time of each piece of work.

    Parameters
    ----------
    largest
        Bytes of text of the larger sample; None for `probe_bytes`.
    rounds
        Times that each size is run, after one run of the smaller that compiles.

    Raises
    ------
    FaeError
        If the log cannot be read as the recipe describes it.
    """
    say("plan: timing the stages on a sample of the log")
    size = largest or probe_bytes(num_threads())
    samples = [
        _take(recipe, reading, folder / f"text{index}", size // part) for index, part in enumerate((_SMALLER, 1))
    ]
    share = min(1.0, recipe.hot.budget_bytes / max(1, _row_bytes(recipe, reading)))
    spills = reading.num_inputs.value * _input_bytes(reading.log) > default_memory()
    found: list[list[dict[str, StageRecord]]] = [[], []]
    counts: list[LogCounts] = []
    logs: list[ColumnarLog] = []
    with LocalEngine() as engine:
        for number in range(rounds + 1):
            for index, sample in enumerate(samples[: 2 if number else 1]):
                _start_workers(engine, reading.raw_bytes)
                records, log, profile = _run(
                    recipe, sample, folder / "probe", share, spills=spills, reading=reading, engine=engine
                )
                if number == 0:
                    continue
                found[index].append(records)
                if number == 1:
                    counts.append(_counts_of(recipe, sample, log, profile))
                    logs.append(log)
    growth = _growth(logs)
    sizes = tuple(_with_part_values(each, growth) for each in counts)
    rates = {
        name: StageRates.fit(sizes, [least([each[name] for each in of_size]) for of_size in found], num_threads())
        for name in STAGES
        if name in found[-1][0]
    }
    shutil.rmtree(folder / "probe", ignore_errors=True)
    return StageProbe(rates=rates, sizes=sizes, growth=growth, workers=num_threads())


def _start_workers(engine: LocalEngine, raw_bytes: int) -> None:
    """Let the engine be what it would be for the whole log, and start all of its workers.

    Ingest gives them back. To start sixteen takes a third of a second, which a sample must not take for reading.
    """
    engine.prepare(raw_bytes, read_shard.__module__)
    if isinstance(engine.chosen, ProcessesEngine):
        for _ in engine.map("plan", _pause, [_PAUSE] * engine.num_workers):
            pass


def _pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def _take(recipe: Recipe, reading: LogReading, folder: Path, num_bytes: int) -> _Sample:
    """A sample of about `num_bytes` bytes of text; of a log that is columnar, inputs that take as many bytes there."""
    folder.mkdir(parents=True)
    if reading.published is not None:
        raw = sample_published(recipe.log, reading.published, folder, num_bytes, reading.num_inputs.value).raw
    elif reading.sources:
        raw = sample_raw(recipe.log, reading.sources, folder, num_bytes)
    else:
        return _Sample(log=_slice(reading.log, num_bytes // max(1, _input_bytes(reading.log)), folder / "log"))
    config = dataclasses.replace(raw.config, min_frequency=1)
    if any(source.path.suffix.lower() == ".gz" for source in reading.sources):
        config = _packed(config)
    return _Sample(config=config, text_bytes=raw.num_bytes)


def _slice(log: ColumnarLog, num_inputs: int, path: Path) -> ColumnarLog:
    """Inputs from all parts of a columnar log, with its tables."""
    start, stop = log.split("train")
    number = max(8, min(stop - start, num_inputs))
    places = np.linspace(start, max(start, stop - number // 8), 8).astype(int).tolist()
    blocks = [range(place, min(stop, place + number // 8)) for place in places]
    return make_planned_log(log, blocks, [feature.num_embeddings for feature in log.features], path, seed=1)


def _packed(config: LogConfig) -> LogConfig:
    """The same files, packed as the log's are."""

    def pack_file(name: str) -> None:
        with open(name, "rb") as source, gzip.open(f"{name}.gz", "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        Path(name).unlink()

    run_jobs([partial(pack_file, name) for role in (config.train, config.validation, config.test) for name in role])
    train, validation, test = (
        tuple(f"{name}.gz" for name in role) for role in (config.train, config.validation, config.test)
    )
    return dataclasses.replace(config, train=train, validation=validation, test=test)


def _run(
    recipe: Recipe,
    sample: _Sample,
    folder: Path,
    share: float,
    *,
    spills: bool,
    reading: LogReading,
    engine: LocalEngine,
) -> tuple[dict[str, StageRecord], ColumnarLog, AccessProfile]:
    """All data stages once, in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    records = {}

    def timed(name: str, work: Callable[[Path], object]) -> None:
        (folder / name).mkdir(parents=True)
        with recorded(name, folder / name) as records[name]:
            work(folder / name / "made")

    log = sample.log
    if log is None:
        assert sample.config is not None
        config = sample.config
        timed("ingest", lambda path: ingest(config, path, base=recipe.base, engine=engine))
        log = ColumnarLog(folder / "ingest" / "made")
    made = log
    training = reading.split_sizes["train"]
    is_exact = sample_size(training, recipe.hot) == training
    start, stop = made.split("train")
    read = _sampling(recipe, 1.0 if is_exact else _HOT_SAMPLE)
    options = PackOptions.from_recipe(read, made.features)
    timed("profile", lambda path: make_profile(made, options, path))
    profile = AccessProfile(folder / "profile" / "made")
    if sample.budget is None:
        total = _all_bytes(options, [feature.num_embeddings for feature in made.features])
        smallest = Calibrator(made, profile, options.hot, **options.calibration).smallest_budget()[0]
        sample.budget = max(int(share * total), int(_ROOM * smallest))
    options = dataclasses.replace(options, hot=dataclasses.replace(options.hot, budget=sample.budget))
    timed("calibrate", lambda path: make_hot_set(made, profile, options, path))
    hot_set = HotSet(folder / "calibrate" / "made")
    memory = default_memory()
    if spills:
        memory = max(2**20, (stop - start) * _input_bytes(made) // _PACK_PARTS)
    timed("pack", lambda path: pack(made, hot_set, path, seed=options.seed, memory_bytes=memory))
    return records, made, profile


def _sampling(recipe: Recipe, share: float) -> Recipe:
    """The recipe with another share of the training inputs in the profile's sample."""
    return dataclasses.replace(recipe, hot=dataclasses.replace(recipe.hot, sample=share, sample_min_inputs=0))


def _counts_of(recipe: Recipe, sample: _Sample, log: ColumnarLog, profile: AccessProfile) -> LogCounts:
    """The counts of a sample that was run; `part_values` is not known yet."""
    training, sizes = log.split("train")[1] - log.split("train")[0], [each.num_embeddings for each in log.features]
    sources: Sequence[SourceFile] = [] if sample.config is None else find_sources(sample.config, recipe.base)
    raw = sum(source.num_bytes for source in sources)
    shards = [] if sample.config is None else [shard.num_bytes for shard in cut_log(sample.config, sources)]
    grown = sample.text_bytes / max(1, raw)
    return LogCounts(
        raw_bytes=raw, text_bytes=sample.text_bytes, inputs=log.num_inputs, training=training,
        held_out=log.num_inputs - training, values=sum(sizes), largest_values=max(sizes), part_values=0.0,
        rows=sum(sizes), profiled=profile.num_inputs, shards=tuple(grown * size for size in shards),
    )  # fmt: skip


def _growth(logs: Sequence[ColumnarLog]) -> tuple[ValueGrowth, ...]:
    small, large = logs
    return tuple(
        ValueGrowth(
            points=(
                (small.num_inputs, few.num_embeddings),
                (max(large.num_inputs, small.num_inputs + 1), max(few.num_embeddings, many.num_embeddings)),
            )
        )
        for few, many in zip(small.features, large.features, strict=True)
    )


def part_values(shards: Sequence[float], inputs: float, growth: Sequence[ValueGrowth]) -> float:
    """Distinct values of every shard, added up, where `shards` are bytes of text of a log of `inputs` inputs."""
    total, known, found = sum(shards), dict[int, float](), 0.0
    for size in shards:
        number = round(inputs * size / total)
        if number not in known:
            known[number] = sum(each.at(number) for each in growth)
        found += known[number]
    return found


def _with_part_values(counts: LogCounts, growth: Sequence[ValueGrowth]) -> LogCounts:
    return dataclasses.replace(counts, part_values=part_values(counts.shards, counts.inputs, growth))


def _all_bytes(options: PackOptions, sizes: Sequence[int]) -> int:
    return sum(
        size * row_bytes(options.optimizer, dim) for size, dim in zip(sizes, options.embedding_dims, strict=True)
    )


def _row_bytes(recipe: Recipe, reading: LogReading) -> int:
    return _all_bytes(PackOptions.from_recipe(recipe, reading.log.features), [rows.value for rows in reading.rows])


def _input_bytes(log: ColumnarLog) -> int:
    """Bytes of an input in the columnar log."""
    return 4 * int(log.ids.shape[1]) + 4 * len(log.dense_names) + 1
