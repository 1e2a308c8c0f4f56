"""One suite for groups of ranks: one process, and two to four over Gloo, with random delays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.core.errors import RankError
from fae.distributed.group import Group
from fae.distributed.launcher import launch
from fae.distributed.places import RankPlace, place_of_process
from fae.distributed.tree_sum import slices_of_rank, tree_sum

from group_program import ROUNDS, found_by, part_of_rank

SUPPORT = Path(__file__).parents[1] / "support"
Found = list[dict[str, Any]]


@pytest.fixture(scope="module", params=[1, 2, 3, 4], ids=lambda world: f"{world} ranks")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each rank of a world found."""
    world = request.param
    if world == 1:
        with Group() as group:
            return [json.loads(json.dumps(found_by(group)))]
    folder = tmp_path_factory.mktemp("group")
    assert launch([sys.executable, str(SUPPORT / "group_program.py"), str(folder)], world) == 0
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def test_facts(found: Found) -> None:
    for rank, one in enumerate(found):
        assert (one["rank"], one["world"], one["is_first"]) == (rank, len(found), rank == 0)
        assert len(one["hosts"]) == len(found)
        assert one["hosts"] == found[0]["hosts"]


def test_json(found: Found) -> None:
    expected = [{"rank": rank, "text": "ü" * (rank * 999), "no": [None, 1.5]} for rank in range(len(found))]
    for one in found:
        assert one["gathered"] == expected
        assert one["sent"] == {"from": 0}
        assert one["nothing"] is None
        assert (one["none"], one["all"], one["last"]) == (False, True, True)


def test_tensors(found: Found) -> None:
    for one in found:
        for shaped, in_place, corner in one["kinds"].values():
            assert shaped
            assert in_place
            assert corner == [9 + rank for rank in range(len(found))]


def test_sums_have_the_bytes_of_the_tree(found: Found) -> None:
    for step in range(ROUNDS):
        level = [part_of_rank(rank, step) for rank in range(len(found))]
        while len(level) > 1:
            level = [sum(level[i + 1 : i + 2], level[i]) for i in range(0, len(level), 2)]
        assert {one["sums"][step] for one in found} == {level[0].tobytes().hex()}


def test_differences_are_named_with_both_values(found: Found) -> None:
    for one in found:
        if len(found) == 1:
            assert one["agreed"]
            continue
        kind, line = one["differs"]
        last = len(found) - 1
        assert kind == "CommonFault"
        assert line.startswith("ranks do not have the same recipe: they differ in train.seed, which is 1 on rank 0 (")
        assert f"and 2 on rank {last} (" in line


@pytest.mark.parametrize("num_slices", [8, 16])
def test_ranks_are_the_upper_levels_of_the_tree_of_slices(num_slices: int) -> None:
    slices = [part_of_rank(number) for number in range(num_slices)]
    expected = tree_sum(slices).tobytes()
    assert expected != np.add.reduce(slices[::-1]).tobytes(), "the order matters"
    for world in (1, 2, 4, 8):
        each = slices_of_rank(num_slices, world)
        parts = [tree_sum(slices[rank * each : (rank + 1) * each]) for rank in range(world)]
        assert tree_sum(parts).tobytes() == expected
    for world in (3, 5, 16 * num_slices):
        with pytest.raises(ValueError, match="no whole subtrees"):
            slices_of_rank(num_slices, world)
    with pytest.raises(ValueError, match="no whole subtrees"):
        slices_of_rank(6, 2)


def test_one_process_needs_no_torch() -> None:
    code = (
        "import sys; from fae.distributed.rank_process import RankProcess, RankPlace\n"
        "with RankProcess(RankPlace()) as process, process.join() as group:\n"
        "    group.agree(1, 'x'); group.barrier('y'); group.any(True, 'z')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


NAMES = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": None}, "RANK is not set"),
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not set"),
        ({"RANK": "2"}, "RANK = '2' must be a number from 0 to 1"),
        ({"RANK": "-1"}, "RANK = '-1' must"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK = 'x'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE = '0'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT = '0' must be a number from 1 to 65535"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE = '3'"),
    ],
)
def test_an_environment_that_is_no_place(change: dict[str, str | None], words: str) -> None:
    environ = {name: value for name, value in (NAMES | change).items() if value is not None}
    with pytest.raises(RankError) as raised:
        place_of_process(environ)
    assert words in str(raised.value)


def test_a_place_is_what_its_environment_says() -> None:
    place = RankPlace(rank=1, world=3, local_rank=1, local_world=3, port=5, launcher=77)
    assert place_of_process(place.environment()) == place
    assert place_of_process(NAMES | {"WORLD_SIZE": "1", "RANK": "0"}) == RankPlace()
