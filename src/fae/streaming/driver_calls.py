"""Compiled loops that call the CUDA driver: whole lists of copies, waits and records by one call. Imports no torch.

From Python a copy costs 12 us or more, with the views that it needs and its stream made current; a step of half a
millisecond has a dozen of them and as many waits and records. Commands are only started here; the streams order them.
"""

from __future__ import annotations

from typing import Any

from fae.core.compiled import njit

from llvmlite import ir  # isort: skip (numba is imported by `fae.core.compiled`, which spares it scipy)
from numba import types  # isort: skip
from numba.extending import intrinsic  # isort: skip

WAIT, COPY, RECORD, FILL, DELAY = 0, 1, 2, 3, 4
"""Kinds of commands: ``(WAIT, stream, event, 0, 0)``, ``(COPY, target, source, bytes, stream)`` and ``(RECORD, event,
stream, 0, 0)``, every word an int64 (addresses and handles). A copy of 0 bytes is skipped. For tests of what streams
guarantee: ``(FILL, target, floats, stream, 0)`` with NaN and ``(DELAY, stream, microseconds, 0, 0)``."""
_QUERY, _SLEEP = 5, 6
_NAN_BITS = 0x7FC00000
_NOT_READY = 600  # CUDA_ERROR_NOT_READY


# numba calls a function by an address only if it knows the address when it compiles, and then caches nothing, since the
# driver lies elsewhere in the next process. Here the address is an argument. By name the linker would find the driver
# only where it is loaded, but these loops are compiled, and tested, where there is none.
@intrinsic
def _call(typing_context: Any, function: Any, words: Any) -> Any:  # pragma: no cover (runs in the compiler)
    """Call the C function at an address with a tuple of int64; returns its int32 as int64."""
    count = len(words)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word] * count).as_pointer()
        values = [builder.extract_value(arguments[1], index) for index in range(count)]
        return builder.sext(builder.call(builder.inttoptr(arguments[0], kind), values), word)

    return types.int64(types.int64, types.UniTuple(types.int64, count)), generate


@njit(cache=True, nogil=True)
def run_commands(functions, commands):
    """Start commands one after the other; stops at the first error of the driver and returns it, else 0.

    Parameters
    ----------
    functions
        `command_functions`.
    commands
        int64 ``[n, 5]``, see `WAIT`.
    """
    for index in range(len(commands)):
        kind, code = commands[index, 0], 0
        first, second, third, fourth = commands[index, 1], commands[index, 2], commands[index, 3], commands[index, 4]
        if kind == WAIT:
            code = _call(functions[WAIT], (first, second, 0))  # type: ignore[call-arg]
        elif kind == RECORD:
            code = _call(functions[RECORD], (first, second))  # type: ignore[call-arg]
        elif kind == FILL:
            code = _call(functions[FILL], (first, _NAN_BITS, second, third))  # type: ignore[call-arg]
        elif kind == DELAY:
            code = _call(functions[DELAY], (first, functions[_SLEEP], second))  # type: ignore[call-arg]
        elif third > 0:
            code = _call(functions[COPY], (first, second, third, fourth))  # type: ignore[call-arg]
        if code != 0:
            return code
    return 0


@njit(cache=True, nogil=True)
def wait_for(functions, stream, event):
    """Let a stream wait for an event; returns the driver's error, or 0."""
    return _call(functions[WAIT], (stream, event, 0))  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def record(functions, event, stream):
    """Record an event in a stream; returns the driver's error, or 0."""
    return _call(functions[RECORD], (event, stream))  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def count_done(functions, events, count, limit):
    """Count how many of `limit` positions are done, from `count` on; returns the number and the driver's error, or 0.

    Position p has event ``p % len(events)`` (handles). An event that is recorded again before its first record was seen
    counts as not done.
    """
    while count < limit:
        code: int = _call(functions[_QUERY], (events[count % len(events)],))  # type: ignore[call-arg]
        if code == _NOT_READY:
            break
        if code != 0:
            return count, code
        count += 1
    return count, 0
