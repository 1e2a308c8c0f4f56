"""The compiled loops of an evaluation with the types they are called with, to be compiled before they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fae.training.quality.input_columns import find_unknown
from fae.training.quality.score_order import number_ties, sort_by_bits
from fae.training.quality.single_columns import smoothed_rates

from numba import types  # isort: skip (numba is imported by `fae.core.compiled`, which spares it scipy)


def quality_loops() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each loop with numba's types of its arguments, the one that takes longest first. Imports no torch."""
    number, real = types.int64, types.float64
    numbers, reals, ids = _array(types.int64, 1), _array(types.float64, 1), _array(types.int32, 2)
    yield smoothed_rates, (ids, ids, reals, reals, real, real, _array(types.float64, 2))
    yield sort_by_bits, (_array(types.uint32, 1, is_file=True), _array(types.uint64, 2), numbers)
    yield number_ties, (reals, numbers, numbers)
    mapped, unknown_ids, found = _array(types.int32, 2, is_file=True), _array(types.int32, 1), _array(types.boolean, 1)
    yield find_unknown, (mapped, numbers, unknown_ids, found, number, number)


def _array(dtype: Any, num_axes: int, *, is_file: bool = False) -> Any:
    return types.Array(dtype, num_axes, "C", readonly=is_file)
