"""Pretrained rows become first values: matched by text, counted, to the byte on every placement."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from commands import csv_text, fae, fault, succeed, write_recipe, zipf_inputs


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A recipe and its log, and a folder ``pre`` of rows for two of its three tables."""
    (tmp_path / "log.csv").write_text(csv_text(zipf_inputs(200)))
    write_recipe(tmp_path, train={"learning_rate": 1e-30, "dense_learning_rate": 1e-30})
    pre = tmp_path / "pre"
    for name in ("vocabulary", "tables"):
        (pre / name).mkdir(parents=True)
    users, sites = ["nobody", "u3", "u0", "u1"], ["s1"]
    for name, values in (("user", users), ("site", sites)):
        ids = pa.array(range(len(values))[::-1], pa.int64())
        pq.write_table(pa.table({"value": values, "id": ids}), pre / "vocabulary" / f"{name}.parquet")
        weight = torch.arange(4.0 * len(values)).view(-1, 4) + 1.5
        save_file({"weight": weight}, pre / "tables" / f"{name}.safetensors")
    return tmp_path


def trained(folder: Path, name: str, table: int) -> dict[str | None, list[float]]:
    """From the values of a table to their rows in a run."""
    values = pq.read_table(folder / name / "log" / "vocabulary" / f"{table}.parquet").column("value").to_pylist()
    weight = load_file(folder / name / "checkpoint" / "tables" / f"{table}.safetensors")["weight"]
    return dict(zip(values, weight.tolist(), strict=True))


def test_rows_begin_with_the_folders_bytes_on_every_placement(rows: Path) -> None:
    recipe, settings = rows / "recipe.toml", ["--set", "train.rows_from=pre"]
    succeed("run", recipe, "--out", rows / "fresh")
    fresh = trained(rows, "fresh", 0)
    for placement in ("tiered", "cpu"):
        done = succeed("run", recipe, "--out", rows / placement, *settings, "--set", f"train.placement={placement}")
        assert "import: user: 3 of " in done.stderr
        assert "1 of 4 values of the folder are not in the log" in done.stderr
        assert "import: item: not in" in done.stderr
        found = trained(rows, placement, 0)
        assert found["u3"] == [9.5, 10.5, 11.5, 12.5]
        assert found["u1"] == [1.5, 2.5, 3.5, 4.5]
        others = found.keys() - {"u0", "u1", "u3"}
        assert {value: found[value] for value in others} == {value: fresh[value] for value in others}
        assert trained(rows, placement, 1) == trained(rows, "fresh", 1)
        assert trained(rows, placement, 2)["s1"] == [1.5, 2.5, 3.5, 4.5]


def test_the_training_is_named_by_the_rows_and_not_by_their_folder(rows: Path) -> None:
    recipe = rows / "recipe.toml"
    succeed("run", recipe, "--out", rows / "run", "--set", "train.rows_from=pre")
    first = json.loads((rows / "run" / "checkpoint" / "manifest.json").read_text())
    assert "rows_from" not in first["parameters"]["train"]
    (rows / "pre").rename(rows / "moved")
    done = succeed("run", recipe, "--out", rows / "run", "--set", "train.rows_from=moved")
    assert "import:" not in done.stderr
    table = rows / "moved" / "tables" / "site.safetensors"
    save_file({"weight": torch.ones(1, 4)}, table)
    succeed("run", recipe, "--out", rows / "run", "--set", "train.rows_from=moved", "--replace")
    second = json.loads((rows / "run" / "checkpoint" / "manifest.json").read_text())
    assert second["parents"]["rows"] != first["parents"]["rows"]
    assert trained(rows, "run", 2)["s1"] == [1.0] * 4


def test_import_says_what_would_be_taken(rows: Path) -> None:
    done = succeed("import", rows / "pre", rows / "recipe.toml", "--out", rows / "run", "--json")
    assert done.result["tables"]["user"]["matched"] == 3
    assert done.result["tables"]["user"]["values_not_in_log"] == 1
    assert "--set train.rows_from=" in done.stderr
    assert not (rows / "run" / "checkpoint").exists()


def test_an_exported_folder_gives_its_rows_back(rows: Path) -> None:
    recipe = rows / "recipe.toml"
    succeed("run", recipe, "--out", rows / "one", "--set", "train.learning_rate=0.1")
    succeed("export", rows / "one", rows / "served")
    succeed("run", recipe, "--out", rows / "two", "--set", "train.rows_from=served")
    for table in range(3):
        assert trained(rows, "one", table) == trained(rows, "two", table)


def test_what_does_not_fit_is_one_line(rows: Path) -> None:
    recipe, out = rows / "recipe.toml", rows / "run"

    def refused(*expected: str, name: str = "pre", more: tuple[str, ...] = ()) -> None:
        done = fae("run", recipe, "--out", out, "--set", f"train.rows_from={name}", *more)
        fault(done, *expected)

    refused("no rows in", "fae export", name="nowhere")
    refused("keep one of them", more=("--set", "train.from=other"))
    refused("4 numbers for 'user'", "embedding_dims.user = 4", more=("--set", "model.embedding_dim=8"))
    pq.write_table(pa.table({"value": ["u1"], "id": [7]}), rows / "pre" / "vocabulary" / "site.parquet")
    refused("rows 7 to 7", "there are 1")
    (rows / "pre" / "tables" / "user.safetensors").write_bytes(b"x")
    refused("user.safetensors", "cannot be read")
    for path in (rows / "pre" / "vocabulary").iterdir():
        path.unlink()
    refused("none of the tables user, item, site")
