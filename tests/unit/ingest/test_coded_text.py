"""Text that comes as a dictionary gets the ids of the text itself."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.readers import parquet
from fae.ingest.scratch import Scratch

WORDS = ["b", "", "NULL", "a", "é", "b", None, "nobody's", "c"]


def encoder(folder: Path) -> ColumnEncoder:
    return ColumnEncoder(ColumnConfig(name="user"), 0, Scratch(folder / "scratch", 2**30), missing=("NULL",))


def encoded(column: ColumnEncoder, array: Any) -> list[int]:
    ids = np.empty((len(array), 1), np.int32)
    column.encode(array, ids, str)
    return ids[:, 0].tolist()


@pytest.mark.parametrize("number", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.int64()])
def test_batches_of_one_dictionary_and_of_another(tmp_path: Path, number: pa.DataType) -> None:
    random = np.random.default_rng(5)
    coded, plain = encoder(tmp_path), encoder(tmp_path / "plain")
    dictionaries = [pa.array(WORDS, pa.string()), pa.array(WORDS[::-1], pa.string()), pa.array(["d", *WORDS])[1:]]
    for dictionary, size in itertools.product([*dictionaries, dictionaries[0]], (0, 1, 3, 40)):
        missing = random.random(size) < 0.2
        indices = pa.array(random.integers(0, len(WORDS), size), number, mask=missing)
        array = pa.DictionaryArray.from_arrays(indices, dictionary)
        part = pa.concat_arrays([array.slice(0, 1), array])[1:]
        assert encoded(coded, part) == encoded(plain, array.dictionary_decode())
    assert coded.num_values == plain.num_values == len(set(WORDS) - {"NULL", None, "nobody's"}) + 1
    assert coded.missing_id == plain.missing_id


def test_columns_are_read_as_they_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(7)
    number = 4000
    few = [f"u{value}" if value else None for value in random.integers(0, 40, number)]
    many = [f"a rather long value {value}" for value in random.integers(0, 10**6, number)]
    table = pa.table({
        "y": random.integers(0, 2, number), "user": few, "many": many, "number": random.integers(0, 9, number),
        "both": [str(value) for value in random.integers(0, 5, number)], "tags": [f"{value}|7" for value in few],
        "coded": pa.array(few).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=1500)
    config = LogConfig(
        format="parquet", train="log.parquet", label="y", dense=("both",),
        categorical=("user", "many", "number", "both", ColumnConfig(name="tags", max_length=2), "coded"),
    )  # fmt: skip
    asked: list[list[str]] = []
    real = parquet._dictionaries

    def watched(*arguments: Any) -> list[str]:
        asked.append(real(*arguments))
        return asked[-1]

    monkeypatch.setattr(parquet, "_dictionaries", watched)
    ingest(config, tmp_path / "small", base=tmp_path)
    assert asked.pop() == []
    monkeypatch.setattr(parquet, "_CODED_INPUTS", 1)
    log = ingest(config, tmp_path / "coded", base=tmp_path)
    assert asked == [["user"]]
    monkeypatch.setattr(parquet, "_CODED_BYTES", 1e9)
    large = ingest(config, tmp_path / "large", base=tmp_path)
    assert asked[-1] == ["user", "many", "coded"] or asked[-1] == ["user", "many"]
    monkeypatch.setattr(parquet, "_dictionaries", lambda *_: [])
    plain = ingest(config, tmp_path / "plain", base=tmp_path)
    for found in (log, large):
        names = sorted(path.relative_to(found.path) for path in found.path.rglob("*") if path.is_file())
        assert names == sorted(path.relative_to(plain.path) for path in plain.path.rglob("*") if path.is_file())
        for name in names:
            assert (found.path / name).read_bytes() == (plain.path / name).read_bytes(), name


def wanted(**changes: Any) -> LogConfig:
    return LogConfig(**{"format": "parquet", "train": "log.parquet", "label": "y", "categorical": ("a.b",), **changes})


def test_text_that_is_not_utf8_is_named_where_it_is(tmp_path: Path) -> None:
    """The dictionary of the first batch has it already, and an input has it later."""
    number = 70_000
    table = pa.table({"y": [0, 1] * (number // 2), "a.b": [b"u%d" % (index % 50) for index in range(number)]})
    for row in (66_000, None):
        values = table["a.b"].to_pylist()
        if row is not None:
            values[row] = b"\xff\xfebad"
        changed = table.set_column(1, "a.b", pa.array(values, pa.binary()).view(pa.string()))
        pq.write_table(changed, tmp_path / "log.parquet", row_group_size=number)
        if row is None:
            assert ingest(wanted(), tmp_path / "whole", base=tmp_path).num_inputs == number
        else:
            with pytest.raises(LogError, match=r"input 66001: the column 'a.b' is not UTF-8 \('\\xff\\xfebad'\)"):
                ingest(wanted(), tmp_path / "log", base=tmp_path)


def test_a_struct_may_have_the_name_of_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_CODED_INPUTS", 1)
    number = 4000
    words = [f"u{index % 7}" for index in range(number)]
    table = pa.table({"y": [0, 1] * (number // 2), "a.b": words, "a": [{"b": word} for word in words]})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=1000)
    assert ingest(wanted(), tmp_path / "both", base=tmp_path).num_inputs == number
    (tmp_path / "a.b=7").mkdir()
    pq.write_table(table.drop_columns(["a.b"]), tmp_path / "a.b=7" / "log.parquet")
    folder = ingest(wanted(train="a.b=7/log.parquet"), tmp_path / "folder", base=tmp_path)
    assert folder.features[0].num_embeddings == 2
