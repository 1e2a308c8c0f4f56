"""What a model sees of a batch: FAE's own models all places of the batch, any other one its real inputs alone.

A batch that is not full is padded with zeros. FAE's models compute every input by itself, so padding changes nothing,
and shapes stay fixed. A model of one's own may look across the batch (batch normalisation does), so on a CPU and in
evaluation it gets the real inputs. On a GPU, where captured steps need one shape, a padded batch is cut, and its step
run kernel by kernel, for models that say so: those with batch normalisation, or with `couples_inputs = True`.

Dense features go to a GPU in bfloat16 where a training in bf16 rounds them before anything else reads them: half of
their bytes, and the same bytes of results. A model of FAE says whether it does so (`rounds_dense`); what a model of
one's own does with them is not known, so it gets float32. They are rounded once, in host memory, when a split is first
sent (`fae.artifacts.batch_arrays.BatchArrays.rounded_dense`), unless that would take too much of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fae.artifacts.batch_arrays import BatchSizes
from fae.artifacts.packed import PackedDataset
from fae.core.errors import RecipeError
from fae.core.host_memory import available_bytes
from fae.core.progress import say
from fae.embedding.base import Embeddings
from fae.embedding.features import FeatureEmbeddings
from fae.embedding.working_memory import rounded_bytes
from fae.models.registry import MODELS
from fae.streaming.ready_batch import ReadyBatch
from fae.training.compiled_model import CompiledModel

_OWN = tuple(MODELS.values())
_told: WeakSet[nn.Module] = WeakSet()
_MEMORY_PART = 8
"""Rounded dense features may take a part of the available memory: files are in it beside them, and rows."""


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


def rounds_dense(model: Callable[..., Tensor], precision: str) -> bool:
    """Whether a model rounds dense features to bfloat16 before anything reads them."""
    module = module_of(model)
    return precision == "bf16" and type(module) in _OWN and bool(getattr(module, "rounds_dense", False))


def fit_in_memory(splits: Sequence[BatchSizes], batch_size: int) -> bool:
    """Whether the rounded features of all splits may be in host memory."""
    free = available_bytes()
    needed = sum(rounded_bytes(batch_size * split.num_batches, split.num_dense) for split in splits)
    return not free or _MEMORY_PART * needed <= free


def send_dense(model: Callable[..., Tensor], embeddings: Embeddings, precision: str, packed: PackedDataset) -> None:
    """Have dense features sent as this model needs them, in streams that begin from here on."""
    splits = (packed.train, packed.validation, packed.test)
    embeddings.round_dense(rounds=rounds_dense(model, precision) and fit_in_memory(splits, packed.batch_size))


@contextmanager
def dense_sent_for(
    model: Callable[..., Tensor], embeddings: Embeddings, precision: str, packed: PackedDataset
) -> Iterator[None]:
    """As `send_dense` while the block runs, and in float32 behind it: what streams then is not known."""
    send_dense(model, embeddings, precision, packed)
    try:
        yield
    finally:
        embeddings.round_dense(rounds=False)
