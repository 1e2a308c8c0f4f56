"""Final ids from counts: by popularity, and of encoded columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.notes.split_lookups import count_lookups
from fae.ingest.numbering import second_pass, training_counts
from fae.ingest.numbering.final_ids import number_by_popularity, number_encoded
from fae.ingest.numbering.renumbering import SlotMaps
from fae.ingest.scratch import Scratch


def test_counts_as_plain_python(plain_python: None) -> None:
    counts = np.zeros(5, np.int64)
    ids = np.array([[9, 0, 2], [9, -1, -1], [9, 2, -1]], np.int32)
    assert training_counts.count_ids(ids, 1, 2, counts) == 1
    assert counts.tolist() == [1, 0, 2, 0, 3]


@pytest.mark.parametrize("value", [3, 2**31 - 1, -3, -(2**31)])
def test_an_id_beyond_its_table_is_not_followed(value: int) -> None:
    ids, counts = np.array([[0, 1], [2, value]], np.int32), np.zeros(5, np.int64)
    assert training_counts.count_ids(ids, 0, 2, counts) == -1
    final = np.array([5, 6, 7, 9, -1], np.int32)
    assert SlotMaps.of_slots(final, [(0, 3, False)] * 2).exchange(ids.copy()) == 1
    found = np.zeros(4, np.int64)
    assert not count_lookups(ids, 0, 2, False, -1, final, 9, found)
    beyond = value > 0  # an encoded number that training does not show has the reserved id
    assert SlotMaps.of_slots(final, [(0, 3, True)] * 2).exchange(ids) == (-1 if beyond else 1)
    assert ids[1, 1] == (9 if beyond else value)


def test_a_log_whose_ids_are_damaged_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.csv").write_text("label,id\n" + "1,a\n0,b\n" * 9)
    config, real = LogConfig(train="log.csv", categorical=("id",)), second_pass.training_lookups

    def damage(*arguments: Any, **options: Any) -> Any:
        (part,) = (tmp_path / ".log.partial" / "work" / "parts").glob("*/ids.npy")
        with part.open("r+b") as file:
            file.seek(-4, 2)
            file.write(np.int32(2**31 - 1).tobytes())
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(second_pass, "training_lookups", damage)
        with pytest.raises(LogError, match=r"'id' is damaged: ids\.npy has an id that its table has not"):
            ingest(config, tmp_path / "log", base=tmp_path)
    assert ingest(config, tmp_path / "log", base=tmp_path).ids[:, 0].tolist() == [0, 1] * 9


@pytest.mark.parametrize("plain", [False, True])
def test_lookups_of_a_split(plain: bool) -> None:
    count = getattr(count_lookups, "py_func", count_lookups) if plain else count_lookups
    ids = np.array([[0, 1, -1], [2, -1, -1], [3, 0, 2], [1, 2, 0]], np.int32)
    final, found = np.array([1, 2, 0, 2, 2, -1], np.int32), np.zeros(4, np.int64)
    assert count(ids, 0, 1, False, 3, final, 2, found)
    assert found.tolist() == [2, 4, 0, 1]
    found[:] = 0
    assert count(ids, 1, 3, False, -1, final, 2, found)
    assert found.tolist() == [1, 5, 2, 1]


@pytest.mark.parametrize("common", [1, 2, 4, 1 << 16])
def test_popularity_order_does_not_depend_on_how_it_is_sorted(scratch: Scratch, common: int) -> None:
    counts = np.array([2, 9, 0, 3, 3, 1, 9, 2], np.int64)
    got = number_by_popularity(counts, 2, scratch, common=common)
    assert got.final.tolist() == [4, 0, 6, 2, 3, 6, 1, 5, 6, -1]
    assert got.counts.tolist() == [9, 9, 3, 3, 2, 2, 1]
    assert got.unknown_id == 6
    assert number_by_popularity(counts, 3, scratch, common=common).counts.tolist() == [9, 9, 5, 3, 3]
    assert number_by_popularity(counts, 4, scratch, common=common).counts.tolist() == [11, 9, 9]
    assert number_by_popularity(counts, 100, scratch, common=common).final.tolist() == [0] * 9 + [-1]


def test_encoded_numbers_keep_their_places(scratch: Scratch) -> None:
    got = number_encoded(np.array([5, 0, 1, 4], np.int64), 2, scratch, missing=3)
    assert got.final.tolist() == [0, 4, 4, 3, 4, -1]
    assert (got.counts.tolist(), got.num_embeddings, got.unknown_id) == ([5, 0, 0, 4, 4], 5, 4)


def test_an_encoded_column_without_a_number_in_training(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("label,id\n" + "1,\n" * 9 + "0,5\n")
    config = LogConfig(train="log.csv", categorical=(ColumnConfig(name="id", encoded=True),), validation_fraction=0.0)
    log = ingest(config, tmp_path / "log", base=tmp_path)
    assert (log.features[0].num_embeddings, log.features[0].unknown_id) == (1, 0)
    assert log.ids[:, 0].tolist() == [0] * 10
    assert log.manifest.summary["missing_share"] == {"id": 1.0}
    assert log.manifest.summary["label_rate"] == {"train": 1.0, "validation": None, "test": 0.0}
