"""Loads and copies for compiled loops that numba has no words for; plain Python does the same."""

from __future__ import annotations

import ctypes
from typing import Any

import fae.core.compiled  # noqa: F401 (imports numba, and spares it scipy)

from llvmlite import ir  # isort: skip
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload


def load_rank(address: Any, place: Any) -> int:
    """The int32 at a place behind an address; the place must be within what lies there."""
    return ctypes.c_int32.from_address(int(address) + 4 * int(place)).value


@intrinsic
def _load(typing_context: Any, address: Any, place: Any) -> Any:  # pragma: no cover (runs in the compiler)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(32).as_pointer())
        return builder.load(builder.gep(pointer, [arguments[1]]))

    return types.int32(types.int64, types.int64), generate


@overload(load_rank)
def _overload_load_rank(address, place):  # pragma: no cover (runs in the compiler)
    def implementation(address, place):
        return _load(address, place)  # type: ignore[call-arg]  # the typing context is numba's

    return implementation


def copy_numbers(source: Any, first: int, count: int, target: Any, place: int) -> None:
    """Copy `count` numbers from ``source[first:]`` to ``target[place:]``, flat arrays of one type; both have them.

    A loop of a few dozen turns is not worth vector instructions to the compiler, and takes three times as long.
    """
    target[place : place + count] = source[first : first + count]


@intrinsic
def _copy(typing_context: Any, source: Any, first: Any, count: Any, target: Any, place: Any) -> Any:  # pragma: no cover
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = []
        for array, index in ((0, 1), (3, 4)):
            struct = context.make_array(signature.args[array])(context, builder, arguments[array])
            pointers.append(builder.gep(struct.data, [arguments[index]]))
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        cgutils.raw_memcpy(builder, pointers[1], pointers[0], arguments[2], size)
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64, target, types.int64), generate


@overload(copy_numbers)
def _overload_copy_numbers(source, first, count, target, place):  # pragma: no cover (runs in the compiler)
    def implementation(source, first, count, target, place):
        _copy(source, first, count, target, place)  # type: ignore[call-arg]  # the typing context is numba's

    return implementation
