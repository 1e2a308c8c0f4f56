"""The crc32 of memory at the speed of reading it: by the CPU's instruction that multiplies polynomials.

`zlib.crc32` takes half a nanosecond to a whole one a byte, and this a fifteenth of one. A crc32 is the remainder of a
division of polynomials over two elements, and 64 bytes that are followed by others may be replaced by their product
with a constant, added to the 64 bytes behind them, without a change of the remainder: the constants are those of
"Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009). What is left is given to zlib.
CPUs without the instruction, and memory too short to be worth it, are zlib's from the start.
"""

from __future__ import annotations

import functools
import platform
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.compiled import njit

import numba  # isort: skip
from llvmlite import binding, ir
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK_BYTES = 64
_LEAST_BYTES = 32768  # below it a call of the compiled loop costs more than it saves
_FAR, _NEAR = 0x0154442BD4, 0x01C6E41596
"""x to the power of 544 and of 480, modulo the polynomial, bits reversed: what moves 16 bytes 64 bytes on."""


@intrinsic
def _fold(typing_context: Any, state: Any, data: Any) -> Any:  # pragma: no cover (runs in the compiler)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pair, number = ir.VectorType(ir.IntType(64), 2), ir.IntType(64)
        pointers = []
        for kind, value in zip(signature.args, arguments, strict=True):
            pointers.append(builder.bitcast(context.make_array(kind)(context, builder, value).data, pair.as_pointer()))
        own, blocks = pointers
        size = context.make_array(signature.args[1])(context, builder, arguments[1]).nitems
        constant = ir.Constant(pair, [ir.Constant(number, _FAR), ir.Constant(number, _NEAR)])
        multiply = builder.module.declare_intrinsic(
            "llvm.x86.pclmulqdq", (), ir.FunctionType(pair, [pair, pair, ir.IntType(8)])
        )

        def at(pointer: Any, place: Any) -> Any:
            return builder.gep(pointer, [place])

        parts = [cgutils.alloca_once(builder, pair) for _ in range(4)]
        for part, variable in enumerate(parts):
            builder.store(builder.load(at(own, ir.Constant(number, part)), align=8), variable)
        with cgutils.for_range(builder, builder.udiv(size, ir.Constant(size.type, BLOCK_BYTES))) as loop:
            first = builder.mul(loop.index, ir.Constant(loop.index.type, 4))
            for part, variable in enumerate(parts):
                before = builder.load(variable)
                low = builder.call(multiply, [before, constant, ir.Constant(ir.IntType(8), 0x00)])
                high = builder.call(multiply, [before, constant, ir.Constant(ir.IntType(8), 0x11)])
                block = builder.load(at(blocks, builder.add(first, ir.Constant(first.type, part))), align=1)
                builder.store(builder.xor(builder.xor(low, high), block), variable)
        for part, variable in enumerate(parts):
            builder.store(builder.load(variable), at(own, ir.Constant(number, part)), align=8)
        return context.get_dummy_value()

    return numba.types.void(state, data), generate


@njit(nogil=True)
def fold_blocks(state, data):
    """Fold the blocks of `data`, uint8 of whole blocks, into `state`, uint64 ``[8]``, which holds the one before."""
    _fold(state, data)  # type: ignore[call-arg]  # the typing context is numba's


@functools.cache
def can_fold() -> bool:
    """Whether this CPU has the instruction, and loops are compiled for this CPU."""
    config: Any = numba.config
    if platform.machine() not in ("x86_64", "AMD64") or config.DISABLE_JIT or config.CPU_NAME or config.CPU_FEATURES:
        return False
    return bool(binding.get_host_cpu_features().get("pclmul", False))


def crc32(data: npt.NDArray[Any], checksum: int = 0) -> int:
    """The crc32 of the bytes of a contiguous array behind bytes whose crc32 is `checksum`, as `zlib.crc32` has it."""
    view = data.reshape(-1).view(np.uint8)
    whole = len(view) - len(view) % BLOCK_BYTES
    if whole < _LEAST_BYTES or not can_fold():
        return zlib.crc32(view.data, checksum)
    if view.flags.writeable:
        view = view.view()
        view.flags.writeable = False
    state = np.array(view[:BLOCK_BYTES]).view(np.uint64)
    # What came before is added to the first four bytes; the remainder of what then follows begins at 0.
    state[:1].view(np.uint32)[0] ^= np.uint32(~checksum & 0xFFFFFFFF)
    fold_blocks(state, view[BLOCK_BYTES:whole])
    return zlib.crc32(view[whole:].data, zlib.crc32(state.view(np.uint8).data, 0xFFFFFFFF))
