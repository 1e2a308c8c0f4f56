"""The artifact ``checkpoint`` without its tensors: its manifest and where training is; imports no torch.

`fae.checkpoint.save_load` writes and loads the tensors; ``formats/checkpoint.md`` describes the files by the byte.
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

    Parameters
    ----------
    command
        What makes it again, for the error message.

    Raises
    ------
    ArtifactError
        If there is none, or it is damaged.
    """
    return read_manifest(path, KIND, FORMAT_VERSION, command=command)


def read_progress(path: Path) -> dict[str, Any]:
    """Values of ``progress.json``: where training is.

    Raises
    ------
    ArtifactError
        If there is no checkpoint, or it is damaged.
    """
    open_checkpoint(path)
    progress: dict[str, Any] = json.loads((path / "progress.json").read_text())
    return progress
