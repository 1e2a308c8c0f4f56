"""Triton's Python backend for an exported folder: raw inputs, one JSON object each, to scores.

The folder is three levels up: triton/NAME/1/model.py belongs to the folder that holds triton/.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if not __package__:
    sys.dont_write_bytecode = True  # the folder stays as it is
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import json

import numpy as np
import triton_python_backend_utils as pb_utils

from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.scoring.input_objects import columns_of_objects
from fae.exporting.standalone.scoring.input_text import InputError


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the exported folder."""
        del args
        self.model = ExportedModel(Path(__file__).resolve().parents[3])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score each request: bytes ``[n, 1]``, JSON, to float64 ``[n, 1]``."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        texts = pb_utils.get_input_tensor_by_name(request, "input").as_numpy().reshape(-1).tolist()
        try:
            objects = [json.loads(text) for text in texts]
            if not all(isinstance(each, dict) for each in objects):
                raise InputError("expected one JSON object an input")
            scores = self.model.score(columns_of_objects(objects, self.model.schema)).tolist()
        except (ValueError, RecursionError) as error:
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))
        found = np.array(scores, np.float64).reshape(-1, 1)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("score", found)])
