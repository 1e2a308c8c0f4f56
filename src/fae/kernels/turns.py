"""Turns of the consumer: all that it asks of the driver and of counters for one batch, in one compiled call.

Place in the flow: the streaming pipeline on a GPU and the ring of feeds call one before a batch's step and one behind
it. Why: a call from Python costs a microsecond or more, and looking at counters and events, starting copies, recording
and waiting were some fifteen for a batch, which was longer than the step of 2,048 inputs. `progress` (int64 ``[3]``)
says how many positions were started (copies to the device), left (the step is launched, and what follows it) and seen
(by the host, to be done). Invariant: as in `fae.kernels.driver`, commands are only started; streams order them.
"""

from __future__ import annotations

from numba import njit

from fae.core.counters import REACHED, look, publish
from fae.kernels.driver import count_done, record, run_commands, wait_for

STARTED, LEFT, SEEN = 0, 1, 2
NOT_THERE = -1
"""In place of the driver's errors, which are positive, and of 0: nothing failed, and the batch is not there yet."""


@njit(cache=True, nogil=True)
def see(functions, counters, cells, events, progress, limit):
    """Look which of the first `limit` positions are done and raise `cells` to their number; 0 or the driver's error."""
    seen, code = count_done(functions, events, progress[SEEN], limit)
    if seen > progress[SEEN]:
        progress[SEEN] = seen
        for index in range(cells.size):
            publish(counters, cells[index], seen)
    return code


@njit(cache=True, nogil=True)
def start_gathered(functions, counters, sources, commands, progress, limit):
    """Start positions below `limit` in order, as long as all `sources` have reached them; 0 or an error."""
    while progress[STARTED] < min(limit, len(commands)):
        if look(counters, sources, progress[STARTED] + 1, 0) != REACHED:
            break
        code = run_commands(functions, commands[progress[STARTED]])
        if code != 0:
            return code
        progress[STARTED] += 1
    return 0


@njit(cache=True, nogil=True)
def bring_rows(
    functions, counters, sources, arrivals, arrived, departed_cells, departed, progress, limit, position, compute
):  # fmt: skip
    """Before a batch: see what has departed, start arrivals below `limit`, and let `compute` wait for `position`.

    Parameters
    ----------
    position
        -1 for a batch without cold rows.

    Returns
    -------
    int
        0, the driver's error, or `NOT_THERE`: the arrival of `position` could not be started.
    """
    code = see(functions, counters, departed_cells, departed, progress, progress[LEFT])
    if code == 0:
        code = start_gathered(functions, counters, sources, arrivals, progress, limit)
    if code != 0 or position < 0:
        return code
    if progress[STARTED] <= position:
        return NOT_THERE
    return wait_for(functions, compute, arrived[position % len(arrived)])


@njit(cache=True, nogil=True)
def leave_rows(functions, counters, departures, departed_cells, departed, progress, position, compute):
    """Behind a batch's step: `compute` has updated it, so its rows depart; 0 or the driver's error."""
    commands = departures[position]
    commands[0, 2] = compute
    code = run_commands(functions, commands)
    if code != 0:
        return code
    progress[LEFT] = position + 1
    return see(functions, counters, departed_cells, departed, progress, progress[LEFT])


@njit(cache=True, nogil=True)
def leave_feeds(functions, consumed, progress, count, compute):
    """The first `count` steps are launched on `compute`, which says when they are done; 0 or the driver's error."""
    while progress[LEFT] < count:
        code = record(functions, consumed[progress[LEFT] % len(consumed)], compute)
        if code != 0:
            return code
        progress[LEFT] += 1
    return 0


@njit(cache=True, nogil=True)
def bring_feed(functions, counters, fed, freed, commands, arrived, consumed, progress, position, compute):
    """Before a batch: send feeds as far ahead as their places are free, and let `compute` wait for this one.

    Parameters
    ----------
    fed, freed
        Counters of lanes that fill a buffer for a feed, by turns, and one cell that tells them which copies are done;
        both empty where no lane is needed.

    Returns
    -------
    int
        0, the driver's error, or `NOT_THERE`: this feed's bytes are not there.
    """
    depth = len(arrived)
    code = leave_feeds(functions, consumed, progress, position, compute)
    if code == 0 and freed.size:
        code = see(functions, counters, freed, arrived, progress, progress[STARTED])
    while code == 0 and progress[STARTED] < min(position + depth, len(commands)):
        sent = progress[STARTED]
        if fed.size:
            lane = sent % fed.size
            if look(counters, fed[lane : lane + 1], sent + 1, 0) != REACHED:
                break
        code = run_commands(functions, commands[sent])
        if code == 0:
            progress[STARTED] += 1
    if code != 0:
        return code
    if progress[STARTED] <= position:
        return NOT_THERE
    return wait_for(functions, compute, arrived[position % depth])
