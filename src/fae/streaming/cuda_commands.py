"""Lists of driver commands for compiled loops, the handles that they are made of, and locked maps.

Input buffers are filled straight out of the mapped file, and the streaming pipeline copies rows to slots and back. The
loops that start the commands are in `fae.streaming.driver_calls`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fae.kernels.torch_private import raw_stream_getter

_READ_ONLY = 8  # CU_MEMHOSTREGISTER_READ_ONLY
_PAGE = 4096


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
