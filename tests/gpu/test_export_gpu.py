"""Runs of a GPU: exported folders score as they do, and pretrained rows keep their bytes on every placement."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from fae.exporting.standalone.check import check_golden
from fae.exporting.standalone.scoring.exported_model import ExportedModel

from commands import succeed, write_log, write_recipe

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_of_a_gpu_is_exported(tmp_path: Path, precision: str) -> None:
    write_log(tmp_path)
    recipe = write_recipe(tmp_path, train={"precision": precision})
    succeed("run", recipe, "--out", tmp_path / "run", "--device", "cuda")
    done = succeed("export", tmp_path / "run", tmp_path / "served", "--json")
    assert check_golden(ExportedModel(tmp_path / "served"))[1] < 1e-6
    assert abs(done.result["test"]["change"]["log_loss"]) < (1e-5 if precision == "fp32" else 0.01)


@pytest.mark.parametrize("placement", ["tiered", "device", "hybrid"])
def test_pretrained_rows_keep_their_bytes(tmp_path: Path, placement: str) -> None:
    write_log(tmp_path)
    recipe = write_recipe(tmp_path)
    succeed("run", recipe, "--out", tmp_path / "one", "--device", "cuda")
    succeed("export", tmp_path / "one", tmp_path / "rows")
    still = ("--set", "train.learning_rate=1e-30", "--set", "train.dense_learning_rate=1e-30")
    succeed(
        "run", recipe, "--out", tmp_path / "two", "--device", "cuda", *still,
        "--set", f"train.rows_from={tmp_path / 'rows'}", "--set", f"train.placement={placement}",
    )  # fmt: skip
    for table in range(3):
        values = [
            pq.read_table(tmp_path / run / "log" / "vocabulary" / f"{table}.parquet").column("value").to_pylist()
            for run in ("one", "two")
        ]
        assert values[0] == values[1]
        weights = [
            load_file(tmp_path / run / "checkpoint" / "tables" / f"{table}.safetensors")["weight"]
            for run in ("one", "two")
        ]
        assert weights[0].equal(weights[1])
