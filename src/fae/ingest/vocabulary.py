"""Exact vocabulary of one column: from value bytes to provisional ids, in order of first appearance.

Values are compared by their bytes, never by hash alone, so no two values share an id. Id i is the i-th distinct value
that was ever encoded, whatever the chunks were. `fae.ingest.numbering.final_ids` assigns final ids once the counts in
the training split are known.

Layout: one arena holds all value bytes; ``arena[starts[i] : starts[i + 1]]`` is value i and ``hashes[i]`` its 63-bit
hash. An open-addressing table of int64 entries maps hashes to ids: ``entry = hash >> 31 << 31 | id``, the upper 32 bits
of the hash above 31 bits of id, -1 where empty. A lookup reads the arena only where those 32 bits agree, which is very
likely the right value. About 33 bytes a value beside the value's own bytes.

Hashes begin with a number that every process draws anew (`HASH_KEY`), so that no log can be made whose values collide
and take time that grows with their square. Ids do not depend on it, and no hash is stored.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fae.core.compiled import Int64, compiled, inlined, read_only
from fae.core.compiling.prefetch import prefetch
from fae.core.errors import LogError
from fae.ingest.scratch import Scratch
from fae.ingest.words import WORD_BYTES, load_word

_AHEAD = 8
"""Values between one step of prefetching and the next."""
_IN_CACHE = 1 << 15
"""Entries of a table that a core's own cache has anyway."""
MAX_VALUES = 2**31 - 4
"""Most values of a column: ids are int32, and a table has a reserved id beside its values."""


HASH_KEY = int.from_bytes(os.urandom(8), "little") >> 1 | 1 << 62 | 1 << 32
"""63 random bits of this process: 32 for one state of a hash, and an odd number of 31 bits for the other."""


@inlined
def _word_of(data: npt.NDArray[np.uint8], place: np.int64, stop: np.int64) -> np.int64:
    """The next eight bytes of ``data[place:stop]`` as a number; 0 for those behind its end."""
    if place + WORD_BYTES <= data.size:
        word = load_word(data, place)
        if place + WORD_BYTES > stop:
            word &= (np.int64(1) << np.int64(8 * (stop - place))) - np.int64(1)
        return word
    word = np.int64(0)
    for index in range(place, min(stop, place + WORD_BYTES)):
        word |= np.int64(data[index]) << np.int64(8 * (index - place))
    return word


@inlined
def hash_bytes(data: npt.NDArray[np.uint8], start: np.int64, stop: np.int64, hash_key: int) -> np.int64:
    """63-bit hash of ``data[start:stop]``: two 32-bit states, each updated with half of eight bytes at a time.

    Every product stays below 2^63, so nothing overflows, and compiled and plain Python agree.
    """
    mask = np.int64(0xFFFFFFFF)
    high = np.int64(0x9E3779B9) ^ (np.int64(hash_key) & mask)
    low = np.int64(stop - start) ^ np.int64(0x85EBCA6B) ^ (np.int64(hash_key) >> np.int64(32))
    position = start
    while position < stop:
        word = _word_of(data, position, stop)
        high = ((high ^ word) & mask) * np.int64(0x7FEB352D)
        low = ((low ^ (word >> np.int64(32))) & mask) * np.int64(0x5BD1E995)
        high = (high ^ (high >> np.int64(31)) ^ (low >> np.int64(20))) & mask
        low = (low ^ (low >> np.int64(29))) & mask
        position += WORD_BYTES
    low = ((low ^ (high >> np.int64(7))) * np.int64(0x2C1B3C6D)) & np.int64(0x7FFFFFFFFFFFFFFF)
    low = (low ^ (low >> np.int64(30))) & np.int64(0x7FFFFFFF)
    return (high << np.int64(31)) | low


@compiled
def encode_values(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32],
    arena: npt.NDArray[np.uint8],
    starts: Int64,
    hashes: Int64,
    table: Int64,
    size: int,
    ids: npt.NDArray[np.int32],
    hash_key: int,
) -> int:
    """Look up or append each value ``data[offsets[i]:offsets[i+1]]``; fill `ids`; return the new number of values."""
    mask = np.int64(table.size - 1)
    id_mask = np.int64(0x7FFFFFFF)
    found = np.empty(ids.size, np.int64)
    for i in range(ids.size):
        found[i] = hash_bytes(data, np.int64(offsets[i]), np.int64(offsets[i + 1]), hash_key)
    is_large = table.size > _IN_CACHE
    for i in range(ids.size):
        if is_large and i + 3 * _AHEAD < ids.size:
            # A lookup reads an entry, the place that the entry names, and the bytes at that place.
            prefetch(table, found[i + 3 * _AHEAD] & mask)
            entry = table[found[i + 2 * _AHEAD] & mask]
            if entry >= 0:
                prefetch(starts, entry & id_mask)
            entry = table[found[i + _AHEAD] & mask]
            if entry >= 0:
                prefetch(arena, starts[entry & id_mask])
        start, stop = np.int64(offsets[i]), np.int64(offsets[i + 1])
        value_hash = found[i]
        tag = value_hash >> np.int64(31)
        slot = value_hash & mask
        while True:
            entry = table[slot]
            if entry < 0:
                known = np.int64(size)
                place = starts[known]
                for position in range(start, stop):
                    arena[place + position - start] = data[position]
                starts[known + 1] = place + stop - start
                hashes[known] = value_hash
                table[slot] = (tag << np.int64(31)) | known
                size += 1
                break
            if entry >> np.int64(31) == tag:
                known = entry & id_mask
                place = starts[known]
                if starts[known + 1] - place == stop - start:
                    position = int(start)
                    while position + WORD_BYTES <= stop and load_word(data, position) == load_word(
                        arena, place + position - start
                    ):
                        position += WORD_BYTES
                    if position + WORD_BYTES > stop:
                        while position < stop and arena[place + position - start] == data[position]:
                            position += 1
                        if position == stop:
                            break
            slot = (slot + 1) & mask
        ids[i] = known
    return size


@compiled
def find_values(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32],
    arena: npt.NDArray[np.uint8],
    starts: Int64,
    table: Int64,
    ids: npt.NDArray[np.int32],
    hash_key: int,
) -> None:
    """Look up each value ``data[offsets[i]:offsets[i+1]]``; fill `ids`, with -1 where a value is not there."""
    mask = np.int64(table.size - 1)
    id_mask = np.int64(0x7FFFFFFF)
    for i in range(ids.size):
        start, stop = np.int64(offsets[i]), np.int64(offsets[i + 1])
        value_hash = hash_bytes(data, start, stop, hash_key)
        tag = value_hash >> np.int64(31)
        slot = value_hash & mask
        ids[i] = -1
        while table[slot] >= 0 and ids[i] < 0:
            if table[slot] >> np.int64(31) == tag:
                known = table[slot] & id_mask
                place = starts[known]
                if starts[known + 1] - place == stop - start:
                    position = int(start)
                    while position < stop and arena[place + position - start] == data[position]:
                        position += 1
                    if position == stop:
                        ids[i] = known
            slot = (slot + 1) & mask


@compiled
def rebuild_table(hashes: Int64, size: int, table: Int64) -> None:
    """Insert values ``0 .. size - 1`` into an empty table (all -1)."""
    mask = np.int64(table.size - 1)
    for known in range(size):
        slot = hashes[known] & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = ((hashes[known] >> np.int64(31)) << np.int64(31)) | np.int64(known)


def require_numberable(column: str, num_values: int) -> None:
    """Refuse a column with more distinct values than ids.

    Raises
    ------
    LogError
        If there are more than `MAX_VALUES`.
    """
    if num_values > MAX_VALUES:
        raise LogError(
            f"the column {column!r} has more than {MAX_VALUES:,} distinct values, more than an id can number; "
            "leave it out or hash it into fewer"
        )


def _bytes_of(values: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Bytes and offsets of an Arrow string array that is not empty."""
    _, offsets, data = values.buffers()
    found = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return read_only(found), read_only(np.frombuffer(offsets, np.int32, len(values) + 1, values.offset * 4))


class Vocabulary:
    """The distinct values of one column.

    Parameters
    ----------
    scratch
        Allocates the arrays, on disk when they are too large for memory.

    Attributes
    ----------
    size
        Distinct values so far.
    missing_id
        Provisional id of the empty text, -1 if it was not seen yet.
    """

    def __init__(self, column: str, scratch: Scratch) -> None:
        self.column = column
        self.size = 0
        self.missing_id = -1
        self._scratch = scratch
        self._arena = scratch.array(1 << 14, np.uint8)
        self._starts = scratch.array(1 << 10, np.int64)
        self._hashes = scratch.array(1 << 10, np.int64)
        self._table = scratch.array(1 << 11, np.int64)
        self._starts[0] = 0
        self._table[:] = -1

    def encode(self, values: Any) -> npt.NDArray[np.int32]:
        """Provisional ids, int32 ``[n]``, of an Arrow string array without nulls; new values are appended."""
        count = len(values)
        ids = np.empty(count, np.int32)
        if count == 0:
            return ids
        data, offsets = _bytes_of(values)
        self._reserve(count, int(offsets[-1]) - int(offsets[0]))
        self.size = int(
            encode_values(data, offsets, self._arena, self._starts, self._hashes, self._table, self.size, ids, HASH_KEY)
        )
        if self.missing_id < 0:
            empty = offsets[1:] == offsets[:-1]
            if empty.any():
                self.missing_id = int(ids[int(np.argmax(empty))])
        return ids

    def find(self, values: Any) -> npt.NDArray[np.int32]:
        """Provisional ids, int32 ``[n]``, of an Arrow string array without nulls; -1 where a value is not there."""
        ids = np.empty(len(values), np.int32)
        if len(values):
            data, offsets = _bytes_of(values)
            find_values(data, offsets, self._arena, self._starts, self._table, ids, HASH_KEY)
        return ids

    def _reserve(self, num_values: int, num_bytes: int) -> None:
        """Make room for this many new values and bytes, so that the compiled loop never has to stop."""
        need = self.size + num_values
        require_numberable(self.column, need)
        arena_need = int(self._starts[self.size]) + num_bytes
        if arena_need > len(self._arena):
            self._arena = self._scratch.grow(self._arena, max(arena_need, 2 * len(self._arena)))
        if need + 1 > len(self._starts):
            capacity = max(need + 1, 2 * len(self._starts))
            self._starts = self._scratch.grow(self._starts, capacity)
            self._hashes = self._scratch.grow(self._hashes, capacity)
        if 2 * need > len(self._table):
            self._scratch.release(self._table)
            self._table = self._scratch.array(1 << (2 * need - 1).bit_length(), np.int64)
            self._table[:] = -1
            rebuild_table(self._hashes, self.size, self._table)

    def text(self, start: int, stop: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Length of each of the values ``start .. stop - 1``, and all their bytes in one array."""
        begin, end = int(self._starts[start]), int(self._starts[stop])
        return np.diff(self._starts[start : stop + 1]).astype(np.int32), self._arena[begin:end]

    def seal(self) -> None:
        """Free the memory that only `encode` needs."""
        self._scratch.release(self._table)
        self._scratch.release(self._hashes)

    def values(self, ids: npt.NDArray[np.int32]) -> Any:
        """The values of provisional ids as an Arrow string array; null where the id is negative."""
        everything = pa.LargeStringArray.from_buffers(
            self.size, pa.py_buffer(self._starts[: self.size + 1]), pa.py_buffer(self._arena)
        )
        return everything.take(pa.array(ids, mask=ids < 0)).cast(pa.string())
