"""Fill an exported folder: schema, vocabularies, rows, model, scripts, golden inputs, and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fae.artifacts.checkpoint import read_result
from fae.artifacts.columnar_log import model_features
from fae.artifacts.table_names import file_stems
from fae.checkpoint.parent import ParentRun
from fae.checkpoint.save_load import load_dense
from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import MANIFEST
from fae.core.progress import say, task
from fae.core.whole_files import write_json
from fae.exporting.changed_rows import FORMAT_VERSION, KIND
from fae.exporting.golden_inputs import confirmed_golden, draw_golden
from fae.exporting.measured_change import measure_exported, run_scores
from fae.exporting.onnx_model import ONNX_FILE, check_onnx, write_onnx
from fae.exporting.schema_file import build_schema, exported_settings
from fae.exporting.served_model import ServedModel, export_program, save_program
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.table_files import FILE_BYTES, ROW_TYPES, RowType, write_table
from fae.exporting.triton_repository import write_repository
from fae.exporting.vocabulary_files import export_vocabulary
from fae.models.config import model_config
from fae.models.registry import build_model, embedding_dims
from fae.run.scoring import map_tables

_COPIED = "fae.exporting.standalone"
_SCRIPTS = ("check.py", "serve.py", "apply.py")
_TOLERANCE = 1e-6
_HASH_BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an exported folder holds beside the model itself.

    Attributes
    ----------
    dtype
        Type of the rows: ``float32``, ``float16``, ``bfloat16``, or ``int8`` with a scale a row.
    file_bytes
        Largest file of rows; a larger table is cut by rows into several files with an index.
    onnx
        Whether there is a ``model.onnx`` too.
    triton
        Whether there is a model repository for Triton Inference Server.
    """

    dtype: RowType = "float32"
    onnx: bool = False
    triton: bool = False
    file_bytes: int = FILE_BYTES

    def __post_init__(self) -> None:
        if self.dtype not in ROW_TYPES:
            raise RecipeError(f"dtype = {self.dtype!r} is not one of {', '.join(ROW_TYPES)}")
        if self.file_bytes < 1:
            raise RecipeError(f"file_bytes = {self.file_bytes} must be 1 or more")


def write_exported(run: ParentRun, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Fill an empty folder; return its manifest.

    Raises
    ------
    ArtifactError
        If a file of the run is damaged, or the exported model does not score as the run does.
    """
    log, made_with = run.log, run.manifest.parameters
    if not {"model", "train"} <= made_with.keys():
        raise ArtifactError(f"{run.checkpoint} was not made by `fae run` or `fae train`, so its model is not known")
    config, settings = model_config(made_with["model"]), exported_settings(log)
    dims, stems = embedding_dims(config, log.features), file_stems([feature.name for feature in log.features])
    schema = build_schema(log, settings, made_with["model"], dims, stems)
    for name in ("vocabulary", "tables"):
        (folder / name).mkdir()
    with task("export: vocabularies", len(stems), "tables") as progress:
        for table, entry in enumerate(schema["tables"]):
            export_vocabulary(folder / entry["vocabulary"], log, table)
            progress.advance(1)
    weights = map_tables(run.checkpoint, run.manifest, log, command=run.command)
    with task("export: rows", 4 * sum(weight.numel() for weight in weights), "bytes") as progress:
        for entry, stem, weight in zip(schema["tables"], stems, weights, strict=True):
            written = write_table(folder, stem, weight, options.dtype, file_bytes=options.file_bytes, progress=progress)
            entry |= {"rows": written.entry, "dtype": options.dtype}
    model = build_model(config, log.features, len(log.dense_names), seed=0)
    load_dense(run.checkpoint, model)
    program = export_program(ServedModel(model, model_features(log.features)), schema["model"]["inputs"])
    save_program(program, folder / schema["model"]["file"])
    if options.onnx:
        write_onnx(program, schema["model"]["inputs"], folder / ONNX_FILE)
        schema["model"]["onnx"] = ONNX_FILE
    _copy_scripts(folder)
    return _finish(run, folder, options, schema)


def _finish(run: ParentRun, folder: Path, options: ExportOptions, schema: dict[str, Any]) -> dict[str, Any]:
    """Golden inputs, measurement, schema.json and manifest.json."""
    log = run.log
    settings = exported_settings(log)
    write_json(folder / "schema.json", schema)
    manifest: dict[str, Any] = {
        "kind": KIND, "format_version": FORMAT_VERSION, "run": run.checkpoint.parent.name,
        "fingerprints": {"checkpoint": run.manifest.fingerprint, "log": log.manifest.fingerprint},
        "versions": _versions(), "dtype": options.dtype,
    }  # fmt: skip
    write_json(folder / MANIFEST, manifest)
    served = ExportedModel(folder)
    drawn = draw_golden(log, settings, schema["dense"])
    golden = confirmed_golden(drawn, served, log)
    if golden.origin == "raw files" and len(golden.positions) < len(drawn.positions):
        say("export: the raw files are no longer those of the log, so golden inputs are made from ids and vocabularies")
        golden = confirmed_golden(draw_golden(log, settings, schema["dense"], raw=False), served, log)
    names = set(golden.columns.column_names)
    schema["golden"] = {
        "file": "golden.parquet", "score": _free_name("score", names), "run_score": _free_name("run_score", names),
        "origin": golden.origin,
    }  # fmt: skip
    write_json(folder / "schema.json", schema)
    from_run = run_scores(run, golden.positions)
    ids, dense = (torch.from_numpy(np.array(array[golden.positions])) for array in (log.ids, log.dense))
    scores = from_run if options.dtype == "float32" else served.score_ids(ids, dense).numpy()
    table = golden.columns.append_column(schema["golden"]["score"], [scores])
    pq.write_table(table.append_column(schema["golden"]["run_score"], [from_run]), folder / "golden.parquet")
    manifest["golden"] = {"num_inputs": len(scores), "origin": golden.origin}
    _check_served(served, folder, schema, scores)
    if options.onnx:
        manifest["onnx"] = {"largest_difference": _check_onnx(served, folder, ids, dense)}
    if options.triton:
        manifest["triton"] = write_repository(folder, manifest["run"], schema)
    manifest["test"] = measure_exported(served, log, read_result(run.checkpoint)["test"])
    manifest["files"] = describe_exported(folder)
    write_json(folder / MANIFEST, manifest)
    return manifest


def _check_onnx(served: ExportedModel, folder: Path, ids: Tensor, dense: Tensor) -> float:
    inputs = served.boundary(ids, dense)
    return check_onnx(folder / ONNX_FILE, inputs, served.score_ids(ids, dense))


def _check_served(served: ExportedModel, folder: Path, schema: Mapping[str, Any], expected: Any) -> None:
    """Refuse to leave a folder whose scores of its own golden inputs are not those of the run."""
    found = [served.score(columns).numpy() for columns in served.files(folder / schema["golden"]["file"])]
    worst = float(np.abs(np.concatenate([np.zeros(0), *found]) - expected).max(initial=0.0))
    if not worst <= _TOLERANCE:
        raise ArtifactError(
            f"the exported model scores its golden inputs differently from the run, by up to {worst:.3g}; this is a "
            "defect of fae or of the run's log; export was given up"
        )


def _free_name(name: str, taken: set[str]) -> str:
    return name if name not in taken else _free_name(f"{name}_", taken)


def _versions() -> dict[str, str]:
    found = {}
    for name in ("fae", "torch", "safetensors", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _copy_scripts(folder: Path) -> None:
    """Copy the scripts, which import each other as neighbours there."""
    source = package_files(_COPIED)
    for name in _SCRIPTS:
        (folder / name).write_text(as_neighbour(source.joinpath(name).read_text()))
    (folder / "scoring").mkdir()
    for file in source.joinpath("scoring").iterdir():
        if file.name.endswith(".py"):
            (folder / "scoring" / file.name).write_text(as_neighbour(file.read_text()))


def as_neighbour(source: str) -> str:
    """The source of a script, with imports from its own folder and not from FAE."""
    return source.replace(f"{_COPIED}.", "")


def describe_exported(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file but manifest.json, by relative path; the files take the umask."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    paths = [path for path in paths if "__pycache__" not in path.parts]
    found = {}
    with task("export: checksums", sum(path.stat().st_size for path in paths), "bytes") as progress:
        for path in paths:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_HASH_BLOCK):
                    digest.update(block)
                    progress.advance(len(block))
            found[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    return found
