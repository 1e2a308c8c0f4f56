"""Formats, lists, encoded columns, placements, orders and odd logs, each through ``fae run``."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.artifacts.columnar_log import ColumnarLog

from commands import HEADER, contents, csv_text, strict_json, succeed, write_log, write_recipe, zipf_inputs

Rows = list[list[Any]]


def run(folder: Path, *arguments: object, **changes: Any) -> dict[str, Any]:
    """A whole run of the log in `folder` with keys of the recipe changed; its record."""
    recipe = write_recipe(folder, **changes)
    done = succeed("run", recipe, "--out", folder / "run", "--json", *arguments)
    assert strict_json((folder / "run" / "run.json").read_text()) == done.result
    record: dict[str, Any] = done.result
    assert record["hot"]["bytes"] + record["hot"]["staging_bytes"] <= record["hot"]["budget_bytes"]
    return record


def run_rows(folder: Path, rows: Rows, header: Iterable[str] = HEADER, **changes: Any) -> dict[str, Any]:
    """A whole run of a CSV log of `rows`."""
    (folder / "log.csv").write_text(csv_text(rows, header))
    return run(folder, **changes)


def log_arrays(folder: Path) -> dict[str, bytes]:
    """What ingest made of the log, but for the manifest, which names the files it read."""
    return {name: data for name, data in contents(folder / "run" / "log").items() if name != "manifest.json"}


def columns_of(rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    return dict(zip(HEADER, map(list, zip(*rows, strict=True)), strict=True))


def zst(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def test_one_log_in_every_form_is_one_log(tmp_path: Path) -> None:
    """csv, its compressions, several files and a glob, another separator, Parquet: the same ids, dense, labels."""
    rows = zipf_inputs(300)
    text = csv_text(rows).encode()
    dresses: dict[str, tuple[dict[str, bytes], dict[str, Any]]] = {
        "csv": ({"log.csv": text}, {}),
        "gz": ({"log.csv.gz": gzip.compress(text)}, {"train": "log.csv.gz"}),
        "zst": ({"log.csv.zst": zst(text)}, {"train": "log.csv.zst"}),
        "glob": (
            {f"day_{i}.csv": csv_text(rows[30 * i : 30 * i + 30]).encode() for i in range(10)} | {"day_x.txt": b"-"},
            {"train": "day_*.csv"},
        ),
        "two files, test apart": (
            {"a.csv": csv_text(rows[:240]).encode(), "b.csv.gz": gzip.compress(csv_text(rows[240:]).encode())},
            {"train": ["a.csv"], "test": "b.csv.gz", "test_fraction": None},
        ),
        "semicolons and line ends of Windows": (
            {"log.csv": text.replace(b",", b";").replace(b"\n", b"\r\n")},
            {"separator": ";"},
        ),
        "parquet": ({}, {"format": "parquet", "train": "log.parquet"}),
    }
    seen = []
    for name, (files, changes) in dresses.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        pq.write_table(pa.table(columns_of(rows)), folder / "log.parquet")
        if name in ("csv", "parquet"):
            assert run(folder, log=changes)["test"]["num_inputs"] == 60
        else:
            succeed("ingest", write_recipe(folder, log=changes), "--out", folder / "run")
        seen.append(log_arrays(folder))
    assert all(arrays == seen[0] for arrays in seen)
    trained = [contents(tmp_path / name / "run") for name in ("csv", "parquet")]
    assert trained[0]["checkpoint/dense.safetensors"] == trained[1]["checkpoint/dense.safetensors"]


def criteo_text(num_inputs: int) -> str:
    """Lines of 40 fields, some of them empty."""
    random = np.random.default_rng(4)
    lines = []
    for _ in range(num_inputs):
        counts = [str(random.integers(-1, 90)) if random.random() < 0.8 else "" for _ in range(13)]
        ids = [f"{int(random.zipf(1.5)) % 50:08x}" if random.random() < 0.9 else "" for _ in range(26)]
        lines.append("\t".join([str(random.integers(0, 2)), *counts, *ids]))
    return "\n".join(lines) + "\n"


def test_criteo(tmp_path: Path) -> None:
    (tmp_path / "day.tsv.gz").write_bytes(gzip.compress(criteo_text(300).encode()))
    own = {"format": "criteo", "train": "day.tsv.gz", "categorical": None, "dense": None, "label": None}
    record = run(tmp_path, log=own, hot={"budget": "15KiB"})
    assert [feature["name"] for feature in record["log"]["features"]] == [f"C{i}" for i in range(1, 27)]
    assert record["log"]["dense"] == [f"I{i}" for i in range(1, 14)]
    assert record["pack"]["num_slots"] == 26
    assert 0 < record["hot"]["coverage"] < 1


LISTS = {
    "categorical": [
        "user",
        {"name": "item", "max_length": 3, "pooling": "mean"},
        {"name": "site", "encoded": True},
        {"name": "tags", "max_length": 2, "pooling": "sum", "separator": " "},
    ],
    "dense": ["price"],
}


def list_rows(num_inputs: int = 300) -> Rows:
    """Inputs with lists of zero to five items, and a column of small whole numbers."""
    random = np.random.default_rng(5)
    return [
        [row[0], row[1], [f"i{i}" for i in random.integers(0, 60, random.integers(0, 6))], int(random.integers(0, 9)),
         [f"t{i}" for i in random.zipf(1.6, random.integers(0, 4)) % 40], row[4]]
        for row in zipf_inputs(num_inputs)
    ]  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad"])
def test_lists_encoded_column_and_widths(tmp_path: Path, optimizer: str) -> None:
    """Pooled lists, ids taken as they are, two widths of tables: from CSV and Parquet alike."""
    header, rows = ("label", "user", "item", "site", "tags", "price"), list_rows()
    changes = {
        "model": {"embedding_dims": {"site": 8, "tags": 8}},
        "hot": {"budget": "3KiB"},
        "train": {"optimizer": optimizer, "batch_size": 8},
    }
    (tmp_path / "csv").mkdir()
    as_text = [
        [label, user, "|".join(item), site, " ".join(tags), price] for label, user, item, site, tags, price in rows
    ]
    record = run_rows(tmp_path / "csv", as_text, header, log=LISTS, **changes)
    features = {feature["name"]: feature for feature in record["log"]["features"]}
    assert features["item"]["length"] == 3
    assert features["item"]["pooling"] == "mean"
    assert (features["site"]["encoded"], features["site"]["num_embeddings"]) == (True, 10)
    widths = {table["name"]: table["embedding_dim"] for table in record["hot"]["tables"]}
    assert widths == {"user": 4, "item": 4, "site": 8, "tags": 8}
    assert record["pack"]["num_groups"] == 2
    assert 0 < record["hot"]["input_share"] < 1

    (tmp_path / "parquet").mkdir()
    table = pa.table(dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(table, tmp_path / "parquet" / "log.parquet")
    again = run(tmp_path / "parquet", log={**LISTS, "format": "parquet", "train": "log.parquet"}, **changes)
    assert log_arrays(tmp_path / "csv") == log_arrays(tmp_path / "parquet")
    assert again["test"] == record["test"]


@pytest.mark.parametrize(
    ("optimizer", "order", "selection"),
    [
        ("sgd", "interleaved", "threshold"),
        ("rowwise_adagrad", "interleaved", "peeling"),
        ("rowwise_adagrad", "shuffled", "auto"),
        ("sgd", "adaptive", "auto"),
        ("adagrad", "interleaved", "auto"),
        ("adam", "adaptive", "auto"),
    ],
)
def test_placements_agree_to_the_last_byte(tmp_path: Path, optimizer: str, order: str, selection: str) -> None:
    """The same order of batches wherever the rows are: the same tables, states, dense weights and figures."""
    write_log(tmp_path)
    budget = {"adagrad": "5600B", "adam": "8400B"}.get(optimizer, "3500B")  # about as many hot rows for each
    recipe = write_recipe(
        tmp_path,
        hot={"selection": selection, "budget": budget},
        train={"optimizer": optimizer, "order": order, "epochs": 2, "adaptive_rate": 25},
    )
    seen = []
    for placement in ("tiered", "device", "cpu", "hybrid", "paper"):
        arguments = ("--set", f"train.placement={placement}", "--device", "cpu", "--json", "--replace")
        record = succeed("run", recipe, "--out", tmp_path / "run", *arguments).result
        assert record["recipe"]["train"]["placement"] == placement
        tensors = {name: data for name, data in contents(tmp_path / "run").items() if name.endswith(".safetensors")}
        seen.append((record["test"], record["train"]["loss_curve"], tensors))
    assert record["pack"]["mixed"] == (order == "shuffled")
    assert record["pack"]["num_batches"]["cold"] > 0, "otherwise nothing was tried"
    assert all(one == seen[0] for one in seen)
    assert record["train"]["traffic"]["pooled_bytes_to_device"] > 0
    assert (record["train"]["traffic"]["swaps"] > 1) == (record["pack"]["num_batches"]["hot"] > 0)


def test_no_dense_columns(tmp_path: Path) -> None:
    record = run_rows(tmp_path, zipf_inputs(200), log={"dense": []})
    assert record["log"]["dense"] == []
    assert record["test"]["auc"] > 0


def test_a_single_column(tmp_path: Path) -> None:
    record = run_rows(tmp_path, zipf_inputs(200), log={"categorical": ["user"], "dense": None})
    assert record["pack"]["num_slots"] == 1
    assert record["hot"]["input_share"] == record["hot"]["coverage"]


@pytest.mark.parametrize("order", ["interleaved", "shuffled", "adaptive"])
def test_less_than_one_batch(tmp_path: Path, order: str) -> None:
    """Twelve inputs in batches of 32; also one alone in its split."""
    record = run_rows(tmp_path, zipf_inputs(12), train={"order": order})
    assert record["log"]["splits"] == {"train": [0, 9], "validation": [9, 10], "test": [10, 12]}
    assert record["train"]["num_inputs"] == 9
    assert record["pack"]["splits"]["test"]["num_batches"] == 1


def test_one_training_input(tmp_path: Path) -> None:
    record = run_rows(tmp_path, zipf_inputs(2), log={"test_fraction": 0.5, "validation_fraction": 0})
    assert record["train"]["num_inputs"] == record["test"]["num_inputs"] == 1
    assert record["test"]["auc"] is None


@pytest.mark.parametrize("order", ["interleaved", "shuffled"])
def test_no_validation_split(tmp_path: Path, order: str) -> None:
    record = run_rows(tmp_path, zipf_inputs(200), log={"validation_fraction": 0.0}, train={"order": order, "epochs": 2})
    assert record["validation"]["num_inputs"] == 0
    assert record["validation"]["log_loss"] is None
    assert record["train"]["num_inputs"] == 2 * 160


def test_no_test_split(tmp_path: Path) -> None:
    record = run_rows(tmp_path, zipf_inputs(200), log={"test_fraction": 0.0})
    assert record["test"]["num_inputs"] == 0
    assert record["test"]["auc"] is None
    assert record["test"]["log_loss"] is None


@pytest.mark.parametrize("label", [0, 1])
def test_test_split_of_one_class(tmp_path: Path, label: int) -> None:
    rows = zipf_inputs(200)
    for row in rows[160:]:
        row[0] = label
    record = run_rows(tmp_path, rows)
    assert record["test"]["auc"] is None
    assert record["test"]["label_rate"] == label
    assert record["test"]["log_loss"] > 0


def test_all_labels_alike(tmp_path: Path) -> None:
    rows = [[0, *row[1:]] for row in zipf_inputs(200)]
    record = run_rows(tmp_path, rows)
    assert record["test"]["auc"] is None
    assert record["test"]["log_loss"] < 0.7


def test_column_with_a_single_value(tmp_path: Path) -> None:
    rows = [[*row[:3], "only", 0.0, row[5]] for row in zipf_inputs(200)]
    record = run_rows(tmp_path, rows)
    sizes = {feature["name"]: feature["num_embeddings"] for feature in record["log"]["features"]}
    assert sizes["site"] == 2, "the value and the reserved id"


@pytest.mark.parametrize("order", ["interleaved", "shuffled"])
def test_one_id_takes_94_per_cent_of_a_column(tmp_path: Path, order: str) -> None:
    rows = zipf_inputs(300)
    for index, row in enumerate(rows):
        row[1] = "everybody" if index % 50 not in (0, 17, 34) else f"u{index}"
    record = run_rows(tmp_path, rows, hot={"budget": "1500B"}, train={"order": order, "batch_size": 8})
    user = record["hot"]["tables"][0]
    assert user["num_hot"] >= 1
    assert user["coverage"] >= 0.94
    assert 0 < record["hot"]["input_share"] < 1


def test_missing_values_everywhere(tmp_path: Path) -> None:
    """Empty fields are a value of an id column, and 0 in a dense one."""
    rows = [
        [row[0], *("" if (i + j) % 3 == 0 else cell for j, cell in enumerate(row[1:]))]
        for i, row in enumerate(zipf_inputs(240))
    ]
    record = run_rows(tmp_path, rows)
    assert all(0.3 < share < 0.37 for share in record["log"]["missing_share"].values())


def test_every_value_rare(tmp_path: Path) -> None:
    """A minimum frequency that nothing reaches leaves each table its reserved row."""
    record = run_rows(tmp_path, zipf_inputs(200), log={"min_frequency": 1000})
    assert [feature["num_embeddings"] for feature in record["log"]["features"]] == [1, 1, 1]
    assert record["hot"]["coverage"] == 1.0


def test_text_of_all_kinds(tmp_path: Path) -> None:
    """Ids and names with spaces, commas in quotes, other scripts; column names with dots and brackets."""
    header = ("a label", "Nutzer.id", "商品", '"the, site"')
    rows = [
        [row[0], f"Ü {row[1]}", '"x, y"' if i % 3 else "日本", f"'{row[3]}"] for i, row in enumerate(zipf_inputs(200))
    ]
    (tmp_path / "log.csv").write_text(csv_text(rows, header), encoding="utf-8-sig")
    names = ["Nutzer.id", "商品", "the, site"]
    record = run(
        tmp_path,
        log={"label": "a label", "categorical": names, "dense": []},
        model={"embedding_dims": {"Nutzer.id": 8, "商品": 1}},
    )
    assert [feature["name"] for feature in record["log"]["features"]] == names
    values = pq.read_table(tmp_path / "run" / "log" / "vocabulary" / "1.parquet")["value"].to_pylist()
    assert values == ["x, y", "日本", None]


def test_ids_of_the_log_are_by_popularity(finished_run: Path) -> None:
    """The counts of the training split are beside them."""
    log = ColumnarLog(finished_run / "run" / "log")
    for table, feature in enumerate(log.features):
        counts = log.counts[log.table_offsets[table] : log.table_offsets[table + 1]]
        assert counts.sum() == 432
        assert (np.diff(counts[: feature.unknown_id]) <= 0).all()
