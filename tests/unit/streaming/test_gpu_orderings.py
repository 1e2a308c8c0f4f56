"""What must wait for what on a GPU: the orders that streams and events guarantee, whatever the device does first."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch

import fake_cuda
from fae.streaming.row_store import RowOptimizer, RowStore
from fae.streaming.staging import StagingPipeline
from fae.streaming.transfer import FaultInjection, TierPair

from cases import CPU, adversarial_logs, random_log

OPTIMIZER = RowOptimizer(name="rowwise_adagrad", learning_rate=0.1)


def make_pipeline(monkeypatch, log, layout, depth, *, by_location, fill_with_nan=False):
    driver = fake_cuda.install_fake_cuda(monkeypatch)
    packed, tiers = log.packed(layout), []
    for group, of_group in enumerate(layout.groups):
        rows = packed.most_cold_rows[group]
        bank, host = (
            RowStore.zeros(count, of_group.embedding_dim, OPTIMIZER, CPU)
            for count in (of_group.num_hot_rows + depth * rows, of_group.num_cold_rows)
        )
        tiers.append(TierPair(num_hot_rows=of_group.num_hot_rows, slot_rows=rows, bank=bank, host=host))
    pipeline = StagingPipeline(tiers, depth, CPU, FaultInjection(fill_with_nan=fill_with_nan), by_location=by_location)
    fake_cuda.order.clear()
    return packed, pipeline, driver


def follow(order, transfer, *, by_location, compute, rows, write_back):
    """Check one pass; returns how many batches were computed.

    A stream has done what it did before and what was done when the events that it waited for were recorded.
    """
    up, down, updated = transfer._up.cuda_stream, transfer._down.cuda_stream, set(transfer._updated.tolist())
    done, recorded = {stream: set() for stream in (up, down, compute)}, {}  # of a stream, and of an event
    at, copied = {up: -1, down: -1}, {}  # a wait begins what either does for a position
    forwarded = computed = seen = -1
    for kind, *what in order:
        if kind == "wait":
            stream, event = what
            done[stream] |= recorded.get(event, set())
            if stream in at:
                at[stream] += 1
        elif kind == "record":
            stream, event = what
            if stream == compute and event not in updated:
                forwarded += 1
                done[compute].add(("forwarded", forwarded))
            recorded[event] = set(done[stream])
        elif kind in ("copy", "fill"):
            stream, position = what[0], at[what[0]]
            if stream == up:
                # No batch reads the slot any more: all that may read it are computed, or have copied what they need.
                readers = range(position - 1) if by_location else range(position)
                assert {("computed" if by_location else "forwarded", reader) for reader in readers} <= done[up]
            else:
                assert ("computed", position) in done[down], "copied down before it is updated"
            if kind == "copy":
                copied[stream, position] = copied.get((stream, position), 0) + 1
                done[stream].add((stream, position, copied[stream, position]))
            else:
                assert (stream, position) not in copied, "fill_with_nan in place of what was copied"
        elif kind == "compute":
            (computed,) = what
            ups = copied.get((up, computed), 0)
            assert ups == 3 * rows[computed], "weight, state and places of every group that has rows"
            assert {(up, computed, n + 1) for n in range(ups)} <= done[compute]
            done[compute].add(("computed", computed))
        elif kind == "seen":
            # Once the host has seen rows copied down, they may be scattered, and their slot filled again.
            events, seen = recorded[what[0]], seen + 1
            assert ("computed", seen) in events
            downs = copied.get((down, seen), 0)
            assert downs == (2 * rows[seen] if write_back else 0)
            assert {(down, seen, n + 1) for n in range(downs)} <= events
    assert seen == computed, "drained"
    return computed + 1


@pytest.mark.parametrize("patience", [0, 3])
@pytest.mark.parametrize("by_location", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("name", ["two widths", "nothing but padding in lists", "batches of one input"])
def test_every_command_waits_for_what_it_needs(name, depth, by_location, patience, monkeypatch):
    log = random_log(3, lists=True) if name == "two widths" else adversarial_logs()[name]
    packed, pipeline, driver = make_pipeline(
        monkeypatch, log, log.layout(0.2, 1), depth, by_location=by_location, fill_with_nan=patience > 0
    )
    driver.patience, compute = patience, torch.cuda.current_stream().cuda_stream
    numbers = np.arange(packed.num_batches)
    passes = [(numbers, True, 99), (numbers[::-1], False, 99), (numbers, True, 4), (numbers[3:], True, 99)]
    for batches, write_back, stop_at in passes:  # evaluation in between, and one pass that stops early
        fake_cuda.order.clear()
        cold = [index for index in batches.tolist() if packed.batch(index).has_cold_rows]
        rows = [sum(len(part) > 0 for part in packed.batch(index).cold_rows) for index in cold]
        stream, positions = pipeline.run(packed, batches, write_back=write_back), itertools.count()
        for ready, _ in stream:
            if ready.has_cold_rows:
                position = next(positions)
                fake_cuda.order.append(("compute", position))
                if position == stop_at:
                    break
        stream.close()
        expected = min(len(cold), stop_at + 1)
        assert expected > 3
        found = follow(
            list(fake_cuda.order), pipeline._transfer, by_location=by_location, compute=compute, rows=rows,
            write_back=write_back,
        )  # fmt: skip
        assert found == expected
        streams = {pipeline._transfer._up.cuda_stream, pipeline._transfer._down.cuda_stream}
        assert {*fake_cuda.order[-2:]} == {("synchronize", each) for each in streams}, "the next pass is safe"


def test_rows_arrive_while_the_batch_before_is_computed(monkeypatch):
    """By location; most of the cost of streaming is hidden by this overlap."""
    log = random_log(3)
    packed, pipeline, _ = make_pipeline(monkeypatch, log, log.layout(0.2, 1), 4, by_location=True)
    up, count = pipeline._transfer._up.cuda_stream, int(packed.has_cold_rows.sum())
    assert count == packed.num_batches > 4
    for position, _ in enumerate(pipeline.run(packed, np.arange(count), write_back=True)):
        end = time.monotonic() + 20
        # This batch is not launched yet; the arrival of the next one is.
        while sum(entry[:2] == ("wait", up) for entry in list(fake_cuda.order)) < min(count, position + 2):
            assert time.monotonic() < end
            time.sleep(0.001)
