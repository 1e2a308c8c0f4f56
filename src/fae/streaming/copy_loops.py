"""WorkerGroup that move: they ask the driver for all copies of a pass, so that the consumer only launches steps.

Place in the flow: the streaming pipeline on a GPU starts `copy_rows`, the ring of feeds `copy_inputs`; the consumer
meets them at counters (`wait_arrival` before a batch's step, `mark_done` behind it). Why: a batch with cold rows takes some
eighteen calls of the driver and a dozen looks at counters and events; all in the consumer's thread they took longer
than a step of 2,048 inputs. Invariants: commands of one kind are started in the order of positions; a lane lets a
stream wait for an event of the consumer's only when that is recorded, and the consumer records it anew only when the
lane has (each loop says why).
"""

from __future__ import annotations

from numba import njit

from fae.streaming.counters import REACHED, pause, poll, publish, raised, random_delay, stopped
from fae.streaming.cuda_commands import count_done, record, run_commands, wait_for

_CONSUMERS = "int64(int64[::1], int64[:, ::1], int64, int64, int64[::1], int64)"
"""Of `wait_arrival` and `mark_done`, which are compiled at once: a stream that is left open is closed while the interpreter ends,
when nothing can be loaded any more."""
NOT_THERE = -1
"""In place of the driver's errors, which are positive, and of 0: nothing failed, and the batch is not there yet."""


@njit(cache=True, nogil=True)
def publish_all(counters, cells, count):
    """Raise several counters."""
    for index in range(cells.size):
        publish(counters, cells[index], count)


@njit(cache=True, nogil=True)
def back_off(counters, turns, has_moved):
    """After a turn: how many there were in which nothing moved, having waited a little; -1 if all are to stop."""
    if has_moved:
        return 0
    if stopped(counters):
        return -1
    pause(counters, turns)
    return turns + 1


@njit(cache=True, nogil=True)
def copy_rows(
    counters, own, functions, launched, sources, arrivals, departures, departed_cells, departed, early, longest, seed
):  # fmt: skip
    """Start each position's copies up once all `sources` have it, and down once its step is launched.

    Raises `own` to the positions whose arrival is started and `departed_cells` to those that are back in host memory.
    Events: ``updated`` of p, for which p's departure and, by location, the arrival of p + 2 wait, is recorded by the
    consumer behind p's step. It is recorded anew for p + k, whose arrival this lane has started by then: behind that of
    p + 2 (k >= 2), and behind p's departure, since gathering p + k waited until p had departed. Where rows are copied,
    arrivals wait for the one event ``forwarded``: that of p is recorded behind the arrival of p, and the arrival of
    p + 1 is started only when p is launched.

    Parameters
    ----------
    launched
        Cell: positions whose step is launched, with its event.
    early
        Batches that may be copied up before the one in hand is launched.
    longest, seed
        Delays, for tests.

    Returns
    -------
    int
        The driver's error, or 0: all have departed, or all are to stop.
    """
    count, started, left, seen, turns = len(arrivals), 0, 0, 0, 0
    while seen < count:
        before, ready = started + left + seen, raised(counters, launched)
        while left < ready:
            seed = random_delay(seed, longest)
            code = run_commands(functions, departures[left])
            if code != 0:
                return code
            left += 1
        done, code = count_done(functions, departed, seen, left)
        if code != 0:
            return code
        if done > seen:
            seed = random_delay(seed, longest)
            seen = done
            publish_all(counters, departed_cells, seen)
        while started < min(count, ready + early + 1) and poll(counters, sources, started + 1, 0, False) == REACHED:
            seed = random_delay(seed, longest)
            code = run_commands(functions, arrivals[started])
            if code != 0:
                return code
            seed = random_delay(seed, longest)
            started += 1
            publish(counters, own, started)
        turns = back_off(counters, turns, started + left + seen > before)
        if turns < 0:
            return 0
    return 0


@njit(cache=True, nogil=True)
def copy_inputs(counters, own, functions, launched, fed, freed, commands, arrived):
    """Send feeds to the ring's places, once whoever reads them is launched; raises `own` to those on their way.

    A place's ``consumed`` event is recorded by the consumer behind the step that reads it, and recorded anew behind the
    next step that does, whose feed this lane has sent by then.

    Parameters
    ----------
    launched
        Cell: batches whose step is launched, with its event.
    fed, freed
        Counters of lanes that fill a buffer for a feed, by turns, and one cell that tells them which copies are done;
        both empty where the files are copied from.
    """
    depth, count, started, seen, turns = len(arrived), len(commands), 0, 0, 0
    while started < count:
        before = started + seen
        if freed.size:
            done, code = count_done(functions, arrived, seen, started)
            if code != 0:
                return code
            if done > seen:
                seen = done
                publish_all(counters, freed, seen)
        ready = raised(counters, launched) + depth
        while started < min(count, ready):
            if fed.size and raised(counters, fed[started % fed.size]) <= started:
                break
            code = run_commands(functions, commands[started])
            if code != 0:
                return code
            started += 1
            publish(counters, own, started)
        turns = back_off(counters, turns, started + seen > before)
        if turns < 0:
            return 0
    return 0


@njit(_CONSUMERS, cache=True, nogil=True)
def wait_arrival(functions, counters, cell, position, arrived, compute):
    """The consumer before a step: `compute` waits for what a lane that moves has started.

    Returns
    -------
    int
        0, the driver's error, or `NOT_THERE`.
    """
    if raised(counters, cell) <= position:
        return NOT_THERE
    return wait_for(functions, compute, arrived[position % len(arrived)])


@njit(_CONSUMERS, cache=True, nogil=True)
def mark_done(functions, counters, launched, position, events, compute):
    """The consumer behind a step: `compute` says when it is done, and lanes may count on that; 0 or an error."""
    code = record(functions, events[position % len(events)], compute)
    if code == 0:
        publish(counters, launched, position + 1)
    return code
