"""What a command imports on its way: libraries that take seconds to load stay out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fae.models.config import MODEL_CONFIGS

from commands import write_log, write_recipe

FOREIGN = {
    "IPython", "dask", "distributed", "matplotlib", "onnx", "onnxruntime", "onnxscript", "pandas", "polars", "scipy",
    "sklearn", "sympy", "tensorboard", "torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "wandb",
}  # fmt: skip
"""What no run needs; what is not installed here is not looked for."""

_RUN = """
import json, sys
from fae.cli.main import main
try:
    status = main(json.loads(sys.argv[1]))
except SystemExit as end:
    status = end.code or 0
print(json.dumps([status, sorted(sys.modules)]))
"""

_HELP = """
import argparse, contextlib, io, json, sys
from fae.cli.main import build_parser, main
verbs = next(each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction)).choices
assert {"run", "train", "predict", "bench"} <= set(verbs)
for arguments in ([], ["--help"], ["--version"], *([verb, "--help"] for verb in verbs)):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code or 0
    assert status == 0, arguments
print(json.dumps([0, sorted(sys.modules)]))
"""

_SKETCH = """
import json, sys
from fae.artifacts.columnar_log import FeatureSchema
from fae.models.config import MODEL_CONFIGS
from fae.models.registry import sketch_model
columns = json.loads(sys.argv[1])
features = [FeatureSchema(name=name, num_embeddings=9, length=length, pooling=how) for name, length, how in columns]
model = sketch_model(MODEL_CONFIGS[sys.argv[2]](), features, 3)
tensors = [*model.parameters(), *model.buffers()]
assert tensors and all(tensor.is_meta for tensor in tensors)
print(json.dumps([0, sorted(sys.modules)]))
"""


def loaded_by(program: str, *arguments: str) -> set[str]:
    """The modules that a fresh interpreter has loaded when the program has ended well."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    status, names = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    return set(names)


def test_no_help_loads_a_library() -> None:
    loaded = loaded_by(_HELP)
    assert "fae.cli.main" in loaded
    assert not loaded & (FOREIGN | {"llvmlite", "numba", "numpy", "pyarrow", "safetensors", "torch", "triton", "yaml"})


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_loads_nothing_foreign(tmp_path: Path, optimizer: str) -> None:
    """From text to a trained, evaluated and saved model; then once more, where the data stages are done."""
    write_log(tmp_path)
    recipe = write_recipe(tmp_path, train={"optimizer": optimizer}, hot={"budget": "16KiB"})
    run = ["run", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]
    for arguments in (run, [*run, "--set", "train.seed=5", "--replace"]):
        loaded = loaded_by(_RUN, json.dumps(arguments))
        assert {"numba", "torch"} <= loaded
        assert not loaded & FOREIGN


@pytest.mark.parametrize("name", sorted(MODEL_CONFIGS))
def test_sketching_a_model_loads_no_compiler(name: str) -> None:
    columns = [["history", 4, "none"], ["item", 1, "sum"]] if name == "tbsm" else [["a", 1, "sum"], ["b", 1, "sum"]]
    assert not loaded_by(_SKETCH, json.dumps(columns), name) & FOREIGN
