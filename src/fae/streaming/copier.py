"""Copier: the worker thread that starts a pass's copies on a GPU, and the consumer's two calls for each batch.

The streaming pipeline on a GPU and each input ring have one. `acquire` lets the computing stream wait for a batch's
copy, `release` records an event behind its step. When `acquire` returns, all that is launched next on the computing
stream finds the batch's bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fae.streaming import cuda_commands
from fae.streaming.copy_loops import NOT_THERE, mark_done, wait_arrival
from fae.streaming.cuda_commands import require_success
from fae.streaming.workers import WorkerError, WorkerGroup


class Copier:
    """The copying worker of one pass.

    Parameters
    ----------
    workers
        The group that the worker joins.
    device
        The device whose current stream computes.
    arrived, step_done
        int64 ``[k]``, handles of events; position p has number ``p % k``. The worker records `arrived` behind the copy,
        `release` records `step_done` behind the step.
    loop
        `fae.streaming.copy_loops.copy_rows` or `copy_inputs`.
    count
        Number of positions.
    arguments
        The loop's arguments after `launched`.
    """

    def __init__(
        self,
        workers: WorkerGroup,
        device: torch.device,
        arrived: npt.NDArray[np.int64],
        step_done: npt.NDArray[np.int64],
        loop: Callable[..., int],
        count: int,
        *arguments: Any,
    ) -> None:
        self._workers, self._device, self._arrived, self._step_done = workers, device, arrived, step_done
        self._counter_ids, self._launched = workers.add_counters(1), workers.add_counter()
        self._started, self._functions = int(self._counter_ids[0]), cuda_commands.command_functions()
        workers.start(
            "copies", cuda_commands.calling_driver(loop, device), self._started, self._functions, self._launched,
            *arguments, end=count,
        )  # fmt: skip

    def acquire(self, position: int) -> None:
        """Let the computing stream wait for a batch's copy; blocks only until that copy is started."""
        compute, counters = cuda_commands.current_stream(self._device), self._workers.counters
        code = wait_arrival(self._functions, counters, self._started, position, self._arrived, compute)
        if code == NOT_THERE:
            self._workers.wait(self._counter_ids, position + 1)
            code = wait_arrival(self._functions, counters, self._started, position, self._arrived, compute)
        if code == NOT_THERE:
            raise WorkerError("the process ends, and this pass over batches with it")
        require_success(code)

    def release(self, position: int) -> None:
        """Say that the batch's step is launched on the computing stream."""
        compute, counters = cuda_commands.current_stream(self._device), self._workers.counters
        require_success(mark_done(self._functions, counters, self._launched, position, self._step_done, compute))
