"""How ranks of one host know, on the host, that the others have written rows which they read in place."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from fae.core.errors import RankError
from fae.distributed.group import Group

_LOOK_SECONDS = 0.002
_MOST_SECONDS = 600.0
"""As long as a collective waits for a rank."""


class WrittenWords:
    """One word of each rank, which all can read: how often that rank has said that its rows are written.

    Parameters
    ----------
    words
        For each rank int64 ``[1]``, on a GPU or in host memory.
    rank
        This one.
    """

    def __init__(self, words: Sequence[Tensor], rank: int) -> None:
        self._words, self._rank, self._number = list(words), rank, 0

    def say(self) -> None:
        """Say, in the order of the current stream, that own rows are written; all ranks say so as often."""
        self._number += 1
        self._words[self._rank].fill_(self._number)

    def wait(self) -> None:
        """Wait until every rank has said so as often as this one has.

        Raises
        ------
        RankError
            If a rank has not within 600 s.
        """
        end = time.monotonic() + _MOST_SECONDS
        for rank, word in enumerate(self._words):
            while int(word.item()) < self._number:
                if time.monotonic() > end:
                    raise RankError(f"rank {rank} has not written its rows within {_MOST_SECONDS:.0f} s")
                time.sleep(_LOOK_SECONDS)


def await_reads(group: Group, device: torch.device) -> None:
    """Before rows are replaced that others read in place: wait until all ranks have come here, and so have read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    group.barrier("rows that are replaced")
