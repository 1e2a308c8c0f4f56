"""Packed batches are checked as a whole before training: every byte by checksum, every row by what it may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts import checksums, mapped_files, packed_contents
from fae.artifacts.checksums import file_checksum
from fae.artifacts.packed import PackedDataset
from fae.artifacts.packed_contents import check_batches
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import ArtifactError
from fae.core.npy import HEADER_BYTES
from fae.pack.pack import pack

from logs import zipf_log
from packs import stub_hot_set

NUM_INPUTS, BATCH, SLOTS = 1500, 64, 4
HOT = (10, 60, 7, 100)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PackedDataset, RowLayout]:
    """Batches in two groups, as another process finds them; files are checked in many small pieces."""
    log = zipf_log(tmp_path, num_inputs=NUM_INPUTS, sizes=(50, 400, 7, 900), num_validation=130, num_test=170)
    layout = RowLayout(log.features, (8, 4, 8, 4), HOT)
    pack(log, stub_hot_set(layout, batch_size=BATCH), tmp_path / "packed", seed=1)
    monkeypatch.setattr(checksums, "_verified", set())
    monkeypatch.setattr(packed_contents, "_checked", set())
    monkeypatch.setattr(mapped_files, "_STEP_BYTES", 300)
    monkeypatch.setattr(mapped_files, "_RANGE_BYTES", 1000)
    return PackedDataset(tmp_path / "packed"), layout


def edit(packed: PackedDataset, name: str, change: Any, *, with_checksum: bool = True) -> None:
    """Change the rows of a file in place; the manifest in memory follows unless it is not to."""
    path, known = packed.path / name, packed.manifest.files
    whole = np.fromfile(path, np.uint8)
    rows = np.load(path)
    change(rows)
    path.write_bytes(whole[:HEADER_BYTES].tobytes() + rows.tobytes())
    if with_checksum:
        known[name]["crc32"] = file_checksum(path)


def test_what_pack_wrote_is_right_and_read_once(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, layout = packed
    check_batches(dataset, layout, num_inputs=NUM_INPUTS)
    monkeypatch.setattr(packed_contents, "check_mapped", None)
    check_batches(dataset, layout, num_inputs=NUM_INPUTS)


@pytest.mark.parametrize("place", ["header", "first", "middle", "last"])
def test_one_byte_of_any_file(packed: Any, place: str) -> None:
    dataset, layout = packed
    names = [name for name, facts in dataset.manifest.files.items() if facts["bytes"] > HEADER_BYTES]
    assert len(names) > 30
    for name in names:
        path, size = dataset.path / name, dataset.manifest.files[name]["bytes"]
        at = {"header": HEADER_BYTES - 2, "first": HEADER_BYTES, "middle": (HEADER_BYTES + size) // 2, "last": size - 1}
        before = path.read_bytes()
        damaged = bytearray(before)
        damaged[at[place]] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"{name} is missing or damaged"):
            check_batches(dataset, layout, num_inputs=NUM_INPUTS)
        path.write_bytes(before)
    check_batches(dataset, layout, num_inputs=NUM_INPUTS)


def test_a_file_of_a_known_checksum_is_not_summed_again_unless_it_changed(
    packed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, layout = packed
    checksums.remember_written(dataset.path, dataset.manifest.files)
    sums: list[int] = []
    real = mapped_files.zlib.crc32
    monkeypatch.setattr(mapped_files.zlib, "crc32", lambda *data: sums.append(1) or real(*data))
    monkeypatch.setattr(packed_contents, "check_contents", lambda *_, **__: None)
    check_batches(dataset, layout, num_inputs=NUM_INPUTS)
    assert not sums
    monkeypatch.setattr(packed_contents, "_checked", set())
    edit(dataset, "train/dense.npy", lambda rows: rows.__setitem__((0, 0, 0), 0.5), with_checksum=False)
    with pytest.raises(ArtifactError, match=r"train/dense.npy is missing or damaged"):
        check_batches(dataset, layout, num_inputs=NUM_INPUTS)
    assert sums


def set_at(*places: int, to: Any) -> Any:
    return lambda rows: rows.reshape(len(rows), -1).__setitem__(places if len(places) > 1 else (places[0], 0), to)


def swap(first: int, second: int) -> Any:
    def change(rows: Any) -> None:
        rows[[first, second]] = rows[[second, first]]

    return change


IMPOSSIBLE = {
    "an address below -1": ("test/addresses", set_at(0, to=-2)),
    "an address behind the rows of its batch": ("test/addresses", set_at(-1, -1, to=10**6)),
    "a lookup twice in an order": ("train/order_low", lambda rows: rows.__setitem__((2, 7), rows[2, 8])),
    "a lookup of another group": (
        "train/order_low",
        lambda rows: rows[1].__setitem__(slice(None), rows[1, ::-1].copy()),
    ),
    "an order far beyond the batch": ("train/order_low", set_at(3, 5, to=2**16 - 1)),
    "an order beyond the batch": ("train/order_low", set_at(3, -1, to=BATCH * SLOTS)),
    "a label above 1": ("train/labels", set_at(-1, to=1.5)),
    "a label that is no number": ("validation/labels", set_at(0, to=np.nan)),
    "an infinite dense value": ("train/dense", set_at(7, 9, to=-np.inf)),
    "an input that the log does not have": ("train/inputs", set_at(2, to=NUM_INPUTS)),
    "a cold row that is hot": ("train/cold_rows_0", set_at(0, to=HOT[0] + HOT[2] - 1)),
    "a cold row behind the table": ("train/cold_rows_1", set_at(-1, to=50 + 400 + 7 + 900)),
    "cold rows out of order": ("train/cold_rows_1", swap(80, 81)),
    "a cold row twice": ("train/cold_rows_1", lambda rows: rows.__setitem__(80, rows[81])),
    "segments out of order": ("train/hot_block_starts_0", swap(80, 81)),
    "a segment before its group": ("train/cold_block_starts_1", set_at(0, to=BATCH - 1)),
    "a segment behind the batch": ("train/cold_block_starts_1", set_at(-1, to=BATCH * SLOTS)),
    "a segment of no row": ("train/hot_block_addresses_0", set_at(0, to=-1)),
    "a segment of a row behind its batch": ("train/cold_block_addresses_1", set_at(-1, to=10**6)),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_values_that_cannot_be(packed: Any, case: str) -> None:
    dataset, layout = packed
    file, change = IMPOSSIBLE[case]
    edit(dataset, f"{file}.npy", change)
    with pytest.raises(ArtifactError, match=rf"{file}.npy is damaged: it has values out of their range"):
        check_batches(dataset, layout, num_inputs=NUM_INPUTS)


def test_long_rows_lie_within_the_segments_of_their_batch() -> None:
    counts, offsets = np.array([5, 0, 3]), np.array([0, 2, 2, 3])
    fits = packed_contents.are_inside(counts, offsets)
    right = np.array([[0, 2], [2, 3], [1, 2]], np.int32)
    assert fits(0, 3, right)
    assert fits(1, 3, right[1:])
    for row, wrong in ((1, [3, 3]), (2, [2, 2]), (0, [-1, 2]), (2, [1, 0])):
        rows = right.copy()
        rows[row] = wrong
        assert not fits(0, 3, rows)
