"""Calls of the CUDA driver from compiled loops: whole lists of copies, waits and records by one call; locked maps.

Place in the flow: the feeds copy a batch's pieces straight out of the mapped file, the streaming pipeline copies rows
to slots and back. From Python a copy costs 12 us or more, with the views that it needs and its stream made current; a
step of half a millisecond has a dozen of them and as many waits and records. Invariant: commands are only started
here; the streams order them.
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
from numba import njit, types
from numba.extending import intrinsic

WAIT, COPY, RECORD, FILL, DELAY = 0, 1, 2, 3, 4
"""Kinds of commands: ``(WAIT, stream, event, 0, 0)``, ``(COPY, target, source, bytes, stream)`` and ``(RECORD, event,
stream, 0, 0)``, every word an int64 (addresses and handles). A copy of no bytes is none. For tests of what streams
guarantee: ``(FILL, target, floats, stream, 0)`` with NaN and ``(DELAY, stream, microseconds, 0, 0)``."""
_QUERY, _SLEEP = 5, 6
_NAN_BITS = 0x7FC00000
_NOT_READY = 600  # CUDA_ERROR_NOT_READY

_READ_ONLY = 8  # CU_MEMHOSTREGISTER_READ_ONLY
_PAGE = 4096


def _generate(num_arguments: int) -> Any:  # pragma: no cover (runs in the compiler)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word] * num_arguments).as_pointer()
        code = builder.call(builder.inttoptr(arguments[0], kind), list(arguments[1:]))
        return builder.sext(code, word)

    return types.int64(*[types.int64] * (1 + num_arguments)), generate


@intrinsic
def _call_one(typing_context: Any, function: Any, first: Any) -> Any:  # pragma: no cover
    return _generate(1)


@intrinsic
def _call_two(typing_context: Any, function: Any, first: Any, second: Any) -> Any:  # pragma: no cover
    return _generate(2)


@intrinsic
def _call_three(typing_context: Any, function: Any, first: Any, second: Any, third: Any) -> Any:  # pragma: no cover
    return _generate(3)


@intrinsic
def _call_four(
    typing_context: Any, function: Any, first: Any, second: Any, third: Any, fourth: Any
) -> Any:  # pragma: no cover
    return _generate(4)


@njit(cache=True, nogil=True)
def run_commands(functions, commands):
    """Start commands one after the other; returns the first of the driver's errors and stops there, or 0.

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
            code = _call_three(functions[WAIT], first, second, 0)  # type: ignore[call-arg]
        elif kind == RECORD:
            code = _call_two(functions[RECORD], first, second)  # type: ignore[call-arg]
        elif kind == FILL:
            code = _call_four(functions[FILL], first, _NAN_BITS, second, third)  # type: ignore[call-arg]
        elif kind == DELAY:
            code = _call_three(functions[DELAY], first, functions[_SLEEP], second)  # type: ignore[call-arg]
        elif third > 0:
            code = _call_four(functions[COPY], first, second, third, fourth)  # type: ignore[call-arg]
        if code != 0:
            return code
    return 0


@njit(cache=True, nogil=True)
def wait_for(functions, stream, event):
    """Let a stream wait for an event; the driver's error, or 0."""
    return _call_three(functions[WAIT], stream, event, 0)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def record(functions, event, stream):
    """Record an event in a stream; the driver's error, or 0."""
    return _call_two(functions[RECORD], event, stream)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def count_done(functions, events, count, limit):
    """How many of `limit` positions are done, if the first `count` are, and the driver's error, or 0.

    Position p has event ``p % len(events)`` (handles); one that is recorded anew before it was seen is not done.
    """
    while count < limit:
        code: int = _call_one(functions[_QUERY], events[count % len(events)])  # type: ignore[call-arg]
        if code == _NOT_READY:
            break
        if code != 0:
            return count, code
        count += 1
    return count, 0


def command_table(count: int, commands: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    """int64 ``[count, n, 5]``: n commands for each of `count` batches; each word a number or an array ``[count]``."""
    table = np.zeros((count, len(commands), 5), np.int64)
    for index, command in enumerate(commands):
        for word, value in enumerate(command):
            table[:, index, word] = value
    return table


def require_success(code: int) -> None:
    """Raise what the driver said, unless that is 0.

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
    """Events that have a handle: torch makes it when an event is recorded first."""
    events = [torch.cuda.Event() for _ in range(count)]
    for event in events:
        event.record(stream)
    return events


def handles(events: Sequence[torch.cuda.Event]) -> npt.NDArray[np.int64]:
    """int64 ``[n]``: what the driver calls them."""
    return np.array([event.cuda_event for event in events], np.int64)


_current_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # 0.1 us, where torch.cuda's takes 2


def current_stream(device: torch.device) -> int:
    """Handle of the stream that this thread computes on."""
    if _current_stream is None:
        return int(torch.cuda.current_stream(device).cuda_stream)
    return int(_current_stream(torch.cuda.current_device() if device.index is None else device.index))


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
    """A lane's loop that calls the driver and returns its error or 0, for a thread that has no context of its own."""
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
    """Address of the first page of an array's memory, and bytes of all its pages; 0 bytes where it is empty."""
    first = array.ctypes.data // _PAGE * _PAGE
    return first, -(-(array.ctypes.data + array.nbytes - first) // _PAGE) * _PAGE if array.nbytes else 0


class RegisteredArrays:
    """Arrays whose memory the device may copy from directly, until `release`; read-only, so mapped files will do.

    Registering 1 GB in the page cache takes 26 ms, and copies run at 52 GB/s out of it (`gpu_feed_h200.json`).
    Whoever releases may have no context of its own: the garbage collector comes in any thread, and at any time. So the
    context of the first `add` is remembered.
    """

    def __init__(self) -> None:
        self._context = 0
        self._codes: dict[int, tuple[int, int]] = {}  # of the first byte of a page: bytes from there on, error

    def missing_bytes(self, arrays: list[npt.NDArray[Any]]) -> int:
        """Bytes that `add` would lock anew."""
        return sum(size for first, size in map(_pages, arrays) if size and first not in self._codes)

    def add(self, arrays: list[npt.NDArray[Any]]) -> bool:
        """Register those that are not yet; whether the driver took them all."""
        took_all = True
        self._context = self._context or current_context()
        for first, size in map(_pages, arrays):
            if size and first not in self._codes:
                register = _driver().cuMemHostRegister_v2
                self._codes[first] = size, register(ctypes.c_void_p(first), ctypes.c_size_t(size), _READ_ONLY)
            # A small array may begin on the page of another: then that one's pages are registered, not all of its own.
            took_all &= not size or (self._codes[first][1] == 0 and self._codes[first][0] >= size)
        return took_all

    def release(self) -> None:
        """Give the memory back; waits for the device. Where the context is gone, its locks went with it."""
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
