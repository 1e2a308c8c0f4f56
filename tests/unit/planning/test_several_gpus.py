"""Several GPUs in a plan: what each receives and has in memory, and how a step follows wire, network and host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fae.planning.cards import card_constants, wire_constants
from fae.planning.dense_work import dense_work
from fae.planning.machine_constants import WireConstants
from fae.planning.several_gpus import GpuGroup, needed_sizes, strong_groups, weak_groups
from fae.planning.step_time import predict_steps
from fae.planning.step_work import StepWork
from step_works import FEATURES, settings, work

H100 = card_constants("h100", settings())
NVLINK = wire_constants(H100)
WEIGHTS = dense_work(settings(), on_gpu=True).parameters


def group(
    gpus: int, *, unique: float = 900.0, of_all: float = 1500.0, cold: float = 0.0, **changes: object
) -> GpuGroup:
    """A group whose slices have `unique` rows, and `cold` cold ones; the whole batch `of_all` and twice as many."""
    whole = work(2 * cold, unique_rows=of_all, of=settings(512 * gpus))
    made = GpuGroup(gpus=gpus, slice_work=work(cold, unique_rows=unique), host_work=whole, whole_work=whole)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("cold", [0, 100, 40_000])
@pytest.mark.parametrize("placement", ["device", "tiered", "spread"])
def test_one_gpu_is_the_step_of_before(placement: str, cold: int) -> None:
    own = work(cold, unique_rows=max(900.0, cold))
    one = GpuGroup(gpus=1, slice_work=own, host_work=own, whole_work=own)
    step = predict_steps(own, H100)["device" if placement == "spread" else placement]
    seconds, parts = one.step(placement, H100, NVLINK)
    assert seconds == step.seconds
    assert next(iter(parts)) == step.bound_by
    assert one.received() == one.received(placement) == one.network_bytes == 0


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_what_a_gpu_receives(gpus: int) -> None:
    found = group(gpus)
    assert found.received() == 4 * (gpus - 1) * (900 * 16 + WEIGHTS)
    assert found.received(dense=False) == 4 * (gpus - 1) * 900 * 16
    assert found.to_json("device", H100, NVLINK)["received_bytes_per_input"] == found.received() / 512


@pytest.mark.parametrize("placement", ["spread", "tiered"])
@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_what_a_gpu_receives_where_cold_rows_have_owners(gpus: int, placement: str) -> None:
    """Hot sums of all others; a cold row of a slice once from its owner, and its sum once to there."""
    found = group(gpus, cold=300)
    hot, pulled = (gpus - 1) * 600, 300 * (gpus - 1) / gpus
    assert found.received(placement, dense=False) == pytest.approx(64 * (hot + 2 * pulled))
    assert found.received(placement) - found.received(placement, dense=False) == 4 * (gpus - 1) * WEIGHTS
    value = found.to_json(placement, H100, NVLINK)["received_bytes_per_input"]
    assert value == found.received(placement) / 512
    # Two GPUs move as much as under `device`; more of them less.
    assert found.received(placement) <= found.received("device")
    assert (found.received(placement) == pytest.approx(found.received("device"))) == (gpus == 2)
    assert group(gpus).received(placement) == group(gpus).received("device"), "no row is cold"


@pytest.mark.parametrize("near", [2, 4])
def test_what_a_gpu_of_several_hosts_receives(near: int) -> None:
    """Its part of what its neighbours and the other host have, and the parts of both hosts that neighbours have."""
    found = group(2 * near, cold=300, hosts=2, gigabits=100)
    (host,), others = found.host_work.widths, (near - 1) / near
    received = others * 900 + host.unique_rows / near + 2 * others * host.unique_rows
    dense = (others + 1 / near + 2 * others) * WEIGHTS
    assert found.received() == pytest.approx(4 * (16 * received + dense))
    # Of a cold row the owner alone reads the sums; the others pull it.
    owned = received - 2 * others * host.unique_cold_rows * others + 300 * others
    assert found.received("tiered") == found.received("spread") == pytest.approx(4 * (16 * owned + dense))


def test_owners_that_are_counted_agree_with_what_is_expected() -> None:
    """Bytes of `spread` that follow from drawn rows and their owners are those that a plan expects of their numbers."""
    random, gpus, num_hot = np.random.default_rng(5), 4, 200
    slices = [np.unique((random.random(6000) ** 2 * 20_000).astype(np.int64)) for _ in range(gpus)]
    received = []
    for rank, own in enumerate(slices):
        others = [rows for other, rows in enumerate(slices) if other != rank]
        cold = own[own >= num_hot] - num_hot
        sums = sum(np.count_nonzero(rows < num_hot) for rows in others)
        owned = sum(np.count_nonzero((rows[rows >= num_hot] - num_hot) % gpus == rank) for rows in others)
        received.append(64 * (sums + np.count_nonzero(cold % gpus != rank) + owned))
    unique = float(np.mean([len(rows) for rows in slices]))
    cold_rows = float(np.mean([np.count_nonzero(rows >= num_hot) for rows in slices]))
    found = group(gpus, unique=unique, cold=cold_rows)
    assert found.received("spread", dense=False) == pytest.approx(np.mean(received), rel=0.01)


def test_a_step_of_spread_rows_is_longer_by_their_pull() -> None:
    """By the probe, 131,000 rows take 36 us from four GPUs at 16 floats a row, of which 0.3 are not hidden."""
    found = group(4, unique=131_000, of_all=363_000, cold=131_000)
    device, spread = (found.step(placement, H100, NVLINK) for placement in ("device", "spread"))
    pull = spread[1]["pull of rows"]
    assert pull == pytest.approx(0.3 * 36e-6, rel=0.01)
    assert spread[0] == pytest.approx(device[0] + pull)
    assert "pull of rows" not in device[1]
    half = group(4, unique=131_000, cold=131_000).step("spread", H100, replace(NVLINK, pull_exposed=0.5))[1]
    assert half["pull of rows"] == pytest.approx(pull * 0.5 / 0.3)
    tiered = group(4, unique=131_000, cold=131_000).exchange_parts(H100, NVLINK, "tiered")
    assert tiered["pull of rows"] == pull
    two = group(2, unique=131_000, cold=131_000).step("spread", H100, NVLINK)[1]["pull of rows"]
    assert two == pytest.approx(pull * (1 / 2) / (3 / 4)), "half of the rows are on the other one"


def test_an_exchange_takes_the_longer_of_wire_and_memory() -> None:
    parts = group(2, unique=131_000, of_all=219_000).exchange_parts(H100, replace(NVLINK, wire_rate=1e11))
    assert parts["exchange of rows"] == pytest.approx(0.7 * 131_000 * 64 / 1e11)
    parts = group(2, unique=131_000, of_all=4e6).exchange_parts(H100, NVLINK)
    moved = 2 * 131_000 * 64 + 2 * 4e6 * 64
    assert parts["exchange of rows"] == pytest.approx(0.7 * moved / (0.45 * H100.memory_rate))
    assert parts["barriers"] == pytest.approx(10e-6)
    assert parts["exchange of dense gradients"] == pytest.approx(4 * WEIGHTS / 350e9)


def test_a_step_is_longer_by_what_is_exchanged() -> None:
    alone, _ = group(1).step("device", H100, NVLINK)
    found = group(4)
    seconds, parts = found.step("device", H100, NVLINK)
    assert seconds == pytest.approx(alone + sum(found.exchange_parts(H100, NVLINK).values()))
    slow = replace(NVLINK, wire_rate=1e8)
    assert next(iter(found.step("device", H100, slow)[1])).startswith("exchange of")
    assert parts["barriers"] > 0


def test_gpus_of_a_host_stage_the_cold_rows_of_all_together() -> None:
    """Through the host go those of the whole batch once, over each bus its share of them."""
    parts = group(4, cold=40_000).step("tiered", H100, NVLINK)[1]
    of_all = predict_steps(work(80_000, unique_rows=80_000), H100)["tiered"].parts
    assert parts["cold rows through the host"] == pytest.approx(of_all["cold rows through the host"])
    whole, own = work(80_000), work(40_000, unique_rows=900)
    assert parts["cold rows over the bus"] == pytest.approx((whole.cold_bytes / 4 + own.input_bytes) / H100.bus_rate)


def test_gpus_of_each_host_stage_the_cold_rows_of_all_together() -> None:
    seconds, parts = group(8, cold=40_000, hosts=2, gigabits=400).step("tiered", H100, NVLINK)
    alone = predict_steps(work(80_000, unique_rows=80_000), H100)["tiered"]
    assert next(iter(parts)) == "cold rows through the host"
    assert parts["cold rows through the host"] - H100.stream_seconds == pytest.approx(
        alone.parts["cold rows through the host"] - H100.stream_seconds
    )
    whole, own = work(80_000), work(40_000, unique_rows=900)
    assert parts["cold rows over the bus"] == pytest.approx((whole.cold_bytes / 4 + own.input_bytes) / H100.bus_rate)
    assert seconds > alone.seconds


@pytest.mark.parametrize(("gpus", "depth", "hosts", "slots"), [(1, 4, 1, 4), (4, 4, 1, 3), (4, 3, 1, 3), (4, 4, 2, 3)])
def test_places_for_pulled_rows_take_a_slot(gpus: int, depth: int, hosts: int, slots: int) -> None:
    """Where batches wait for slots, their number bounds the step."""
    made = group(gpus, cold=40_000, hosts=hosts, gigabits=100 if hosts > 1 else None)
    shallow = replace(made, slice_work=replace(made.slice_work, ring_depth=depth))
    machine = replace(H100, stream_latency=20.0)
    seconds, parts = shallow.step("tiered", machine, NVLINK)
    computing = machine.tiered_factor * sum(parts[part] for part in ("dense part", "rows on the GPU"))
    beside = sum(shallow.exchange_parts(machine, NVLINK, "tiered").values())
    streaming = machine.stream_seconds + max(value for part, value in parts.items() if part.startswith("cold rows"))
    held = computing + beside + 20 * streaming
    assert seconds == pytest.approx(held / (slots - 1))


def test_hosts_exchange_sums_of_a_host() -> None:
    works = {size: work(0, unique_rows=10.0 * size, of=settings(size)) for size in needed_sizes(512)}
    *_, eight, slow, fast = weak_groups(works, 512)
    assert (eight.gpus, slow.gpus, slow.of_host, slow.gigabits, fast.gigabits) == (8, 8, 4, 100, 400)
    assert slow.network_bytes == 4 * (10 * 4 * 512 * 16 + WEIGHTS)
    network = slow.exchange_parts(H100, NVLINK)["network"]
    assert network == pytest.approx(slow.network_bytes / 12.5e9)
    assert fast.exchange_parts(H100, NVLINK)["network"] == pytest.approx(network / 4)


def test_strong_scaling_cuts_one_batch() -> None:
    works = {size: work(0, of=settings(size)) for size in needed_sizes(12)}
    assert [each.gpus for each in strong_groups(works, 12)] == [1, 2, 4]
    assert [each.slice_work.settings.batch_size for each in strong_groups(works, 12)] == [12, 6, 3]
    assert {each.whole_work.settings.batch_size for each in strong_groups(works, 12)} == {12}


def test_unique_rows_are_counted_in_the_sample() -> None:
    random = np.random.default_rng(3)
    size, sizes = 64, np.array([feature.num_embeddings for feature in FEATURES])
    ranks = (random.random((8 * size, len(FEATURES))) ** 3 * sizes).astype(np.int32)
    works = {
        each: StepWork.from_sample(settings(each), ranks, [0] * len(FEATURES)) for each in (size, 2 * size, 8 * size)
    }
    for each in (2 * size, 8 * size):
        parts = [ranks[index * each : (index + 1) * each] for index in range(min(4, 8 * size // each))]
        unique = np.mean([sum(len(np.unique(column)) for column in part.T) for part in parts])
        assert works[each].widths[0].unique_rows == unique
    assert works[8 * size].widths[0].unique_rows < 7 * works[size].widths[0].unique_rows


@pytest.mark.parametrize(
    ("name", "rate"),
    [("NVIDIA H200", 350e9), ("NVIDIA H100 80GB HBM3", 350e9), ("A100 80 GB", 300e9 * 350 / 450),
     ("NVIDIA H100 PCIe", None), ("GeForce RTX 4090 24 GB", None)],
)  # fmt: skip
def test_which_cards_have_a_wire(name: str, rate: float | None) -> None:
    found = wire_constants(replace(H100, name=name))
    expected = WireConstants(wire_rate=rate or H100.bus_rate, is_nvlink=rate is not None)
    assert found == replace(expected, wire_rate=found.wire_rate)
    assert found.wire_rate == pytest.approx(expected.wire_rate)
