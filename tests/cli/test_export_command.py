"""`fae export` and `fae import` on the command line: what is printed, what is left, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fae.exporting.standalone.check import check_sums

from commands import fae, fault, succeed, unfinished


def test_export_says_what_it_wrote_and_what_is_next(finished: Path) -> None:
    done = succeed("export", finished / "run", finished / "served", "--json")
    assert done.result["run"] == "run"
    assert done.result["num_files"] == check_sums(finished / "served")
    assert done.result["test"]["change"]["auc"] == pytest.approx(0, abs=1e-9)
    assert f"next: python {finished / 'served'}/check.py" in done.stderr
    assert "test AUC" in done.stderr
    assert "files" not in done.result
    assert (finished / "served" / "schema.json").exists()
    assert unfinished(finished) == []


def test_an_export_that_is_there_is_replaced_on_request_alone(finished: Path) -> None:
    succeed("export", finished / "run", finished / "served")
    before = (finished / "served" / "manifest.json").read_text()
    fault(fae("export", finished / "run", finished / "served", "--dtype", "int8"), "is there already", "--replace")
    assert (finished / "served" / "manifest.json").read_text() == before
    succeed("export", finished / "run", finished / "served", "--dtype", "int8", "--replace")
    assert json.loads((finished / "served" / "manifest.json").read_text())["dtype"] == "int8"
    fault(fae("export", finished / "run", finished / "run", "--replace"), "no exported folder")
    assert (finished / "run" / "run.json").exists()


def test_a_failed_export_leaves_what_was_there(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed("export", finished / "run", finished / "served")
    before = (finished / "served" / "manifest.json").read_text()

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fae.exporting.exported_folder.save_program", full)
    fault(fae("export", finished / "run", finished / "served", "--replace"), "No space left on device")
    assert (finished / "served" / "manifest.json").read_text() == before
    assert unfinished(finished) == []


def test_a_damaged_run_is_not_exported(finished: Path) -> None:
    path = finished / "run" / "checkpoint" / "tables" / "0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    fault(fae("export", finished / "run", finished / "served"), "0.safetensors")
    assert not (finished / "served").exists()


def test_a_log_without_text_is_refused(tmp_path: Path) -> None:
    succeed("synthetic", "--shape", "avazu", "--inputs", 2000, "--columnar", "--out", tmp_path / "run")
    succeed(
        "run", tmp_path / "run" / "recipe.toml", "--out", tmp_path / "run", "--set", "model.bottom_mlp=[4]",
        "--set", "model.top_mlp=[4]", "--set", "hot.budget=1MiB",
    )  # fmt: skip
    fault(fae("export", tmp_path / "run", tmp_path / "served"), "was not made from raw files")


def test_import_needs_a_folder_of_rows(finished: Path) -> None:
    fault(fae("import", finished / "run", finished / "recipe.toml", "--out", finished / "new"), "no rows in")
    done = succeed("export", finished / "run", finished / "served")
    done = succeed("import", finished / "served", finished / "recipe.toml", "--out", finished / "run", "--json")
    assert all(each["values_not_in_log"] == 0 for each in done.result["tables"].values())
