"""Arrays on pages of their own: which those are, and copies that are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fae.core.own_pages import in_own_pages, owns_pages

from cases import mapped, random_log
from commands import succeed, write_log, write_recipe


def test_files_of_a_run_own_their_pages_and_memory_does_not(tmp_path: Path) -> None:
    from fae.artifacts.packed import PackedDataset

    write_log(tmp_path)
    succeed("run", write_recipe(tmp_path), "--out", tmp_path / "run", "--device", "cpu")
    arrays = PackedDataset(tmp_path / "run" / "packed").train.arrays
    assert arrays.order is not None
    assert arrays.segments is not None
    for array in (*arrays.order.parts, arrays.dense, arrays.labels, arrays.segments.starts[0]):
        assert owns_pages(array)
        assert owns_pages(array[1:3])
    log = random_log(3, num_inputs=40, batch_size=8)
    batches = log.packed(log.layout(0.3, 1))
    assert batches.arrays.order is not None
    assert not any(map(owns_pages, batches.arrays.order.parts))
    kept = mapped(batches, tmp_path).arrays.order
    assert kept is not None
    assert all(map(owns_pages, kept.parts))


@pytest.mark.parametrize("shape", [(3,), (5, 2, 4), (0, 7)])
def test_a_copy_has_the_same_values(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 99, shape).astype(np.int32)
    copy = in_own_pages(array)
    assert owns_pages(copy)
    assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(copy, array)
    assert array.nbytes == 0 or not copy.flags.writeable


def test_batches_of_a_probe_own_their_pages() -> None:
    from fae.planning.probe_batches import probe_batches
    from step_works import work

    batches, _ = probe_batches(work(40.0), 3, 2**20)
    arrays = batches.arrays
    assert arrays.segments is not None
    assert arrays.order is not None
    assert all(map(owns_pages, (*arrays.order.parts, arrays.dense, arrays.segments.starts[0], arrays.cold_rows[0])))
