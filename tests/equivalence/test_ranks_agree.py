"""Ranks that train together end alike, to the byte, wherever rows are, and within rounding of one rank alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fae.distributed.group import Group
from fae.distributed.launcher import launch

from cases import train
from rank_cases_program import (
    BY_BOTH,
    HELD,
    INTERPRETED_SLICES,
    OF_TWO_RANKS,
    ON_CPUS,
    SOME,
    SPREAD,
    layout_of,
    path_of,
    rank_cases,
)  # fmt: skip

PROGRAM = Path(__file__).parents[1] / "support" / "rank_cases_program.py"


def trained(
    folder: Path,
    world: int,
    seed: int,
    engine: str = "cpu",
    names: Sequence[str] = ("device",),
    cases: Iterable[str] = tuple(rank_cases()),
    wire: str = "",
) -> dict[str, list[list[np.ndarray]]]:
    """For each case, what each rank ends with under each of these placements."""
    folder.mkdir()
    assert launch([sys.executable, str(PROGRAM), str(folder), str(seed), engine, wire, *names], world) == 0
    found = {}
    for case in cases:
        ends = [np.load(path_of(folder, case, name, rank)) for name in names for rank in range(world)]
        found[case] = [[each[key] for key in each.files] for each in ends]
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, list[np.ndarray]]:
    """What one rank ends with."""
    return {
        name: [tensor.numpy() for tensor in train(log, layout_of(log, 0.4), optimizer, "device", with_loss=True)]
        for name, (log, optimizer) in rank_cases().items()
    }


@pytest.mark.parametrize(("world", "names"), [(2, ON_CPUS), (4, SOME)])
def test_ranks_train_what_one_trains(
    world: int, names: Sequence[str], alone: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    """All of them the same bytes wherever rows are, with delays and NaN in free memory too.

    Another number of ranks cuts sums elsewhere, and no more.
    """
    found = trained(tmp_path / "plain", world, 0, names=SOME)
    require_alike(found, trained(tmp_path / "delayed", world, 1, names=names), alone)


def test_ranks_that_share_no_memory_train_what_one_trains(alone: dict[str, list[np.ndarray]], tmp_path: Path) -> None:
    """As on several hosts: each has all rows, and a collective moves sums; the bytes are those of ranks that share."""
    found = trained(tmp_path / "together", 2, 0, names=("hybrid",))
    require_alike(found, trained(tmp_path / "apart", 2, 1, "apart", ("hybrid", "paper", "cpu")), alone)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_train_what_one_trains_by_kernels_of_gpus(
    world: int, alone: dict[str, list[np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in Triton's interpreter, with NaN in free buffers; four of them as two hosts, too."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    expected = {name: ends for name, ends in alone.items() if world == 2 or name not in OF_TWO_RANKS}
    found = trained(tmp_path / "plain", world, 0, "triton", cases=expected)
    names = (*SOME, SPREAD[2], "tiered, one width hot") if world == 2 else (SPREAD[1],)
    wire = "hosts" if world == 4 else ""
    require_alike(found, trained(tmp_path / "nan", world, 1, "triton", names, expected, wire), expected)


@pytest.mark.parametrize("name", BY_BOTH)
def test_ranks_train_what_one_trains_by_kernels_of_both(
    name: str, alone: dict[str, list[np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of all batches, or of cold ones, by those of CPUs, and the rest in Triton's interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = trained(tmp_path / "nan", 2, 1, "triton", (name,))
    require_alike(found, found, alone)


@pytest.fixture(scope="module")
def alone_in_slices() -> dict[str, list[bytes]]:
    """What one rank ends with that trains reproducibly."""
    group = Group(reproducible=True)
    return {
        name: [
            tensor.numpy().tobytes()
            for tensor in train(log, layout_of(log, 0.4), optimizer, "device", with_loss=True, group=group)
        ]
        for name, (log, optimizer) in rank_cases().items()
    }


@pytest.mark.parametrize(("world", "names"), [(2, ON_CPUS), (4, SOME), pytest.param(8, SOME, marks=pytest.mark.slow)])
def test_reproducible_ranks_train_the_bytes_of_one(
    world: int, names: Sequence[str], alone_in_slices: dict[str, list[bytes]], tmp_path: Path
) -> None:
    """Wherever rows are, with delays and NaN in free memory."""
    found = trained(tmp_path / "ranks", world, world, "cpu-reproducible", names)
    for name, expected in alone_in_slices.items():
        assert len(found[name]) == world * len(names)
        for end in found[name]:
            assert [each.tobytes() for each in end] == expected, name


def test_reproducible_ranks_train_the_bytes_of_one_by_kernels_of_gpus(
    alone: dict[str, list[np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Triton's interpreter, with NaN in free buffers; rows that ranks have together too, and two hosts of two."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    names, cases = ("tiered, a little hot", SPREAD[0]), INTERPRETED_SLICES
    one = trained(tmp_path / "one", 1, 0, "triton-reproducible", cases=cases)
    two = trained(tmp_path / "two", 2, 1, "triton-reproducible", names, cases)
    four = trained(tmp_path / "four", 4, 1, "triton-reproducible", names[:1], cases, wire="hosts")
    for again in (two, four):
        require_alike(one, again, {case: alone[case] for case in cases})


@pytest.mark.parametrize("name", ["cpu", "hybrid", "paper", "tiered, a little hot", "tiered, half hot"])
def test_one_reproducible_rank_trains_the_same_bytes_wherever_rows_are(
    name: str, alone_in_slices: dict[str, list[bytes]]
) -> None:
    placement, share = HELD[name]
    for case in ("lists, adam", "weights", "sequences", "hot and cold"):
        log, optimizer = rank_cases()[case]
        found = train(
            log, layout_of(log, share), optimizer, placement, with_loss=True, group=Group(reproducible=True)
        )  # fmt: skip
        assert [tensor.numpy().tobytes() for tensor in found] == alone_in_slices[case], case


def require_alike(
    found: dict[str, list[list[np.ndarray]]],
    again: dict[str, list[list[np.ndarray]]],
    alone: dict[str, list[np.ndarray]],
) -> None:
    """All ranks of both trainings have the same bytes, and those of one rank but for rounding."""
    for name, expected in alone.items():
        first = found[name][0]
        for other in (*found[name][1:], *again[name]):
            for one, two in zip(first, other, strict=True):
                assert one.tobytes() == two.tobytes(), name
        for one, two in zip(first, expected, strict=True):
            # Other optimizers divide by the size of a gradient, and so make much of a small one's rounding.
            closest = 1e-6 if "sgd" in name else 2e-5
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=closest, err_msg=name)
