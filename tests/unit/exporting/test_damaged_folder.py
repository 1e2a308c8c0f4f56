"""Exported folders that are damaged, of another format, in the wrong place, or read by Triton."""

from __future__ import annotations

import json
import resource
import runpy
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fae.exporting.export_run import export
from fae.exporting.standalone.apply import apply_changes
from fae.exporting.standalone.check import check_sums, score_file
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.scoring.input_text import InputError

from commands import fae, fault, succeed, unfinished

FILES = (
    "manifest.json", "schema.json", "model.pt2", "golden.parquet", "tables/user.safetensors", "vocabulary/user.parquet",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(exported: Callable[[str], Path]) -> Path:
    """The case dlrm."""
    return exported("dlrm")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of its export that may be damaged, in a folder whose name has a space."""
    return Path(shutil.copytree(folder / "served", tmp_path / "a copy"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_missing_or_garbage_is_one_line(copied: Path, name: str) -> None:
    path, text = copied / name, (copied / name).read_bytes()
    for damaged in (text[:-20], b"\0" * len(text), b"", None):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        if name == "golden.parquet" and damaged == b"\0" * len(text):
            continue  # serving does not need it
        with pytest.raises(InputError) as error:
            ExportedModel(copied)
        assert "\n" not in str(error.value)
    path.write_bytes(text)
    assert len(ExportedModel(copied).schema["features"]) == 3


def test_one_bit_is_told_by_checksums(copied: Path) -> None:
    for name in FILES[1:]:
        text = bytearray((copied / name).read_bytes())
        text[len(text) // 2] ^= 16
        (copied / name).write_bytes(text)
        with pytest.raises(InputError, match=name):
            check_sums(copied)
        text[len(text) // 2] ^= 16
        (copied / name).write_bytes(text)


@pytest.mark.parametrize("name", ["manifest.json", "schema.json"])
def test_another_version_of_the_format_is_named(copied: Path, name: str) -> None:
    facts = json.loads((copied / name).read_text())
    (copied / name).write_text(json.dumps({**facts, "format_version": 2}))
    with pytest.raises(InputError, match=r"is of format .*2.* reads 1"):
        ExportedModel(copied)


def test_a_limit_on_files_is_one_line_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (2_000, 20_000, 40_000):  # a table, the model, the model
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            done = fae("export", folder / "run", tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "--out" not in fault(done, "cannot write", "choose another folder")
        assert list(tmp_path.iterdir()) == []


def test_scores_do_not_replace_the_file_that_is_scored(folder: Path, tmp_path: Path) -> None:
    model = ExportedModel(folder / "served")
    path = Path(shutil.copy(folder / "served" / "golden.parquet", tmp_path / "in.parquet"))
    before = path.read_bytes()
    with pytest.raises(InputError, match="is the file that is scored"):
        score_file(model, path, path)
    with pytest.raises(InputError, match="cannot be written"):
        score_file(model, path, tmp_path / "none" / "s.parquet")
    assert path.read_bytes() == before


def test_changes_apart_from_their_folder(folder: Path, tmp_path: Path, copied: Path) -> None:
    for target in (copied, copied / "in"):
        done = fae("export", folder / "run", target, "--since", copied, "--replace")
        fault(done, "choose another folder")
    assert check_sums(copied)
    fault(fae("export", folder / "run", "/", "--replace"), "no name of its own")
    done = succeed("export", folder / "run", tmp_path / "the changes", "--since", copied)
    assert f"python '{tmp_path}/the changes/apply.py' '{copied}' OUT" in done.stderr
    rows = copied / "tables" / "user.safetensors"
    text = rows.read_bytes()
    for damaged in (text[:-1] + bytes([text[-1] ^ 1]), text[:-9], b"x"):
        rows.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a copy/tables/user\.safetensors is damaged"):
            apply_changes(tmp_path / "the changes", copied, tmp_path / "out")
    rows.write_bytes(text)
    (tmp_path / ".out.writing").mkdir()  # as a killed one leaves it
    (tmp_path / ".out.writing" / "schema.json").write_text("{")
    apply_changes(tmp_path / "the changes", copied, tmp_path / "out")
    with pytest.raises(InputError, match="is there already"):
        apply_changes(tmp_path / "the changes", copied, tmp_path / "out")
    assert unfinished(tmp_path) == []


def test_imported_rows_are_whole_and_those_of_their_manifest(folder: Path, tmp_path: Path, copied: Path) -> None:
    recipe = folder / "recipe.toml"
    done = succeed("import", copied, recipe, "--out", folder / "run")
    assert f"--set 'train.rows_from={copied}'" in done.stderr
    export(folder / "run", tmp_path / "changes", since=copied)
    fault(fae("import", tmp_path / "changes", recipe, "--out", folder / "run"), "changes alone")
    rows = copied / "tables" / "user.safetensors"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\x7f")
    fault(fae("import", copied, recipe, "--out", folder / "run"), "user.safetensors", "damaged")
    rows.unlink()
    fault(fae("import", copied, recipe, "--out", folder / "run"), "user.safetensors", "missing")


def test_triton_runs_its_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(folder / "run", tmp_path / "served", triton=True)

    class Tensor:
        def __init__(self, name: str, values: Any) -> None:
            self.name, self.values = name, values

        def as_numpy(self) -> Any:
            return self.values

    utils = types.ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.TritonError = Tensor, str  # type: ignore[attr-defined]
    utils.get_input_tensor_by_name = lambda request, name: request[name]  # type: ignore[attr-defined]
    utils.InferenceResponse = lambda output_tensors, error=None: (output_tensors, error)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    try:
        made = runpy.run_path(str(tmp_path / "served" / "triton" / "run" / "1" / "model.py"))
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "scoring":
                del sys.modules[name]
    model = made["TritonPythonModel"]()
    model.initialize({})
    golden = pq.read_table(tmp_path / "served" / "golden.parquet")
    names = [name for name in golden.column_names if "score" not in name]
    texts = [json.dumps(each).encode() for each in golden.select(names).to_pylist()]
    bodies = [texts, [b"{"], [b"7"], [b'{"price": "cheap"}'], [b"[" * 100_000], []]
    answers = model.execute([{"input": Tensor("input", np.array(each, object).reshape(-1, 1))} for each in bodies])
    (scores,), error = answers[0]
    assert (scores.name, scores.values.dtype, scores.values.shape, error) == (
        "score",
        np.float64,
        (len(texts), 1),
        None,
    )
    assert np.abs(scores.values[:, 0] - golden.column("score").to_numpy()).max() < 1e-6
    assert all(outputs == [] and "\n" not in error for outputs, error in answers[1:5])
    assert answers[5][0][0].values.shape == (0, 1)
