"""Copy loops: worker threads that start all copies of a pass on a GPU, so that the consumer only launches steps.

The streaming pipeline runs `copy_rows`, the input ring `copy_inputs`. The consumer calls `wait_arrival` before a
batch's step and `mark_done` behind it. A batch with cold rows takes some eighteen calls of the driver and a dozen polls
of counters and events; all in the consumer's thread they took longer than a step of 2,048 inputs.

Commands of one kind are started in the order of positions. A worker lets a stream wait for one of the consumer's events
only after the event is recorded, and the consumer records the event again only after that; each loop says why.
"""

from __future__ import annotations

from fae.core.compiled import njit
from fae.streaming.counters import REACHED, pause, poll, publish, random_delay, read_counter, stopped
from fae.streaming.driver_calls import count_done, record, run_commands, wait_for

_CONSUMER_TYPES = "int64(int64[::1], int64[:, ::1], int64, int64, int64[::1], int64)"
"""Types of `wait_arrival` and `mark_done`, which are compiled on import: a stream that is left open is closed while the
interpreter ends, when nothing can be loaded any more."""
NOT_THERE = -1
"""The batch's copy is not started yet. The driver's errors are positive, and 0 is success."""


@njit(cache=True, nogil=True)
def publish_all(counters, counter_ids, count):
    """Raise several counters to `count`."""
    for index in range(counter_ids.size):
        publish(counters, counter_ids[index], count)


@njit(cache=True, nogil=True)
def back_off(counters, turns, has_progressed):
    """Pause if the last turn of a loop did nothing; returns the number of such turns in a row, or -1 to stop."""
    if has_progressed:
        return 0
    if stopped(counters):
        return -1
    pause(counters, turns)
    return turns + 1


@njit(cache=True, nogil=True)
def copy_rows(
    counters, own, functions, launched, sources, commands_up, commands_down, down_counters, down_events, early, longest,
    seed,
):  # fmt: skip
    """Start each position's copies up once all `sources` have reached it, and down once its step is launched.

    Raises `own` to the positions whose copies up are started and `down_counters` to those that are back in host memory.
    The consumer records the event ``updated`` of p behind p's step; p's copies down and, by location, the copies up of
    p + 2 wait for it. It is recorded again for p + k, after this loop has started the copies up of p + k. Those come
    behind the copies up of p + 2 (k >= 2) and behind p's copies down, since gathering p + k waited until p was copied
    down. Where rows are copied, copies up wait for the one event ``forwarded``: that of p is recorded behind the copies
    up of p, and those of p + 1 are started only when p is launched.

    Parameters
    ----------
    launched
        The counter of positions whose step is launched, with its event.
    commands_up, commands_down
        int64 ``[n, commands, 5]`` (`fae.streaming.cuda_commands.run_commands`), a table of commands for each position.
    down_events
        int64 ``[k]``, handles: position p is copied down when event ``p % k`` has happened.
    early
        How many batches may be copied up before the step of the current one is launched.
    longest, seed
        Delays, for tests.

    Returns
    -------
    int
        The driver's error, or 0 when all positions are copied down or all threads are to stop.
    """
    count, started_up, started_down, seen_down, turns = len(commands_up), 0, 0, 0, 0
    while seen_down < count:
        before, ready = started_up + started_down + seen_down, read_counter(counters, launched)
        while started_down < ready:
            seed = random_delay(seed, longest)
            code = run_commands(functions, commands_down[started_down])
            if code != 0:
                return code
            started_down += 1
        done, code = count_done(functions, down_events, seen_down, started_down)
        if code != 0:
            return code
        if done > seen_down:
            seed = random_delay(seed, longest)
            seen_down = done
            publish_all(counters, down_counters, seen_down)
        most = min(count, ready + early + 1)
        while started_up < most and poll(counters, sources, started_up + 1, 0, False) == REACHED:
            seed = random_delay(seed, longest)
            code = run_commands(functions, commands_up[started_up])
            if code != 0:
                return code
            seed = random_delay(seed, longest)
            started_up += 1
            publish(counters, own, started_up)
        turns = back_off(counters, turns, started_up + started_down + seen_down > before)
        if turns < 0:
            return 0
    return 0


@njit(cache=True, nogil=True)
def copy_inputs(counters, own, functions, launched, filled, freed, commands, arrived):
    """Start each position's copy once the last step that reads its place of the ring is launched.

    Raises `own` to the positions whose copies are started.

    The consumer records a place's event ``consumed`` behind the step that reads it. It records it again behind the next
    step that reads the place, whose copy this loop has started by then.

    Parameters
    ----------
    launched
        The counter of batches whose step is launched, with its event.
    filled, freed
        The counters of the workers that fill host buffers by turns, and one counter that tells them which copies are
        done; both are empty where the device copies from the files.
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
        ready = read_counter(counters, launched) + depth
        while started < min(count, ready):
            if filled.size and read_counter(counters, filled[started % filled.size]) <= started:
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


@njit(_CONSUMER_TYPES, cache=True, nogil=True)
def wait_arrival(functions, counters, started, position, arrived, compute):
    """Called by the consumer before a step: the stream `compute` waits for the batch's copy.

    Parameters
    ----------
    started
        The copy loop's counter.

    Returns
    -------
    int
        0, the driver's error, or `NOT_THERE`.
    """
    if read_counter(counters, started) <= position:
        return NOT_THERE
    return wait_for(functions, compute, arrived[position % len(arrived)])


@njit(_CONSUMER_TYPES, cache=True, nogil=True)
def mark_done(functions, counters, launched, position, events, compute):
    """Called by the consumer behind a step: record its event in `compute` and raise `launched`; 0 or an error."""
    code = record(functions, events[position % len(events)], compute)
    if code == 0:
        publish(counters, launched, position + 1)
    return code
