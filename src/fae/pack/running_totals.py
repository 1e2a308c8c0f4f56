"""Sums of counts that become known in any order: where a list belongs behind all earlier ones."""

from __future__ import annotations

import threading

from fae.core.compiled import Int64


class RunningTotals:
    """The sums of the counts of items 0, 1, ... that threads work on at the same time.

    An item must be begun by some thread before any later one waits for it: then nobody waits forever.

    Parameters
    ----------
    first
        What comes before item 0.
    """

    def __init__(self, first: Int64) -> None:
        self._changed = threading.Condition()
        self._counts: dict[int, Int64] = {}
        self._before: dict[int, Int64] = {0: first}
        self._last = 0
        self._fault: BaseException | None = None

    def put(self, item: int, counts: Int64) -> None:
        """Make the counts of an item known."""
        with self._changed:
            self._counts[item] = counts
            while self._last in self._counts:
                self._before[self._last + 1] = self._before[self._last] + self._counts.pop(self._last)
                self._last += 1
            self._changed.notify_all()

    def take(self, item: int) -> Int64:
        """The sum of the counts of all earlier items, once; waits until they are known.

        Raises
        ------
        BaseException
            That of the first item that was given up, whatever its number: so the cause is heard, in any order.
        """
        with self._changed:
            self._changed.wait_for(lambda: item in self._before or self._fault is not None)
            if item not in self._before and self._fault is not None:
                raise self._fault
            # The last sum stays: the next item's is made from it.
            return self._before.pop(item) if item < self._last else self._before[item]

    def give_up(self, fault: BaseException) -> None:
        """Let nobody wait any longer: an item has failed by `fault`."""
        with self._changed:
            self._fault = self._fault or fault
            self._changed.notify_all()
