"""Memory is counted before it is taken, and what cannot fit is refused, with the budget that would fit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fae.core.errors import BudgetError
from fae.distributed.dense_sums import DenseSums, dense_sums_bytes
from fae.distributed.group import Group
from fae.embedding.memory_plan import MemoryPlan, require_memory
from fae.embedding.memory_request import MemoryRequest
from fae.embedding.placements import find_placement, plan_memory
from fae.embedding.placements import make_embeddings as make
from fae.embedding.working_memory import loose_batches, pinned
from fae.streaming.row_store import RowOptimizer

from cases import random_log, sized_hot_set

MIB = 2**20


def test_input_buffers_are_counted_as_they_are_made():
    from fae.embedding.gpu_rows import GpuRows  # needs Triton

    log = random_log(1, lists=True)
    layout = log.layout(0.4, 1)
    packed = log.packed(layout)
    hot_set = sized_hot_set(log, layout, depth=3)
    for placement, engine_bytes in (("device", 0), ("tiered", 8 * 3 * sum(packed.most_cold_rows))):
        needs = plan_memory(placement, hot_set, "sgd", [packed], on_gpu=True)
        embeddings = make(placement, hot_set, RowOptimizer(), device="cpu")
        rows = GpuRows(
            layout, embeddings.geometries, RowOptimizer(), log.batch_size, embeddings.device,
            staged=placement == "tiered",
        )  # fmt: skip
        order = np.arange(packed.num_batches)
        rows.buffered(packed, order, np.full(len(order), -1), hot_set.staging_rows, 1)
        assert needs.device_inputs == rows._rings.device_bytes + engine_bytes


@pytest.mark.parametrize(("world", "reproducible"), [(2, False), (4, False), (1, True), (2, True)])
def test_a_rank_of_gpus_takes_no_more_than_is_planned(world: int, reproducible: bool, monkeypatch: pytest.MonkeyPatch):
    """Its input buffers, the sums that others read, and the slices in host memory."""
    import fae.embedding.ranks.gpu_rank_rows as rank_rows
    from fae.embedding.gpu_rows import GpuRows  # needs Triton

    sizes: list[int] = []

    def buffer(group: Group, size: int, *_: object, **__: object) -> object:
        sizes.append(size)
        return SimpleNamespace(own=torch.empty(size), pointers=torch.zeros(group.world, dtype=torch.int64))

    monkeypatch.setattr(rank_rows, "peer_buffer", buffer)
    log = random_log(1, lists=True, num_inputs=400, batch_size=64)
    layout = log.layout(0.4, 1)
    packed, hot_set = log.packed(layout), sized_hot_set(log, layout, depth=3)
    needs, alone = (
        plan_memory("device", hot_set, "sgd", [packed], on_gpu=True, world=each, reproducible=each_slices)
        for each, each_slices in ((world, reproducible), (1, False))
    )
    embeddings = make("device", hot_set, RowOptimizer(), device="cpu")
    group = Group(world=world, reproducible=reproducible)
    size = log.batch_size // group.slices.num_slices
    rows = GpuRows(layout, embeddings.geometries, RowOptimizer(), size, embeddings.device, staged=False)
    rows.follow(group)
    order = np.arange(packed.num_batches)
    rows.buffered(packed, order, np.full(len(order), -1), hot_set.staging_rows, 1)
    taken = rows._rings.device_bytes
    assert taken <= needs.device_inputs < 2 * taken
    assert 0 < 4 * sum(sizes) <= needs.device_work
    slices = [each.arrays for each in rows.ranks.cut(packed)]
    lists = list(slices[0].shared.rows)
    for each in slices:
        lists += [*each.order.parts, *each.segments.starts, *each.segments.addresses]
        assert each.shared.rows is slices[0].shared.rows, "lists of whole batches are there once"
    assert sum(array.nbytes for array in lists) < needs.host_buffers - alone.host_buffers // world


@pytest.mark.parametrize("world", [1, 2])
def test_dense_features_in_bfloat16_are_counted(world: int):
    """On the host beside the files, of the slices of one rank; on the GPU buffers are smaller by half of them."""
    pytest.importorskip("triton")
    from fae.embedding.gpu_rows import GpuRows

    log = random_log(1, lists=True, num_inputs=300, batch_size=64)
    layout = log.layout(0.4, 1)
    packed, hot_set = log.packed(layout), sized_hot_set(log, layout, depth=3)
    whole, rounded = (
        find_placement("device").plan(
            MemoryRequest(
                hot_set=hot_set, optimizer="sgd", splits=[packed], on_gpu=True, world=world, rounds_dense=rounds
            )
        )
        for rounds in (False, True)
    )
    size, dense = 64 // world, packed.num_dense
    embeddings = make("device", hot_set, RowOptimizer(), device="cpu")
    taken = []
    for rounds in (False, True):
        rows = GpuRows(layout, embeddings.geometries, RowOptimizer(), size, embeddings.device, staged=False)
        if world > 1:
            rows.follow(Group(world=world))
        rows.round_dense(rounds=rounds)
        order = np.arange(packed.num_batches)
        rows.buffered(packed, order, np.full(len(order), -1), hot_set.staging_rows, 1)
        taken.append(rows._rings.device_bytes)
    assert taken[1] < taken[0]
    if world == 1:
        assert (taken[0], taken[1]) == (whole.device_inputs, rounded.device_inputs)
    assert whole.device_inputs - rounded.device_inputs == taken[0] - taken[1]
    part = packed if world == 1 else rows.ranks.cut(packed)[0]
    assert part.arrays.rounded_dense.nbytes == 2 * packed.num_batches * size * dense
    locked = rounded.host_buffers - 8 * pinned(rounded.device_inputs // 8)
    assert locked - (whole.host_buffers - 8 * pinned(whole.device_inputs // 8)) == part.arrays.rounded_dense.nbytes


def test_locked_memory_is_counted_as_torch_rounds_it():
    log = random_log(1)
    layout = log.layout(0.4, 1)
    packed = log.packed(layout)
    hot_set = SimpleNamespace(layout=layout, ring_depth=3, batch_size=log.batch_size, staging_rows=(5,))
    needs = [plan_memory("tiered", hot_set, "sgd", [packed], on_gpu=on_gpu) for on_gpu in (False, True)]
    rows = 3 * 5
    assert needs[0].host_buffers == 2 * 4 * 8 * rows + 8 * rows
    buffer = (needs[1].device_inputs - 8 * rows) // 8
    assert needs[1].host_buffers == 2 * 512 + 128 + 8 * pinned(buffer)  # 480, 480 and 120 bytes, each by itself


def test_what_ranks_exchange_is_counted():
    """Each has a slice of the lookups, and the rows of all in buffers."""
    log = random_log(1, lists=True)
    layout = log.layout(0.4, 1)
    packed, hot_set = log.packed(layout), sized_hot_set(log, layout, depth=3)
    half = SimpleNamespace(**{**vars(hot_set), "batch_size": hot_set.batch_size // 2})
    embeddings = make("tiered", hot_set, RowOptimizer(), device="cpu", group=Group(world=2))
    exchanged = sum(each._own.nbytes + each._all.nbytes for each in embeddings._ranks._exchanges)
    for placement, times in (("tiered", 1), ("device", 1), ("cpu", 1), ("hybrid", 1), ("paper", 2)):
        of_rank = plan_memory(placement, hot_set, "sgd", [packed], on_gpu=False, world=2, shares_host=False)
        alone = plan_memory(placement, half, "sgd", [packed], on_gpu=False)
        assert of_rank.device_work + of_rank.host_work - alone.device_work - alone.host_work == times * exchanged


@pytest.mark.parametrize("world", [2, 4])
def test_rows_that_ranks_have_once_in_a_host_are_counted_once(world: int):
    """Those that CPUs step; with them each rank has memory for its own sums alone."""
    log = random_log(1, lists=True)
    layout = log.layout(0.4, 1)
    packed, hot_set = log.packed(layout), sized_hot_set(log, layout, depth=3)
    for placement, on_gpu in (("cpu", False), ("device", False), ("hybrid", False), ("hybrid", True), ("paper", True)):
        shared, each = (
            plan_memory(placement, hot_set, "adam", [packed], on_gpu=on_gpu, world=world, shares_host=shares_host)
            for shares_host in (True, False)
        )
        one = plan_memory(placement, hot_set, "adam", [packed], on_gpu=on_gpu)
        rows = one.host_rows or one.device_rows
        assert (each.host_rows or each.device_rows) == rows
        assert 0 <= world * (shared.host_rows or shared.device_rows) - rows < world
        assert shared.on_host + shared.device_beside < each.on_host + each.device_beside
        if placement == "paper":
            assert shared.device_rows == one.device_rows, "each GPU has the hot rows"
    tiered = [
        plan_memory("tiered", hot_set, "adam", [packed], on_gpu=False, world=world, shares_host=shares_host)
        for shares_host in (True, False)
    ]
    assert tiered[0].host_rows == tiered[1].host_rows, "ranks of CPUs stage rows of their own"


def test_what_slices_take_is_counted():
    """Lookups of one slice, and a buffer of the sums of all."""
    log = random_log(1, lists=True)
    layout = log.layout(0.4, 1)
    packed, hot_set = log.packed(layout), sized_hot_set(log, layout, depth=3)
    eighth = SimpleNamespace(**{**vars(hot_set), "batch_size": hot_set.batch_size // 8})
    embeddings = make("device", hot_set, RowOptimizer(), device="cpu", reproducible=True)
    exchanged = sum(each._own.nbytes for each in embeddings._ranks._exchanges)
    cut = plan_memory("device", hot_set, "sgd", [packed], on_gpu=False, reproducible=True)
    of_slice = plan_memory("device", eighth, "sgd", [packed], on_gpu=False)
    loose = [loose_batches(each.batch_size, packed.num_dense) for each in (hot_set, eighth)]
    assert cut.device_work == of_slice.device_work + exchanged + loose[0] - loose[1]


def test_dense_sums_of_slices_are_counted():
    weights = [torch.nn.Parameter(torch.zeros(3, 5)), torch.nn.Parameter(torch.zeros(7))]
    for group in (Group(), Group(world=2), Group(reproducible=True), Group(world=4, reproducible=True)):
        sums = DenseSums(group, weights)
        held = sums._own.nbytes + sums._all.nbytes
        assert dense_sums_bytes(22, group.slices) == (held if group.slices.is_cut else 0)


NEEDS = MemoryPlan(device_rows=3000 * MIB, device_inputs=100 * MIB, host_rows=5000 * MIB, host_buffers=50 * MIB)


def test_refusals_name_what_would_fit():
    require_memory(NEEDS, "tiered", device_free=4000 * MIB, host_free=6000 * MIB)
    with pytest.raises(BudgetError, match=r"largest budget that fits is 1388MiB.*--budget 1388MiB"):
        require_memory(NEEDS, "tiered", device_free=2000 * MIB, host_free=6000 * MIB)
    with pytest.raises(BudgetError, match=r"smaller \[train\] batch_size"):
        require_memory(NEEDS, "tiered", device_free=300 * MIB, host_free=6000 * MIB)
    with pytest.raises(BudgetError, match=r"4.9 GiB of host memory.*1.0 GiB are available"):
        require_memory(NEEDS, "tiered", device_free=4000 * MIB, host_free=1024 * MIB)
    with pytest.raises(BudgetError, match=r"8\.0 GiB of host memory"):
        require_memory(NEEDS, "device", device_free=None, host_free=6000 * MIB)
    require_memory(NEEDS, "device", device_free=None, host_free=9000 * MIB)


def test_each_rank_of_a_host_takes_its_memory():
    require_memory(NEEDS, "device", device_free=None, host_free=16400 * MIB, ranks=2)
    with pytest.raises(BudgetError) as caught:
        require_memory(NEEDS, "device", device_free=None, host_free=16000 * MIB, ranks=2)
    assert str(caught.value).startswith(
        "placement = 'device' needs 8.0 GiB of host memory for rows, state and buffers on each of 2 ranks of this "
        "host, 15.9 GiB in all; 15.6 GiB are available; start fewer ranks, choose a smaller [model] embedding_dim"
    )
    require_memory(NEEDS, "device", device_free=None, host_free=16000 * MIB, ranks=1)


def test_a_plan_in_words():
    assert NEEDS.describe("the GPU") == (
        "on the GPU 2.9 GiB of rows, state and staging and 100.0 MiB of batches on their way; on the host 4.9 GiB of "
        "rows and state and 50.0 MiB of buffers"
    )
