"""Calls of the CUDA driver from compiled loops: whole lists of copies, waits and records by one call; locked maps.

Input buffers are filled straight out of the mapped file, and the streaming pipeline copies rows to slots and back. From
Python a copy costs 12 us or more, with the views that it needs and its stream made current; a step of half a
millisecond has a dozen of them and as many waits and records. Commands are only started here; the streams order them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fae.core.compiled import njit
from fae.kernels.torch_private import raw_stream_getter

WAIT, COPY, RECORD, FILL, DELAY = 0, 1, 2, 3, 4
"""Kinds of commands: ``(WAIT, stream, event, 0, 0)``, ``(COPY, target, source, bytes, stream)`` and ``(RECORD, event,
stream, 0, 0)``, every word an int64 (addresses and handles). A copy of 0 bytes is skipped. For tests of what streams
guarantee: ``(FILL, target, floats, stream, 0)`` with NaN and ``(DELAY, stream, microseconds, 0, 0)``."""
_QUERY, _SLEEP = 5, 6
_NAN_BITS = 0x7FC00000
_NOT_READY = 600  # CUDA_ERROR_NOT_READY

_READ_ONLY = 8  # CU_MEMHOSTREGISTER_READ_ONLY
_PAGE = 4096


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


def command_table(count: int, commands: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    """int64 ``[count, n, 5]``: n commands for each of `count` batches; a word is a number or an array ``[count]``."""
    table = np.zeros((count, len(commands), 5), np.int64)
    for index, command in enumerate(commands):
        for word, value in enumerate(command):
            table[:, index, word] = value
    return table


def require_success(code: int) -> None:
    """Raise for an error code of the driver other than 0.

    Raises
    ------
    RuntimeError
        If the driver refused a command.
    """
    if code != 0:
        raise RuntimeError(
            f"the driver refused a copy, or to wait for one (CUDA error {code}); "
            "where it is 700 or 719 a kernel before it may be what failed: try CUDA_LAUNCH_BLOCKING=1"
        )


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def new_events(count: int, stream: torch.cuda.Stream) -> list[torch.cuda.Event]:
    """Events that have a handle: torch creates an event when it is first recorded."""
    events = [torch.cuda.Event() for _ in range(count)]
    for event in events:
        event.record(stream)
    return events


def handles(events: Sequence[torch.cuda.Event]) -> npt.NDArray[np.int64]:
    """The driver's handles of events: int64 ``[n]``."""
    return np.array([event.cuda_event for event in events], np.int64)


_raw_stream = raw_stream_getter()


def current_stream(device: torch.device) -> int:
    """Handle of the stream that this thread computes on."""
    if _raw_stream is None:
        return int(torch.cuda.current_stream(device).cuda_stream)
    return int(_raw_stream(torch.cuda.current_device() if device.index is None else device.index))


@cache
def command_functions() -> npt.NDArray[np.int64]:
    """int64 ``[7]``: addresses of the driver's functions by kind of command, ``cuEventQuery``, and C's ``usleep``."""
    driver = _driver()
    functions = (
        driver.cuStreamWaitEvent, driver.cuMemcpyAsync, driver.cuEventRecord, driver.cuMemsetD32Async,
        driver.cuLaunchHostFunc, driver.cuEventQuery, ctypes.CDLL(None).usleep,
    )  # fmt: skip
    return np.array([ctypes.cast(function, ctypes.c_void_p).value for function in functions], np.int64)


def current_context() -> int:
    """Handle of this thread's context; 0 for none."""
    context = ctypes.c_void_p()
    failed = _driver().cuCtxGetCurrent(ctypes.byref(context))
    return 0 if failed else context.value or 0


def calling_driver(loop: Callable[..., int], device: torch.device) -> Callable[..., None]:
    """`loop`, which calls the driver and returns its error or 0, for a thread that has no CUDA context yet.

    The thread gets the context of the caller, and an error becomes an exception.
    """
    context = current_context()
    if not context and device.type == "cuda":  # this thread has not used the device yet
        torch.cuda.synchronize(device)
        context = current_context()

    def run(*arguments: Any) -> None:
        if context:
            require_success(int(_driver().cuCtxSetCurrent(ctypes.c_void_p(context))))
        require_success(loop(*arguments))

    return run


def _pages(array: npt.NDArray[Any]) -> tuple[int, int]:
    """Address of the first page of an array's memory, and bytes of all its pages; 0 bytes for an empty array."""
    first = array.ctypes.data // _PAGE * _PAGE
    return first, -(-(array.ctypes.data + array.nbytes - first) // _PAGE) * _PAGE if array.nbytes else 0


class RegisteredArrays:
    """Arrays whose memory the device may copy from directly, until `release`; read-only, so mapped files will do.

    Registering 1 GB in the page cache takes 26 ms, and copies run at 52 GB/s out of it (`gpu_feed_h200.json`). The
    thread that releases may have no context: the garbage collector runs in any thread, at any time. So the context of
    the first `add` is remembered.
    """

    def __init__(self) -> None:
        self._context = 0
        # Address of a page -> bytes registered from there on, and the driver's error.
        self._codes: dict[int, tuple[int, int]] = {}

    def missing_bytes(self, arrays: list[npt.NDArray[Any]]) -> int:
        """Bytes that `add` would lock and that are not locked yet."""
        return sum(size for first, size in map(_pages, arrays) if size and first not in self._codes)

    def add(self, arrays: list[npt.NDArray[Any]]) -> bool:
        """Register the arrays that are not registered yet; returns whether the driver took them all."""
        took_all = True
        self._context = self._context or current_context()
        for first, size in map(_pages, arrays):
            if size and first not in self._codes:
                register = _driver().cuMemHostRegister_v2
                self._codes[first] = size, register(ctypes.c_void_p(first), ctypes.c_size_t(size), _READ_ONLY)
            # Two arrays may begin on one page. Then the first one's pages are registered, maybe too few for the other.
            took_all &= not size or (self._codes[first][1] == 0 and self._codes[first][0] >= size)
        return took_all

    def release(self) -> None:
        """Unlock the memory; waits for the device. If the context is gone, the memory is unlocked already."""
        locked = [address for address, (_, code) in self._codes.items() if code == 0]
        self._codes.clear()
        if not locked or not self._context:
            return
        driver = _driver()
        if driver.cuCtxPushCurrent_v2(ctypes.c_void_p(self._context)) != 0:
            return
        try:
            for address in locked:
                driver.cuMemHostUnregister(ctypes.c_void_p(address))
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
