"""Name the training of a model of one's own, so that `Trainer` can keep, resume and continue its checkpoints."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fae.artifacts.checkpoint import FORMAT_VERSION, KIND, open_checkpoint, read_progress
from fae.artifacts.manifest import Plan, is_current
from fae.artifacts.packed import PackedDataset
from fae.checkpoint.more_epochs import find_earlier_epochs, trained_batches
from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST
from fae.embedding.base import Embeddings
from fae.training.config import TrainConfig

_COMMAND = "the script that trained it"


def plan_own_training(
    folder: Path, model: nn.Module, embeddings: Embeddings, packed: PackedDataset, config: TrainConfig
) -> Plan:
    """The plan of a training that no recipe describes.

    It names the class of the model with the shapes of its weights, the configuration, the device and the packed
    batches; neither the code of the model nor its first values.

    Raises
    ------
    ArtifactError
        If `folder` has a finished training of another plan.
    """
    weights = {name: list(weight.shape) for name, weight in model.named_parameters()}
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    plan = Plan(
        kind=KIND,
        format_version=FORMAT_VERSION,
        parameters={
            "model": {"class": kind, "weights": weights},
            "train": config.to_parameters(),
            "device": embeddings.device.type,
        },
        parents={packed.manifest.kind: trained_batches(folder, packed.fingerprints)},
        command=_COMMAND,
    )
    path = folder / KIND
    if not (path / MANIFEST).is_file() or is_current(path, plan) or find_earlier_epochs(folder, plan) is not None:
        return plan
    open_checkpoint(path, command=_COMMAND)
    if read_progress(path)["complete"]:
        raise ArtifactError(
            f"{folder} has a finished training of another model, configuration or log; give Trainer another folder, "
            f"or delete {path}"
        )
    return plan
