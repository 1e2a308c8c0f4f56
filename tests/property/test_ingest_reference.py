"""Ingest against a reference in plain dicts, over random logs, formats, block sizes and memory limits."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.numbering import final_ids, id_blocks, renumbering, vocabulary_writer
from fae.ingest.readers import csv as csv_reader
from fae.ingest.readers import parquet
from ingest_reference import check_ids, reference

WORDS = st.text(alphabet='ab7é, "\n', max_size=3)
ROW = st.fixed_dictionaries(
    {
        "label": st.integers(0, 1),
        "word": WORDS,
        "number": st.integers(-2, 4),
        "tags": st.lists(st.sampled_from(["x", "y", "zz", "7", ""]), max_size=5),
        "code": st.one_of(st.none(), st.integers(0, 6)),
        "codes": st.lists(st.integers(0, 3), max_size=3),
        "count": st.one_of(st.none(), st.integers(-3, 10**9)),
    }
)


def make_config(draw: Any, names: dict[str, Any]) -> LogConfig:
    return LogConfig(
        categorical=(
            "word",
            ColumnConfig(name="number", min_frequency=draw(st.sampled_from([None, 1, 3]))),
            ColumnConfig(
                name="tags",
                max_length=draw(st.integers(2, 4)),
                pooling="mean",
                table=draw(st.sampled_from([None, "word", "number"])),
            ),
            ColumnConfig(name="code", encoded=True),
            ColumnConfig(
                name="codes", encoded=True, max_length=2, pooling="none", table=draw(st.sampled_from([None, "code"]))
            ),
        ),
        dense=("count",),
        min_frequency=draw(st.integers(1, 3)),
        validation_fraction=draw(st.sampled_from([0.0, 0.05, 0.3])),
        **names,
    )


def text_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            str(row["label"]), "ignored", row["word"], str(row["number"]), "|".join(row["tags"]),
            "" if row["code"] is None else str(row["code"]), "|".join(map(str, row["codes"])),
            "" if row["count"] is None else str(row["count"]),
        ]
        for row in rows
    ]  # fmt: skip


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryFile("w+", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "", "word", "number", "tags", "code", "codes", "count"])
        writer.writerows(text_rows(rows))
        file.seek(0)
        data = file.read().encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = {
        "codes": pa.array([row["codes"] for row in rows], pa.list_(pa.int16())),
        "code": pa.array([row["code"] for row in rows], pa.float64()),
        "count": pa.array([row["count"] for row in rows], pa.int64()),
        "label": pa.array([bool(row["label"]) for row in rows]),
        "number": pa.array([row["number"] for row in rows], pa.int32()).dictionary_encode(),
        "tags": pa.array([[t or None for t in row["tags"]] for row in rows], pa.large_list(pa.string())),
        "word": pa.array([row["word"] or None for row in rows], pa.large_string()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=11)


def contents(log: Any) -> dict[str, Any]:
    names = sorted(str(file.relative_to(log.path)) for file in log.path.rglob("*") if file.is_file())
    files = {name: (log.path / name).read_bytes() for name in names if name != "manifest.json"}
    # Text has no types, so only what comes from Parquet says which ones it had; and notes name files.
    left_out = ("value_types", "notes")
    summary = {name: value for name, value in log.manifest.summary.items() if name not in left_out}
    return {"files": files, "summary": summary}


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(parquet, "_BATCH_INPUTS", 7)
    monkeypatch.setattr(id_blocks, "_BYTES_PER_THREAD", 160)
    monkeypatch.setattr(renumbering, "STEP_BYTES", 160)
    monkeypatch.setattr(vocabulary_writer, "_VALUES_PER_ROW_GROUP", 3)
    monkeypatch.setattr(final_ids, "_STEP", 3)


@given(data=st.data(), rows=st.lists(ROW, min_size=2, max_size=60))
@settings(max_examples=40, deadline=None)
def test_every_format_gives_what_plain_dicts_give(data: st.DataObject, rows: list[dict[str, Any]]) -> None:
    num_test_rows = data.draw(st.integers(0, len(rows) - 1), "rows in a test file")
    num_train_rows = len(rows) - num_test_rows
    names: dict[str, Any] = {"train": ("train.csv",)}
    if num_test_rows:
        names["test"] = "test.csv"
    config = make_config(data.draw, names)
    memory_bytes = data.draw(st.sampled_from([1, 30_000, 2**30]), "memory_bytes")
    expected = reference(config, rows, num_train_rows)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".csv", ".csv.gz", ".csv.zst", ".parquet"):
            write = write_parquet if suffix == ".parquet" else write_csv
            write(folder / f"train{suffix}", rows[:num_train_rows])
            if num_test_rows:
                write(folder / f"test{suffix}", rows[num_train_rows:])
            changed = {key: f"{key}{suffix}" for key in names}
            settings_of = {**vars(config), **changed, "format": "parquet" if suffix == ".parquet" else "csv"}
            this = LogConfig(**settings_of)
            if expected["splits"]["train"][1] == 0:
                with pytest.raises(LogError, match="none is left for training"):
                    ingest(this, folder / "log", base=folder, memory_bytes=memory_bytes)
                assert not (folder / "log").exists()
                return
            log = ingest(this, folder / f"log{suffix}", base=folder, memory_bytes=memory_bytes)
            results.append(contents(log))
        assert all(result == results[0] for result in results[1:])
        assert {name: list(log.split(name)) for name in ("train", "validation", "test")} == expected["splits"]
        check_ids(log, expected)
        np.testing.assert_array_equal(log.labels, [row["label"] for row in rows])
        dense = [math.log1p(max(row["count"] or 0, 0)) for row in rows]
        np.testing.assert_allclose(log.dense[:, 0], np.array(dense, np.float32), rtol=1e-6)
        start, stop = log.split("train")
        for column in config.categorical_columns():
            if column.max_length > 1:
                want = sum(all(item == "" for item in row[column.name]) for row in rows[start:stop])
            else:
                want = sum(row[column.name] in ("", None) for row in rows[start:stop])
            share = log.manifest.summary["missing_share"][column.name]
            assert share == pytest.approx(want / (stop - start)), column.name


@given(data=st.data(), days=st.lists(st.lists(ROW, min_size=4, max_size=40), min_size=2, max_size=4))
@settings(max_examples=60, deadline=None)
def test_continued_logs_give_what_plain_dicts_give(data: st.DataObject, days: list[list[dict[str, Any]]]) -> None:
    """Every day continues the one before: known values keep their ids, new ones are appended."""
    config = make_config(data.draw, {"train": "day.csv"})
    memory_bytes = data.draw(st.sampled_from([1, 30_000, 2**30]), "memory_bytes")
    log, expected = None, None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for day, rows in enumerate(days):
            parent, before = log, expected
            this = dataclasses.replace(
                config, min_frequency=data.draw(st.integers(1, 3), f"min_frequency of day {day}")
            )
            write_csv(folder / "day.csv", rows)
            expected = reference(this, rows, len(rows), before)
            if expected["splits"]["train"][1] == 0:
                return
            log = ingest(this, folder / f"log{day}", base=folder, memory_bytes=memory_bytes, parent=parent)
            check_ids(log, expected)
            if parent is None or before is None:
                assert "appended" not in log.manifest.summary
                continue
            assert log.manifest.parents == {"log": parent.manifest.fingerprint}
            for old, new, was, is_now in zip(
                parent.features, log.features, before["tables"], expected["tables"], strict=True
            ):
                assert log.manifest.summary["appended"][new.name] == new.num_embeddings - old.num_embeddings >= 0
                for number, value in enumerate(was["values"]):
                    assert value is None or is_now["values"][number] == value, "an id changed its value"
            shutil.rmtree(parent.path)  # the next log needs only the one before it
