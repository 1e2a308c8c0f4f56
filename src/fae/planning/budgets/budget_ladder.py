"""The budgets that a plan looks at: round sizes from the smallest that trains to what all rows take."""

from __future__ import annotations

from collections.abc import Iterable

_KIB = 1024
FEWEST, MOST = 6, 9
"""Budgets of a ladder, without those that somebody named."""
_ALIKE = 1.05


def budget_ladder(smallest: int, all_rows: int, named: Iterable[int] = ()) -> list[int]:
    """Budgets in bytes, ascending.

    Parameters
    ----------
    smallest
        The smallest budget that trains.
    all_rows
        What every row takes with its state: the last budget.
    named
        Budgets that must be among them, such as the recipe's own; those above `all_rows` buy no more than it.

    Returns
    -------
    list of int
        At least six, but for tables that are too small for six whole numbers.

    Examples
    --------
    >>> [size / 1024 for size in budget_ladder(10_000, 300_000)]
    [9.765625, 16.0, 32.0, 64.0, 128.0, 256.0, 292.96875]
    """
    first = smallest if smallest >= all_rows else min(_rounded_up(smallest), all_rows)
    between = _powers(first, all_rows, 1)
    for steps in (2, 4):
        if len(between) + 2 >= FEWEST:
            break
        between = _powers(first, all_rows, steps)
    if len(between) + 2 < FEWEST:
        between = [first + (all_rows - first) * part // (FEWEST - 1) for part in range(1, FEWEST - 1)]
    if len(between) > MOST - 2:
        between = [between[index * len(between) // (MOST - 2)] for index in range(MOST - 2)]
    must = {first, all_rows, *(size for size in named if first <= size < all_rows)}
    inner = [size for size in between if first < size < all_rows]
    unlike = [size for size in inner if not any(_is_alike(size, other) for other in must)]
    found = {*must, *(unlike if len(unlike) + len(must) >= FEWEST else inner)}
    return sorted(found)


def _rounded_up(size: int) -> int:
    """The next whole byte, KiB or more: a number of at least two digits."""
    unit = 1 if size < 16 * _KIB else _KIB
    while size >= 1024 * unit:
        unit *= 2
    return -(-size // unit) * unit


def _powers(low: int, high: int, steps: int) -> list[int]:
    """Powers of 2 between two sizes, `steps` for each doubling, as multiples of an eighth of the power below."""
    found, power = [], 1
    while power < high:
        found += [power + power * step // steps for step in range(steps)]
        power *= 2
    return [size for size in found if low < size < high]


def _is_alike(one: int, other: int) -> bool:
    return max(one, other) < _ALIKE * min(one, other)
