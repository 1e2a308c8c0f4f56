"""The folder of a checkpoint as every stage may look at it: its manifest and where training stands, without torch.

Place in the flow: under `fae.checkpoint.save_load`, which writes and loads the tensors, and under `fae.checkpoint.parent`,
which ingest asks. Invariant: nothing here reads a tensor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fae.artifacts.manifest import Manifest, read_manifest

KIND = "checkpoint"
FORMAT_VERSION = 1
COMMAND = "fae train RECIPE.toml"


def open_checkpoint(path: Path, *, command: str = COMMAND) -> Manifest:
    """Check a checkpoint and return its manifest.

    Raises
    ------
    ArtifactError
        If there is none, or it is damaged.
    """
    return read_manifest(path, KIND, FORMAT_VERSION, command=command)


def read_progress(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as `progress`; raises `ArtifactError` where the checkpoint is damaged."""
    open_checkpoint(path)
    progress: dict[str, Any] = json.loads((path / "progress.json").read_text())
    return progress
