"""The cost model of the data stages: it meets what it is fitted to, and other sizes follow from its formulas."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fae.core.progress import task
from fae.planning.stages.counts import LogCounts, ValueGrowth, busiest_share
from fae.planning.stages.stage_costs import DiskRates, StageRates, fit_rates
from fae.planning.stages.stage_memory import VALUE, ingest_memory, stage_memory
from fae.planning.stages.stage_plan import page_seconds
from fae.planning.stages.stage_probe import part_values
from fae.planning.stages.stage_records import Phase, StageRecord, least, recorded

FAST = DiskRates(read=1e12, written=1e12, kept_bytes=1e18)


def counts(inputs: float, *, shards: int = 8, values: float | None = None) -> LogCounts:
    values = inputs if values is None else values
    return LogCounts(
        raw_bytes=100 * inputs, text_bytes=200 * inputs, inputs=inputs, training=0.8 * inputs, held_out=0.2 * inputs,
        values=values, largest_values=0.4 * values, part_values=2 * inputs, rows=values, profiled=0.1 * inputs,
        shards=(200 * inputs / shards,) * shards,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_rates_are_found_again(seed: int) -> None:
    random = np.random.default_rng(seed)
    label = ["ingest: reading the log", "ingest: writing vocabularies", "pack", "profile", "a label of later"][seed % 5]
    workers = int(random.integers(2, 17))
    fixed, serial, parallel = random.random(3) * (1.0, 1e-6, 1e-5)
    sizes = [counts(100_000, shards=6), counts(400_000, shards=23)]
    phases = []
    for each in sizes:
        driver = {"pack": "inputs", "profile": "counted", "a label of later": "inputs"}.get(
            label, "text_bytes" if "reading" in label else "values"
        )
        spread = "shards" if "reading" in label else "columns" if "vocabularies" in label else "evenly"
        # Workers that are out of work at the end of the smaller size are those at the end of the larger.
        longest = sizes[1].longest(driver, spread, workers) / sizes[1].amount(driver) * each.amount(driver)
        clock = fixed + serial * each.amount(driver) + parallel * longest
        phases.append(Phase(seconds=clock, processor_seconds=fixed + (serial + parallel) * each.amount(driver)))
    rates = fit_rates(label, sizes, phases, workers)
    assert (rates.fixed, rates.serial, rates.parallel) == pytest.approx((fixed, serial, parallel), rel=1e-6, abs=1e-12)
    assert rates.seconds(sizes[1], workers) == pytest.approx(phases[1].seconds)


def test_one_worker_says_nothing_of_more() -> None:
    sizes = [counts(1000), counts(4000)]
    rates = fit_rates("pack", sizes, [Phase(seconds=1, processor_seconds=1), Phase(seconds=4, processor_seconds=4)], 1)
    assert rates.serial == 0
    assert rates.seconds(sizes[1], 1) == pytest.approx(4)


def test_noise_makes_no_rate_negative() -> None:
    sizes = [counts(1000), counts(4000)]
    rates = fit_rates("pack", sizes, [Phase(seconds=3, processor_seconds=9), Phase(seconds=2, processor_seconds=1)], 4)
    assert min(rates.fixed, rates.serial, rates.parallel) >= 0
    assert rates.seconds(counts(8000), 4) == pytest.approx(4)


@pytest.mark.parametrize("workers", [1, 3, 16, 64])
def test_shards_go_to_the_next_free_worker(workers: int) -> None:
    sizes = np.random.default_rng(workers).integers(1, 100, 200).tolist()
    busy = [0] * workers
    for size in sizes:
        busy[busy.index(min(busy))] += size
    assert busiest_share(sizes, workers) == pytest.approx(max(busy) / sum(sizes))


def test_packed_files_do_not_keep_64_workers_busy() -> None:
    log = counts(1e9, shards=24)
    assert log.longest("text_bytes", "shards", 16) == pytest.approx(2 / 24 * log.text_bytes)
    assert log.longest("text_bytes", "shards", 64) == log.longest("text_bytes", "shards", 24)


def test_growth_passes_through_its_points_and_never_falls() -> None:
    points = ((1000.0, 900.0), (4000.0, 2500.0), (1e6, 20_000.0))
    growth = ValueGrowth(points=points)
    for inputs, values in points:
        assert growth.at(inputs) == pytest.approx(values)
    found = [growth.at(inputs) for inputs in np.geomspace(1, 1e8, 200)]
    assert all(low <= high * (1 + 1e-12) for low, high in itertools.pairwise(found))
    assert growth.at(0) == 0
    assert growth.at(10) <= 10


def test_values_of_parts_are_those_of_each_shard() -> None:
    growth = [ValueGrowth(points=((1.0, 1.0), (100.0, 10.0))), ValueGrowth(points=((1.0, 1.0), (100.0, 1.0)))]
    assert part_values([25.0, 25.0, 50.0], 200, growth) == pytest.approx(2 * (50**0.5 + 1) + 10 + 1)


def stage(**seconds: float) -> StageRates:
    sizes = [counts(1000), counts(4000)]
    records = [
        StageRecord(
            phases={
                label.replace("_", " "): Phase(
                    seconds=share * value / 2, processor_seconds=share * value, read_bytes=share * 1e6,
                    written_bytes=share * 2e6,
                )
                for label, value in seconds.items()
            },
            most_bytes={"inputs": int(share * 4000 * 157), "values": int(share * 4000 * 12), "scratch": 10**12},
        )
        for share in (0.25, 1.0)
    ]  # fmt: skip
    return StageRates.fit(sizes, records, 2)


def test_a_slow_disk_holds_up_what_memory_does_not_keep() -> None:
    rates, log = stage(pack=4.0), counts(4_000_000)
    (fast,) = rates.times(log, 2, FAST)
    assert not fast.waits_for_disk
    slow = DiskRates(read=1e6, written=1e6, kept_bytes=1e6)
    (waiting,) = rates.times(log, 2, slow)
    assert waiting.waits_for_disk
    assert waiting.seconds == pytest.approx(3000.0)
    (kept,) = rates.times(log, 2, DiskRates(read=1e6, written=1e6, kept_bytes=1e12))
    assert kept.seconds == fast.seconds


def test_more_machines_shorten_reading_alone() -> None:
    rates = StageRates.fit(
        [counts(1000), counts(4000)],
        [
            StageRecord(phases={
                "ingest: reading the log": Phase(seconds=share * 2, processor_seconds=share * 4),
                "ingest: joining rows": Phase(seconds=share * 2, processor_seconds=share * 4),
            })
            for share in (0.25, 1.0)
        ],
        2,
    )  # fmt: skip
    one, four = (rates.times(counts(1e6, shards=640), 2, FAST, machines=machines) for machines in (1, 4))
    assert four[0].seconds == pytest.approx(one[0].seconds / 4, rel=0.02)
    assert four[1].seconds == one[1].seconds


def test_files_grow_with_what_they_hold() -> None:
    log = counts(1e6, values=1e4)
    assert stage(pack=1.0).files(log) == pytest.approx(157e6 + 12e4, rel=1e-6), "scratch files have a formula"


def test_pages_that_memory_does_not_keep() -> None:
    log, sizes = counts(1e9), {"id_bytes": 104, "input_bytes": 157, "passes": 6}
    disk = DiskRates(read=1e9, written=1e9, kept_bytes=1e9)
    found = {name: page_seconds(name, log, disk, **sizes) for name in ("ingest", "profile", "calibrate", "pack")}
    assert found == pytest.approx({"ingest": 0, "profile": 83.2, "calibrate": 6 * 83.2, "pack": 157})
    assert page_seconds("pack", counts(1e6), disk, **sizes) == 0
    few = dataclasses.replace(log, profiled=1e5)
    assert page_seconds("calibrate", few, disk, **sizes) == pytest.approx(1e5 * 2**17 / 1e9), "its sample is kept"


def test_the_least_of_several_records() -> None:
    records = [
        StageRecord(phases={"a": Phase(seconds=3)}, most_bytes={"inputs": 5}, memory_bytes=7),
        StageRecord(phases={"a": Phase(seconds=2), "b": Phase(seconds=1)}, most_bytes={"inputs": 6}),
    ]
    found = least(records)
    assert {label: phase.seconds for label, phase in found.phases.items()} == {"a": 2, "b": 1}
    assert (found.most_bytes, found.memory_bytes) == ({"inputs": 6}, 7)


def test_memory_of_ingest_is_bounded_and_the_rest_is_in_files() -> None:
    growth = [ValueGrowth(points=((1.0, 1.0), (1e9, 1e9)))]
    few, many = (ingest_memory(counts(number, shards=100), growth, 8) for number in (1e5, 1e9))
    assert few.spilled_bytes == 0
    assert few.memory_bytes < many.memory_bytes < 2**30 + 8 * 320 * 2**20
    assert many.spilled_bytes >= (VALUE * 1e9 + 4 * 2e9) - 2**30


def test_memory_of_a_large_sample() -> None:
    log = counts(4e9, values=1e6)
    sizes = {"id_bytes": 104, "input_bytes": 157, "workers": 4, "mixed": False, "pack_memory": 2**30}
    marked = stage_memory("profile", log, sampled=True, **sizes)
    assert marked > log.training + 32 * log.profiled
    assert stage_memory("profile", log, sampled=False, **sizes) < 2**28
    assert stage_memory("pack", log, sampled=True, **sizes) < 2 * 2**30


def test_pack_holds_the_order_of_a_log_that_fits_and_half_of_its_memory_of_another() -> None:
    log = counts(1e9, values=1e6)
    sizes = {"id_bytes": 104, "input_bytes": 157, "workers": 4, "sampled": False}
    fits, mixed, spilled = (
        stage_memory("pack", log, mixed=kinds, pack_memory=memory, **sizes)
        for kinds, memory in ((False, 2**40), (True, 2**40), (False, 2**35))
    )
    assert fits - mixed == 8 * log.training
    assert 2**34 < spilled < 2**34 * (1 + 17 / 157) + 2**28


def test_a_record_tells_pieces_of_work_files_and_workers(tmp_path: Path) -> None:
    with recorded("pack", tmp_path) as found:
        (tmp_path / "ids.npy").write_bytes(b"x" * 1000)
        with task("checking"):
            (tmp_path / "vocabulary").mkdir()
            (tmp_path / "vocabulary" / "0.parquet").write_bytes(b"x" * 100)
            subprocess.run([sys.executable, "-c", "sum(range(1000))"], check=True)
        (tmp_path / "other.npy").write_bytes(b"x" * 10)
    assert list(found.phases) == ["pack", "checking"]
    assert all(phase.seconds >= 0 and phase.processor_seconds >= 0 for phase in found.phases.values())
    assert found.most_bytes == {"inputs": 1010, "values": 100}
    assert found.folder_bytes == 1110
    if sys.platform == "linux":
        assert found.phases["pack"].written_bytes >= 1010


def test_pieces_of_work_may_overlap(tmp_path: Path) -> None:
    first, second = task("joining"), task("numbering")
    with recorded("ingest", tmp_path) as found:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        (tmp_path / "ids.npy").write_bytes(b"x" * 5000)
        second.__exit__(None, None, None)
        (tmp_path / "more.npy").write_bytes(b"x" * 50)
    assert list(found.phases) == ["ingest", "joining", "numbering"]
    if sys.platform == "linux":
        assert found.phases["numbering"].written_bytes >= 5000
        assert 50 <= found.phases["ingest"].written_bytes < 5000
