"""On a GPU: every model's forward and backward go into a CUDA graph, which then follows its inputs."""

from __future__ import annotations

import pytest
import torch

from fae.embedding.features import FeatureEmbeddings

from model_cases import CASES, HISTORY, make_batch

LENGTHS = [6, 5, 2, 1, 6, 3, 4, 6]


@pytest.mark.parametrize("name", CASES)
def test_replays_in_a_cuda_graph(name):
    case = CASES[name]
    model = case.build().cuda()
    batch, other = (
        make_batch(case, lengths, seed=seed, device="cuda") for seed, lengths in ((0, LENGTHS), (1, LENGTHS[::-1]))
    )
    sequences = [f.name for f in HISTORY if f.pooling == "none"] if case.features == HISTORY else []
    lengths = {name: batch.embeddings.lengths(name).clone() for name in sequences}
    features = FeatureEmbeddings(batch.views, batch.buffers, lengths)

    def step() -> torch.Tensor:
        for tensor in (*batch.buffers, *model.parameters()):
            if tensor.grad is not None:
                tensor.grad.zero_()
        logits = model(batch.dense, features)
        logits.sum().backward()
        return logits

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step()
    with torch.no_grad():
        for tensor, source in zip([batch.dense, *batch.buffers], [other.dense, *other.buffers], strict=True):
            tensor.copy_(source)
        for sequence in sequences:
            lengths[sequence].copy_(other.embeddings.lengths(sequence))
    graph.replay()
    expected = model(other.dense, other.embeddings)
    torch.testing.assert_close(logits, expected)
    expected.sum().backward()
    for buffer, from_eager in zip(batch.buffers, other.buffers, strict=True):
        torch.testing.assert_close(buffer.grad, from_eager.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_cpu(name):
    case = CASES[name]
    model = case.build()
    batch, on_gpu = make_batch(case, LENGTHS), make_batch(case, LENGTHS, device="cuda")
    expected = model(batch.dense, batch.embeddings)
    torch.testing.assert_close(model.cuda()(on_gpu.dense, on_gpu.embeddings).cpu(), expected, rtol=1e-4, atol=1e-5)
