"""Calls of the CUDA driver from compiled loops: several copies started by one call, maps registered for copying.

Place in the flow: the feeds copy a batch's pieces straight out of the mapped file. torch starts such a copy in about
6 us of Python; a batch has eight. Invariant: copies are only started here; the stream orders them.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_READ_ONLY = 8  # CU_MEMHOSTREGISTER_READ_ONLY
_PAGE = 4096


@intrinsic
def _call_copy(
    typing_context: Any, function: Any, target: Any, source: Any, num_bytes: Any, stream: Any
) -> Any:  # pragma: no cover (runs in the compiler)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word] * 4).as_pointer()
        code = builder.call(builder.inttoptr(arguments[0], kind), list(arguments[1:]))
        return builder.sext(code, word)

    return types.int64(types.int64, types.int64, types.int64, types.int64, types.int64), generate


@njit(cache=True, nogil=True)
def start_copies(function, stream, target, pieces):
    """Start one copy to the device for each piece that is not empty; returns one of the driver's errors, or 0.

    Parameters
    ----------
    function
        Address of the driver's ``cuMemcpyAsync``: `copy_function`.
    stream
        Handle of the stream.
    target
        Address on the device.
    pieces
        int64 ``[n, 3]``: address in page-locked host memory, place behind `target` (bytes), bytes.
    """
    worst = 0
    for piece in range(len(pieces)):
        if pieces[piece, 2] > 0:
            place, source, size = target + pieces[piece, 1], pieces[piece, 0], pieces[piece, 2]
            worst = max(worst, _call_copy(function, place, source, size, stream))  # type: ignore[call-arg]
    return worst


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


@cache
def copy_function() -> int:
    """Address of ``cuMemcpyAsync``."""
    address = ctypes.cast(_driver().cuMemcpyAsync, ctypes.c_void_p).value
    assert address is not None
    return address


def _current_context() -> int:
    """Handle of this thread's context; 0 for none."""
    context = ctypes.c_void_p()
    failed = _driver().cuCtxGetCurrent(ctypes.byref(context))
    return 0 if failed else context.value or 0


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
        self._context = self._context or _current_context()
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
