"""Sums of rows over ranks have the bytes of one process, whatever slices list."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.distributed.exchange import RowExchange, sum_in_tree, sum_of_slices, total_sums
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.group import Group
from fae.distributed.launcher import launch
from fae.distributed.tree_sum import tree_sum

from exchange_program import BATCHES, DIM, SLICES, drawn_batch

WORLDS = (1, 2, 4, 8)
PROGRAM = Path(__file__).parents[2] / "support" / "exchange_program.py"


def by_hand(rows: ExchangeList, sums: list[np.ndarray], dim: int) -> np.ndarray:
    """Row by row, number by number, in Python: each slice's term, or none, up the tree."""
    totals = np.zeros((len(rows), dim), np.float32)
    found = [dict(zip(rows.places_of_slice(s), sums[s], strict=True)) for s in range(rows.num_slices)]
    for place in range(len(rows)):
        level: list[Any] = [slice_sums.get(place) for slice_sums in found]
        while len(level) > 1:
            pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
            level = []
            for pair in pairs:
                there = [term for term in pair if term is not None]
                level.append(there[0] + there[1] if len(there) == 2 else there[0] if there else None)
        totals[place] = level[0]
    return totals


@st.composite
def batches(draw: st.DrawFn) -> tuple[ExchangeList, list[np.ndarray], int]:
    """Lists of all kinds: rows of every slice, of one, slices without any; sums of all sizes, zeros of both signs."""
    num_slices = draw(st.sampled_from([1, 2, 4, 8]))
    empty = draw(st.sets(st.integers(0, num_slices - 1), max_size=num_slices - 1))
    allowed = sum(1 << s for s in range(num_slices) if s not in empty)
    kind = st.one_of(
        st.just(allowed), st.sampled_from([s for s in range(num_slices) if s not in empty]).map(lambda s: 1 << s),
        st.integers(1, 255).map(lambda bits: bits & allowed),
    )  # fmt: skip
    bits = [value for value in draw(st.lists(kind, max_size=40)) if value]
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    addresses = np.sort(random.choice(10_000, len(bits), replace=False)).astype(np.int32)
    rows = ExchangeList(addresses, np.array(bits, np.uint8), num_slices)
    dim = draw(st.sampled_from([1, 4, 5]))
    sums = []
    for s in range(num_slices):
        shape = (len(rows.places_of_slice(s)), dim)
        values = random.standard_normal(shape) * 10.0 ** random.integers(-6, 7, shape)
        sums.append(np.where(random.random(shape) < 0.2, random.choice([0.0, -0.0], shape), values).astype(np.float32))
    return rows, sums, dim


@given(batches())
@settings(max_examples=200)
def test_ranks_have_the_bytes_of_one_process(batch: tuple[ExchangeList, list[np.ndarray], int]) -> None:
    rows, sums, dim = batch
    expected = total_sums(rows, sums, dim)
    assert expected.tobytes() == by_hand(rows, sums, dim).tobytes()
    for world in (world for world in WORLDS if world <= rows.num_slices):
        each = rows.num_slices // world
        parts, present = [], []
        for rank in range(world):
            own = sum_of_slices(rows.bits_of_rank(rank, world), sums[rank * each : (rank + 1) * each], dim)
            flags = rows.bits_of_rank(rank, world) != 0
            part = np.full((len(rows), dim), np.nan, np.float32)
            part[rows.places_of_rank(rank, world)] = own
            parts.append(part)
            present.append(flags)
        assert sum_in_tree(parts, present).tobytes() == expected.tobytes()


@given(batches(), st.integers(0, 2**32))
@settings(max_examples=50)
def test_a_group_of_one(batch: tuple[ExchangeList, list[np.ndarray], int], seed: int) -> None:
    rows, sums, dim = batch
    exchange = RowExchange(Group(), rows.num_slices, rows.most_rows_of_a_rank(1) + 3, dim)
    needed = np.random.default_rng(seed).random(len(rows)) < 0.5
    for _ in range(2):
        assert exchange.totals(rows, sums, "a batch").tobytes() == total_sums(rows, sums, dim).tobytes()
        wanted = exchange.totals(rows, sums, "a batch", needed=needed)
        assert wanted.tobytes() == total_sums(rows, sums, dim)[needed].tobytes()


def test_rows_of_every_slice_are_summed_as_dense_gradients() -> None:
    rows, sums = drawn_batch(0, kind="all")
    assert total_sums(rows, sums, DIM).tobytes() == tree_sum(sums).tobytes()


@pytest.mark.parametrize("world", [2, 4, 8])
def test_over_gloo_and_in_host_memory(world: int, tmp_path: Path) -> None:
    """With random delays, and buffers that hold NaN and what earlier batches have left; in parts, too."""
    assert launch([sys.executable, str(PROGRAM), str(tmp_path)], world) == 0
    for rank in range(world):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for number in range(BATCHES):
                rows, sums = drawn_batch(number)
                expected = total_sums(rows, sums, DIM)
                assert found[f"all{number}"].tobytes() == expected.tobytes()
                assert found[f"shared{number}"].tobytes() == expected.tobytes()
                mine = rows.bits_of_rank(rank, world) != 0
                assert found[f"mine{number}"].tobytes() == expected[mine].tobytes()


@pytest.mark.parametrize(
    ("rows", "bits", "num_slices", "words"),
    [
        ([1, 1], [1, 1], 8, "ascending"),
        ([2, 1], [1, 1], 8, "ascending"),
        ([1, 2], [1, 0], 8, "at least one"),
        ([1, 2], [1, 4], 2, "slices 0 to 1"),
        ([1, 2], [1], 8, "of one length"),
        ([1], [1], 9, "from 1 to 8"),
        ([1], [1], 0, "from 1 to 8"),
    ],
)
def test_lists_that_do_not_fit(rows: list[int], bits: list[int], num_slices: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExchangeList(np.array(rows, np.int32), np.array(bits, np.uint8), num_slices)


def test_sums_that_do_not_fit_their_list() -> None:
    rows, sums = drawn_batch(0, kind="all")
    exchange = RowExchange(Group(), SLICES, len(rows), DIM)
    with pytest.raises(ValueError, match="slice 3 has sums of shape"):
        exchange.totals(rows, [*sums[:3], sums[3][1:], *sums[4:]], "a batch")
    with pytest.raises(ValueError, match="rank 0 has 8 slices, and sums of 7"):
        exchange.totals(rows, sums[:7], "a batch")
    with pytest.raises(ValueError, match="do not fit the buffers"):
        RowExchange(Group(), SLICES, len(rows) - 1, DIM).totals(rows, sums, "a batch")
    assert math.isfinite(float(exchange.totals(rows, sums, "a batch").sum()))


def test_the_exchange_imports_torch_only_for_its_buffers() -> None:
    code = "import sys, fae.distributed.exchange; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
