"""Read bytes of an array as one number, eight at a time, wherever they begin: one load where it is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

WORD_BYTES = 8


def load_word(data: npt.NDArray[np.uint8], place: Any) -> np.int64:
    """The number that ``data[place : place + 8]`` are, the first byte lowest; all eight must be within the array."""
    return np.int64(int.from_bytes(data[place : place + WORD_BYTES].tobytes(), "little", signed=True))


@intrinsic
def _load_word(typing_context: Any, data: Any, place: Any) -> Any:  # pragma: no cover (runs in the compiler)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        struct = context.make_array(array_type)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, array_type, struct, [arguments[1]], wraparound=False)
        word = builder.load(builder.bitcast(pointer, ir.PointerType(ir.IntType(64))))
        word.align = 1
        return word

    return types.int64(data, place), generate


@overload(load_word)
def _overload_load_word(data, place):  # pragma: no cover (runs in the compiler)
    def implementation(data, place):
        return _load_word(data, place)  # type: ignore[call-arg]  # the typing context is numba's

    return implementation
