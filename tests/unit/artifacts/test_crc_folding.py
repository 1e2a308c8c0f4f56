"""The checksum by folding is zlib's, whatever the length, the alignment and what came before."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from fae.artifacts import crc_folding
from fae.artifacts.crc_folding import crc32


@pytest.mark.parametrize("folds", [True, False])
def test_it_is_the_checksum_of_zlib(folds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not folds:
        monkeypatch.setattr(crc_folding, "can_fold", lambda: False)
    random = np.random.default_rng(5)
    least = crc_folding._LEAST_BYTES
    sizes = [0, 1, 63, 64, 65, 4096, least - 1, *range(least, least + 130), *random.integers(least, 10 * least, 40)]
    for size in sizes:
        data, before = random.integers(0, 256, size, np.uint8), int(random.integers(0, 2**32))
        for checksum in (0, before, 2**32 - 1):
            assert crc32(data, checksum) == zlib.crc32(data.data, checksum), size
        assert crc32(data[3:]) == zlib.crc32(data[3:].data), size


def test_it_takes_numbers_of_any_kind_and_memory_that_cannot_be_written() -> None:
    random = np.random.default_rng(6)
    ids = random.integers(-1, 2**31, (9000, 26)).astype(np.int32)
    ids.flags.writeable = False
    for array in (ids, ids[1:-1], random.random(70_001), np.ones((5, 40_000), np.bool_), np.zeros(2**20, np.int64)):
        assert crc32(array) == zlib.crc32(np.array(array).data.cast("B"))
    assert crc32(np.zeros((0, 7), np.float32)) == 0


def test_parts_one_behind_the_other_are_the_whole() -> None:
    data = np.random.default_rng(7).integers(0, 256, 300_000, np.uint8)
    checksum = 0
    for part in np.split(data, [70_000, 70_001, 120_013, 290_000]):
        checksum = crc32(part, checksum)
    assert checksum == zlib.crc32(data.data)
