"""Runs training steps: one by one on a CPU, as captured CUDA graphs on a GPU.

On a GPU the first steps run kernel by kernel (they compile and warm up). Then the step of each input buffer is captured
once and replayed for every batch in that buffer. A step is executed exactly once per batch, captured or not, by the
same kernels; only `take_loss` waits for the device.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fae.core.progress import say
from fae.distributed.dense_sums import DenseSums, SliceSums
from fae.distributed.tree_sum import tree_sum
from fae.embedding.base import Embeddings
from fae.kernels.torch_private import start_backward_thread
from fae.streaming.ready_batch import ReadyBatch
from fae.training.compiled_model import CompiledModel, forward_of
from fae.training.dense import FlatOptimizer
from fae.training.dense_graph import CannotCapture, DenseGraph
from fae.training.real_inputs import needs_real_inputs
from fae.training.step import Precision, train_step

_WARM_UP_STEPS = 3
MOST_MARKS = 128
"""How many loss values may be on their way to the host at once."""


class StepRunner:
    """Steps of one model.

    Parameters
    ----------
    capture
        False runs every step kernel by kernel.
    compiled
        Run the model through `torch.compile` on a GPU, unless it has fused blocks.
    dense_graph
        On a GPU, capture the dense part also of batches whose rows the CPU looks up and updates.
    before_slice
        Called with 0, 1, ... before each slice of this rank, where batches are cut into several a rank.

    Attributes
    ----------
    precision
        Precision of the next step's dense part.
    setting_up
        Whether the latest step compiled kernels or captured a graph: seconds, not microseconds.
    not_captured
        Why steps run kernel by kernel although they might have been captured; empty where they are, or cannot be.
    is_compiled
        Whether the model runs through `torch.compile`.
    """

    def __init__(
        self,
        model: nn.Module,
        embeddings: Embeddings,
        dense_optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = "fp32",
        capture: bool = True,
        compiled: bool = False,
        dense_graph: bool = True,
        before_slice: Callable[[int], None] | None = None,
    ) -> None:
        self._model, self._embeddings, self._dense_optimizer = model, embeddings, dense_optimizer
        self._forward = forward_of(model, embeddings.device, compiled=compiled)
        self._is_proven = not self.is_compiled
        self._needs_real_inputs = needs_real_inputs(model, embeddings.device)
        self.precision: Precision = precision
        self._group, slices = embeddings.group, embeddings.group.slices
        self._before_slice = before_slice if len(slices.own) > 1 else None
        self._dense_sums: SliceSums | None = None
        if isinstance(dense_optimizer, FlatOptimizer):
            if (dense_optimizer.world, dense_optimizer.has_slices) != (self._group.world, len(slices.own) > 1):
                raise ValueError(
                    f"the dense optimizer sums gradients of {dense_optimizer.world} ranks"
                    f"{' and their slices' if dense_optimizer.has_slices else ''}, and {self._group.world} with "
                    f"{len(slices.own)} slices each train: make_dense_optimizer(..., group=embeddings.group)"
                )
            dense_optimizer.beside_update = embeddings.rely_on_ends_of_steps()
            self._dense_sums = dense_optimizer if dense_optimizer.has_slices else None
        elif slices.is_cut:
            weights = [weight for group in dense_optimizer.param_groups for weight in group["params"]]
            self._dense_sums = DenseSums(self._group, weights)
        self._loss_sums = torch.zeros(len(slices.own), dtype=torch.float64, device=embeddings.device)
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._capture = capture and embeddings.device.type == "cuda"
        if embeddings.device.type == "cuda":
            start_backward_thread(embeddings.device)
        self._stream = (
            torch.cuda.Stream(embeddings.device)  # type: ignore[no-untyped-call]
            if self._capture
            else None
        )
        self._dense_graph = (
            DenseGraph(
                self._through_forward, embeddings, dense_optimizer, self._loss_sums[0],
                on_capture_stream=self._on_capture_stream, capture=self._capture_dense, warm_up_steps=_WARM_UP_STEPS,
            )
            if self._capture and dense_graph and self._dense_sums is None
            else None
        )  # fmt: skip
        self._marks: Tensor | None = None
        self._num_marks = 0
        self._pool: Any = None  # memory that the captured graphs share
        # By whether they could have been captured: a cold batch of placement ``paper`` compiles nothing for a hot one.
        self._eager_steps = {False: 0, True: 0}
        self.setting_up, self.not_captured = False, ""

    def __call__(self, batch: ReadyBatch) -> None:
        """Train one batch."""
        if self._needs_real_inputs and batch.num_inputs < len(batch.labels):
            self.setting_up = False
            self._step_on_capture_stream(batch)
            return
        if self._dense_graph is not None and self._capture and self._embeddings.computes_on_host(batch):
            self._run_on_host(batch, self._dense_graph)
            return
        key = self._embeddings.graph_key(batch) if self._capture else None
        could_be = key is not None and batch.buffer is not None
        self.setting_up = self._eager_steps[could_be] < _WARM_UP_STEPS
        if key is None or batch.buffer is None or self.setting_up:
            self._step_on_capture_stream(batch)
            self._eager_steps[could_be] += 1
            return
        place = (key, batch.buffer.index)
        if place not in self._graphs:
            self.setting_up = True
            steps = self._embeddings.steps
            try:
                self._graphs[place] = self._capture_step(batch)
            except RuntimeError as error:
                self._give_up(error)
                self._embeddings.take_back(batch, steps)
                self._step_on_capture_stream(batch)
                return
            self._embeddings.take_back(batch, steps)
            self._graphs = {place: graph for place, graph in self._graphs.items() if place[0] == key}
        self._graphs[place].replay()
        self._embeddings.steps += 1

    @property
    def graphs(self) -> tuple[torch.cuda.CUDAGraph, ...]:
        """The captured steps, one an input buffer; empty where steps run kernel by kernel."""
        return tuple(self._graphs.values())

    @property
    def is_compiled(self) -> bool:
        """Whether the model runs through `torch.compile`."""
        return isinstance(self._forward, CompiledModel)

    def _run(self, batch: ReadyBatch) -> None:
        if self._is_proven:
            self._step(batch)
            return
        before = self._loss_sums.clone()
        try:
            self._step(batch)
        except Exception as error:  # torch's compiler raises of every kind; no weight has changed yet
            self._forward = self._model
            self._loss_sums.copy_(before)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            say(f"train: {type(self._model).__name__} cannot be compiled ({reason}); it runs as it is")
            self._step(batch)
        self._is_proven = True

    def _step(self, batch: ReadyBatch) -> None:
        train_step(
            self._forward, self._embeddings, self._dense_optimizer, batch, self.precision, loss_sum=self._loss_sums,
            dense_sums=self._dense_sums, before_slice=self._before_slice,
        )  # fmt: skip

    def _step_on_capture_stream(self, batch: ReadyBatch) -> None:
        """A step on the stream that captures: autograd remembers the stream on which it met a weight first."""
        if self._stream is None:
            self._run(batch)
        else:
            self._on_capture_stream(lambda: self._run(batch))

    def _run_on_host(self, batch: ReadyBatch, dense_graph: DenseGraph) -> None:
        """A step whose rows the CPU computes."""
        if not self._is_proven:  # compiles, which may fail
            self.setting_up = True
            self._step_on_capture_stream(batch)
            return
        try:
            dense_graph(batch, self.precision)
        except CannotCapture as error:
            self._give_up(error)
            self._step_on_capture_stream(batch)
        self.setting_up = dense_graph.setting_up

    def _through_forward(self, dense: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        return self._forward(dense, features)

    def _on_capture_stream(self, work: Callable[[], None]) -> None:
        assert self._stream is not None
        current = torch.cuda.current_stream(self._embeddings.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def _capture_dense(self, work: Callable[[], None]) -> Callable[[], None]:
        return self._record_graph(work, None).replay

    def _capture_step(self, batch: ReadyBatch) -> torch.cuda.CUDAGraph:
        graph = self._record_graph(lambda: self._run(batch), self._pool)
        self._pool = graph.pool()
        return graph

    def _record_graph(self, work: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # A tensor that the garbage collector frees on the device during a capture would spoil it. Collecting
        # garbage before the capture would take longer than the capture.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            # The threads that copy inputs call the driver meanwhile, on their own streams. Where a capture cannot be
            # ended torch.cuda.graph stays on its stream; the outer context returns to the current one.
            with (
                torch.cuda.stream(torch.cuda.current_stream(self._embeddings.device)),
                torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
            ):
                work()
        finally:
            if was_enabled:
                gc.enable()
        return graph

    def _give_up(self, error: RuntimeError) -> None:
        torch.cuda.synchronize()
        self._capture, self._graphs = False, {}
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        self.not_captured = reason
        say(
            f"train: the step of {type(self._model).__name__} cannot be captured in a CUDA graph ({reason}); every "
            "kernel is launched by itself, which costs most where batches are small. Usual causes: .item(), .cpu(), "
            "printing a tensor, or shapes that depend on data inside forward"
        )

    def mark_loss(self) -> LossMark:
        """Send the loss, summed over slices and ranks, to the host without waiting, and sum from 0.

        Read it within `MOST_MARKS` marks.
        """
        if self._marks is None:  # pinned once: pinning memory may wait for the device
            self._marks = torch.zeros(MOST_MARKS, dtype=torch.float64, pin_memory=self._loss_sums.is_cuda)
        total: Tensor = tree_sum(self._loss_sums.unbind(0))
        if self._group.world > 1:
            total = self._group.tree_sum(total.view(1), f"the loss up to step {self._embeddings.steps}")[0]
        mark = LossMark(total, self._marks[self._num_marks % MOST_MARKS])
        self._num_marks += 1
        self._loss_sums.zero_()
        return mark

    def take_loss(self) -> float:
        """Sum of losses before their updates, over the inputs since the last call or mark; waits for the device."""
        return self.mark_loss().value()


class LossMark:
    """A float64 scalar on its way to the host."""

    def __init__(self, source: Tensor, host: Tensor) -> None:
        self._host = host
        self._host.copy_(source, non_blocking=True)
        self._copied = torch.cuda.Event() if source.is_cuda else None  # type: ignore[no-untyped-call]
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(source.device))

    @property
    def ready(self) -> bool:
        """Whether the scalar has arrived, so that `value` does not wait."""
        return self._copied is None or bool(self._copied.query())  # type: ignore[no-untyped-call]

    def value(self) -> float:
        """The scalar; waits for it."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._host)
