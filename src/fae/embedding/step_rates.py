"""The learning rate of each step on a GPU, and what weight decay leaves of a row in it: words of input buffers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fae.core.optimizers import bias_corrected_rate
from fae.kernels.input_views import InputViews
from fae.streaming.row_store import RowOptimizer


class StepRates:
    """The rates of one row optimizer.

    Attributes
    ----------
    factor
        As `fae.embedding.base.Embeddings.follow_rates` takes it; None where the learning rate is constant.
    """

    def __init__(self, optimizer: RowOptimizer) -> None:
        self._optimizer = optimizer
        self.factor: Callable[[int], float] | None = None

    def rates(self, first_step: int, count: int) -> npt.NDArray[np.float32]:
        """Learning rates of steps, numbered from 1: float32 ``[count]``."""
        optimizer, factor = self._optimizer, self.factor
        if not self._change:
            return np.full(count, optimizer.learning_rate, np.float32)
        steps = range(first_step, first_step + count)
        rates = [optimizer.learning_rate * (1.0 if factor is None else factor(step)) for step in steps]
        if optimizer.name == "adam":
            rates = [bias_corrected_rate(rate, optimizer.betas, step) for rate, step in zip(rates, steps, strict=True)]
        return np.array(rates, np.float32)

    def kept_shares(self, first_step: int, count: int) -> npt.NDArray[np.float32] | None:
        """What decay leaves of a row in each of these steps: float32 ``[count]``; None where there is no decay."""
        optimizer, factor = self._optimizer, self.factor
        if not optimizer.weight_decay:
            return None
        if factor is None:
            return np.full(count, optimizer.kept_share(), np.float32)
        return np.array(
            [optimizer.kept_share(factor(step)) for step in range(first_step, first_step + count)], np.float32
        )

    def correct(self, views: InputViews, step: int) -> None:
        """Write those of a step into an input buffer that was filled for another one, on the current stream."""
        if self._change:
            views.words[1:2].fill_(int(self.rates(step, 1).view(np.int32)[0]))
        kept_shares = None if self.factor is None else self.kept_shares(step, 1)
        if kept_shares is not None:
            views.words[2:3].fill_(int(kept_shares.view(np.int32)[0]))

    @property
    def _change(self) -> bool:
        """Whether the learning rate of a step depends on its number."""
        return self._optimizer.name == "adam" or self.factor is not None
