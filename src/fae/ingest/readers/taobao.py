"""Read Taobao's UserBehavior.csv: a user's clicks become histories, each with a candidate that was clicked or not.

The file has no header. A line is user, item, category, behaviour (pv, buy, cart, fav: all count) and time in seconds;
all lines of a user are together. The file is read once for the items and the users' last times, and once for each
split. Inputs follow TBSM's public preprocessing (docs/guide/ingest.md):

* The 30 % of users who were seen last are test users. The candidate is the last click or, for half of the users on
  average, a drawn item; the history is the 20 clicks before it.
* Up to ten clicks of each other user, but not the last, are candidates (fewer where clicks are few), each with the 20
  clicks before it as history; as many inputs have a drawn candidate. For the first 300,000 of these users, one of each
  kind is drawn once more for validation.
* Drawn items are uniform over the log's items, without the user's own.

Inputs depend on the file and the constants below alone. Memory grows with items and users, not with clicks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fae.core.compiled import Int64
from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.formats import HISTORY
from fae.ingest.readers.chunk import Chunk, NoInputsError
from fae.ingest.readers.line_blocks import faulty_line, line_blocks, shown
from fae.ingest.readers.taobao_parser import (
    MAX_DIGITS,
    NUM_FIELDS,
    TEST,
    TRAIN,
    VALIDATION,
    make_inputs,
    parse_behaviour,
    place_values,
)
from fae.ingest.vocabulary import HASH_KEY

_BLOCK_BYTES = 4 * 2**20
_SEED = 123
_TRAINING_SHARE = 0.7
_MOST_VALIDATION_USERS = 300_000
_MOST_INPUTS_PER_USER = 20
_BEHAVIOURS = (b"pv", b"buy", b"cart", b"fav")
_SPLITS = ((TRAIN, "train"), (VALIDATION, "validation"), (TEST, "test"))
_FIELDS = ("user", "item", "category", "behaviour", "time")


class _Clicks(NamedTuple):
    """All lines of some users, in order of time within a user: n users, c clicks.

    `users`, `last_times`, `first_lines` are ``[n]``, `bounds` ``[n + 1]``, `items` and `categories` ``[c]``.
    """

    users: Int64
    bounds: Int64
    items: Int64
    categories: Int64
    last_times: Int64
    first_lines: Int64
    raw_bytes: int


class _Places:
    """Numbers the distinct values in order of first appearance."""

    def __init__(self) -> None:
        self.size = 0
        self._known, self._table = np.empty(1 << 10, np.int64), np.full(1 << 11, -1, np.int64)

    @property
    def values(self) -> Int64:
        """int64 ``[size]``."""
        return self._known[: self.size]

    def place(self, values: Int64) -> Int64:
        """Number of each value; new values are appended."""
        need = self.size + len(values)
        if need > len(self._known):
            known, self._known = self.values, np.empty(2 * need, np.int64)
            self._table = np.full(1 << (4 * need - 1).bit_length(), -1, np.int64)
            self.size = int(place_values(known, self._known, self._table, 0, np.empty(len(known), np.int64), HASH_KEY))
        places = np.empty(len(values), np.int64)
        self.size = int(place_values(values, self._known, self._table, self.size, places, HASH_KEY))
        return places


def read_taobao(config: LogConfig, path: Path, *, labelled: bool = True) -> Iterator[Chunk]:
    """Stream a file of Taobao's format. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    del config  # the format has no options
    users, items = _Places(), _Places()
    categories, last_times = np.empty(1 << 10, np.int64), [np.empty(0, np.int64)]
    for clicks in _read_users(path):
        expected = users.size + np.arange(len(clicks.users))
        twice = users.place(clicks.users) != expected
        if twice.any():
            index = int(np.flatnonzero(twice)[0])
            raise LogError(
                f"{path}, line {clicks.first_lines[index]}: user {clicks.users[index]} is in two places; sort the "
                "file with `sort -t, -k1,1n -k5,5n`"
            )
        last_times.append(clicks.last_times)
        known = items.size
        places = items.place(clicks.items)
        if items.size > len(categories):
            categories = np.concatenate([categories, np.empty(items.size, np.int64)])
        # Assigned from the last to the first, so that the first line of an item decides its category.
        new = places >= known
        categories[places[new][::-1]] = clicks.categories[new][::-1]
    splits = _user_splits(np.concatenate(last_times))
    for split, name in _SPLITS:
        yield from _inputs(path, split, name, splits, items, categories)


def check_taobao_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """The format has no header. See `fae.ingest.readers.dispatch.check_header`."""


def _user_splits(last_times: Int64) -> npt.NDArray[np.uint8]:
    """uint8 ``[n]``, by user: `TEST` for those who were seen last, else `TRAIN`."""
    after = np.sort(last_times)[int(_TRAINING_SHARE * len(last_times))]
    return np.where(last_times > after, np.uint8(TEST), np.uint8(TRAIN))


def _inputs(
    path: Path, split: int, name: str, splits: npt.NDArray[np.uint8], items: _Places, categories: Int64
) -> Iterator[Chunk]:
    """The inputs of one split, reading the file once."""
    if split == VALIDATION:
        training = np.cumsum(splits == TRAIN)
        splits = np.where(training > _MOST_VALIDATION_USERS, np.uint8(TEST), splits)
    num_users = 0
    for clicks in _read_users(path):
        count = len(clicks.users)
        room = _MOST_INPUTS_PER_USER * count
        users, labels = np.empty(room, np.int64), np.empty(room, np.uint8)
        places = np.empty((room, HISTORY + 1), np.int64)
        made = make_inputs(
            clicks.users, clicks.bounds, items.place(clicks.items), splits[num_users : num_users + count], split,
            HISTORY, items.size, _SEED, users, labels, places,
        )  # fmt: skip
        num_users += count
        if made:
            used = places[:made] >= 0
            flat = places[:made][used]
            offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
            yield Chunk(
                num_inputs=made,
                label=pa.array(labels[:made]),
                dense=(),
                categorical=(
                    pa.array(users[:made]),
                    pa.ListArray.from_arrays(offsets, items.values[flat]),
                    pa.ListArray.from_arrays(offsets, categories[flat]),
                ),
                locate=partial(_locate, path),
                raw_bytes=clicks.raw_bytes // len(_SPLITS),
                split=name,
            )


def _locate(path: Path, row: int) -> str:
    return f"{path}, input {row + 1} of those made from a part of it"


def _read_users(path: Path) -> Iterator[_Clicks]:
    """The file, some users with all their lines at a time."""
    line, end = 1, np.zeros(3, np.int64)
    held = np.empty((4, 0), np.int64)
    held_lines = np.empty(0, np.int64)
    raw_bytes = 0
    for buffer, start, stop, num_bytes in line_blocks(path, _BLOCK_BYTES):
        begin = start
        raw_bytes += num_bytes
        while begin < stop:
            fields = np.empty((4, (stop - begin) // (2 * NUM_FIELDS) + 1), np.int64)
            count = parse_behaviour(buffer, begin, stop, fields, end)
            begin, num_lines, fault = map(int, end)
            if fault:
                where = f"{path}, line {line + num_lines}"
                raise LogError(
                    f"{where}: {explain_taobao_fault(faulty_line(buffer, begin, stop))}; fix or remove the line"
                )
            # Blank lines are counted, but not which lines of the block were blank.
            lines = np.arange(line + num_lines - count, line + num_lines)
            line += num_lines
            held = np.concatenate([held, fields[:, :count]], axis=1)
            held_lines = np.concatenate([held_lines, lines])
        changes = np.flatnonzero(held[0, 1:] != held[0, :-1]) + 1
        if len(changes):
            whole = int(changes[-1])
            yield _clicks(held[:, :whole], held_lines[:whole], raw_bytes)
            held, held_lines, raw_bytes = held[:, whole:], held_lines[whole:], 0
    if not held.shape[1]:
        raise NoInputsError(f"{path} holds no lines; copy it again or take it out of the recipe")
    yield _clicks(held, held_lines, raw_bytes)


def _clicks(fields: Int64, lines: Int64, raw_bytes: int) -> _Clicks:
    starts = np.concatenate([[0], np.flatnonzero(fields[0, 1:] != fields[0, :-1]) + 1]).astype(np.int64)
    bounds = np.append(starts, fields.shape[1])
    order = np.lexsort((fields[3], np.repeat(np.arange(len(starts)), np.diff(bounds))))
    return _Clicks(
        users=fields[0, starts],
        bounds=bounds,
        items=fields[1, order],
        categories=fields[2, order],
        last_times=fields[3, order][bounds[1:] - 1],
        first_lines=lines[starts],
        raw_bytes=raw_bytes,
    )


def explain_taobao_fault(line: bytes) -> str:
    """What is wrong with a line that the compiled loop refused.

    >>> explain_taobao_fault(b"1,2,3,pv")
    '4 fields, expected 5 (user, item, category, behaviour, time)'
    """
    fields = line.split(b",")
    if len(fields) != NUM_FIELDS:
        return f"{len(fields)} fields, expected {NUM_FIELDS} ({', '.join(_FIELDS)})"
    for index, (name, field) in enumerate(zip(_FIELDS, fields, strict=True)):
        if name == "behaviour":
            if field not in _BEHAVIOURS:
                return f"the behaviour is {shown(field)}, expected one of {b', '.join(_BEHAVIOURS).decode()}"
            continue
        digits = field.removeprefix(b"-") if name == "time" else field
        if not digits.isdigit() or len(digits) > MAX_DIGITS:
            where = f"the {name} (field {index + 1})"
            return f"{where} is {shown(field)}, expected a whole number of at most {MAX_DIGITS} digits"
    return "it is not a line of Taobao's format"
