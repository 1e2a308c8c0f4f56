"""The steps of `model_parallel`: transfers, streams and graphs, by the kernels of a GPU and by those of a CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fae.artifacts.stored.order_planes import OrderArrays
from fae.distributed.dense_sums import DenseSums
from fae.distributed.group import Group
from fae.embedding.derived_lookups import DerivedLookups
from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.embedding.resident import ResidentEmbeddings
from fae.kernels.geometry import group_geometries
from fae.kernels.input_views import InputViews
from fae.kernels.torch_private import run_backward, start_backward_thread
from fae.models.layers import MLP
from fae.streaming.ready_batch import ReadyBatch
from fae.training.step import autocast

_EAGER_STEPS = 3
_HEADER_WORDS = 32


class VectorExchange:
    """Buffers of pooled vectors and of their gradients, and the two all-to-alls, which move bytes.

    Parameters
    ----------
    counts
        Tables of each owner.
    num_inputs
        B of one rank.
    links
        The process group of torch.

    Attributes
    ----------
    gradient
        ``[B * ranks, own tables * D]``: gradients of the vectors of this rank's tables, of all inputs, come back.
    received, returned
        Each owner's ``[B, its tables * D]``, one behind the other: vectors of this rank's inputs; their gradients.
    """

    def __init__(
        self, counts: Sequence[int], rank: int, num_inputs: int, dim: int, dtype: torch.dtype, device: torch.device,
        links: Any,
    ) -> None:  # fmt: skip
        self.dim, self._counts, self._num_inputs, self._links = dim, counts, num_inputs, links
        own, every = (num_inputs * len(counts), counts[rank] * dim), num_inputs * sum(counts) * dim
        self.gradient = torch.zeros(own, dtype=dtype, device=device)
        self.received, self.returned = (torch.zeros(every, dtype=dtype, device=device) for _ in range(2))
        a_table = num_inputs * dim * dtype.itemsize
        self._of_owners = [a_table * count for count in counts]
        self._of_inputs = [a_table * counts[rank]] * len(counts)

    def parts(self, flat: Tensor) -> list[Tensor]:
        """`received` or `returned` by owner, each ``[B, tables * D]``."""
        sizes = [self._num_inputs * count * self.dim for count in self._counts]
        return [part.view(self._num_inputs, -1) for part in torch.split(flat, sizes)]

    def send(self, vectors: Tensor) -> None:
        """Vectors of this rank's tables, as `gradient` has them, to the ranks whose inputs they are of."""
        self._move(self.received, vectors, self._of_owners, self._of_inputs)

    def send_back(self) -> None:
        """Gradients to the owners."""
        self._move(self.gradient, self.returned, self._of_inputs, self._of_owners)

    def _move(self, out: Tensor, source: Tensor, out_sizes: list[int], sizes: list[int]) -> None:
        whole, part = (tensor.view(-1).view(torch.uint8) for tensor in (out, source))
        dist.all_to_all_single(whole, part, out_sizes, sizes, group=self._links)


class SideStream:
    """A stream beside the current one, and a mark in it; on a CPU work is done at once."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device) if device.type == "cuda" else None
        self._marked = torch.cuda.Event() if self._stream else None

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` after everything launched so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self.go_on(work)

    def go_on(self, work: Callable[[], None]) -> None:
        """Run `work` after what was run here so far."""
        with torch.cuda.stream(self._stream):
            work()

    def mark(self) -> None:
        """Mark this place; within `run`."""
        if self._marked is not None:
            self._marked.record(self._stream)

    def await_mark(self) -> None:
        """Let the current stream wait for the latest mark."""
        if self._marked is not None:
            torch.cuda.current_stream(self._device).wait_event(self._marked)

    def join(self) -> None:
        """Let the current stream wait for all."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)


class CapturedSteps:
    """Steps that are captured after the first ones, one graph an input buffer; on a CPU they are run as they are.

    Parameters
    ----------
    is_eager
        No step is captured: each of its operations is launched from Python.
    """

    def __init__(self, device: torch.device, *, is_eager: bool = False) -> None:
        self._is_eager = is_eager
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._device, self._eager, self._pool = device, 0, None
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if self._stream is not None:
            start_backward_thread(device)

    def __call__(self, buffer: int, step: Callable[[], None]) -> None:
        """One step, of the batch in this input buffer."""
        if self._stream is None:
            step()
            return
        if self._is_eager or self._eager < _EAGER_STEPS:
            self._eager += 1
            current = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                step()
            current.wait_stream(self._stream)
            return
        if buffer not in self.graphs:
            self.graphs[buffer] = self._capture(step)
        self.graphs[buffer].replay()

    def _capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        gc.disable()  # a tensor freed on the device meanwhile would spoil the capture
        try:
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                step()
        finally:
            gc.enable()
        self._pool = graph.pool()
        return graph


class OwnRows(Protocol):
    """The tables of a rank, in one step after the other."""

    def look_up(self, batch: Any) -> Tensor:
        """``[B * ranks, own tables * D]``: vectors of all inputs, which stay until they are updated."""

    def update(self, batch: Any, gradient: Tensor) -> None:
        """Step the rows that were looked up, by gradients of the same shape."""


class CpuRows:
    """Rows of `ResidentEmbeddings` on a CPU."""

    def __init__(self, embeddings: ResidentEmbeddings) -> None:
        self._embeddings = embeddings
        self._vectors = torch.empty(0)

    def look_up(self, batch: ReadyBatch) -> Tensor:
        """As `OwnRows`."""
        _, (self._vectors,), _ = self._embeddings.lookup(batch).parts()
        return self._vectors.detach()

    def update(self, batch: ReadyBatch, gradient: Tensor) -> None:
        """As `OwnRows`."""
        self._vectors.grad = gradient
        self._embeddings.update(batch)


class KernelRows:
    """The same on a GPU, by the kernels alone.

    Parameters
    ----------
    order, most_segments
        The order of batches, and most segments, and most rows of several, of one.
    dtype
        That of vectors and their gradients.
    """

    def __init__(
        self, embeddings: ResidentEmbeddings, order: OrderArrays | None, most_segments: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        from fae.kernels.triton_rows import TritonGroupKernels

        self._embeddings = embeddings
        size, geometry, device = embeddings.batch_size, embeddings.geometries[0], embeddings.device
        self._rows = TritonGroupKernels(geometry, 0, size, embeddings.optimizer.name, device, staged=False)
        self._rows.reserve(*most_segments)
        self._derived = DerivedLookups(size, geometry.num_slots, device)
        self._derived.reserve(order)
        self._vectors = torch.zeros((size, geometry.num_slots * geometry.embedding_dim), dtype=dtype, device=device)

    def _bank_of(self, batch: ReadyBatch) -> tuple[Any, ...]:
        views, store = self._derived.views(batch.buffer.views), self._embeddings.device_stores[0]
        return views, views.longs, self._embeddings.layout.groups[0].num_hot_rows, store.weight, store.state

    def look_up(self, batch: ReadyBatch) -> Tensor:
        """As `OwnRows`."""
        views, lists, num_hot_rows, weight, _ = self._bank_of(batch)
        self._rows.derive_addresses(views, self._derived.addresses)
        self._rows.lookup(views, lists, num_hot_rows, weight, self._vectors)
        return self._vectors

    def update(self, batch: ReadyBatch, gradient: Tensor) -> None:
        """As `OwnRows`."""
        optimizer = self._embeddings.optimizer
        self._rows.update(*self._bank_of(batch), gradient, optimizer.eps, optimizer.betas)


@dataclass(frozen=True, kw_only=True)
class StepParts:
    """What a step works with.

    Attributes
    ----------
    rows
        Looks up the tables of this rank for the global batch, and updates them.
    model, dense_optimizer
        The dense part, the same on all ranks.
    counts
        Tables of each owner.
    links
        The process group of torch.
    loss_sum
        float64 scalar to which losses of this rank's inputs are added.
    """

    rows: OwnRows
    model: nn.Module
    dense_optimizer: torch.optim.Optimizer
    exchange: VectorExchange
    views: FeatureViews
    counts: Sequence[int]
    group: Group
    links: Any
    loss_sum: Tensor


class PlainStep:
    """The step on a CPU, in float32."""

    def __init__(self, parts: StepParts) -> None:
        self._parts = parts
        self._dense_sums = DenseSums(parts.group, list(parts.model.parameters()))

    def __call__(self, batch: Any, dense: Tensor, labels: Tensor) -> None:
        """One step."""
        parts, exchange = self._parts, self._parts.exchange
        exchange.send(parts.rows.look_up(batch))
        leaf = torch.cat(exchange.parts(exchange.received), 1).requires_grad_()
        logits = parts.model(dense, FeatureEmbeddings(parts.views, [leaf]))
        parts.dense_optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        (loss / (len(labels) * parts.group.world)).backward()
        parts.loss_sum.add_(loss.detach())
        returned = exchange.parts(exchange.returned)
        for part, grad in zip(returned, torch.split(leaf.grad, [part.shape[1] for part in returned], 1), strict=True):
            part.copy_(grad)
        exchange.send_back()
        parts.rows.update(batch, exchange.gradient)
        self._dense_sums.keep(0)
        self._dense_sums.replace_gradients("the dense gradients of the model-parallel contender")
        parts.dense_optimizer.step()


class FusedStep:
    """The step by the kernels of a GPU, in bfloat16; it only launches, so that it can be captured.

    Attributes
    ----------
    interaction, bank, row_gradients
        The kernels of the interaction, the vectors that they read, and where they write gradients.
    """

    def __init__(self, parts: StepParts) -> None:
        from fae.kernels.triton_interaction import InteractionKernels

        self._parts, self._exchange = parts, parts.exchange
        self._device = device = self._exchange.gradient.device
        size = len(self._exchange.gradient) // parts.group.world
        num_tables, dim = sum(parts.counts), self._exchange.dim
        every = group_geometries([1] * num_tables, ["sum"] * num_tables, [dim] * num_tables)[0]
        self.interaction = InteractionKernels(every, 0, size)
        vectors = self._exchange.received.view(size * num_tables, dim)
        words = torch.zeros(_HEADER_WORDS, dtype=torch.int32, device=device)
        lists, unread = words.view(torch.int64), torch.zeros(1, device=device)
        addresses = torch.from_numpy(vector_addresses(parts.counts, size)).to(device)
        views = InputViews(words=words, longs=lists, addresses=addresses, dense=unread, labels=unread, order=words)
        self.bank = (views, lists, len(vectors), vectors)
        self.row_gradients = torch.zeros((size, num_tables * dim), dtype=torch.bfloat16, device=device)
        self._num_inputs = torch.full((1,), size, dtype=torch.int32, device=device)
        self._side = SideStream(device)
        self._blocks, self._flat_gradient = fused_blocks(parts.model)

    def __call__(self, batch: Any, dense: Tensor, labels: Tensor) -> None:
        """One step."""
        from fae.kernels.triton_dense import loss_and_gradient

        parts, exchange = self._parts, self._exchange
        self._side.run(lambda: exchange.send(parts.rows.look_up(batch)))
        with autocast(self._device, "bf16"):
            logits = parts.model(dense, FeatureEmbeddings(parts.views, _refuse, None, self._interact))
        parts.dense_optimizer.zero_grad(set_to_none=True)
        _, grad = loss_and_gradient(logits.detach(), labels, self._num_inputs, parts.loss_sum)
        run_backward(logits, (grad / parts.group.world).to(logits.dtype))
        self._side.go_on(lambda: parts.rows.update(batch, exchange.gradient))
        for block in self._blocks:
            block.join()
        self._side.await_mark()  # one transfer at a time, in the same order on all ranks
        dist.all_reduce(self._flat_gradient, group=parts.links)
        parts.dense_optimizer.step()
        self._side.join()

    def _interact(self, dense: Tensor) -> Tensor:
        self._side.join()
        joined: Tensor = Interaction.apply(dense.to(torch.bfloat16), self)
        return joined

    def return_gradients(self) -> None:
        """Send gradients of vectors to their owners, on the stream beside; in the backward pass."""
        self._side.run(self._return)

    def _return(self) -> None:
        parts = [part.view(torch.int64) for part in self._exchange.parts(self._exchange.returned)]  # 4 numbers at once
        split = torch.split(self.row_gradients.view(torch.int64), [part.shape[1] for part in parts], 1)
        for part, grad in zip(parts, split, strict=True):
            part.copy_(grad)
        self._exchange.send_back()
        self._side.mark()


class Interaction(torch.autograd.Function):
    """The fused interaction over vectors that have arrived; their gradients go to a buffer, not through autograd."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, step: FusedStep) -> Tensor:
        """Dense vectors and products of all pairs."""
        dense = dense.contiguous()
        ctx.save_for_backward(dense)
        ctx.step = step
        return step.interaction.forward(*step.bank, dense)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:
        """Gradient of the dense vectors; that of the others is sent away."""
        (dense,), step = ctx.saved_tensors, ctx.step
        grad = step.interaction.backward(*step.bank, dense, grad_out.contiguous(), step.row_gradients)
        step.return_gradients()
        return grad, None


def fused_blocks(model: nn.Module) -> tuple[list[Any], Tensor]:
    """The fused MLPs of a model that consists of them, and the flat vector in which all their gradients are views."""
    blocks = [block for block in model.modules() if isinstance(block, MLP) and block.fused is not None]
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    if any(id(parameter) not in inside for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has weights outside of fused MLPs")
    fused = [block.fused for block in blocks]
    sums = fused[0].grad_sums
    return fused, sums.new_empty(0).set_(sums.untyped_storage())


def vector_addresses(counts: Sequence[int], num_inputs: int) -> npt.NDArray[np.int32]:
    """int32 ``[B, tables]``: where the vector of each lookup is among those received, the same in every batch.

    >>> vector_addresses([2, 1], 2).tolist()
    [[0, 1, 4], [2, 3, 5]]
    """
    first = num_inputs * np.concatenate([[0], np.cumsum(counts)[:-1]])
    inputs = np.arange(num_inputs)[:, None]
    parts = [start + count * inputs + np.arange(count) for start, count in zip(first, counts, strict=True)]
    return np.concatenate(parts, 1).astype(np.int32)


def _refuse() -> list[Tensor]:
    raise RuntimeError("the model reads features one by one, and only the fused interaction has them")
