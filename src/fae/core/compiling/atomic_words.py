"""Words of memory that compiled loops of several threads or processes write and read, each with the order it needs.

A word is column 0 of a row of an int64 array, alone on its cache line where rows have 8. A store releases and a load
acquires: who sees a word sees all that was written before it.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    struct = context.make_array(array_type)(context, builder, array)
    indices = [index, context.get_constant(types.intp, 0)]
    return cgutils.get_item_pointer(context, builder, array_type, struct, indices, wraparound=False)


# Written by hand, because numba has atomic operations on arrays for GPUs only. With plain loads and stores the compiler
# may move a batch's work past them, or read a word only once before a loop that waits for it.
@intrinsic
def load_atomic_word(typing_context: Any, words: Any, index: Any) -> Any:  # pragma: no cover (runs in the compiler)
    """In a compiled loop: the word of a row of int64 ``[n, *]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(words, types.intp), generate


@intrinsic
def store_atomic_word(typing_context: Any, words: Any, index: Any, value: Any) -> Any:  # pragma: no cover
    """In a compiled loop: write the word of a row of int64 ``[n, *]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store_atomic(arguments[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), generate
