"""A lane that asks the driver for copies, seen from the consumer: it waits for what has started, and says what is done.

Place in the flow: the streaming pipeline on a GPU and each ring of feeds have one. The consumer's thread makes two
calls a batch of each; one asks the driver to let the computing stream wait, the other to record an event behind the
step. Invariant: when `acquire` returns, whatever is launched next on the computing stream finds the batch's bytes there.
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
    """The lane of one pass.

    Parameters
    ----------
    lanes
        Get the lane.
    device
        Whose current stream computes.
    arrived, behind
        int64 ``[k]``, handles of events; position p has number ``p % k``: its bytes are there (recorded by the lane);
        its step is done (recorded here).
    loop
        `fae.streaming.copy_loops.copy_rows` or `copy_inputs`.
    count
        Positions.
    arguments
        Of the loop, behind `launched`.
    """

    def __init__(
        self,
        lanes: WorkerGroup,
        device: torch.device,
        arrived: npt.NDArray[np.int64],
        behind: npt.NDArray[np.int64],
        loop: Callable[..., int],
        count: int,
        *arguments: Any,
    ) -> None:
        self._lanes, self._device, self._arrived, self._behind = lanes, device, arrived, behind
        self._cells, self._launched = lanes.cells(1), lanes.cell()
        self._started, self._functions = int(self._cells[0]), cuda_commands.command_functions()
        lanes.start(
            "moves", cuda_commands.calling_driver(loop, device), self._started, self._functions, self._launched, *arguments,
            end=count,
        )  # fmt: skip

    def acquire(self, position: int) -> None:
        """Let the computing stream wait for a batch's bytes; waits itself until their copy is started."""
        compute = cuda_commands.current_stream(self._device)
        code = wait_arrival(self._functions, self._lanes.counters, self._started, position, self._arrived, compute)
        if code == NOT_THERE:
            self._lanes.wait(self._cells, position + 1)
            code = wait_arrival(self._functions, self._lanes.counters, self._started, position, self._arrived, compute)
        if code == NOT_THERE:
            raise WorkerError("the process ends, and this pass over batches with it")
        require_success(code)

    def release(self, position: int) -> None:
        """The batch's step is launched, on the computing stream."""
        compute = cuda_commands.current_stream(self._device)
        require_success(
            mark_done(self._functions, self._lanes.counters, self._launched, position, self._behind, compute)
        )  # fmt: skip
