"""The artifact ``checkpoint`` without its tensors: its manifest and where training is; imports no torch.

`fae.checkpoint.save_load` writes and loads the tensors; ``formats/checkpoint.md`` describes the files by the byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fae.artifacts.checksums import damaged
from fae.artifacts.columnar_log import MOST_ROWS
from fae.artifacts.manifest import Manifest, read_manifest
from fae.artifacts.schema import MOST_DIM, Fields
from fae.core.whole_files import read_json

KIND = "checkpoint"
FORMAT_VERSION = 1
COMMAND = "fae train RECIPE.toml"
PROGRESS = "progress.json"


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
    try:
        progress = read_json(path / PROGRESS)
        if not isinstance(progress, dict) or not progress.keys() <= _PROGRESS_TYPES.keys():
            raise ValueError("it has other keys")
        for name, value in progress.items():
            kinds = _PROGRESS_TYPES[name]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise ValueError(f"{name} is {str(value)[:40]}")
    except (OSError, ValueError) as error:
        raise damaged(path, PROGRESS, COMMAND, str(error)) from error
    return {"complete": False, "result": {}, **progress}


def read_result(path: Path) -> dict[str, Any]:
    """What a finished training of a recipe found: ``train``, ``validation`` and ``test``.

    Raises
    ------
    ArtifactError
        If there is no checkpoint, it is damaged, or it has no such result.
    """
    result: dict[str, Any] = read_progress(path)["result"]
    wanted: dict[str, set[str]] = {
        "train": {"num_inputs", "seconds", "samples_per_second"},
        "validation": set(),
        "test": {"auc", "log_loss"},
    }
    for name, keys in wanted.items():
        if not isinstance(result.get(name), dict) or not keys <= result[name].keys():
            raise damaged(path, PROGRESS, COMMAND, f"its result has no {name}")
    return result


_NUMBER, _NULL = (int, float), (int, float, type(None))
_PROGRESS_TYPES: dict[str, tuple[type, ...]] = {
    "schedule": (dict,), "in_segment": (int,), "batches": (int,), "inputs": (int,), "window_loss": _NULL,
    "window_inputs": _NUMBER, "curve": (list,), "validation": (list,), "best_loss": _NULL,
    "epochs_without_gain": (int,), "seconds": _NUMBER, "stage_seconds": _NUMBER, "timed_seconds": _NUMBER,
    "timed_inputs": (int,), "traffic": (dict,), "phase_seconds": (dict,), "threads": (int,), "stopped_early": (bool,),
    "complete": (bool,), "result": (dict,), "epoch_curve": (list,), "epoch_loss": _NUMBER, "epoch_weight": _NUMBER,
    "stopped_by": (str, type(None)),
}  # fmt: skip
"""As `fae.training.position.Position`, whose values they are."""


def read_tables(manifest: Manifest, path: Path, *, command: str = COMMAND) -> list[tuple[str, int, int]]:
    """Name, rows and width of every table of a checkpoint, as its summary says.

    Raises
    ------
    ArtifactError
        If they are not what they can be.
    """
    return [
        (part.text("name"), part.whole("num_embeddings", 1, MOST_ROWS), part.whole("embedding_dim", 1, MOST_DIM))
        for part in Fields(manifest.summary, "summary", path, command).parts("tables")
    ]
