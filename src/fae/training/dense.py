"""The dense weights of a model as one flat vector: one kernel updates all of them, and keeps their bfloat16 copy.

On a GPU it replaces `torch.optim`: an update of dozens of small launches becomes one. Every parameter becomes a view of
the flat vector. The update rules are those of torch's SGD, Adagrad and Adam with their defaults, on float32 weights;
`state_dict` has torch's form, so checkpoints fit both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fae.core.optimizers import DEFAULT_BETAS, OPTIMIZER_CODE, optimizer_facts, state_width
from fae.distributed.dense_sums import SubtreeSum, num_levels
from fae.kernels.eager_optimizers import EagerAdagrad, EagerAdam, EagerOptimizer, EagerSGD
from fae.kernels.torch_private import copy_all, scale_all
from fae.models.layers import EVEN_WIDTH, MLP
from fae.training.weight_decay import decay_before_steps, decaying_weights

if TYPE_CHECKING:  # needs Triton
    from fae.distributed.group import Group
    from fae.distributed.peers.peer_buffers import PeerBuffer
    from fae.distributed.slice_plan import SlicePlan
    from fae.embedding.base import Embeddings
    from fae.models.fused_mlp import FusedMLP
    from fae.streaming.ready_batch import ReadyBatch

_ALIGN = 64  # weights: parameters begin on a multiple of 128 bytes of their bfloat16 copy
_TORCH_OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": EagerSGD, "adagrad": EagerAdagrad, "adam": EagerAdam,
}  # fmt: skip
_CHANNEL = 8  # of the buffer that ranks share: rows have one for each group of tables, from 0 on
_ROUNDED = 512  # bytes that torch may add to a tensor on a GPU
_DENSE_BLOCK = 1024  # weights of a block, which parts of a vector have whole ones of


class FlatOptimizer(EagerOptimizer):
    """SGD, Adagrad or Adam over all parameters of a model at once.

    Parameters
    ----------
    name
        ``sgd``, ``adagrad`` or ``adam``.
    bf16
        Keep a bfloat16 copy and give every fusable `MLP` of the model its fused form.
    weight_decay, group
        As `make_dense_optimizer` takes them.

    Attributes
    ----------
    world
        How many ranks' gradients it sums.
    has_slices
        Whether this rank has several slices of a batch, of which each is to be kept (`keep`) before a step.
    beside_update
        What a step enters around its one kernel, once all ranks have met.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        learning_rate: float,
        *,
        bf16: bool,
        weight_decay: float = 0.0,
        group: Group | None = None,
    ) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(parameters, {"lr": learning_rate})
        self._name, self._learning_rate = name, learning_rate
        self._parameters = parameters
        fused = [block for block in model.modules() if isinstance(block, MLP) and block.can_fuse()] if bf16 else []
        padded = {id(linear.weight) for block in fused for linear in block.linears}
        self._places: dict[int, tuple[int, tuple[int, int]]] = {}  # by id: first weight, rows and columns padded
        # Gradients that are sums over inputs come last in a fused block, side by side, to be added up in one go.
        summed = [_summed(block) for block in fused]
        in_sums = {id(parameter) for params in summed for parameter in params}
        size = 0
        self._sums: list[tuple[int, int]] = []
        lists: list[list[Tensor]] = [[p for p in parameters if id(p) not in in_sums]]
        for params in lists + summed:
            start = size
            for parameter in params:
                rows = len(parameter) if parameter.dim() > 1 else 1
                columns = parameter.numel() // rows
                if id(parameter) in padded:
                    columns = -(-columns // EVEN_WIDTH) * EVEN_WIDTH
                self._places[id(parameter)] = (size, (rows, columns))
                size += rows * columns if parameter is params[-1] else -(-rows * columns // _ALIGN) * _ALIGN
            self._sums.append((start, size))
            size = -(-size // _ALIGN) * _ALIGN
        self._sums = self._sums[1:]
        device = parameters[0].device
        self._shared: PeerBuffer | None = None
        if group is not None and group.world > 1:
            from fae.distributed.peers.host_parts import dense_buffer

            self._shared = dense_buffer(group, size, device, channel=_CHANNEL, what="the dense gradients")
        self.world = 1 if group is None else group.world
        self.beside_update: Callable[[], AbstractContextManager[None]] = nullcontext
        self._weight = torch.zeros(size, device=device)
        levels = [torch.zeros(size, device=device) if self._shared is None else self._shared.own]
        if group is not None:
            levels += [torch.zeros(size, device=device) for _ in range(num_levels(group.slices) - 1)]
        self._total, self._subtree = levels[0], SubtreeSum(levels)
        self.has_slices = len(levels) > 1
        self._grad = torch.zeros(size, device=device) if self.has_slices else self._total
        self._shadow = torch.zeros(size if bf16 else 0, dtype=torch.bfloat16, device=device)
        self._moments = torch.zeros(state_width(name, size), device=device)
        self._steps = torch.zeros((), dtype=torch.float64, device=device)
        self._corrections = torch.ones(2, device=device)
        numbers = torch.zeros(2, device=device)  # read by captured graphs when they run
        self._rate, self._kept_share, self._weight_decay = numbers[:1], numbers[1], weight_decay
        with torch.no_grad():
            for parameter in parameters:
                view = self._view(self._weight, parameter)
                view.copy_(parameter)
                parameter.data = view
        self.set_rate(learning_rate)
        self._fused_ids = {id(p) for block in fused for p in block.parameters()}
        self._others = [parameter for parameter in parameters if id(parameter) not in self._fused_ids]
        self.refresh()
        self._side_stream = torch.cuda.Stream(device) if fused and device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._fused = [self._fuse(block, start, stop) for block, (start, stop) in zip(fused, self._sums, strict=True)]

    def _whole(self, flat: Tensor, parameter: Tensor) -> Tensor:
        """A parameter's rows and columns in one of the flat vectors, padding included."""
        start, (rows, columns) = self._places[id(parameter)]
        return flat[start : start + rows * columns].view(rows, columns)

    def _view(self, flat: Tensor, parameter: Tensor) -> Tensor:
        """A parameter in one of the flat vectors, without padding, in its own shape."""
        whole = self._whole(flat, parameter)
        if whole.numel() == parameter.numel():
            return whole.view(parameter.shape)
        return whole[:, : parameter.shape[1]]

    def _fuse(self, block: MLP, start: int, stop: int) -> FusedMLP:
        from fae.models.fused_mlp import FusedLayer, FusedMLP

        layers = [
            FusedLayer(
                weight=self._whole(self._shadow, linear.weight),
                bias=self._view(self._shadow, linear.bias),
                grad_weight=self._whole(self._grad, linear.weight),
                bias_column=self._places[id(linear.bias)][0] - start,
                dropout=dropout,
            )
            for linear, dropout in zip(block.linears, block.dropouts, strict=True)
        ]
        grad_sums = self._grad[start:stop]
        fused = FusedMLP(
            layers, block.linears[0].weight, grad_sums, final_relu=block.final_relu, side_stream=self._side_stream
        )  # fmt: skip
        block.fused = fused
        return fused

    def refresh(self) -> None:
        """Copy the weights into their bfloat16 copy, after weights were loaded."""
        if self._shadow.numel():
            self._shadow.copy_(self._weight)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight from the gradients of this step; only launches."""
        from fae.kernels.triton_dense import dense_update

        if not self.has_slices:
            self._flatten_gradients()
        if self._name == "adam":
            self._steps += 1
            powers = torch.stack([DEFAULT_BETAS[0] ** self._steps, DEFAULT_BETAS[1] ** self._steps])
            corrections = 1 - powers
            corrections[1] = corrections[1].sqrt()
            self._corrections.copy_(corrections)
        if self._weight_decay:
            shrinking = decaying_weights(p for p in self._parameters if p.grad is not None or id(p) in self._fused_ids)
            scale_all([self._whole(self._weight, p) for p in shrinking], self._kept_share)
        if self._shared is not None:
            self._shared.send()
            self._shared.await_all()
        with self.beside_update():
            dense_update(
                OPTIMIZER_CODE[self._name], self._weight, self._total, self._moments, self._shadow, self._corrections,
                self._rate, eps=optimizer_facts(self._name).eps, betas=DEFAULT_BETAS,
                of_ranks=None if self._shared is None else self._shared.pointers,
            )  # fmt: skip

    def _flatten_gradients(self) -> None:
        for block in self._fused:
            block.join()
        with_grad = [p for p in self._others if p.grad is not None]
        without = [p for p in self._others if p.grad is None]
        if with_grad:
            grads = [p.grad for p in with_grad if p.grad is not None]
            copy_all([self._view(self._grad, p) for p in with_grad], grads)
        for parameter in without:
            self._view(self._grad, parameter).zero_()

    @torch.no_grad()
    def keep(self, number: int) -> None:
        """As `fae.distributed.dense_sums.SliceSums.keep`; only launches."""
        self._flatten_gradients()
        self._subtree.of_slice(number).copy_(self._grad)
        self._subtree.add(number)

    def replace_gradients(self, what: str) -> None:
        """Nothing: `step` reads the sum."""

    def await_readers(self) -> None:
        """Wait, on the current stream, until all ranks have read the gradients of this one in the step before."""
        if self._shared is not None:
            self._shared.await_all()

    def set_rate(self, learning_rate: float) -> None:
        """The learning rate of the coming steps, those of captured graphs too; launches on the current stream."""
        self._rate.fill_(learning_rate)
        if self._weight_decay:
            self._kept_share.fill_(1 - learning_rate * self._weight_decay)

    def _states(self) -> Iterable[tuple[int, dict[str, Tensor]]]:
        size = self._weight.numel()
        names = {"sgd": (), "adagrad": ("sum",), "adam": ("exp_avg", "exp_avg_sq")}[self._name]
        for index, parameter in enumerate(self._parameters):
            yield (
                index,
                {
                    name: self._view(self._moments[part * size : (part + 1) * size], parameter)
                    for part, name in enumerate(names)
                },
            )

    def state_dict(self) -> dict[str, Any]:
        """State in the form of torch's optimizers; the step count is Adam's (Adagrad's does not enter its update)."""
        steps = torch.tensor(float(self._steps))
        state = {index: {**values, "step": steps} for index, values in self._states() if values}
        return {
            "state": state,
            "param_groups": [{"lr": self._learning_rate, "params": [*range(len(self._parameters))]}],
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`; weights must be loaded before, since their bfloat16 copy is made from them."""
        for index, values in self._states():
            for name, view in values.items():
                view.copy_(state_dict["state"][index][name])
                self._steps.fill_(float(state_dict["state"][index]["step"]))
        self.refresh()


def _summed(block: MLP) -> list[Tensor]:
    """Parameters of a fused block whose gradients are sums over inputs, in memory order."""
    last = block.linears[-1]
    weights = [last.weight] if last.out_features == 1 and not block.final_relu else []
    return [*(linear.bias for linear in block.linears), *weights]


def make_dense_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    *,
    flat: bool = False,
    bf16: bool = False,
    weight_decay: float = 0.0,
    group: Group | None = None,
) -> torch.optim.Optimizer:
    """Make the optimizer of the dense weights that belongs to a row optimizer, with torch's defaults.

    SGD beside ``sgd``, plain Adam beside ``adam``, plain Adagrad beside both kinds of Adagrad.

    Parameters
    ----------
    flat
        One kernel for all weights (needs Triton).
    bf16
        With `flat`: keep bfloat16 copies and fuse multi-layer perceptrons.
    weight_decay
        Matrices are multiplied by 1 - learning rate * weight_decay before each step, under every optimizer.
    group
        With `flat`: the ranks over which gradients are summed before a step; all of them call this together.
    """
    kind = optimizer_facts(name).dense
    if not any(True for _ in model.parameters()):  # rows alone, as in a factorisation of users and items
        return EagerSGD([nn.Parameter(torch.empty(0))], lr=learning_rate)
    if flat:
        return FlatOptimizer(kind, model, learning_rate, bf16=bf16, weight_decay=weight_decay, group=group)
    optimizer = _TORCH_OPTIMIZERS[kind](model.parameters(), lr=learning_rate)
    if weight_decay:
        decay_before_steps(optimizer, weight_decay)
    return optimizer


def await_readers(optimizer: torch.optim.Optimizer, embeddings: Embeddings, batch: ReadyBatch) -> None:
    """Before gradients of a step are written: wait until all ranks have read the last ones, as a lookup may have done.

    Parameters
    ----------
    batch
        That of the step, which the embeddings have looked up.
    """
    if isinstance(optimizer, FlatOptimizer) and not embeddings.awaits_readers(batch):
        optimizer.await_readers()


def set_dense_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the coming steps; call it on the stream of the steps, outside of what is captured."""
    if isinstance(optimizer, FlatOptimizer):
        optimizer.set_rate(learning_rate)
        return
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def dense_bytes(name: str, model: nn.Module, *, flat: bool = False, bf16: bool = False) -> int:
    """Most bytes that weights, gradients and optimizer state take; arguments as `make_dense_optimizer`.

    With `flat` a little more than they take: padding depends on which blocks fuse.
    """
    moments = optimizer_facts(optimizer_facts(name).dense).state_vectors
    parameters = list(model.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    exact = sum(parameter.numel() for parameter in parameters)
    if not flat:
        return 4 * exact * (2 + moments) + 4 * len(parameters) + buffers
    padded = _most_padded(parameters)
    # The flat vector, its gradient, moments and bfloat16 copy; autograd's own gradients beside them; some scalars.
    one_by_one = 4 * exact + _ROUNDED * (len(parameters) + 8)
    return 4 * padded * (2 + moments) + (2 * padded if bf16 else 0) + one_by_one + buffers


def dense_slices_bytes(model: nn.Module, plan: SlicePlan) -> int:
    """Most bytes of the sums of dense gradients that a flat optimizer keeps where a rank has several slices."""
    levels = num_levels(plan)
    return 4 * levels * _most_padded(list(model.parameters())) + levels * _ROUNDED if levels > 1 else 0


def dense_of_hosts_bytes(model: nn.Module, plan: SlicePlan) -> int:
    """Most bytes of a rank's part of the dense gradients of hosts, its own host's and those of all; 0 without."""
    if plan.num_hosts == 1:
        return 0
    part = -(-_most_padded(list(model.parameters())) // plan.host_ranks) + _DENSE_BLOCK
    return 4 * (1 + plan.num_hosts) * part + 2 * _ROUNDED


def gathered_dense_bytes(model: nn.Module, world: int) -> int:
    """Most bytes of the dense gradients of all ranks, where a collective copies them (`Group.wire`)."""
    return 4 * world * _most_padded(list(model.parameters())) + _ROUNDED


def _most_padded(parameters: list[nn.Parameter]) -> int:
    """Most weights of a flat vector, padding included."""
    padded = 2 * _ALIGN  # one more for each of two blocks' sums, which begin aligned
    for parameter in parameters:
        rows = len(parameter) if parameter.dim() > 1 else 1
        columns = -(-(parameter.numel() // rows) // EVEN_WIDTH) * EVEN_WIDTH
        padded += -(-rows * columns // _ALIGN) * _ALIGN + _ALIGN
    return padded


assert math.gcd(_ALIGN, EVEN_WIDTH) == EVEN_WIDTH
