"""What the dense part of a step computes: operations, bytes and kernels, read from the model itself without memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fae.artifacts.columnar_log import model_features
from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.kernels.geometry import group_geometries
from fae.models.registry import sketch_model
from fae.planning.step_work import StepSettings

_VIEWS = frozenset(
    ("view", "_unsafe_view", "t", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "alias",
     "split", "permute", "as_strided", "reshape", "unbind")
)  # fmt: skip
"""Operators that move nothing."""
_FOLDED = frozenset(("relu", "threshold_backward", "sum"))
"""Operators that the fused blocks fold into their products: ReLU, its mask, gradients of biases."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """One kind of matrix product: `count` of them, each of `flops` operations over `num_bytes` of operands."""

    flops: float
    num_bytes: float
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class DenseWork:
    """The dense part of one step: forward, loss, backward, update.

    Attributes
    ----------
    products
        Matrix products; those of small matrices of each input as one.
    other_bytes
        Bytes that all other operators read and write.
    kernels
        Kernels, about: products, others, and the update of the weights.
    parameters
        Dense weights.
    """

    products: tuple[Product, ...]
    other_bytes: float
    kernels: int
    parameters: int

    @property
    def flops(self) -> float:
        """Operations of all products."""
        return sum(product.flops * product.count for product in self.products)

    def seconds(self, product_rate: float, memory_rate: float, kernel_seconds: float) -> float:
        """Time on a machine that reaches its ceilings: each product by the slower of operations and bytes."""
        products = sum(
            product.count * max(product.flops / product_rate, product.num_bytes / memory_rate)
            for product in self.products
        )
        return products + self.other_bytes / memory_rate + self.kernels * kernel_seconds


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators of a forward and backward pass on torch's meta device."""

    def __init__(self, *, float_bytes: int, fused: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: dict[tuple[float, float], int] = {}
        self.other_bytes, self.kernels = 0.0, 0
        self._float_bytes, self._fused = float_bytes, fused

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        name = packet.__name__
        if name in _VIEWS or (self._fused and name in _FOLDED):
            return out
        touched = sum(self._bytes(each) for each in (*args, *kwargs.values(), out))
        self.kernels += 1
        if packet in flop_registry:
            key = (float(flop_registry[packet](*args, **kwargs, out_val=out)), touched)
            self.products[key] = self.products.get(key, 0) + 1
        else:
            self.other_bytes += touched
        return out

    def _bytes(self, value: Any) -> float:
        if isinstance(value, Tensor):
            return float(value.numel() * (self._float_bytes if value.is_floating_point() else value.element_size()))
        if isinstance(value, (list, tuple)):
            return sum(self._bytes(each) for each in value)
        return 0.0


_counted: dict[tuple[str, bool], DenseWork] = {}


def dense_work(settings: StepSettings, *, on_gpu: bool) -> DenseWork:
    """Count the dense part of a step of these settings.

    Parameters
    ----------
    on_gpu
        Whether ReLU and biases are folded into products, as the fused blocks of a GPU do in bfloat16.

    Raises
    ------
    RecipeError
        If the model cannot take these features.
    """
    key = (repr(settings), on_gpu)
    if key not in _counted:
        _counted[key] = _count(settings, on_gpu=on_gpu)
    return _counted[key]


def _count(settings: StepSettings, *, on_gpu: bool) -> DenseWork:
    model = sketch_model(settings.model, settings.features, settings.num_dense)
    size, meta = settings.batch_size, torch.device("meta")
    is_bf16 = settings.precision == "bf16"
    recorder = _Recorder(float_bytes=2 if is_bf16 else 4, fused=on_gpu and is_bf16)
    dense = torch.zeros((size, settings.num_dense), device=meta)
    embeddings = _sketched_embeddings(settings, meta)
    with recorder:
        logits = model(dense, embeddings)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros(size, device=meta))
        loss.backward()  # type: ignore[no-untyped-call]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # An update reads weight and gradient and writes the weight, with its state; a GPU does all weights in one kernel.
    update = 4.0 * parameters * (3 + 2 * (settings.optimizer != "sgd"))
    updates = 1 if on_gpu else 2 * len(list(model.parameters()))
    return DenseWork(
        products=tuple(
            Product(flops=flops, num_bytes=touched, count=count)
            for (flops, touched), count in recorder.products.items()
        ),
        other_bytes=recorder.other_bytes + update,
        kernels=recorder.kernels + updates,
        parameters=parameters,
    )


def _sketched_embeddings(settings: StepSettings, device: torch.device) -> FeatureEmbeddings:
    """The features of a batch as a lookup gives them, without values."""
    columns = model_features(settings.features)
    dims = settings.model.dims([column.name for column in columns])
    widths = sorted(set(dims))
    groups = [[index for index, own in enumerate(dims) if own == width] for width in widths]
    geometries = group_geometries([column.length for column in columns], [column.pooling for column in columns], dims)
    leaves = [
        torch.zeros((settings.batch_size, geometry.width), device=device, requires_grad=True) for geometry in geometries
    ]
    lengths = {
        column.name: torch.zeros(settings.batch_size, dtype=torch.int64, device=device)
        for column in columns
        if column.pooling == "none"
    }
    return FeatureEmbeddings(FeatureViews([column.name for column in columns], groups, geometries), leaves, lengths)


def products_in_words(work: DenseWork) -> str:
    """For people: ``31 products, 37.2 GFLOP, 12.1 M weights``."""
    count = sum(product.count for product in work.products)
    digits = max(0, 2 - int(math.log10(max(1.0, work.flops / 1e9))))
    return f"{count} products, {work.flops / 1e9:.{digits}f} GFLOP, {work.parameters / 1e6:.2f} M weights"
