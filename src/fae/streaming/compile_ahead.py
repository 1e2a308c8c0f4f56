"""Compile the loops of a training on a thread of their own, side by side with torch's import and the stages before it.

numba compiles a loop for the types with which it is called first, and keeps it on disk; where it is not there yet, the
dozen loops of a training take several seconds, half of them without the interpreter's lock. Here they are compiled for
the types that training will use, before it does; where they are on the disk, that loads them. A caller of a loop that
is being compiled waits for it (numba's lock), and a loop that was left out is compiled when it is called.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

THREAD_NAME = "compile ahead"


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


def compile_ahead(shapes: LoopShapes) -> threading.Thread:
    """Start the thread. At the end of the process it stops behind the loop that it is at."""
    thread = threading.Thread(target=_compile_all, args=(shapes,), name=THREAD_NAME)
    thread.start()
    return thread


def _compile_all(shapes: LoopShapes) -> None:
    with contextlib.suppress(Exception):  # the caller of the loop meets the same error
        for loop, types in training_loops(shapes):
            if not threading.main_thread().is_alive():
                return
            if hasattr(loop, "compile"):  # not where NUMBA_DISABLE_JIT is set
                loop.compile(types)


def training_loops(shapes: LoopShapes) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each compiled loop of a training with numba's types of its arguments, in the order of their first calls."""
    from fae.streaming import row_loops
    from fae.streaming.counters import poll, publish

    from numba import types  # isort: skip (numba is imported by `fae.core.compiled`, which spares it scipy)

    flag, number = types.boolean, types.int64
    counters, matrix = _array(types.int64, 2), _array(types.float32, 2)
    numbers, transfer = _array(types.int64, 1), _array(types.float32, 3)
    commands = _array(types.int64, 3)
    yield publish, (counters, number, number)
    if shapes.is_staged:
        listed = _array(types.int64, 1, is_file=True)
        for width, state_width in shapes.widths:
            yield row_loops.gather_loop(width, state_width), (
                counters, number, numbers, number, number, listed, numbers, numbers, number, number, number, matrix,
                matrix, _array(types.uint32, 1), counters, transfer, transfer, flag, number, number,
            )  # fmt: skip
            yield row_loops.scatter_loop(width, state_width), (
                counters, number, number, number, number, listed, numbers, numbers, number, matrix, matrix, transfer,
                transfer, number, number,
            )  # fmt: skip
    if shapes.on_gpu:
        from fae.streaming import copy_loops  # compiles on import what it says to the driver

        yield copy_loops.copy_inputs, (counters, number, numbers, number, numbers, numbers, commands, numbers)
        if shapes.is_staged:
            yield copy_loops.copy_rows, (
                counters, number, numbers, number, numbers, commands, commands, numbers, numbers, number, number,
                number,
            )  # fmt: skip
    elif shapes.is_staged:
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


def _row_kernels(widths: Sequence[tuple[int, int]], *, is_flat: bool) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    from numba import types

    from fae.kernels import cpu

    number, real = types.int64, types.float32
    matrix, numbers, rows = _array(types.float32, 2), _array(types.int64, 1), _array(types.int64, 2)
    addresses, flat = _array(types.int32, 2, is_file=True), _array(types.float32, 1)
    order, listed = _array(types.int32, 1, is_file=True), _array(types.int64, 1, is_file=True)
    yield cpu.translate, (addresses, numbers, number, number, listed, rows, number, number)
    for width, _ in widths:
        if is_flat:
            yield cpu.gather_kernel(width), (matrix, numbers, matrix, number, number)
        else:
            yield cpu.pool_kernel(width), (
                matrix, rows, numbers, numbers, numbers, numbers, matrix, matrix, number, number,
            )  # fmt: skip
        yield cpu.update_kernel(width, is_flat), (
            matrix, matrix, flat, numbers, order, flat, number, number, numbers, numbers, numbers, matrix, number, real,
            real, real, real, real, number, number,
        )  # fmt: skip


def _array(dtype: Any, num_axes: int, *, is_file: bool = False) -> Any:
    """numba's type of a contiguous array; one that is read from a file cannot be written."""
    from numba import types

    return types.Array(dtype, num_axes, "C", readonly=is_file)
