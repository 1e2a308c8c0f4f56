"""Compiled loops for Taobao's log: parse lines, number values, make a user's clicks into inputs.

`fae.ingest.readers.taobao` says what an input is. What is drawn for a user depends on the user, the seed and the number
of the draw alone. No product exceeds 63 bits, so plain Python gives the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, compiled
from fae.ingest.hex_vocabulary import spread, spread_keyed

NUM_FIELDS = 5
MAX_DIGITS = 18
TRAIN, VALIDATION, TEST = 0, 1, 2
MOST_CLICKS = 200
"""Clicks of a user that are used, the last ones."""
_MOST_TRIES = 100

_NEWLINE, _RETURN, _COMMA, _MINUS, _ZERO = 10, 13, 44, 45, 48


@compiled
def parse_behaviour(data: npt.NDArray[np.uint8], start: int, stop: int, fields: Int64, end: Int64) -> int:
    """Parse lines ``user,item,category,behaviour,time`` of ``data[start:stop]``; return how many.

    Parameters
    ----------
    fields
        int64 ``[4, n]``, filled: user, item, category, time. Lines beyond n are left for the next call.
    end
        int64 ``[3]``: first byte not taken, lines taken (blank ones too), 1 if the line at that byte is faulty.
    """
    row, lines, position, fault = 0, 0, start, False
    while position < stop and row < fields.shape[1]:
        at = position
        if data[at] == _NEWLINE or (data[at] == _RETURN and data[at + 1] == _NEWLINE):
            position += 1 if data[at] == _NEWLINE else 2
            lines += 1
            continue
        for field in range(NUM_FIELDS):
            if field == 3:
                # pv, buy, cart or fav
                length = 0
                first, second, third = data[at], data[at + 1], data[at + 2]
                if first == 112 and second == 118:
                    length = 2
                elif (first == 98 and second == 117 and third == 121) or (
                    first == 102 and second == 97 and third == 118
                ):
                    length = 3
                elif first == 99 and second == 97 and third == 114 and data[at + 3] == 116:
                    length = 4
                at += length
                fault = length == 0 or data[at] != _COMMA
            else:
                # The public log has a few times before 1970.
                negative = field == 4 and data[at] == _MINUS
                if negative:
                    at += 1
                begin = at
                value = np.int64(0)
                digit = np.int64(data[at]) - _ZERO
                while 0 <= digit <= 9 and at - begin <= MAX_DIGITS:
                    value = value * 10 + digit
                    at += 1
                    digit = np.int64(data[at]) - _ZERO
                fields[field if field < 3 else 3, row] = -value if negative else value
                fault = at == begin or at - begin > MAX_DIGITS
                if field == 4 and data[at] == _RETURN:
                    at += 1
                fault = fault or data[at] != (_NEWLINE if field == 4 else _COMMA)
            if fault:
                break
            at += 1
        if fault:
            break
        position = at
        lines += 1
        row += 1
    end[0], end[1], end[2] = position, lines, 1 if fault else 0
    return row


@compiled
def place_values(values: Int64, known: Int64, table: Int64, size: int, places: Int64, hash_key: int) -> int:
    """Number the distinct values in order of first appearance; returns how many distinct ones there are now.

    `known` has room for all; `table` is an open-addressing table of places, -1 where empty, at least twice as long.
    `hash_key` is `fae.ingest.vocabulary.HASH_KEY`.
    """
    mask = np.int64(table.size - 1)
    for i in range(values.size):
        value = values[i]
        upper = spread_keyed(value >> np.int64(32), hash_key)
        slot = spread_keyed((value & np.int64(0xFFFFFFFF)) ^ upper, hash_key) & mask
        while table[slot] >= 0 and known[table[slot]] != value:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = size
            known[size] = value
            size += 1
        places[i] = table[slot]
    return size


@compiled
def _draw(user: int, number: int, seed: int, below: int) -> int:
    """The `number`-th draw of a user, a number in ``[0, below)``; `below` is under 2^31."""
    mixed = spread((user & 0xFFFFFFFF) ^ (user >> 32))
    mixed = spread(mixed ^ spread(number * 2654435 + seed))
    return int((mixed * below) >> 32)


@compiled
def _other_item(clicks: Int64, begin: int, stop: int, num_items: int, user: int, number: int, seed: int) -> int:
    """A uniformly drawn item that is not in the user's ``clicks[begin:stop]``, if a hundred draws find one."""
    item = 0
    for attempt in range(_MOST_TRIES):
        item = _draw(user, number + attempt, seed, num_items)
        seen = False
        for at in range(begin, stop):
            if clicks[at] == item:
                seen = True
                break
        if not seen:
            break
    return item


@compiled
def num_points(num_clicks: int, most: int) -> int:
    """Number of clicked candidates of a user: 0, 1, 3, 6 and then 10, in steps of ten clicks; at most `most`."""
    ten = (num_clicks - 1) // 10
    points = 0 if ten == 0 else 1 if ten == 1 else 3 if ten == 2 else 6 if ten == 3 else 10
    return min(points, most)


@compiled
def make_inputs(
    users: Int64,
    bounds: Int64,
    clicks: Int64,
    splits: npt.NDArray[np.uint8],
    split: int,
    history: int,
    num_items: int,
    seed: int,
    out_user: Int64,
    out_label: npt.NDArray[np.uint8],
    out_item: Int64,
) -> int:
    """The inputs of one split; returns how many.

    Parameters
    ----------
    users, bounds, splits
        int64 ``[n]``, int64 ``[n + 1]``, uint8 ``[n]``: user i has ``clicks[bounds[i]:bounds[i + 1]]``, and a split.
    clicks
        int64: numbers of items, in order of time within a user.
    out_user, out_label, out_item
        Filled: int64 ``[m]``, uint8 ``[m]``, int64 ``[m, history + 1]``: history, oldest first, then the candidate,
        then -1. There must be room for 20 inputs a user.
    """
    made = 0
    for index in range(users.size):
        if splits[index] != (TEST if split == TEST else TRAIN):
            continue
        user = users[index]
        begin, stop = max(bounds[index], bounds[index + 1] - MOST_CLICKS), bounds[index + 1]
        count = stop - begin
        if split == TEST:
            points, last_number = (1, 1) if count >= 2 else (0, 0)
        else:
            points = num_points(count, 1 if split == VALIDATION else 10)
            last_number = 2 * points
        number = 1000 * split
        for which in range(last_number):
            if split == TEST:
                place = count - 1
                positive = _draw(user, number, seed, 2) == 0
            else:
                # The last click is never a clicked candidate in training, because the test predicts it.
                positive = which < points
                lowest = min(history, count - 2 if positive else count - 1)
                highest = count - 2 if positive else count - 1
                place = lowest + _draw(user, number, seed, highest - lowest + 1)
            number += 1
            oldest = max(place - history, 0)
            for slot in range(place - oldest):
                out_item[made, slot] = clicks[begin + oldest + slot]
            if positive:
                candidate = clicks[begin + place]
            else:
                candidate = _other_item(clicks, begin, stop, num_items, user, number, seed)
                number += _MOST_TRIES
            out_item[made, place - oldest] = candidate
            for slot in range(place - oldest + 1, history + 1):
                out_item[made, slot] = -1
            out_user[made] = user
            out_label[made] = 1 if positive else 0
            made += 1
    return made
