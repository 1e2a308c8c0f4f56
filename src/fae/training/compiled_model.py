"""The dense part of a step as `torch.compile` makes it: fewer and larger kernels, for models without kernels of ours.

`fae.training.runner` runs a model through this on a GPU where ``[train] compile`` says so. It saves launches: TBSM's
dense part is some 170 kernels of 3 us, which at batches of 256 is the whole step. Blocks that `fae.training.dense` has
fused write their gradients past autograd, so a model that has one is left as it is. The compiled form computes what the
model does, up to the rounding of sums. No kernel is chosen by a measurement, so the same inputs give the same bytes in
every process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.kernels.torch_private import allow_recompiles
from fae.models.layers import MLP

_OPTIONS: dict[str, Any] = {"deterministic": True}
_MOST_FORMS = 64
"""Compiled forms of one function before torch gives up and says so only in its log: each model of a process is one."""


class CompiledModel:
    """Called as the model is, with the features of a batch; compiled at the first call, which takes half a minute.

    Parameters
    ----------
    model
        A model without fused blocks: see `can_compile`.
    """

    def __init__(self, model: nn.Module) -> None:
        allow_recompiles(_MOST_FORMS)
        self.model = model
        self._views: FeatureViews | None = None
        # Without autotuning: a measurement of the fastest form of a kernel would decide the order of its sums.
        self._compiled = torch.compile(self._forward, dynamic=False, options=_OPTIONS)

    def __call__(self, dense: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B]``."""
        if not isinstance(features, FeatureEmbeddings):
            return self.model(dense, features)  # type: ignore[no-any-return]
        # Built again inside, from tensors: a mapping that reads lazily would have to be traced.
        self._views, buffers, lengths = features.parts()
        result: Tensor = self._compiled(dense, buffers, lengths)
        return result

    def _forward(self, dense: Tensor, buffers: Sequence[Tensor], lengths: Mapping[str, Tensor]) -> Any:
        assert self._views is not None
        return self.model(dense, FeatureEmbeddings(self._views, buffers, lengths))


def can_compile(model: nn.Module) -> bool:
    """Whether no block of the model has been fused."""
    return not any(isinstance(block, MLP) and block.fused is not None for block in model.modules())


def forward_of(model: nn.Module, device: torch.device, *, compiled: bool) -> Callable[..., Tensor]:
    """The function that runs a model on `device`: itself or, on a GPU, its compiled form where wanted and possible."""
    return CompiledModel(model) if compiled and device.type == "cuda" and can_compile(model) else model
