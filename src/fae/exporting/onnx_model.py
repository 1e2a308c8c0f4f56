"""Write the served model as ONNX, and compare it with onnxruntime; needs the extra ``fae[onnx]``."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fae.core.errors import ArtifactError, RecipeError

ONNX_FILE = "model.onnx"
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_TOLERANCE = 1e-6


def require_onnx() -> None:
    """Refuse to begin where a package of the extra is missing.

    Raises
    ------
    RecipeError
        If so; it names the command that installs them.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise RecipeError(
            f"--onnx needs {', '.join(missing)}, not installed here; run `pip install 'fae[onnx]'` (in a clone: "
            "`pip install -e '.[onnx]'`), or leave --onnx out"
        )


def write_onnx(program: Any, inputs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write an exported program (`fae.exporting.served_model.export_program`) with inputs of these names."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of operators that other packages would bring
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                program, (), path, input_names=[each["name"] for each in inputs], output_names=["score"], dynamo=True,
                external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        logger.setLevel(level)


def check_onnx(path: Path, inputs: Mapping[str, Tensor], expected: Tensor) -> float:
    """Run the model by onnxruntime; return the largest difference of a score from `expected`.

    Raises
    ------
    ArtifactError
        If one differs by more than 1e-6, or the runtime does not take the model.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (found,) = session.run(["score"], {name: tensor.numpy() for name, tensor in inputs.items()})
    except Exception as error:  # onnxruntime has no common class of errors
        line = " ".join(str(error).split())
        raise ArtifactError(f"onnxruntime does not run the exported model: {line}; leave --onnx out") from error
    worst = float(np.abs(found - expected.numpy()).max(initial=0.0))
    if not worst <= _TOLERANCE:
        raise ArtifactError(f"onnxruntime's scores differ from the model's by {worst:.3g}; leave --onnx out")
    return worst
