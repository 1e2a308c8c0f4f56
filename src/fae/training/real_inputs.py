"""Which inputs of a batch a model sees: FAE's own models all places of the batch, any other one its real inputs alone.

A batch that is not full is padded with zeros. FAE's models compute every input by itself, so padding changes nothing,
and shapes stay fixed. A model of one's own may look across the batch (batch normalisation does), so on a CPU and in
evaluation it gets the real inputs. On a GPU, where captured steps need one shape, a padded batch is cut, and its step
run kernel by kernel, for models that say so: those with batch normalisation, or with `couples_inputs = True`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fae.core.errors import RecipeError
from fae.core.progress import say
from fae.embedding.features import FeatureEmbeddings
from fae.models.registry import MODELS
from fae.streaming.ready_batch import ReadyBatch
from fae.training.compiled_model import CompiledModel

_OWN = tuple(MODELS.values())
_told: WeakSet[nn.Module] = WeakSet()


def module_of(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The model itself, where `model` is its compiled form."""
    return model.model if isinstance(model, CompiledModel) else model


def needs_real_inputs(model: Callable[..., Tensor], device: torch.device) -> bool:
    """Whether padded inputs are kept from this model in training on `device`; in evaluation, see `cut_to_real`."""
    module = module_of(model)
    if type(module) in _OWN:
        return False
    if device.type == "cpu" or getattr(module, "couples_inputs", False):
        return True
    return isinstance(module, nn.Module) and any(isinstance(part, _BatchNorm) for part in module.modules())


def require_single_inputs(model: nn.Module, world: int) -> None:
    """Refuse a model that may look across the inputs of a batch where the batch is cut into slices.

    Raises
    ------
    RecipeError
        If it is none of FAE's own, which compute every input by itself.
    """
    if type(model) not in _OWN:
        who, fix = (f"{world} ranks", "start one process") if world > 1 else ("slices", "leave out reproducible")
        raise RecipeError(
            f"{type(model).__name__} is a model of your own, which may look across the inputs of a batch, as batch "
            f"normalisation does; {who} train one of {', '.join(MODELS)} so far: {fix}"
        )


def cut_to_real(
    model: Callable[..., Tensor], batch: ReadyBatch, features: FeatureEmbeddings, *, device: torch.device
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What `model` is called with: dense features ``[n, K]`` and embeddings, n = B or the number of real inputs."""
    if batch.num_inputs < len(batch.labels) and needs_real_inputs(model, device):
        return batch.dense[: batch.num_inputs], features.first(batch.num_inputs)
    return batch.dense, features


@contextmanager
def single_input(model: Callable[..., Tensor], dense: Tensor) -> Iterator[None]:
    """While the one input of a batch is trained, batch normalisation takes its running statistics, as in evaluation.

    One value has no spread: torch refuses it, and its mean would be a tenth of the running one from then on.
    """
    module = module_of(model)
    parts = []
    if len(dense) == 1 and isinstance(module, nn.Module) and type(module) not in _OWN:
        parts = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    if parts and module not in _told:
        assert isinstance(module, nn.Module)
        _told.add(module)
        say(
            f"train: a batch has one input, of which {type(module).__name__}'s batch normalisation can take no "
            "statistics: it takes its running ones there. Another [train] batch_size would leave no such batch"
        )
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True
