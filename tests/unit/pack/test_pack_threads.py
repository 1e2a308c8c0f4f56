"""Packed files are the same bytes whatever the number of threads and the size of their work; faults end cleanly."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.checksums import join_checksums
from fae.artifacts.columnar_log import FeatureSchema, TablePart
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import ArtifactError
from fae.pack import batching, compose, shuffle, spill, writer
from fae.pack import pack as pack_module
from fae.pack.pack import pack
from fae.pack.packed_sizes import measure_packed
from fae.pack.running_totals import RunningTotals
from fae.pack.write_back import WriteBack

from logs import make_log
from packs import check_packed, random_ranks, stub_hot_set, write_older

CASES: dict[str, dict[str, Any]] = {
    # Digests of all files in format 2, with the addresses: of the writer of one thread that came before this one.
    "one_input": {"inputs": 1, "digest": "457cd4a2cb1b761b"},
    "fewer_than_a_batch": {"inputs": 20, "held_out": 3, "digest": "190d97595d921df9"},
    "a_full_batch": {"inputs": 32, "digest": "1e520105f51f7e5f"},
    "batches_of_one": {"inputs": 70, "batch_size": 1, "held_out": 5, "digest": "c81ac2cd8e71adf9"},
    "many_batches": {"inputs": 1900, "held_out": 211, "hot": 0.85, "digest": "b538b61bd175395c"},
    "mixed": {"inputs": 1900, "held_out": 211, "mixed": True, "digest": "7b049163665c7dea"},
    "closed_early": {"inputs": 900, "held_out": 90, "hot": 0.85, "spare_rows": 2, "digest": "86eef6d3d755ba94"},
    "closed_early_mixed": {
        "inputs": 900, "held_out": 90, "spare_rows": 9, "mixed": True, "digest": "b0bb6a0480849aa7",
    },
    "all_hot": {"inputs": 300, "held_out": 31, "hot": 1.0, "digest": "779ae5f12bc61df1"},
    "all_cold": {"inputs": 300, "held_out": 31, "hot": 0.0, "digest": "99f77be877a40556"},
    "weights": {"inputs": 500, "held_out": 40, "hot": 0.85, "weights": True, "digest": "f5a2200e3fe95102"},
    "no_dense": {"inputs": 300, "num_dense": 0, "digest": "2649bd96ce85d790"},
}  # fmt: skip


def make_case(folder: Path, *, inputs: int, held_out: int = 0, batch_size: int = 32, **options: Any) -> tuple[Any, Any]:
    """A log with a list of three, a table of two columns and one of 40 rows, in two widths; and a hot set for it."""
    random = np.random.default_rng(inputs)
    shared = (TablePart(name="b"), TablePart(name="c", length=2))
    features = [
        FeatureSchema(name="a", num_embeddings=400, length=3, encoded=True),
        FeatureSchema(name="b", num_embeddings=200, length=3, encoded=True, parts=shared),
        FeatureSchema(name="d", num_embeddings=40, encoded=True),
    ]
    total, columns = inputs + 2 * held_out, []
    for feature in features:
        column = np.floor(feature.num_embeddings * random.random((total, feature.length)) ** 6).astype(np.int32)
        column[:, 1:][random.random((total, feature.length - 1)) < 0.4] = -1
        columns.append(column)
    dense = random.random((total, options.get("num_dense", 3))).astype(np.float32)
    log = make_log(
        folder, np.concatenate(columns, axis=1), random.random(total) < 0.3, dense, features,
        num_validation=held_out, num_test=held_out,
    )  # fmt: skip
    if options.get("weights"):
        log.weight = "w"
        log.__dict__["weights"] = random.uniform(0, 3, total).astype(np.float32)
    num_hot = [round(options.get("hot", 0.3) * feature.num_embeddings) for feature in features]
    layout = RowLayout(features, [8, 4, 8], num_hot, random_ranks(random, features))
    spare = options.get("spare_rows")
    staging = () if spare is None else (3 + spare, 4 + spare)
    return log, stub_hot_set(layout, batch_size=batch_size, staging_rows=staging, mixed=options.get("mixed", False))


def content(packed: Path) -> dict[str, bytes]:
    return {str(file.relative_to(packed)): file.read_bytes() for file in sorted(packed.rglob("*.npy"))}


def digest(files: dict[str, bytes]) -> str:
    found = hashlib.blake2b(digest_size=8)
    for name, data in files.items():
        found.update(f"{name} {len(data)} ".encode() + data)
    return found.hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_threads_and_sizes_do_not_change_a_byte(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(CASES[name])
    expected = options.pop("digest")
    monkeypatch.setattr(shuffle, "BUCKET_BYTES", 6000)
    log, hot_set = make_case(tmp_path, **options)
    summary, first = None, None
    for threads, group_bytes, in_flight_bytes, memory_bytes in (
        (1, 2**22, 2**30, 2**30), (1, 1, 1, 2**30), (2, 1, 2**30, 2**30), (3, 30_000, 2**30, 9000),
        (8, 1, 2**30, 2**30), (8, 2**22, 2**30, 1), (8, 60_000, 200_000, 20_000),
    ):  # fmt: skip
        monkeypatch.setenv("FAE_NUM_THREADS", str(threads))
        monkeypatch.setattr(compose, "GROUP_BYTES", group_bytes)
        monkeypatch.setattr(batching, "IN_FLIGHT_BYTES", in_flight_bytes)
        monkeypatch.setattr(shuffle, "SORT_INPUTS", 1 + threads)
        monkeypatch.setattr(spill, "_PIECE_INPUTS", 10 * threads)
        monkeypatch.setattr(writer, "SYNC_BYTES", 3000 * threads)
        monkeypatch.setattr(spill, "_READ_INPUTS", 7 * threads)
        monkeypatch.setattr(pack_module, "WINDOW_BYTES", 2000 * threads)
        packed = pack(log, hot_set, tmp_path / "packed", seed=4, memory_bytes=memory_bytes)
        files = content(tmp_path / "packed")
        assert "train/addresses.npy" not in files
        first = first or files
        assert files == first, threads
        assert packed.manifest.files == {
            file: {"bytes": len(data), "crc32": f"{zlib.crc32(data):08x}"} for file, data in files.items()
        }
        assert summary in (None, packed.summary)
        summary = packed.summary
    check_packed(packed, log, hot_set)
    for version in (2, 3):
        check_packed(write_older(packed, tmp_path / f"format_{version}", version), log, hot_set)
    assert digest(content(tmp_path / "format_2")) == expected
    assert ("closed_early" in name) == (packed.summary["closed_early"] > 0)


def test_a_disk_that_fills_up_stops_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, hot_set = make_case(tmp_path, inputs=1900, held_out=200, spare_rows=40)
    monkeypatch.setenv("FAE_NUM_THREADS", "8")
    monkeypatch.setattr(compose, "GROUP_BYTES", 1)
    write, lock = os.pwrite, threading.Lock()
    threads = threading.active_count()
    for allowed in (30, 60, 200, 400):
        left = [allowed]

        def full(*arguments: Any, left: list[int] = left) -> int:
            with lock:
                left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            return write(*arguments)

        monkeypatch.setattr("os.pwrite", full)
        with pytest.raises(ArtifactError, match="No space left on device"):
            pack(log, hot_set, tmp_path / "packed", seed=1, memory_bytes=2**30)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["log"]
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("fae-pack")], threads


def test_a_disk_that_fails_later_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes what is written, and says when it comes to the disk that it could not; it says so once."""
    log, hot_set = make_case(tmp_path, inputs=1900, spare_rows=40)
    monkeypatch.setattr(writer, "SYNC_BYTES", 1)
    failed, stop = threading.Event(), WriteBack.stop
    calls = itertools.count()

    def fails(self: Any) -> None:
        number = next(calls)
        failed.set()
        if number == 0:
            raise OSError(5, "Input/output error")

    def stop_later(self: WriteBack, *, at_once: bool) -> None:
        assert failed.wait(60)
        stop(self, at_once=at_once)

    monkeypatch.setattr(WriteBack, "stop", stop_later)

    monkeypatch.setattr("fae.core.npy.NpyWriter.sync", fails)
    for threads in (1, 8):
        calls = itertools.count()
        failed.clear()
        monkeypatch.setenv("FAE_NUM_THREADS", str(threads))
        with pytest.raises(ArtifactError, match=r"Input/output error; check the disk"):
            pack(log, hot_set, tmp_path / "packed", seed=1)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["log"]


def test_a_fault_in_one_group_is_the_one_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups behind it wait for its length; they end, and their own error hides nothing."""
    log, hot_set = make_case(tmp_path, inputs=1900, spare_rows=40)
    monkeypatch.setenv("FAE_NUM_THREADS", "8")
    monkeypatch.setattr(compose, "GROUP_BYTES", 1)
    calls = itertools.count(1)  # threads take numbers one by one
    joined = compose.Composer.batch_arrays

    def fails(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(calls) == 9:
            raise ValueError("the ninth group")
        return joined(self, *arguments, **options)

    monkeypatch.setattr(compose.Composer, "batch_arrays", fails)
    with pytest.raises(ValueError, match="the ninth group"):
        pack(log, hot_set, tmp_path / "packed", seed=1)


def test_a_fault_is_told_by_the_groups_before_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven groups come to where they wait for one another when the eighth has failed, whichever that is."""
    log, hot_set = make_case(tmp_path, inputs=1900, spare_rows=40)
    monkeypatch.setenv("FAE_NUM_THREADS", "8")
    monkeypatch.setattr(compose, "GROUP_BYTES", 1)
    calls, failed = itertools.count(1), threading.Event()
    joined, give_up = compose.Composer.batch_arrays, RunningTotals.give_up

    def fails(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(calls) == 8:
            raise ValueError("the eighth group")
        assert failed.wait(60)
        return joined(self, *arguments, **options)

    def give_up_first(self: RunningTotals, fault: BaseException) -> None:
        give_up(self, fault)
        failed.set()

    monkeypatch.setattr(compose.Composer, "batch_arrays", fails)
    monkeypatch.setattr(RunningTotals, "give_up", give_up_first)
    with pytest.raises(ValueError, match="the eighth group"):
        pack(log, hot_set, tmp_path / "packed", seed=1)


def test_sizes_are_counted_by_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, hot_set = make_case(tmp_path, inputs=1900, held_out=200, spare_rows=12)
    monkeypatch.setenv("FAE_NUM_THREADS", "8")
    monkeypatch.setattr(compose, "GROUP_BYTES", 1)
    (tmp_path / "empty").mkdir()
    sizes = measure_packed(log, hot_set, tmp_path / "empty", seed=3)
    packed = pack(log, hot_set, tmp_path / "packed", seed=3)
    assert sizes.num_bytes == packed.summary["bytes"]
    assert sizes.splits[0].most_segments == packed.train.most_segments
    assert [split.num_batches for split in sizes.splits] == [
        len(batches) for batches in (packed.train, packed.validation, packed.test)
    ]


@pytest.mark.parametrize("sizes", [[], [0], [5], [0, 3, 0], [1, 2**16, 7, 2**20 + 3], [9] * 50])
def test_joined_checksums_are_those_of_the_whole(sizes: list[int]) -> None:
    random = np.random.default_rng(len(sizes))
    parts = [random.bytes(size) for size in sizes]
    assert join_checksums([zlib.crc32(part) for part in parts], sizes) == zlib.crc32(b"".join(parts))


def test_a_checksum_over_more_bytes_than_memory_holds() -> None:
    """A gigabyte of zeros, by doubling and from its megabytes; then two of the terabyte behind different bytes."""
    block = checksum = zlib.crc32(bytes(2**20))
    for doubling in range(20):
        size = 2 ** (20 + doubling)
        checksum = join_checksums([checksum, checksum], [size, size])
        if doubling == 9:
            assert checksum == join_checksums([block] * 2**10, [2**20] * 2**10)
    behind = [join_checksums([zlib.crc32(first), checksum], [1, 2**40]) for first in (b"x", b"y")]
    assert behind[0] != behind[1]


def test_running_totals_come_in_any_order() -> None:
    totals = RunningTotals(np.array([10]))
    for item in (2, 0, 1):
        totals.put(item, np.array([item + 1]))
    assert [totals.take(item).tolist() for item in (1, 2, 0)] == [[11], [13], [10]]
    totals.put(4, np.array([1]))
    for fault in (ValueError("the cause"), ValueError("a fault behind it")):
        totals.give_up(fault)
    with pytest.raises(ValueError, match=r"^the cause$"):
        totals.take(4)
    assert totals.take(3).tolist() == [16]
