"""What the sums of hosts take of a GPU is planned before they are made, and never as less."""

from __future__ import annotations

import pytest
from torch import nn

from fae.distributed.places import RankPlace
from fae.distributed.rank_batches import RankBatches
from fae.distributed.slice_plan import SlicePlan
from fae.embedding.ranks.rank_memory import SliceSizes
from fae.kernels.geometry import group_geometries
from fae.training.dense import dense_of_hosts_bytes
from kernel_ranks import many_rows

pytest.importorskip("triton")
from fae.kernels.triton_dense import DENSE_BLOCK, part_blocks


@pytest.mark.parametrize(("world", "num_hosts"), [(4, 2), (8, 2), (8, 4)])
def test_room_for_row_sums_of_hosts(world: int, num_hosts: int) -> None:
    log = many_rows()
    layout = log.layout(0.4, 1)
    packed, slots, features = log.packed(layout), [len(layout.group_slots(0))], layout.model_features
    plan = SlicePlan(num_slices=world, world=world, num_hosts=num_hosts)
    shared = RankBatches(0, world, slots, [layout.groups[0].num_hot_rows], plan=plan).of(packed).arrays.shared
    assert shared is not None
    (most,) = shared.most_part_rows
    geometries = group_geometries(
        [feature.length for feature in features], [feature.pooling for feature in features], layout.feature_dims
    )
    planned = SliceSizes(packed, geometries, log.batch_size // world, plan).host_sum_bytes
    made = 4 * layout.groups[0].embedding_dim * most * (1 + num_hosts)  # the own part, and those of all
    assert made <= planned <= 3 * made
    assert SliceSizes(packed, geometries, 10, SlicePlan(num_slices=world, world=world)).host_sum_bytes == 0


@pytest.mark.parametrize("width", [3, 400, 9000])
def test_room_for_dense_gradients_of_hosts(width: int) -> None:
    model, plan = nn.Linear(width, 2), SlicePlan(num_slices=8, world=8, num_hosts=2)
    size = sum(each.numel() for each in model.parameters())
    made = 4 * (1 + 2) * part_blocks(size, 4) * DENSE_BLOCK
    assert made <= dense_of_hosts_bytes(model, plan) <= 2 * made + 8192
    assert dense_of_hosts_bytes(model, SlicePlan(num_slices=8, world=8)) == 0


@pytest.mark.parametrize(
    ("local_world", "world", "expected"),
    [(1, 8, False), (2, 8, True), (4, 8, True), (8, 8, False), (3, 8, False), (1, 1, False)],
)
def test_hosts_may_have_as_many_ranks(local_world: int, world: int, expected: bool) -> None:
    """Before ranks have met, one knows of its own host alone."""
    assert RankPlace(local_world=local_world, world=world).has_even_hosts == expected
