"""The vocabulary of a column of hex ids: like a dict, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fae.core.errors import LogError
from fae.ingest import hex_vocabulary, vocabulary
from fae.ingest.hex_vocabulary import HexVocabulary, spread_keyed
from fae.ingest.scratch import Scratch


@pytest.mark.parametrize("limit", [2**30, 1])
def test_hex_vocabulary_grows_like_a_dict(tmp_path: Path, limit: int) -> None:
    scratch = Scratch(tmp_path / "scratch", limit)
    words = HexVocabulary("c", scratch)
    rng = np.random.Generator(np.random.Philox(key=5))
    reference: dict[str, int] = {}
    for part in range(8):
        # Short ids, which share their numbers with long ones, come only half-way.
        digits = 8 if part < 4 else 3
        chunk = ["" if v % 11 == 0 else f"{int(v):0{digits}x}" for v in rng.zipf(1.2, 2000) % 2**32]
        got = words.encode(pa.array(chunk))
        assert got.tolist() == [reference.setdefault(value, len(reference)) for value in chunk]
    assert words.size == len(reference) > 2000
    assert words.missing_id == reference[""]
    words.seal()
    some = np.array([3, -1, 0, len(reference) - 1, words.missing_id], np.int32)
    everything = list(reference)
    assert words.values(some).to_pylist() == [everything[3], None, everything[0], everything[-1], ""]
    assert (scratch.spilled_bytes > 0) == (limit == 1)


def test_too_many_hex_values(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MAX_VALUES", 2)
    with pytest.raises(LogError, match="'c' has more than 2 distinct values"):
        HexVocabulary("c", scratch).encode(pa.array(["a", "b", "c"]))


def test_ids_do_not_depend_on_the_key_of_the_hashes(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = pa.array([f"{i * 7919 % 4096:08x}" for i in range(6000)])
    ids = []
    for key in (vocabulary.HASH_KEY, vocabulary.HASH_KEY ^ (0x7654321 << 33) ^ 0xABCDEF):
        monkeypatch.setattr(hex_vocabulary, "HASH_KEY", key)
        ids.append(HexVocabulary("c", scratch).encode(chunk).tolist())
    assert ids[0] == ids[1]


def test_keys_made_to_collide_under_one_hash_key_do_not_under_another() -> None:
    key, other = vocabulary.HASH_KEY, vocabulary.HASH_KEY ^ (0x7654321 << 33) ^ 0xABCDEF
    colliding = [number for number in range(50_000) if spread_keyed(8 << 32 | number, key) & 0xFF == 7]
    assert len(colliding) > 150
    assert len({spread_keyed(8 << 32 | number, other) & 0xFF for number in colliding}) > 80
