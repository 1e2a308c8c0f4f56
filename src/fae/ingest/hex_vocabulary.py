"""Exact vocabulary of a column of hex ids of up to eight digits, as Criteo's logs have them.

It is used instead of `fae.ingest.vocabulary.Vocabulary` where a reader yields *keys* instead of text. A key is
``length << 32 | number``: ``7`` has the key ``1 << 32 | 7`` and ``07`` has ``2 << 32 | 7``, so they are two values, and
no two texts share a key. As in `Vocabulary`, id i is the i-th distinct value that was ever encoded, whatever the chunks
were.

``keys[i]`` is value i. An open-addressing table of int64 entries maps values to ids:
``entry = number << 31 | id`` (32 and 31 bits), -1 where empty; value 0x2a with id 5 is ``0x2a << 31 | 5``. Ids of eight
digits, which nearly all are, are found without reading `keys`. The missing value is not in the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.compiled import Int64, compiled, read_only
from fae.core.compiling.prefetch import prefetch
from fae.ingest.readers.criteo_parser import ID_DIGITS
from fae.ingest.scratch import Scratch
from fae.ingest.vocabulary import HASH_KEY, require_numberable

_ID_MASK = 0x7FFFFFFF
_NUMBER_MASK = 0xFFFFFFFF
_AHEAD = 16
"""How many values ahead the table is prefetched: the table of a large column is far larger than the cache."""


@compiled
def spread(key: int) -> int:
    """A 32-bit hash of a key, always the same. No product exceeds 63 bits, so plain Python gives the same."""
    mixed = np.int64(key) & np.int64(_NUMBER_MASK)
    mixed ^= (np.int64(key) >> np.int64(32)) << np.int64(27)
    mixed ^= mixed >> np.int64(16)
    mixed = (mixed * np.int64(0x7FEB352D)) & np.int64(_NUMBER_MASK)
    mixed ^= mixed >> np.int64(15)
    mixed = (mixed * np.int64(0x2C1B3C6D)) & np.int64(_NUMBER_MASK)
    return int(mixed ^ (mixed >> np.int64(16)))


@compiled
def spread_keyed(key: int, hash_key: int) -> int:
    """A 32-bit hash of a key that begins with `HASH_KEY`: what places a value in a table, and nothing else."""
    mixed = (np.int64(key) ^ np.int64(hash_key)) & np.int64(_NUMBER_MASK)
    mixed ^= (np.int64(key) >> np.int64(32)) << np.int64(27)
    mixed ^= mixed >> np.int64(16)
    mixed = (mixed * (np.int64(hash_key) >> np.int64(32))) & np.int64(_NUMBER_MASK)
    mixed ^= mixed >> np.int64(15)
    mixed = (mixed * np.int64(0x7FEB352D)) & np.int64(_NUMBER_MASK)
    return int(mixed ^ (mixed >> np.int64(16)))


@compiled
def encode_keys(
    keys: Int64,
    known: Int64,
    table: Int64,
    size: int,
    missing: int,
    ids: npt.NDArray[np.int32],
    slot_of_ids: int,
    state: Int64,
    hash_key: int,
) -> None:
    """Look up or append each key; fill one slot of `ids`.

    Parameters
    ----------
    known
        int64: keys by id, with room for all new ones.
    missing
        Id of the missing value, -1 if it was not seen yet.
    ids, slot_of_ids
        int32 ``[n, S]``, a block of inputs, and the slot.
    state
        int64 ``[3]``: whether `known` has a value that is neither missing nor of eight digits (in and out), the number
        of values and the id of the missing one (out).
    """
    mask = np.int64(table.size - 1)
    short = state[0] != 0
    for i in range(keys.size):
        if i + _AHEAD < keys.size:
            prefetch(table, spread_keyed(keys[i + _AHEAD], hash_key) & mask)
        key = keys[i]
        if key == 0:
            if missing < 0:
                missing = size
                known[size] = 0
                size += 1
            ids[i, slot_of_ids] = missing
            continue
        number = key & np.int64(_NUMBER_MASK)
        short = short or (key >> np.int64(32)) != ID_DIGITS
        slot = spread_keyed(key, hash_key) & mask
        while True:
            entry = table[slot]
            if entry < 0:
                found = np.int64(size)
                known[size] = key
                table[slot] = (number << np.int64(31)) | found
                size += 1
                break
            if entry >> np.int64(31) == number:
                found = entry & np.int64(_ID_MASK)
                if not short or known[found] == key:
                    break
            slot = (slot + 1) & mask
        ids[i, slot_of_ids] = found
    state[0], state[1], state[2] = 1 if short else 0, size, missing


@compiled
def find_keys(
    keys: Int64,
    known: Int64,
    table: Int64,
    missing: int,
    ids: npt.NDArray[np.int32],
    slot_of_ids: int,
    hash_key: int,
) -> None:
    """Look up each key; fill a slot of `ids`, with -1 where a key is not there; the rest is as in `encode_keys`."""
    mask = np.int64(table.size - 1)
    for i in range(keys.size):
        if i + _AHEAD < keys.size:
            prefetch(table, spread_keyed(keys[i + _AHEAD], hash_key) & mask)
        key = keys[i]
        ids[i, slot_of_ids] = missing if key == 0 else -1
        slot = spread_keyed(key, hash_key) & mask
        while key != 0 and table[slot] >= 0 and ids[i, slot_of_ids] < 0:
            found = table[slot] & np.int64(_ID_MASK)
            if table[slot] >> np.int64(31) == key & np.int64(_NUMBER_MASK) and known[found] == key:
                ids[i, slot_of_ids] = found
            slot = (slot + 1) & mask


@compiled
def enter_keys(known: Int64, size: int, table: Int64, hash_key: int) -> None:
    """Insert values ``0 .. size - 1`` into an empty table (all -1)."""
    mask = np.int64(table.size - 1)
    for value in range(size):
        if known[value] != 0:
            slot = spread_keyed(known[value], hash_key) & mask
            while table[slot] >= 0:
                slot = (slot + 1) & mask
            table[slot] = ((known[value] & np.int64(_NUMBER_MASK)) << np.int64(31)) | np.int64(value)


@compiled
def write_hex(keys: Int64, offsets: npt.NDArray[np.int32], text: npt.NDArray[np.uint8]) -> None:
    """Write the digits of all keys to `text`, and where each key's begin to `offsets`, ``[n + 1]``."""
    end = np.int64(0)
    offsets[0] = 0
    for i in range(keys.size):
        for place in range((keys[i] >> np.int64(32)) - 1, -1, -1):
            digit = (keys[i] >> np.int64(4 * place)) & np.int64(15)
            text[end] = digit + (48 if digit < 10 else 87)
            end += 1
        offsets[i + 1] = end


def keys_of(values: Any) -> Int64:
    """Keys of an Arrow string array of hex ids without nulls."""
    lengths = np.asarray(pc.binary_length(values)).astype(np.int64)
    numbers = np.fromiter((int(text or "0", 16) for text in values.to_pylist()), np.int64, len(values))
    return (lengths << np.int64(32)) | numbers


class HexVocabulary:
    """The distinct values of one column of hex ids, with the interface of `Vocabulary`.

    Attributes
    ----------
    size
        Distinct values so far.
    missing_id
        Provisional id of the missing value, -1 if it was not seen yet.
    """

    def __init__(self, column: str, scratch: Scratch) -> None:
        self.column = column
        self.size = 0
        self.missing_id = -1
        self._scratch = scratch
        self._state = np.zeros(3, np.int64)
        self._known = scratch.array(1 << 10, np.int64)
        self._table = scratch.array(1 << 11, np.int64)
        self._table[:] = -1

    @property
    def keys(self) -> Int64:
        """int64 ``[size]``: the values in the order of their provisional ids."""
        return self._known[: self.size]

    def encode(self, values: Any) -> npt.NDArray[np.int32]:
        """Provisional ids, int32 ``[n]``, of an Arrow string array without nulls; new values are appended."""
        ids = np.empty((len(values), 1), np.int32)
        self.encode_keys(keys_of(values), ids, 0)
        return ids.reshape(-1)

    def encode_keys(self, keys: Int64, ids: npt.NDArray[np.int32], slot: int) -> None:
        """Fill a slot of `ids`, int32 ``[n, S]``, with the provisional ids of keys; new keys are appended."""
        self._reserve(len(keys))
        encode_keys(
            read_only(keys), self._known, self._table, self.size, self.missing_id, ids, slot, self._state, HASH_KEY
        )
        self.size, self.missing_id = int(self._state[1]), int(self._state[2])

    def find_keys(self, keys: Int64, ids: npt.NDArray[np.int32], slot: int) -> None:
        """Fill a slot of `ids`, int32 ``[n, S]``, with the provisional ids of keys; -1 where a key is not there."""
        find_keys(read_only(keys), self._known, self._table, self.missing_id, ids, slot, HASH_KEY)

    def _reserve(self, num_values: int) -> None:
        need = self.size + num_values
        require_numberable(self.column, need)
        if need > len(self._known):
            self._known = self._scratch.grow(self._known, max(need, 2 * len(self._known)))
        if 2 * need > len(self._table):
            self._scratch.release(self._table)
            self._table = self._scratch.array(1 << (2 * need - 1).bit_length(), np.int64)
            self._table[:] = -1
            enter_keys(self._known, self.size, self._table, HASH_KEY)

    def seal(self) -> None:
        """Free the memory that only encoding needs."""
        self._scratch.release(self._table)

    def values(self, ids: npt.NDArray[np.int32]) -> Any:
        """The values of provisional ids as an Arrow string array; null where the id is negative."""
        nulls = ids < 0
        keys = np.where(nulls, np.int64(0), self._known[np.maximum(ids, 0)])
        offsets = np.empty(len(ids) + 1, np.int32)
        text = np.empty(len(ids) * ID_DIGITS, np.uint8)
        write_hex(keys, offsets, text)
        array = pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(text))
        return pc.if_else(pa.array(nulls), pa.scalar(None, pa.string()), array) if nulls.any() else array
