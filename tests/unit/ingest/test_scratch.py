"""Working arrays stay within their memory limit and spill to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fae.ingest.scratch import Scratch


def test_scratch_keeps_within_its_limit_and_gives_back(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch", 100)
    first = scratch.array(10, np.int64)
    second = scratch.array(10, np.int64)  # 160 bytes in all
    assert not isinstance(first, np.memmap)
    assert isinstance(second, np.memmap)
    assert scratch.spilled_bytes == 80
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    second[:] = 7
    third = scratch.grow(second, 20)
    assert third[:10].tolist() == [7] * 10
    scratch.release(third)
    assert list((tmp_path / "scratch").iterdir()) == []
    scratch.release(first)
    assert not isinstance(scratch.array(12, np.int64), np.memmap)
    assert len(scratch.array(0, np.int8)) == 0
