"""How ranks of one host meet in its memory: a word of each says how far it has come, and no bytes are moved.

A rank says that it is at a place, and waits until all have said so as often. Between the two it may do what
concerns nobody else, so most waits are over before they begin. Who has waited sees what the others wrote before they
said it. A wait ends as a collective does (`fae.distributed.link`).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import types

from fae.core.compiled import compiled
from fae.core.compiling.atomic_words import load_atomic_word, store_atomic_word

if TYPE_CHECKING:
    from fae.distributed.link import Link
    from fae.distributed.part_link import PartLink

Words = npt.NDArray[np.int64]
WORD_NUMBERS = 8
"""Numbers of a rank's word: 64 bytes, so that no rank writes the cache line of another one's."""
_PLACE_BITS = 32
_LOOKS = 400
"""Looks before a wait sleeps in between: about 0.2 ms, which most ranks are apart; each lets another process run."""

_sched_yield = types.ExternalFunction("sched_yield", types.int32())


@compiled
def _write(words: Words, rank: int, value: int) -> None:
    store_atomic_word(words, rank, value)  # type: ignore[call-arg]


@compiled
def _read(words: Words, rank: int) -> int:
    found: int = load_atomic_word(words, rank)  # type: ignore[call-arg]
    return found


@compiled
def _await(words: Words, number: int, looks: int) -> bool:
    """Whether all ranks have said so `number` times, after this many looks at most."""
    rank, look = 0, 0
    while rank < words.shape[0]:
        if load_atomic_word(words, rank) >> _PLACE_BITS >= number:  # type: ignore[call-arg]
            rank += 1
            continue
        if look >= looks:
            return False
        look += 1
        _sched_yield()
    return True


class HostMeeting:
    """The meetings of all ranks of one host, which come to them in the same order.

    Parameters
    ----------
    words
        int64 ``[W, 8]`` that all ranks map, 0 at first: the word of each rank is how often it has said that it is
        somewhere, times 2^32, plus a checksum of where.
    rank
        This one.
    link
        What ends a wait for a rank that is gone, or late.
    """

    def __init__(self, words: Words, rank: int, link: Link | PartLink) -> None:
        self._words, self._rank, self._link = words, rank, link
        self._number, self._what = 0, ""

    def say(self, what: str) -> None:
        """Say that this rank is here, and has written what it had to; `what` names the place as for `Group`."""
        self._number += 1
        self._what = what
        _write(self._words, self._rank, self._number << _PLACE_BITS | zlib.crc32(what.encode()))

    def await_all(self) -> None:
        """Wait until all ranks are where this one has said last that it is.

        Raises
        ------
        LostRank
            If another rank is gone, or speaks for this one.
        RankError
            If one does not come in time.
        CommonFault
            If it is at another place.
        """
        if not _await(self._words, self._number, _LOOKS):
            self._link.await_others(lambda: bool(_await(self._words, self._number, 1)), self._what)
        own = _read(self._words, self._rank)
        for rank in range(len(self._words)):
            other = _read(self._words, rank)
            if other != own and other >> _PLACE_BITS == self._number:
                raise self._link.out_of_step(self._what)

    def meet(self, what: str) -> None:
        """Say that this rank is here, and wait for all."""
        self.say(what)
        self.await_all()
