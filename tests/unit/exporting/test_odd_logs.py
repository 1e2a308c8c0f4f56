"""Exports of logs that are written in other ways: no header, odd names, other marks, time order, Taobao's behaviour."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.exporting.export_run import export
from fae.exporting.standalone.check import check_golden
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.scoring.input_text import InputError
from fae.run.predictions import predict

from commands import succeed, toml
from logs import write_behaviour


def run(folder: Path, log: dict[str, Any], model: dict[str, Any] | None = None) -> Path:
    recipe = {
        "log": log, "model": {"embedding_dim": 4, "bottom_mlp": [8], "top_mlp": [8], **(model or {})},
        "hot": {"budget": "64KiB"}, "train": {"batch_size": 16, "learning_rate": 0.2},
    }  # fmt: skip
    (folder / "recipe.toml").write_text(toml(recipe))
    succeed("run", folder / "recipe.toml", "--out", folder / "run")
    return folder / "run"


def scores_of(served: Path, path: Path) -> list[float]:
    model = ExportedModel(served)
    return [score for columns in model.files(path) for score in model.score(columns).tolist()]


def test_no_header_odd_names_and_other_marks(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    lines = [
        f"{int(random.random() < 0.4)};'u;{random.zipf(1.5) % 9}';s{random.zipf(1.5) % 9};"
        f"{str(round(random.lognormal(), 2)).replace('.', ',')};2024-01-{1 + at % 28:02d}"
        for at in range(200)
    ]
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(("\r\n".join(lines) + "\r\n").encode()))
    os.utime(tmp_path / "log.csv.gz", ns=(10**18, 10**18))
    made = run(
        tmp_path,
        {
            "train": "log.csv.gz", "columns": ["y", "a/b", "score", "run_score", "at"], "label": "y", "separator": ";",
            "quote": "'", "decimal": ",", "categorical": ["a/b", "score"], "dense": ["run_score"], "time": "at",
            "test_fraction": 0.2,
        },
    )  # fmt: skip
    export(made, tmp_path / "served")
    served = tmp_path / "served"
    assert (served / "tables" / "a%2Fb.safetensors").exists()
    golden = pq.read_table(served / "golden.parquet")
    assert golden.column_names[-2:] == ["score_", "run_score_"]
    assert json.loads((served / "schema.json").read_text())["golden"]["origin"] == "vocabulary"
    (tmp_path / "unlabelled.csv").write_text("\n".join(line[2:] for line in lines) + "\n")
    for path in (tmp_path / "log.csv.gz", tmp_path / "unlabelled.csv"):
        assert np.abs(np.array(scores_of(served, path)) - predict(made, [path])["scores"]).max() < 1e-6


def test_behaviour_is_scored_from_parquet(tmp_path: Path) -> None:
    write_behaviour(tmp_path / "log.csv", num_users=60)
    made = run(
        tmp_path, {"train": "log.csv", "format": "taobao"},
        {"name": "tbsm", "bottom_mlp": [4], "top_mlp": [4], "final_mlp": [4]},
    )  # fmt: skip
    export(made, tmp_path / "served")
    assert check_golden(ExportedModel(tmp_path / "served"))[0] > 10
    inputs = pa.table({"user": ["1", "x"], "item": [["11", "22"], []], "category": [["1", "2"], []]})
    pq.write_table(inputs, tmp_path / "in.parquet")
    assert all(0 < score < 1 for score in scores_of(tmp_path / "served", tmp_path / "in.parquet"))
    with pytest.raises(InputError, match=r"\.parquet or \.jsonl"):
        scores_of(tmp_path / "served", tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "no inputs"), ("y,user\n1,u\n", "no column"), ("y,user,item,price\n1,u,i,cheap\n", "cheap")],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path: Path, text: str, expected: str) -> None:
    from fae.exporting.standalone.scoring.input_files import read_columns

    schema = {
        "input": {
            "format": "csv", "columns": [], "label": "y", "separator": ",", "quote": '"', "escape": "", "decimal": ".",
            "missing": [],
        },
        "features": [{"column": "user", "length": 1}, {"column": "item", "length": 1}], "dense": [{"column": "price"}],
    }  # fmt: skip
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=expected) as error:
        list(read_columns(tmp_path / "log.csv", schema))
    assert "\n" not in str(error.value)
