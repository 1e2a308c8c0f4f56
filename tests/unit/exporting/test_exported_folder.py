"""What else an exported folder is: types of rows, several files, changes since an earlier one, ONNX, Triton."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from export_cases import CASES
from fae.core.errors import ArtifactError, RecipeError
from fae.core.whole_files import read_json
from fae.exporting.export_run import export
from fae.exporting.standalone.apply import apply_changes
from fae.exporting.standalone.check import check_golden, check_sums
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.scoring.input_text import InputError
from fae.exporting.standalone.scoring.stored_tables import RowTable
from fae.exporting.standalone.scoring.value_ids import ValueIds
from fae.exporting.table_files import converted

from commands import contents, fae, fault, succeed, unfinished

BLOCKED = """
import importlib.abc, runpy, sys, warnings

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fae", "numba"):
            raise ModuleNotFoundError(name)
        if name == "torch":  # as it says itself where there is no NumPy, which the folder does not need
            warnings.warn("Failed to initialize NumPy: No module named 'numpy'")

sys.meta_path.insert(0, Blocker())
try:
    import fae
except ModuleNotFoundError:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    sys.exit("fae can be imported")
"""


@pytest.fixture(scope="module")
def folder(exported: Callable[[str], Path]) -> Path:
    """The case dlrm."""
    return exported("dlrm")


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def without_fae(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that cannot import FAE."""
    return subprocess.run(
        [sys.executable, "-I", "-c", BLOCKED, str(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_check_py_without_fae_gives_the_scores_of_predict(folder: Path, tmp_path: Path) -> None:
    log = folder / "log.csv"
    done = without_fae(folder / "served" / "check.py", log, "--out", tmp_path / "s.parquet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "60 golden inputs" in done.stdout
    succeed("predict", folder / "run", log, "--out", tmp_path / "p.parquet")
    found, expected = (pq.read_table(tmp_path / name).column("score").to_numpy() for name in ("s.parquet", "p.parquet"))
    assert np.abs(found - expected).max() < 1e-6


def test_golden_inputs_come_from_the_raw_file(folder: Path) -> None:
    facts = manifest_of(folder / "served")["golden"]
    assert facts["origin"] == "raw files"
    golden = pq.read_table(folder / "served" / "golden.parquet")
    raw = (folder / "log.csv").read_text().splitlines()
    first = golden.slice(0, 1).to_pylist()[0]
    number = 300 - 60  # the last fifth are test inputs
    assert f",{first['user']},{first['item']}," in raw[1 + number]


def test_no_script_of_the_folder_imports_fae(folder: Path) -> None:
    for path in (folder / "served").rglob("*.py"):
        assert "from fae" not in path.read_text(), path
        assert "import fae" not in path.read_text(), path


def test_files_take_the_umask_and_the_same_run_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        export(folder / "run", tmp_path / "again")
    finally:
        os.umask(before)
    paths = [path for path in (tmp_path / "again").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o640}
    assert contents(tmp_path / "again") == contents(folder / "served")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_smaller_rows_are_measured(folder: Path, tmp_path: Path, dtype: str) -> None:
    done = succeed("export", folder / "run", tmp_path / "small", "--dtype", dtype, "--json")
    change = done.result["test"]["change"]
    assert change["log_loss"] != 0
    assert abs(change["log_loss"]) < 0.01
    stored = load_file(tmp_path / "small" / "tables" / "user.safetensors")
    whole = load_file(folder / "served" / "tables" / "user.safetensors")["weight"]
    rows = stored["weight"].float() * (stored["scale"].unsqueeze(1) if dtype == "int8" else 1.0)
    assert str(stored["weight"].dtype) == f"torch.{dtype}"
    assert (rows - whole).abs().max() <= 0.01 * whole.abs().max()
    assert check_golden(ExportedModel(tmp_path / "small"))[1] < 1e-6


def test_int8_rounds_each_row_by_its_own_scale() -> None:
    rows = torch.tensor([[0.0, 0.0], [127.0, -63.5], [1e-3, 5e-4]])
    weight, scale = converted(rows, "int8")
    assert weight.tolist() == [[0, 0], [127, -64], [127, 64]]
    assert scale is not None
    assert scale.tolist() == pytest.approx([0.0, 1.0, 1e-3 / 127])


def test_a_table_above_the_limit_is_cut_into_files_with_an_index(folder: Path, tmp_path: Path) -> None:
    export(folder / "run", tmp_path / "cut", dtype="int8", file_bytes=100)
    index = json.loads((tmp_path / "cut" / "tables" / "user.safetensors.index.json").read_text())
    assert index["weight_map"]["weight.0"].startswith("user-00001-of-")
    rows = [load_file(tmp_path / "cut" / "tables" / name) for name in sorted(set(index["weight_map"].values()))]
    assert len(rows) > 2
    assert sum(len(part[f"weight.{at}"]) for at, part in enumerate(rows)) == index["metadata"]["num_rows"]
    whole = load_file(folder / "served" / "tables" / "user.safetensors")["weight"]
    weight, scale = converted(whole, "int8")
    assert torch.equal(torch.cat([part[f"weight.{at}"] for at, part in enumerate(rows)]), weight)
    assert scale is not None
    table = next(each for each in read_json(tmp_path / "cut" / "schema.json")["tables"] if each["name"] == "user")
    ids = torch.randperm(len(weight))
    found = RowTable(tmp_path / "cut", table).rows(torch.cat([ids, torch.tensor([-1])]))
    assert torch.equal(found, torch.cat([(weight.float() * scale.unsqueeze(1))[ids], torch.zeros(1, 4)]))


def test_changes_since_an_earlier_export_give_the_whole_one(folder: Path, tmp_path: Path) -> None:
    case = CASES["dlrm"]
    more = case.inputs(np.random.default_rng(9))[:80]
    case.write(
        tmp_path / "day2.csv",
        [{**each, "user": f"{each['user']}2" if at % 4 == 0 else each["user"]} for at, each in enumerate(more)],
    )
    recipe = folder / "recipe.toml"
    succeed(
        "run", recipe, "--out", tmp_path / "day2", "--set", f"log.train={tmp_path / 'day2.csv'}",
        "--set", f"train.from={folder / 'run'}", "--set", "train.epochs=1",
    )  # fmt: skip
    done = succeed("export", tmp_path / "day2", tmp_path / "changes", "--since", folder / "served", "--json")
    export(tmp_path / "day2", tmp_path / "whole")
    tables = done.result["tables"]
    assert 0 < tables["user"]["rows"] < tables["user"]["of"]
    added = pq.read_table(tmp_path / "changes" / "vocabulary" / "user.parquet").column("value").to_pylist()
    known = pq.read_table(folder / "served" / "vocabulary" / "user.parquet").column("value").to_pylist()
    assert any(value.endswith("2") for value in added)
    assert not set(added) & set(known)
    assert apply_changes(tmp_path / "changes", folder / "served", tmp_path / "applied") == len(
        manifest_of(tmp_path / "whole")["files"]
    )
    assert contents(tmp_path / "applied") == contents(tmp_path / "whole")
    with pytest.raises(InputError, match="name that one"):
        apply_changes(tmp_path / "changes", tmp_path / "whole", tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"apply\.py"):
        export(tmp_path / "day2", tmp_path / "twice", since=tmp_path / "changes")
    with pytest.raises(ArtifactError, match="--dtype float32"):
        export(tmp_path / "day2", tmp_path / "twice", since=folder / "served", dtype="int8")
    assert unfinished(tmp_path) == []


def test_checksums_tell_a_damaged_file(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "served", tmp_path / "damaged")
    path = tmp_path / "damaged" / "tables" / "item.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match=r"item\.safetensors is damaged"):
        check_sums(tmp_path / "damaged")


def test_refusals_are_one_line_and_leave_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    fault(fae("export", folder / "run", tmp_path / "mine"), "no exported folder")
    fault(fae("export", folder / "run", folder / "served"), "--replace")
    fault(fae("export", tmp_path / "none", tmp_path / "out"), "does not exist")
    fault(fae("export", folder / "run" / "log", tmp_path / "out"), "name the run")
    fault(fae("export", folder / "run", tmp_path / "out", "--since", tmp_path), "--since", "no exported folder")
    fault(fae("export", folder / "run", tmp_path / "out", "--file-size", "x"), "--file-size")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    with pytest.raises(RecipeError, match="int4"):
        export(folder / "run", tmp_path / "out", dtype="int4")  # type: ignore[arg-type]


def test_onnx_needs_its_packages(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fault(fae("export", folder / "run", tmp_path / "out", "--onnx"), "onnxruntime", "pip install 'fae[onnx]'")


@pytest.mark.parametrize("name", ["dlrm", "deepfm", "dcnv2", "wide_deep", "tbsm"])
def test_onnxruntime_gives_the_scores_of_every_model(
    exported: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs fae[onnx]")
    case, folder = CASES[name], exported(name)
    served = folder / "served"
    if not (served / "model.onnx").exists():
        served = tmp_path / "served"
        export(folder / "run", served, onnx=True)
    model = ExportedModel(served)
    session = runtime.InferenceSession(str(served / "model.onnx"))
    assert [each.name for each in session.get_inputs()] == [each["name"] for each in model.schema["model"]["inputs"]]
    for path in (folder / case.file, case.odd_file(folder)):
        for columns in model.files(path):
            ids, dense = model.encode(columns)
            (found,) = session.run(None, {key: each.numpy() for key, each in model.boundary(ids, dense).items()})
            assert np.abs(found - model.score_ids(ids, dense).numpy()).max() < 1e-6


def test_a_vocabulary_of_many_values_finds_each(tmp_path: Path) -> None:
    import pyarrow as pa

    from fae.exporting.standalone.scoring.row_files import VOCABULARY, write_vocabulary_parts

    values = [f"v{number * 7919 % 200_003}é" for number in range(200_003)]
    ids = [number + (number >= 70_000) for number in range(len(values))]
    write_vocabulary_parts(tmp_path / "v.parquet", [pa.table([values, pa.array(ids, pa.int32())], schema=VOCABULARY)])
    known = ValueIds(tmp_path / "v.parquet", 70_000, encoded=False)
    chosen = [0, 65_535, 65_536, 69_999, 70_000, 200_002]
    texts = pa.array([*(values[at] for at in chosen), "none", "", "v", "zz"])
    assert known.find(texts, "v").tolist() == [*(ids[at] for at in chosen), *[70_000] * 4]


def test_the_triton_repository_has_documented_fields(folder: Path, tmp_path: Path) -> None:
    done = succeed("export", folder / "run", tmp_path / "served", "--triton", "--json")
    assert done.result["triton"] == ["run"]
    parsed = model_config((tmp_path / "served" / "triton" / "run" / "config.pbtxt").read_text())
    assert parsed == [
        ("name", "run"), ("backend", "python"), ("max_batch_size", 2048),
        ("input", [[("name", "input"), ("data_type", "TYPE_STRING"), ("dims", [1])]]),
        ("output", [[("name", "score"), ("data_type", "TYPE_FP64"), ("dims", [1])]]), ("dynamic_batching", []),
        ("instance_group", [[("count", 1), ("kind", "KIND_CPU")]]),
    ]  # fmt: skip


def test_the_rows_model_for_triton_has_documented_fields() -> None:
    from fae.artifacts.columnar_log import FeatureSchema
    from fae.exporting.served_model import model_inputs
    from fae.exporting.triton_repository import rows_config

    kept = FeatureSchema(name='a "b"', num_embeddings=9, length=3, pooling="none")
    parsed = dict(model_config(rows_config("m_rows", model_inputs([kept], [4], 2))))
    assert parsed["backend"] == "onnxruntime"
    assert parsed["default_model_filename"] == "model.onnx"
    assert parsed["input"] == [
        [("name", "dense"), ("data_type", "TYPE_FP32"), ("dims", [2])],
        [("name", 'rows_a "b"'), ("data_type", "TYPE_FP32"), ("dims", [3, 4])],
        [("name", 'length_a "b"'), ("data_type", "TYPE_INT64"), ("dims", [1]), ("reshape", [("shape", [])])],
    ]


FIELDS: dict[str, dict[str, Any]] = {
    "ModelConfig": {
        "name": str, "backend": str, "max_batch_size": int, "input": "ModelInput", "output": "ModelOutput",
        "dynamic_batching": "ModelDynamicBatching",
        "instance_group": "ModelInstanceGroup", "default_model_filename": str,
    },
    "ModelInput": {"name": str, "data_type": "DataType", "dims": int, "reshape": "ModelTensorReshape"},
    "ModelOutput": {"name": str, "data_type": "DataType", "dims": int, "reshape": "ModelTensorReshape"},
    "ModelTensorReshape": {"shape": int},
    "ModelDynamicBatching": {},
    "ModelInstanceGroup": {"count": int, "kind": "Kind"},
}  # fmt: skip
"""The messages of Triton's model_config.proto that are written, and their fields."""
ENUMS = {"DataType": {"TYPE_STRING", "TYPE_FP32", "TYPE_FP64", "TYPE_INT64"}, "Kind": {"KIND_CPU"}}
REPEATED = {"input", "output", "dims", "shape", "instance_group"}


def model_config(text: str) -> list[tuple[str, Any]]:
    """Read the text format of a ModelConfig strictly: names and types of every field."""
    import re

    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|-?\d+|[{}\[\]:,]', text)
    assert "".join(tokens) == re.sub(r'\s+(?=(?:[^"]*"[^"]*")*[^"]*$)', "", text.replace('\\"', "'")).replace(
        "'", '\\"'
    )
    found, rest = _message(tokens, "ModelConfig")
    assert not rest
    return found


def _message(tokens: Sequence[str], kind: str) -> tuple[list[tuple[str, Any]], Sequence[str]]:
    found: list[tuple[str, Any]] = []
    while tokens and tokens[0] != "}":
        name, tokens = tokens[0], tokens[1:]
        field = FIELDS[kind][name]
        assert (tokens[0] == ":") or field in FIELDS, name
        tokens = tokens[1:] if tokens[0] == ":" else tokens
        if tokens[0] != "[":
            value, tokens = _value(tokens, field)
            found.append((name, [value] if name in REPEATED else value))
            continue
        assert name in REPEATED
        values, tokens = [], tokens[1:]
        while tokens[0] != "]":
            value, tokens = _value(tokens, field)
            values.append(value)
            tokens = tokens[1:] if tokens[0] == "," else tokens
        found.append((name, values))
        tokens = tokens[1:]
    return found, tokens


def _value(tokens: Sequence[str], field: Any) -> tuple[Any, Sequence[str]]:
    if field in FIELDS:
        assert tokens[0] == "{"
        found, tokens = _message(tokens[1:], field)
        return found, tokens[1:]
    if field is str:
        return json.loads(tokens[0]), tokens[1:]
    if field is int:
        return int(tokens[0]), tokens[1:]
    assert tokens[0] in ENUMS[field]
    return tokens[0], tokens[1:]
