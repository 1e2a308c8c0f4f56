"""The vocabulary of a column of text: like a dict, in memory and on disk, compiled and as plain Python."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fae.core.errors import LogError
from fae.ingest import vocabulary
from fae.ingest.scratch import Scratch
from fae.ingest.vocabulary import HASH_KEY, Vocabulary, hash_bytes


def test_hash_is_the_same_compiled_and_spreads() -> None:
    plain = getattr(hash_bytes, "py_func", hash_bytes)
    rng = np.random.Generator(np.random.Philox(key=1))
    texts = [rng.integers(0, 256, size=n % 23).astype(np.uint8) for n in range(300)]
    extreme = np.full(64, 255, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in [*texts, extreme]:
            assert 0 <= plain(data, 0, len(data), HASH_KEY) == hash_bytes(data, 0, len(data), HASH_KEY) < 2**63
    numbers = [str(i).encode() for i in range(20_000)]
    low = {int(hash_bytes(np.frombuffer(text, np.uint8), 0, len(text), HASH_KEY)) & 0xFFFF for text in numbers}
    assert len(low) > 0.9 * 65_536 * (1 - np.exp(-20_000 / 65_536))  # as many slots as random ones would take


def test_values_with_one_hash_are_still_told_apart(
    scratch: Scratch, plain_python: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "hash_bytes", lambda *_: np.int64(5))
    words = Vocabulary("c", scratch)
    assert words.encode(pa.array(["a", "b", "", "ab", "a", "b"])).tolist() == [0, 1, 2, 3, 0, 1]
    assert words.missing_id == 2


def _near_values() -> list[str]:
    """Values that differ in length or in one byte alone, whose bytes end with the last of them."""
    whole = "abcdefghijklmnopqrstuvwxy"
    values = [whole[:length] for length in range(len(whole))]
    values += [f"{value[:at]}#{value[at + 1 :]}" for value in values for at in range(len(value))]
    return [*values, "z"]


@pytest.mark.parametrize("one_hash", [False, True])
def test_values_that_differ_in_a_byte(
    scratch: Scratch, plain_python: None, monkeypatch: pytest.MonkeyPatch, one_hash: bool
) -> None:
    if one_hash:
        monkeypatch.setattr(vocabulary, "hash_bytes", lambda *_: np.int64(5))
    words, values = Vocabulary("c", scratch), _near_values()
    for _ in range(2):
        assert words.encode(pa.array(values)).tolist() == list(range(len(values)))


def test_values_that_differ_in_a_byte_compiled(scratch: Scratch) -> None:
    words, values = Vocabulary("c", scratch), [f"{near}/{end}" for end in range(200) for near in _near_values()]
    expected = list(range(len(values)))
    assert words.encode(pa.array(values)).tolist() == expected  # more than a core's cache has
    assert words.encode(pa.array(values)).tolist() == expected
    assert words.find(pa.array(values)).tolist() == expected


@pytest.mark.parametrize("limit", [2**30, 1])
def test_vocabulary_grows_like_a_dict(tmp_path: Path, limit: int) -> None:
    scratch = Scratch(tmp_path / "scratch", limit)
    words = Vocabulary("c", scratch)
    rng = np.random.Generator(np.random.Philox(key=2))
    reference: dict[str, int] = {}
    for _ in range(8):
        chunk = [f"value {int(v)}" for v in rng.zipf(1.2, 2000) % 10**9]
        got = words.encode(pa.array(["skipped", *chunk])[1:])  # a slice: its offsets do not begin at 0
        assert got.tolist() == [reference.setdefault(value, len(reference)) for value in chunk]
    assert words.size == len(reference) > 2000
    words.seal()
    some = np.array([3, -1, 0, len(reference) - 1], np.int32)
    everything = list(reference)
    assert words.values(some).to_pylist() == [everything[3], None, everything[0], everything[-1]]
    assert (scratch.spilled_bytes > 0) == (limit == 1)
    scratch.close()
    assert not (tmp_path / "scratch").exists()


def test_the_table_as_plain_python(scratch: Scratch, plain_python: None) -> None:
    words = Vocabulary("c", scratch)
    texts = [str(i % 1500) for i in range(3000)]
    for start in range(0, 3000, 600):  # the table is rebuilt on the way
        got = words.encode(pa.array(texts[start : start + 600])).tolist()
        assert got == [int(text) for text in texts[start : start + 600]]


def test_too_many_values(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MAX_VALUES", 2)
    with pytest.raises(LogError, match="'c' has more than 2 distinct values"):
        Vocabulary("c", scratch).encode(pa.array(["a", "b", "c"]))


def test_values_made_to_collide_under_one_key_do_not_under_another() -> None:
    def slot(text: bytes, key: int) -> int:
        return int(hash_bytes(np.frombuffer(text, np.uint8), 0, len(text), key)) & 0xFF

    other = HASH_KEY ^ (0x1234567 << 33) ^ 0x89ABCDE
    colliding = [text for text in (b"v%d" % i for i in range(50_000)) if slot(text, HASH_KEY) == 7]
    assert len(colliding) > 150
    assert len({slot(text, other) for text in colliding}) > 80
