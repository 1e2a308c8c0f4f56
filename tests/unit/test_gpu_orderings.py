"""What must wait for what on a GPU: the orders that streams and events guarantee, whatever the device does first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import cuda_stand_in
from fae.embedding.pipeline import StagingPipeline
from fae.embedding.rows import RowOptimizer, RowStore
from fae.embedding.transfer import TierPair

from cases import CPU, adversarial_logs, random_log

OPTIMIZER = RowOptimizer(name="rowwise_adagrad", learning_rate=0.1)


def with_moves(order, transfer, compute):
    """`order` with ``("arrive", p)``, ``("forward", p)`` and ``("depart", p)`` before what each asks of the streams."""
    up, updated = transfer._up.cuda_stream, set(transfer._updated.tolist())
    positions = {what: itertools.count() for what in ("arrive", "forward", "depart")}
    for entry in order:
        what = {("wait", up): "arrive", ("wait", compute): "forward"}.get(entry[:2])
        if entry[:2] == ("record", compute) and entry[2] in updated:
            what = "depart"
        if what:
            yield what, next(positions[what])
        yield entry


def make_pipeline(monkeypatch, log, layout, depth, *, by_location):
    driver = cuda_stand_in.stand_in(monkeypatch)
    packed, tiers = log.packed(layout), []
    for group, of_group in enumerate(layout.groups):
        rows = packed.most_cold_rows[group]
        bank, host = (
            RowStore.zeros(count, of_group.embedding_dim, OPTIMIZER, CPU)
            for count in (of_group.num_hot_rows + depth * rows, of_group.num_cold_rows)
        )
        tiers.append(TierPair(num_hot_rows=of_group.num_hot_rows, slot_rows=rows, bank=bank, host=host))
    pipeline = StagingPipeline(tiers, depth, CPU, by_location=by_location)
    cuda_stand_in.order.clear()
    return packed, pipeline, driver


def follow(order, *, by_location, compute, rows, write_back):
    """Check one pass; returns how many batches were computed.

    A stream has done what it did before and what was done when the events that it waited for were recorded.
    """
    done, recorded = {}, {}  # of a stream, and of an event: sets of ("up", position, n), ("computed", position), ...
    moving, at, computed, seen = None, -1, -1, -1
    copied = {"up": {}, "down": {}}
    for entry in order:
        kind = entry[0]
        if kind in ("arrive", "forward", "depart"):
            moving, at = entry
            if kind == "forward":
                done.setdefault(compute, set())
        elif kind == "wait":
            done.setdefault(entry[1], set()).update(recorded.get(entry[2], ()))
        elif kind == "record":
            if not by_location and moving == "forward" and entry[1] == compute:
                done[compute].add(("forwarded", at))
            recorded[entry[2]] = set(done.setdefault(entry[1], set()))
        elif kind == "copy":
            stream, way = entry[1], "up" if moving == "arrive" else "down"
            before = done.setdefault(stream, set())
            assert stream != compute
            if way == "up":
                # Nobody reads the slot any more: whoever may was computed, or has copied what it needs.
                readers = range(at - 1) if by_location else range(at)
                assert {("computed" if by_location else "forwarded", reader) for reader in readers} <= before
            else:
                assert ("computed", at) in before, "copied down before it is updated"
            copied[way][at] = copied[way].get(at, 0) + 1
            before.add((way, at, copied[way][at]))
        elif kind == "compute":
            assert {("up", entry[1], n + 1) for n in range(copied["up"][entry[1]])} <= done[compute]
            assert copied["up"][entry[1]] == 3 * rows[entry[1]], "weight, state and places of every group that has rows"
            done[compute].add(("computed", entry[1]))
            computed = entry[1]
        elif kind == "seen":
            events = recorded[entry[1]]
            # What the host has seen to depart may be scattered, and its slot filled again.
            seen += 1
            assert ("computed", seen) in events
            downs = copied["down"].get(seen, 0)
            assert downs == (2 * rows[seen] if write_back else 0)
            assert {("down", seen, n + 1) for n in range(downs)} <= events
    assert seen == computed, "drained"
    return computed + 1


@pytest.mark.parametrize("patience", [0, 3])
@pytest.mark.parametrize("by_location", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("name", ["two widths", "nothing but padding in lists", "batches of one input"])
def test_everybody_waits_for_whom_he_must(name, depth, by_location, patience, monkeypatch):
    log = random_log(3, lists=True) if name == "two widths" else adversarial_logs()[name]
    packed, pipeline, driver = make_pipeline(monkeypatch, log, log.layout(0.2, 1), depth, by_location=by_location)
    driver.patience, compute = patience, torch.cuda.current_stream().cuda_stream
    numbers = np.arange(packed.num_batches)
    passes = [(numbers, True, 99), (numbers[::-1], False, 99), (numbers, True, 4), (numbers[3:], True, 99)]
    for batches, write_back, leave in passes:  # pass after pass: evaluation in between, and one that is left early
        cuda_stand_in.order.clear()
        cold = [index for index in batches.tolist() if packed.batch(index).has_cold_rows]
        rows = [sum(len(part) > 0 for part in packed.batch(index).cold_rows) for index in cold]
        stream, positions = pipeline.run(packed, batches, write_back=write_back), itertools.count()
        for ready, _ in stream:
            if ready.has_cold_rows:
                position = next(positions)
                cuda_stand_in.order.append(("compute", position))
                if position == leave:
                    break
        stream.close()
        expected = min(len(cold), leave + 1)
        assert expected > 3
        moves = list(with_moves(cuda_stand_in.order, pipeline._transfer, compute))
        found = follow(moves, by_location=by_location, compute=compute, rows=rows, write_back=write_back)
        assert found == expected
