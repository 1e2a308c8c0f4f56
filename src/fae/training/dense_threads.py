"""How many threads torch uses for the dense part on a CPU: a number that the recipe decides, not the machine.

Torch splits a product over its threads, and sums are rounded where they are cut. So training takes as many threads as
the dense part is large, on any number of cores: the same recipe ends with the same bytes on one core and on sixty-four.
More threads than cores take turns, which costs little (docs/decisions/training.md, 112).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_WORK_A_THREAD = 2**23
"""Products of an input and a weight in a batch, for each thread: some 3 ms of a step on one core."""
_MOST_THREADS = 16


def dense_threads(model: nn.Module, batch_size: int, asked: int = 0) -> int:
    """Threads of the dense part on a CPU: `asked`, or by its work 1, 2, 4, 8 or 16.

    >>> dense_threads(nn.Linear(64, 64), 256), dense_threads(nn.Linear(1024, 1024), 2048)
    (1, 16)
    """
    if asked:
        return asked
    work = batch_size * sum(parameter.numel() for parameter in model.parameters())
    threads = 1
    while threads < _MOST_THREADS and work >= 2 * threads * _WORK_A_THREAD:
        threads *= 2
    return threads


def threads_of_slice(threads: int, asked: int, num_slices: int) -> int:
    """Threads of one slice of a batch, which is smaller: its share of `threads`, or what the user wants.

    By the number of slices, and not of ranks: where the one does not depend on the other, the threads do not either.

    >>> threads_of_slice(8, 0, 2), threads_of_slice(1, 0, 4), threads_of_slice(8, 8, 2)
    (4, 1, 8)
    """
    return threads if asked or not threads else max(1, threads // num_slices)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads on this thread's behalf; 0 leaves it as it is."""
    before = torch.get_num_threads()
    if count and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
