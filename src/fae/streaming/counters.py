"""Counters in shared memory that compiled loops in several threads raise and wait for, without the interpreter.

A row of the array is one counter, alone on its cache line. Row 0 holds what all threads share: column 0 is the flag to
stop, column 1 how often a waiting thread yields before it sleeps, column 2 the longest sleep in microseconds. A store
releases and a load acquires: a thread that sees a counter raised also sees all that was written before it was raised.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from fae.core.compiled import njit
from fae.core.compiling.atomic_words import load_atomic_word, store_atomic_word

Counters = npt.NDArray[np.int64]
STOP = 0
REACHED, STOPPED, NOT_YET = 0, 1, 2
_FIRST_SLEEP, _MOST_DOUBLINGS = 8, 16  # microseconds; doubled each time

# Functions of the C library, which the linker finds by name, so that code that calls them can be cached.
_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
_sched_yield = types.ExternalFunction("sched_yield", types.int32())
_memcpy = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.intp))


def new_counters(count: int, yields: int, longest_sleep: int) -> Counters:
    """int64 ``[1 + count, 8]``: row 0, then `count` counters at 0; see the module for the layout."""
    counters = np.zeros((1 + count, 8), np.int64)
    counters[STOP, 1:3] = yields, longest_sleep
    return counters


@njit(cache=True, nogil=True)
def copy_bytes(target, source, num_bytes):
    """The C library's memcpy, from address to address."""
    _memcpy(target, source, num_bytes)


@njit(cache=True, nogil=True)
def publish(counters, counter, count):
    """Raise a counter to `count`."""
    store_atomic_word(counters, counter, count)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def read_counter(counters, counter):
    """The value of a counter."""
    return load_atomic_word(counters, counter)  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def stopped(counters):
    """Whether all threads are to stop."""
    return load_atomic_word(counters, STOP) != 0  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def pause(counters, turns):
    """Wait a little after `turns` turns in which nothing happened: yield at first, then sleep longer and longer."""
    if turns < counters[STOP, 1]:
        _sched_yield()
        return
    doublings = min(turns - counters[STOP, 1], _MOST_DOUBLINGS)
    _usleep(min(counters[STOP, 2], _FIRST_SLEEP << doublings))


@njit(cache=True, nogil=True)
def reach(counters, counter, count):
    """Wait until a counter has reached `count`; False if all threads are to stop."""
    turns = np.int64(0)  # a plain 0 is a type of its own, for which `pause` would be compiled again
    while read_counter(counters, counter) < count:
        if stopped(counters):
            return False
        pause(counters, turns)
        turns += 1
    return True


@njit(cache=True, nogil=True)
def reach_all(counters, counter_ids, count):
    """Wait until all these counters have reached `count`; False if all threads are to stop."""
    for index in range(counter_ids.size):  # noqa: SIM110 (numba has no generators here)
        if not reach(counters, counter_ids[index], count):
            return False
    return True


@njit(cache=True, nogil=True)
def poll(counters, counter_ids, count, most_polls, sleeps):
    """`REACHED` if all these counters have reached `count`; else `NOT_YET`, after `most_polls` polls, or `STOPPED`.

    Between polls it yields or, if it `sleeps`, pauses as a waiting worker thread does.
    """
    polls = np.int64(0)
    for index in range(counter_ids.size):
        while read_counter(counters, counter_ids[index]) < count:
            if stopped(counters):
                return STOPPED
            if polls >= most_polls:
                return NOT_YET
            if sleeps:
                pause(counters, polls)
            else:
                _sched_yield()
            polls += 1
    return REACHED


@njit(cache=True, nogil=True)
def random_delay(seed, longest):
    """Sleep up to `longest` microseconds, at random; returns the next seed (for tests of the invariants)."""
    if longest <= 0:
        return seed
    following = seed * 6364136223846793005 + 1442695040888963407
    _usleep(((following >> 33) & 0x3FFFFFFF) % (longest + 1))
    return following
