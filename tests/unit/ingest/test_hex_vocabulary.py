"""The vocabulary of a column of hex ids: like a dict, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fae.core.errors import LogError
from fae.ingest import vocabulary
from fae.ingest.hex_vocabulary import HexVocabulary
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
