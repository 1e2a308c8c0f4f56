"""Final ids from counts: by popularity, and of encoded columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fae.ingest import second_pass
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.final_ids import number_by_popularity, number_encoded
from fae.ingest.ingest import ingest
from fae.ingest.scratch import Scratch


def test_counts_as_plain_python(plain_python: None) -> None:
    counts = np.zeros(5, np.int64)
    ids = np.array([[9, 0, 2], [9, -1, -1], [9, 2, -1]], np.int32)
    assert second_pass.count_ids(ids, 1, 2, counts) == 1
    assert counts.tolist() == [1, 0, 2, 0, 3]


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
