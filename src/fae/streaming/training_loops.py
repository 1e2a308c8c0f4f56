"""Which compiled loops a training calls, with numba's types of their arguments. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fae.core.compiling.argument_types import array_type, flag, number, small_real


@dataclass(frozen=True, kw_only=True)
class LoopShapes:
    """What decides which loops a training calls, and with which types.

    Attributes
    ----------
    widths
        For each width of rows, its floats and those of its optimizer state.
    is_flat
        Whether all rows have one width and no feature pools a list (`fae.kernels.geometry.GroupGeometry.is_flat`).
    is_staged
        Whether rows are streamed to the device: placement ``tiered``.
    rows_on_host
        Whether the CPU looks rows up and updates them.
    on_gpu
        Whether inputs and rows are copied to a GPU.
    """

    widths: tuple[tuple[int, int], ...]
    is_flat: bool
    is_staged: bool
    rows_on_host: bool
    on_gpu: bool


def training_loops(shapes: LoopShapes) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each compiled loop of a training with numba's types of its arguments, in the order of their first calls."""
    from fae.artifacts.lookup_addresses import are_permutations
    from fae.streaming import row_loops
    from fae.streaming.counters import poll, publish

    counters, matrix = array_type(np.int64, 2), array_type(np.float32, 2)
    numbers, transfer = array_type(np.int64, 1), array_type(np.float32, 3)
    commands = array_type(np.int64, 3)
    orders, groups = array_type(np.int32, 2, is_file=True), array_type(np.int64, 1)
    yield are_permutations, (orders, groups, groups, array_type(np.bool_, 1))
    yield publish, (counters, number, number)
    if shapes.is_staged:
        listed = array_type(np.int64, 1, is_file=True)
        for width, state_width in shapes.widths:
            yield row_loops.gather_loop(width, state_width), (
                counters, number, numbers, number, number, listed, numbers, numbers, number, number, number, matrix,
                matrix, array_type(np.uint32, 1), counters, transfer, transfer, flag, number, number,
            )  # fmt: skip
            yield row_loops.scatter_loop(width, state_width), (
                counters, number, number, number, number, listed, numbers, numbers, number, matrix, matrix, transfer,
                transfer, number, number,
            )  # fmt: skip
    if shapes.is_staged and not shapes.on_gpu:
        ends = (matrix, matrix)
        yield row_loops.up_loop, (
            counters, number, numbers, number, numbers, numbers, number, transfer, transfer, *ends, flag, number,
            number,
        )  # fmt: skip
        yield row_loops.down_loop, (
            counters, number, number, numbers, numbers, number, *ends, transfer, transfer, number, number,
        )  # fmt: skip
        yield row_loops.forward_on_host, (numbers, number, *ends)
    yield poll, (counters, numbers, number, number, flag)
    if shapes.rows_on_host:
        yield from _row_kernels(shapes.widths, is_flat=shapes.is_flat)
    if shapes.on_gpu:
        from fae.streaming import copy_loops  # compiles on import what the consumer calls, so it comes last

        yield copy_loops.copy_inputs, (counters, number, numbers, number, numbers, numbers, commands, numbers)
        if shapes.is_staged:
            yield copy_loops.copy_rows, (
                counters, number, numbers, number, numbers, commands, commands, numbers, numbers, number, number,
                number,
            )  # fmt: skip


def _row_kernels(widths: Sequence[tuple[int, int]], *, is_flat: bool) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    from fae.artifacts.lookup_addresses import write_addresses
    from fae.kernels import cpu

    matrix, numbers, rows = array_type(np.float32, 2), array_type(np.int64, 1), array_type(np.int64, 2)
    addresses, flat = array_type(np.int32, 2, is_file=True), array_type(np.float32, 1)
    order, listed = array_type(np.int32, 1, is_file=True), array_type(np.int64, 1, is_file=True)
    yield write_addresses, (order, order, order, number, number, number, array_type(np.int32, 1))
    yield cpu.translate, (addresses, numbers, number, number, listed, rows, number, number)
    for width, _ in widths:
        if is_flat:
            yield cpu.gather_kernel(width), (matrix, numbers, matrix, number, number)
        else:
            yield cpu.pool_kernel(width), (
                matrix, rows, numbers, numbers, numbers, numbers, matrix, matrix, number, number,
            )  # fmt: skip
        yield cpu.update_kernel(width, is_flat), (
            matrix, matrix, flat, numbers, order, flat, number, number, numbers, numbers, numbers, matrix, number,
            *[small_real] * 5, number, number,
        )  # fmt: skip
