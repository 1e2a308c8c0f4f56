"""When dense features go to a GPU in bfloat16: where a training in bf16 rounds them before anything else reads them.

Half of their bytes then, and the same bytes of results. A model of FAE says whether it does so (`rounds_dense`); what a
model of one's own does with them is not known, so it gets float32. They are rounded once, in host memory, when a split
is first sent (`fae.artifacts.batch_arrays.BatchArrays.rounded_dense`), unless that would take too much of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from fae.artifacts.batch_arrays import BatchSizes
from fae.artifacts.packed import PackedDataset
from fae.core.host_memory import available_bytes
from fae.embedding.base import Embeddings
from fae.embedding.working_memory import rounded_bytes
from fae.models.registry import MODELS
from fae.training.real_inputs import module_of
from fae.training.step import Precision

_MEMORY_PART = 8
"""Rounded features may take one in so many bytes of the available memory: beside them files are in memory, and rows."""


def rounds_dense(model: Callable[..., Tensor], precision: Precision) -> bool:
    """Whether a model rounds dense features to bfloat16 before anything reads them."""
    module = module_of(model)
    return precision == "bf16" and type(module) in MODELS.values() and bool(getattr(module, "rounds_dense", False))


def fit_in_memory(splits: Sequence[BatchSizes], batch_size: int) -> bool:
    """Whether the rounded features of all splits may be in host memory."""
    free = available_bytes()
    needed = sum(rounded_bytes(batch_size * split.num_batches, split.num_dense) for split in splits)
    return not free or _MEMORY_PART * needed <= free


def send_dense(
    model: Callable[..., Tensor], embeddings: Embeddings, precision: Precision, packed: PackedDataset
) -> None:
    """Have dense features sent as this model needs them, in streams that begin from here on."""
    splits = (packed.train, packed.validation, packed.test)
    embeddings.round_dense(rounds=rounds_dense(model, precision) and fit_in_memory(splits, packed.batch_size))


@contextmanager
def dense_sent_for(
    model: Callable[..., Tensor], embeddings: Embeddings, precision: Precision, packed: PackedDataset
) -> Iterator[None]:
    """As `send_dense` while the block runs, and in float32 behind it: what streams then is not known."""
    send_dense(model, embeddings, precision, packed)
    try:
        yield
    finally:
        embeddings.round_dense(rounds=False)
