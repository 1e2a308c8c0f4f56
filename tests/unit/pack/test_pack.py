"""The pack stage: its files, batches and summary, what it refuses, and what it leaves behind after a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.artifacts.packed import PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import ArtifactError
from fae.pack import batching, compose, shuffle
from fae.pack import pack as pack_module
from fae.pack.pack import pack, plan_pack
from fae.pack.shuffle import BucketOrder

from logs import make_log, zipf_log
from packs import check_packed, random_ranks, stub_hot_set

SIZES = (50, 400, 7, 900)


@pytest.fixture
def log(tmp_path: Path) -> ColumnarLog:
    return zipf_log(tmp_path, num_inputs=1500, sizes=SIZES, num_validation=130, num_test=170)


def hot_set_for(log: ColumnarLog, *, ranks: bool = False, dims: tuple[int, ...] = (8, 8, 8, 8), **options: Any) -> Any:
    orders = random_ranks(np.random.default_rng(3), log.features) if ranks else None
    num_hot = [size if size < 10 else size // 3 for size in SIZES]
    options.setdefault("batch_size", 64)
    return stub_hot_set(RowLayout(log.features, dims, num_hot, orders), **options)


@pytest.mark.parametrize("ranks", [False, True])
@pytest.mark.parametrize("dims", [(8, 8, 8, 8), (16, 4, 4, 16)])
@pytest.mark.parametrize("mixed", [False, True])
def test_every_promise_of_the_format_holds(
    log: ColumnarLog, tmp_path: Path, ranks: bool, dims: Any, mixed: bool
) -> None:
    hot_set = hot_set_for(log, ranks=ranks, dims=dims, mixed=mixed)
    check_packed(pack(log, hot_set, tmp_path / "packed", seed=1), log, hot_set)


def test_summary(log: ColumnarLog, tmp_path: Path) -> None:
    hot_set = hot_set_for(log, staging_rows=[30])
    packed = pack(log, hot_set, tmp_path / "packed", seed=1)
    check_packed(packed, log, hot_set)
    summary, train = packed.manifest.summary, packed.train
    sizes = [train.batch(index).num_inputs for index in range(train.num_batches)]
    num_hot = train.num_hot_batches
    assert summary["num_batches"] == {"hot": num_hot, "cold": train.num_batches - num_hot}
    assert summary["closed_early"] == sum(size < 64 for size in sizes[num_hot:-1]) > 0
    assert summary["input_share"] == summary["num_hot_inputs"] / 1200 == sum(sizes[:num_hot]) / 1200
    assert summary["padding_share"] == pytest.approx(1 - 1200 / (64 * len(sizes)))
    lists = [len(train.batch(index).cold_rows[0]) for index in range(num_hot, train.num_batches)]
    assert summary["cold_rows_per_batch"] == [pytest.approx(np.mean(lists))]
    assert max(lists) <= 30
    rates = [train.batch(index).labels.sum() for index in range(train.num_batches)]
    assert summary["label_rate"]["hot"] == pytest.approx(sum(rates[:num_hot]) / sum(sizes[:num_hot]))
    assert summary["label_rate"]["cold"] == pytest.approx(sum(rates[num_hot:]) / sum(sizes[num_hot:]))
    assert summary["bytes"] == sum(file.stat().st_size for file in (tmp_path / "packed").rglob("*.npy"))
    assert summary["features"] == ["C0", "C1", "C2", "C3"]
    assert (packed.batch_size, packed.num_slots, packed.num_dense, packed.mixed) == (64, 4, 2, False)


def test_a_new_seed_reshuffles_and_the_same_one_repeats(log: ColumnarLog, tmp_path: Path) -> None:
    hot_set = hot_set_for(log)
    first, again, other = (pack(log, hot_set, tmp_path / f"packed{i}", seed=s) for i, s in enumerate((1, 1, 2)))
    assert first.manifest.files == again.manifest.files
    assert plan_pack(log, hot_set, seed=1).fingerprint == first.manifest.fingerprint != other.manifest.fingerprint
    assert first.manifest.parents == {"log": log.manifest.fingerprint, "hot_set": hot_set.manifest.fingerprint}
    assert not np.array_equal(first.train.inputs, other.train.inputs)
    assert np.array_equal(first.test.inputs, other.test.inputs)


@pytest.mark.parametrize("staging", [(), (12,)])
def test_memory_threads_and_groups_do_not_change_a_byte(
    log: ColumnarLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staging: Any
) -> None:
    monkeypatch.setattr(shuffle, "BUCKET_BYTES", 5000)  # 6 buckets of about 200 inputs
    hot_set = hot_set_for(log, staging_rows=staging)
    expected = pack(log, hot_set, tmp_path / "packed", seed=1)
    facts, summary = expected.manifest.files, expected.summary
    check_packed(expected, log, hot_set)
    for threads, memory_bytes, group_bytes, window_bytes, in_flight_bytes in (
        (1, 2**30, 1, 1, 2**30), (3, 20_000, 2**20, 2**20, 1), (2, 1, 2**15, 1000, 2**30),
        (8, 29_000, 2**14, 2**26, 2**30), (8, 2**30, 1, 3000, 2**15),
    ):  # fmt: skip
        monkeypatch.setenv("FAE_NUM_THREADS", str(threads))
        monkeypatch.setattr(compose, "GROUP_BYTES", group_bytes)
        monkeypatch.setattr(batching, "IN_FLIGHT_BYTES", in_flight_bytes)
        monkeypatch.setattr(shuffle, "SORT_INPUTS", 100)
        monkeypatch.setattr(pack_module, "WINDOW_BYTES", window_bytes)
        packed = pack(log, hot_set, tmp_path / "packed", seed=1, memory_bytes=memory_bytes)
        assert packed.manifest.files == facts
        assert packed.summary == summary
    assert sorted(file.name for file in (tmp_path / "packed").iterdir()) == [
        "manifest.json", "test", "train", "validation",
    ]  # fmt: skip


def test_no_inputs_no_dense_no_cold_rows(tmp_path: Path) -> None:
    features = [FeatureSchema(name="a", num_embeddings=3)]
    log = make_log(tmp_path, np.zeros((0, 1), np.int32), [], features=features)
    hot_set = stub_hot_set(RowLayout(features, [4], [3]), batch_size=5)
    packed = pack(log, hot_set, tmp_path / "packed", seed=1)
    check_packed(packed, log, hot_set)
    assert packed.train.num_batches == packed.test.num_batches == 0
    assert packed.summary["label_rate"] == {"hot": None, "cold": None}
    with pytest.raises(IndexError, match="batch 0 of 0"):
        packed.train.batch(0)


def test_a_hot_set_of_another_log_is_refused(log: ColumnarLog, tmp_path: Path) -> None:
    fewer = stub_hot_set(RowLayout(log.features[:3], [8] * 3, [1] * 3), batch_size=4)
    with pytest.raises(ArtifactError, match=r"has 3 tables, the log has 4; run `fae calibrate"):
        pack(log, fewer, tmp_path / "packed", seed=1)
    other = [*log.features[:3], FeatureSchema(name="C3", num_embeddings=901)]
    with pytest.raises(ArtifactError, match=r"'C3' with 901 rows, the log has 'C3' with 900; run `fae calibrate"):
        pack(log, stub_hot_set(RowLayout(other, [8] * 4, [1] * 4), batch_size=4), tmp_path / "packed", seed=1)
    assert not (tmp_path / "packed").exists()


def test_a_ring_that_cannot_hold_one_input_is_refused(log: ColumnarLog, tmp_path: Path) -> None:
    # The table of 7 rows is wholly hot: an input has at most three cold rows.
    tightest = hot_set_for(log, staging_rows=[3])
    check_packed(pack(log, tightest, tmp_path / "tightest", seed=1), log, tightest)
    with pytest.raises(ArtifactError, match=r"stages 2 rows of width 8 a batch, one input may need 3; run"):
        pack(log, hot_set_for(log, staging_rows=[2]), tmp_path / "packed", seed=1)


def test_a_full_disk_leaves_nothing(log: ColumnarLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        pack(log, hot_set_for(log), tmp_path / "packed", seed=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log"]


def test_opening_a_damaged_or_missing_one_names_the_command(log: ColumnarLog, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no packed in .*; run `fae pack RECIPE.toml` first"):
        PackedDataset(tmp_path / "packed")
    pack(log, hot_set_for(log), tmp_path / "packed", seed=1)
    file = tmp_path / "packed" / "train" / "order_low.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"order_low.npy is missing or damaged; .* `fae pack RECIPE.toml`"):
        PackedDataset(tmp_path / "packed")


@pytest.mark.parametrize(("available", "held"), [(0, 2**30), (3 * 2**30, 2**30), (2**36, 2**34)])
def test_a_quarter_of_the_memory_is_used(available: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "available_bytes", lambda: available)
    assert pack_module.default_memory() == held


def buckets_of(order: BucketOrder, start: int, stop: int) -> Any:
    positions, begins = order.sort(start, stop)
    buckets = np.empty(stop - start, np.int64)
    buckets[positions] = np.repeat(np.arange(order.num_buckets), np.diff(begins))
    return buckets


def test_every_bucket_gets_its_share() -> None:
    order = BucketOrder(num_inputs=40_000, bytes_per_input=shuffle.BUCKET_BYTES // 4000, seed=1)
    assert order.num_buckets == 10
    buckets = buckets_of(order, 0, 40_000)
    assert np.array_equal(buckets[1234:2345], buckets_of(order, 1234, 2345))
    # Within five standard deviations of a binomial count.
    assert np.all(np.abs(np.bincount(buckets) - 4000) < 5 * np.sqrt(40_000 * 0.1 * 0.9))
    assert abs(np.corrcoef(buckets[:-1], buckets[1:])[0, 1]) < 0.03
    other = BucketOrder(num_inputs=40_000, bytes_per_input=shuffle.BUCKET_BYTES // 4000, seed=2)
    assert np.mean(buckets_of(other, 0, 40_000) == buckets) < 0.12


@pytest.mark.parametrize("mixed", [False, True])
def test_what_a_notebook_shows(log: ColumnarLog, tmp_path: Path, mixed: bool) -> None:
    packed = pack(log, hot_set_for(log, mixed=mixed), tmp_path / "packed", seed=1)
    coverage, train = f"coverage {100 * packed.summary['coverage']:.1f} %", packed.train
    hot, cold = train.num_hot_batches, train.num_batches - train.num_hot_batches
    kinds = f"{cold} batches of 64, mixed" if mixed else f"{hot} hot + {cold} cold batches of 64"
    assert repr(packed) == f"PackedDataset({str(tmp_path / 'packed')!r}: {kinds}, 4 slots, {coverage})"
    assert repr(packed.test) == f"BatchSet({packed.test.num_batches} batches, 170 inputs)"
    assert repr(packed.test.batch(2)).startswith("PackedBatch(42 of 64 inputs, 4 slots, ")
    if not mixed:
        assert repr(train) == f"BatchSet({hot} hot + {cold} cold batches, 1,200 inputs)"
        assert repr(train.batch(0)) == "PackedBatch(64 of 64 inputs, 4 slots, no cold rows)"


def test_batches_are_iterated_over_in_order(log: ColumnarLog, tmp_path: Path) -> None:
    train = pack(log, hot_set_for(log), tmp_path / "packed", seed=1).train
    assert list(train) == [train.batch(index) for index in range(len(train))]
    assert sum(batch.num_inputs for batch in train) == train.num_inputs == 1200
