"""Sampling, counting and the profile artifact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.addressing import map_slots
from fae.artifacts.columnar_log import FeatureSchema
from fae.core.errors import ArtifactError, LogError
from fae.profile import counting, sampling
from fae.profile.config import HotConfig
from fae.profile.counting import count_accesses, count_hot_lookups, share_slots
from fae.profile.profile import plan_profile, profile, sample_size
from fae.profile.sampling import SampledInputs, profiled_inputs, sample_without_replacement, sampled_inputs

from logs import count_ids, make_log, zipf_log

FEW = HotConfig(sample=0.1, sample_min_inputs=20)


@pytest.mark.parametrize(("population", "size"), [(1, 0), (1, 1), (10, 3), (10, 9), (1000, 10), (1000, 500), (7, 7)])
def test_samples_are_distinct_and_ascending(population: int, size: int) -> None:
    drawn = sample_without_replacement(np.random.default_rng(3), population, size)
    assert drawn.dtype == np.int64
    assert drawn.size == size
    assert np.all(np.diff(drawn) > 0)
    assert np.all((drawn >= 0) & (drawn < population))


@pytest.mark.parametrize("size", [2, 4])
def test_every_input_is_equally_likely(size: int) -> None:
    random = np.random.default_rng(11)
    seen = np.zeros(6)
    for _ in range(3000):
        seen[sample_without_replacement(random, 6, size)] += 1
    expected = 3000 * size / 6
    assert ((seen - expected) ** 2 / expected).sum() < 25  # chi-square with 5 degrees of freedom: 1 in 7,000


def test_more_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        sample_without_replacement(np.random.default_rng(0), 3, 4)


@pytest.mark.parametrize("contiguous", [True, False])
def test_inputs_read_what_they_select(contiguous: bool) -> None:
    ids, labels = np.arange(60, dtype=np.int32).reshape(20, 3), np.arange(20, dtype=np.uint8)
    indices = range(5, 15) if contiguous else np.array([1, 4, 5, 9, 10, 11, 12, 13, 18, 19])
    inputs = SampledInputs(ids, labels, indices)
    assert len(inputs) == 10
    want = np.asarray(indices)
    np.testing.assert_array_equal(inputs.block(2, 6)[0], ids[want[2:6]])
    np.testing.assert_array_equal(np.concatenate([block for block, _ in inputs.blocks()]), ids[want])
    taken = inputs.take(np.array([0, 3, 7]))
    np.testing.assert_array_equal(taken.block(0, 3)[1], want[[0, 3, 7]])
    np.testing.assert_array_equal(taken.cached().block(0, 3)[0], ids[want[[0, 3, 7]]])
    assert taken.cached(limit_bytes=1) is taken
    assert inputs.evenly(10) is inputs
    np.testing.assert_array_equal(inputs.evenly(5).block(0, 5)[1], want[::2])


@pytest.mark.parametrize("interpreted", [False, True])
def test_kernels_count_and_classify(interpreted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if interpreted:
        for name in ("count_kernel", "classify_kernel"):
            kernel = getattr(counting, name)
            monkeypatch.setattr(counting, name, getattr(kernel, "py_func", kernel))
    features = [FeatureSchema(name="a", num_embeddings=4), FeatureSchema(name="b", num_embeddings=5, length=2)]
    ids = np.array([[0, 4, -1], [3, -1, -1], [0, 1, 1], [2, 0, 2]], np.int32)
    inputs = SampledInputs(ids, np.zeros(4, np.uint8), range(4))
    counts = count_accesses(inputs, features)
    assert counts.tolist() == [2, 0, 1, 1, 1, 2, 1, 0, 1]
    np.testing.assert_array_equal(counts, count_ids(ids, features))
    slots, hot = map_slots(features), np.array([1, 2, 2])
    lookups, hot_lookups = count_hot_lookups(ids, slots, None, hot)
    assert lookups.tolist() == [2, 1, 3, 3]
    assert hot_lookups.tolist() == [1, 0, 3, 1]
    ranks = np.array([3, 2, 1, 0, 4, 3, 2, 1, 0], np.int32)  # both tables reversed
    assert count_hot_lookups(ids, slots, ranks, hot)[1].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("lengths", [(1,) * 26, (40, 1), (1, 1, 7), (3,), (0, 2)])
def test_every_slot_and_row_is_counted_by_one_thread(threads: int, lengths: tuple[int, ...]) -> None:
    first_slots = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    shares = share_slots(first_slots, threads)
    assert 1 <= len(shares) <= threads
    counted = np.zeros((first_slots[-1], 64), int)
    for share in (share for of_thread in shares for share in of_thread):
        of_part = (np.arange(512) >> 3) & share.mask == share.part
        counted[share.first : share.last] += of_part.reshape(64, 8).all(axis=1)
        assert of_part.reshape(64, 8).any(axis=1).tolist() == of_part.reshape(64, 8).all(axis=1).tolist()
    assert np.all(counted == 1)


def test_a_table_with_most_slots_is_shared_by_rows() -> None:
    shares = share_slots([0, 40, 41], 8)
    assert len(shares) == 8
    assert {share.part for of_thread in shares for share in of_thread if share.last == 40} == set(range(8))


@pytest.mark.parametrize(("population", "size"), [(10, 3), (1000, 400), (1000, 600), (100_000, 40), (5, 5), (7, 0)])
def test_the_sample_is_the_one_that_sorting_gave(population: int, size: int) -> None:
    def drawn(random: np.random.Generator, wanted: int) -> np.ndarray:
        numbers = np.empty(0, np.int64)
        while numbers.size < wanted:
            missing = wanted - numbers.size
            more = random.integers(0, population, missing + missing // 4 + 16, dtype=np.int64)
            numbers = np.array(sorted({*numbers.tolist(), *more.tolist()}), np.int64)
        extra = numbers.size - wanted
        return np.delete(numbers, random.choice(numbers.size, extra, replace=False)) if extra else numbers

    random = np.random.default_rng(11)
    if size > population // 2:
        want = np.setdiff1d(np.arange(population), drawn(random, population - size))
    else:
        want = drawn(random, size)
    found = sample_without_replacement(np.random.default_rng(11), population, size)
    np.testing.assert_array_equal(found, want)
    assert found.dtype == np.int64


def test_blocks_come_in_order_and_the_first_bad_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "8")
    monkeypatch.setattr(sampling, "BLOCK_INPUTS", 7)
    log = zipf_log(tmp_path, num_inputs=400)
    inputs = sampled_inputs(log, np.arange(3, 400, 2))
    starts = inputs.map_blocks(lambda first, ids, labels: (first, len(ids), int(ids.sum()), int(labels.sum())))
    assert [start for start, *_ in starts] == list(range(0, 199, 7))
    assert sum(length for _, length, *_ in starts) == 199
    assert sum(total for _, _, total, _ in starts) == log.ids[3::2].sum()
    assert sum(positives for *_, positives in starts) == log.labels[3::2].sum()
    ids = np.array(log.ids)
    ids[[51, 153, 391], 2] = 10**6
    bad = dataclasses.replace(inputs, ids=ids)
    for read in (bad.cached, lambda: bad.map_blocks(lambda *block: None), lambda: count_accesses(bad, log.features)):
        with pytest.raises(ArtifactError, match="input 51 has the id 1000000 in 'C2'"):
            read()


@pytest.mark.parametrize("contiguous", [True, False])
def test_inputs_that_are_read_several_times_are_checked_once(contiguous: bool, tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=60)
    inputs = sampled_inputs(log, range(10, 50) if contiguous else np.arange(10, 50))
    cached = inputs.cached()
    assert inputs.check is not None
    assert cached.check is None
    np.testing.assert_array_equal(cached.block(0, 40)[0], log.ids[10:50])
    np.testing.assert_array_equal(cached.block(0, 40)[1], log.labels[10:50])
    assert np.shares_memory(cached.ids, log.ids) == contiguous


def test_profile_counts_its_own_sample_of_the_training_split(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=400, num_validation=50, num_test=100)
    opened = profile(log, FEW, tmp_path / "profile", seed=5)
    assert not opened.is_exact
    assert opened.num_inputs == opened.indices.size == 25
    assert np.all(np.diff(opened.indices) > 0)
    assert opened.indices.max() < 250
    np.testing.assert_array_equal(opened.counts, count_ids(np.asarray(log.ids)[opened.indices], log.features))
    tables = opened.manifest.summary["tables"]
    assert [table["accesses"] for table in tables] == [25] * 4
    assert sum(table["num_accessed_rows"] for table in tables) == np.count_nonzero(opened.counts)


def test_profile_of_everything_equals_the_counts_of_ingest(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=300, num_test=60)
    opened = profile(log, HotConfig(), tmp_path / "profile", seed=5)
    assert opened.is_exact
    np.testing.assert_array_equal(opened.counts, log.counts)
    np.testing.assert_array_equal(opened.indices, np.arange(240))
    assert not (tmp_path / "profile" / "indices.npy").exists()
    np.testing.assert_array_equal(profiled_inputs(opened, log).block(0, 240)[0], log.ids[:240])


def test_the_sample_follows_the_seed_and_nothing_else(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=400)
    first = profile(log, FEW, tmp_path / "a", seed=5)
    again = profile(log, FEW, tmp_path / "b", seed=5)
    other = profile(log, FEW, tmp_path / "c", seed=6)
    assert first.manifest == again.manifest
    assert not np.array_equal(first.indices, other.indices)
    np.testing.assert_array_equal(profiled_inputs(first, log).block(0, 40)[0], log.ids[first.indices])


def test_the_plan_says_how_many_inputs_not_which_keys_led_there(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=400)
    tenth = plan_profile(log, HotConfig(sample=0.1, sample_min_inputs=0), seed=1)
    forty = plan_profile(log, HotConfig(sample=0.01, sample_min_inputs=40), seed=1)
    assert tenth.fingerprint == forty.fingerprint
    assert tenth.fingerprint != plan_profile(log, FEW, seed=2).fingerprint
    # Budget and thresholds do not matter; nor does the seed where every input is read.
    whole = [plan_profile(log, HotConfig(budget=budget), seed=seed) for seed, budget in ((1, "1MiB"), (2, "2MiB"))]
    assert whole[0].fingerprint == whole[1].fingerprint
    assert whole[0].parents == {"log": log.manifest.fingerprint}


@pytest.mark.parametrize(("inputs", "size"), [(10_000_000, 500_000), (1_000_000, 200_000), (1, 1), (0, 0)])
def test_sample_size(inputs: int, size: int) -> None:
    assert sample_size(inputs, HotConfig()) == size


def test_a_sample_is_never_empty() -> None:
    assert sample_size(3, HotConfig(sample=0.01, sample_min_inputs=0)) == 1


def test_a_log_without_training_inputs_is_refused(tmp_path: Path) -> None:
    log = make_log(tmp_path, [[0], [1]], [0, 1], num_test=2)
    with pytest.raises(LogError, match="no training input"):
        profile(log, HotConfig(), tmp_path / "profile", seed=1)
    assert not (tmp_path / "profile").exists()


def test_a_missing_profile_names_its_command(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="fae profile"):
        AccessProfile(tmp_path / "nothing")


def test_what_a_notebook_shows(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=1200)
    path = tmp_path / "profile"
    assert (
        repr(profile(log, FEW, path, seed=5)) == f"AccessProfile({str(path)!r}: 120 of 1,200 training inputs, 4 tables)"
    )
    exact = profile(log, HotConfig(), path, seed=5)
    assert repr(exact) == f"AccessProfile({str(path)!r}: all 1,200 training inputs, 4 tables)"
