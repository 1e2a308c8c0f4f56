"""Counters in shared memory that compiled loops in several threads raise and wait for, without the interpreter.

Place in the flow: under `fae.streaming.workers`. A row of the array is one counter, alone on its cache line; row 0 is taken
(column 0: stop; 1: how often a waiting thread yields before it sleeps; 2: longest sleep in microseconds). Invariant:
what a thread wrote before it raised a counter is there for whoever has seen the counter raised (store with release,
load with acquire).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Counters = npt.NDArray[np.int64]
STOP = 0
REACHED, STOPPED, NOT_YET = 0, 1, 2
_FIRST_SLEEP, _MOST_DOUBLINGS = 8, 16  # microseconds; doubled each time


def new_counters(count: int, yields: int, longest_sleep: int) -> Counters:
    """int64 ``[1 + count, 8]``: row 0 and `count` counters at 0."""
    counters = np.zeros((1 + count, 8), np.int64)
    counters[STOP, 1:3] = yields, longest_sleep
    return counters


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    struct = context.make_array(array_type)(context, builder, array)
    indices = [index, context.get_constant(types.intp, 0)]
    return cgutils.get_item_pointer(context, builder, array_type, struct, indices, wraparound=False)


@intrinsic
def _load(typing_context: Any, counters: Any, index: Any) -> Any:  # pragma: no cover (runs in the compiler)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(counters, types.intp), generate


@intrinsic
def _store(typing_context: Any, counters: Any, index: Any, value: Any) -> Any:  # pragma: no cover
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store_atomic(arguments[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(counters, types.intp, types.int64), generate


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:  # pragma: no cover
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [argument.type for argument in arguments]), name
    )
    return builder.call(function, arguments)


@intrinsic
def _sleep(typing_context: Any, microseconds: Any) -> Any:  # pragma: no cover
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        short = builder.trunc(arguments[0], ir.IntType(32))
        _call(builder, "usleep", ir.IntType(32), [short])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def _yield(typing_context: Any) -> Any:  # pragma: no cover
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "sched_yield", ir.IntType(32), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _move(typing_context: Any, target: Any, source: Any, num_bytes: Any) -> Any:  # pragma: no cover
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        pointers = [builder.inttoptr(argument, byte) for argument in arguments[:2]]
        _call(builder, "memcpy", byte, [*pointers, arguments[2]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@njit(cache=True, nogil=True)
def copy_bytes(target, source, num_bytes):
    """The C library's memcpy over addresses."""
    _move(target, source, num_bytes)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def publish(counters, cell, count):
    """Raise a counter."""
    _store(counters, cell, count)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def raised(counters, cell):
    """Where a counter stands."""
    return _load(counters, cell)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def stopped(counters):
    """Whether all are to stop."""
    return _load(counters, STOP) != 0  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def pause(counters, turns):
    """Wait a little, after so many turns in which nothing happened: yield at first, then sleep, longer and longer."""
    if turns < counters[STOP, 1]:
        _yield()  # type: ignore[call-arg]
        return
    doublings = min(turns - counters[STOP, 1], _MOST_DOUBLINGS)
    _sleep(min(counters[STOP, 2], _FIRST_SLEEP << doublings))  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def reach(counters, cell, count):
    """Wait until a counter has reached `count`; False if all are to stop."""
    turns = 0
    while raised(counters, cell) < count:
        if stopped(counters):
            return False
        pause(counters, turns)
        turns += 1
    return True


@njit(cache=True, nogil=True)
def reach_all(counters, cells, count):
    """Wait until all these counters have reached `count`; False if all are to stop."""
    for index in range(cells.size):  # noqa: SIM110 (numba has no generators here)
        if not reach(counters, cells[index], count):
            return False
    return True


@njit(cache=True, nogil=True)
def poll(counters, cells, count, turns, sleeps):
    """`REACHED` where all these counters have reached `count`, else, after so many looks, `NOT_YET` or `STOPPED`.

    Between looks it yields or, if it `sleeps`, does as a lane that waits.
    """
    looks = 0
    for index in range(cells.size):
        while raised(counters, cells[index]) < count:
            if stopped(counters):
                return STOPPED
            if looks >= turns:
                return NOT_YET
            if sleeps:
                pause(counters, looks)
            else:
                _yield()  # type: ignore[call-arg]
            looks += 1
    return REACHED


@njit(cache=True, nogil=True)
def random_delay(seed, longest):
    """Sleep up to `longest` microseconds, at random; returns the next seed (for tests of the invariants)."""
    if longest <= 0:
        return seed
    following = seed * 6364136223846793005 + 1442695040888963407
    _sleep(((following >> 33) & 0x3FFFFFFF) % (longest + 1))  # type: ignore[call-arg]
    return following
