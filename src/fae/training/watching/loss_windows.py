"""Windows of the loss curve whose sums are still on their way from the device.

The trainer closes a window after a number of batches without waiting for the device, which would cost a captured step
its run-ahead; a window's loss is settled when its sum has arrived. Windows are settled in order, with the same sums as
if each had been waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fae.training.runner import MOST_MARKS, LossMark

_MOST_OPEN = MOST_MARKS // 2
"""Open windows from which the oldest is waited for, so that a loss that is not finite is found in time."""

_OPEN_IN_STEP = 2
"""The same where ranks settle in step: few, since nothing else settles them."""


class LossWindows:
    """Closed windows whose losses have not arrived.

    Parameters
    ----------
    settled
        Called with inputs seen, inputs of the window, batches seen, and the sum of the window's losses.
    in_step
        Settle windows after a fixed number of others, whatever has arrived: then ranks on GPUs find a loss that is not
        finite at the same batch, and end together.
    """

    def __init__(self, settled: Callable[[int, float, int, float], None], *, in_step: bool = False) -> None:
        self._settled, self._in_step = settled, in_step
        self._open: deque[tuple[int, float, int, float, LossMark]] = deque()

    def close(self, inputs: int, window_inputs: float, batches: int, carried: float, mark: LossMark) -> None:
        """Close a window. Its sum is `carried`, from an earlier process or segment, plus what `mark` will give."""
        self._open.append((inputs, window_inputs, batches, carried, mark))
        self.settle(wait=False)

    def settle(self, *, wait: bool) -> None:
        """Settle the windows whose sums have arrived or, with `wait`, all of them."""
        most = _OPEN_IN_STEP if self._in_step else _MOST_OPEN
        while self._open and (wait or len(self._open) > most or (not self._in_step and self._open[0][4].ready)):
            inputs, window_inputs, batches, carried, mark = self._open.popleft()
            self._settled(inputs, window_inputs, batches, carried + mark.value())
