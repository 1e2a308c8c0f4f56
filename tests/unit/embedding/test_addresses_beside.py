"""Addresses are derived beside the dense layers, and nothing reads them before they are there: the calls to streams."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from fae.streaming.row_store import RowOptimizer

from cases import CPU, history_log, make_embeddings, random_log, wide_log

pytest.importorskip("triton")
from fae.kernels.triton_interaction import InteractionKernels
from fae.kernels.triton_rows import TritonGroupKernels

BESIDE = ["aside waits for main", "derive_addresses"]


@pytest.fixture
def calls(monkeypatch):
    """Names of kernels and of waits, in order, with streams that only say what they are told."""

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            found.append(f"{self.name} waits for {other.name}")

    found: list[str] = []
    main = Stream("main")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    for kind, name in ((TritonGroupKernels, "derive_addresses"), (TritonGroupKernels, "lookup"),
                       (TritonGroupKernels, "carry"), (InteractionKernels, "forward")):  # fmt: skip
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *args, _n=name, _r=real, **kw: found.append(_n) or _r(*args, **kw))
    found.append(Stream("aside"))  # taken by `stream_batches`
    return found


def stream_batches(log, calls, placement="device"):
    """The batches of a log, whose embeddings have a second stream."""
    layout = log.layout(0.3, 2)
    embeddings = make_embeddings(placement, log, layout, RowOptimizer(name="sgd"), device=CPU, engine="triton")
    embeddings._gpu._side_stream = calls.pop()
    for batch in embeddings.stream(log.packed(layout), [0, 1]):
        calls.clear()
        yield embeddings, batch


def test_features_wait_when_they_are_read(calls):
    for embeddings, batch in stream_batches(random_log(1), calls):
        features = embeddings.lookup(batch)
        assert calls == BESIDE
        features["a"].sum().backward()
        assert calls == [*BESIDE, "main waits for aside", "lookup"]
        _ = features["b"]
        embeddings.update(batch)
        assert calls == [*BESIDE, "main waits for aside", "lookup"]


def test_an_interaction_waits_behind_the_dense_layers(calls):
    for embeddings, batch in stream_batches(wide_log(random_log(1)), calls):
        features = embeddings.lookup(batch)
        assert calls == BESIDE
        assert features.dot_interaction(torch.zeros(16, 16)) is None
        assert calls == BESIDE
        features.dot_interaction(torch.zeros(16, 16, dtype=torch.bfloat16))
        assert calls == [*BESIDE, "main waits for aside", "forward"]


def test_lengths_of_kept_sequences_wait_at_once(calls):
    for embeddings, batch in stream_batches(history_log(1), calls):
        embeddings.lookup(batch)
        assert calls == [*BESIDE, "main waits for aside"]


def test_a_model_that_reads_nothing_leaves_no_stream_behind(calls):
    for embeddings, batch in stream_batches(random_log(1), calls, "tiered"):
        embeddings.lookup(batch)
        embeddings.update(batch, without_gradients=True)
        assert calls == [*BESIDE, "main waits for aside", "carry"]


def test_stored_addresses_are_not_derived(calls):
    """Batches for evaluation: their addresses come in the input buffer."""
    import dataclasses

    from fae.artifacts.packed import BatchSet

    from packs import store_addresses

    log = random_log(1)
    layout = log.layout(0.3, 2)
    stored = store_addresses(log.packed(layout)).arrays
    batches = BatchSet(dataclasses.replace(stored, order=None, segments=None), 0)
    embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=CPU, engine="triton")
    embeddings._gpu._side_stream = calls.pop()
    for index, batch in enumerate(embeddings.stream_frozen(batches, range(batches.num_batches))):
        calls.clear()
        assert torch.equal(batch.buffer.views.addresses, torch.from_numpy(stored.addresses[index].copy()))
        _ = embeddings.lookup(batch, requires_grad=False)["a"]
        assert calls == ["lookup"]
