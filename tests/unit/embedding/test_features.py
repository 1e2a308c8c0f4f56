"""Features as views of output buffers, one buffer a group."""

from __future__ import annotations

import pytest
import torch

from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.kernels.geometry import group_geometries


def make_views(lengths, poolings, dims):
    geometries = group_geometries(lengths, poolings, dims)
    members = [[i for i, d in enumerate(dims) if d == geometry.embedding_dim] for geometry in geometries]
    names = [f"f{i}" for i in range(len(lengths))]
    buffers = [torch.arange(2.0 * g.width).view(2, g.width).requires_grad_() for g in geometries]
    return FeatureEmbeddings(FeatureViews(names, members, geometries), buffers), buffers


def test_features_are_views_of_their_columns():
    features, (narrow, wide) = make_views([1, 3, 2], ["sum", "mean", "none"], [8, 8, 4])
    assert list(features) == ["f0", "f1", "f2"]
    assert len(features) == 3
    assert torch.equal(features["f0"], wide[:, :8])
    assert torch.equal(features["f1"], wide[:, 8:])
    assert torch.equal(features["f2"], narrow.view(2, 2, 4))
    assert features.stacked is None
    with pytest.raises(KeyError):
        features["f3"]


def test_gradients_reach_the_buffer():
    features, (buffer,) = make_views([1, 1], ["sum", "sum"], [4, 4])
    assert torch.equal(features.stacked[:, 1], features["f1"])
    (features["f1"].sum() + 2 * features.stacked[:, 0].sum()).backward()
    assert torch.equal(buffer.grad, torch.tensor([[2.0] * 4 + [1.0] * 4] * 2))


def test_a_stack_needs_pooled_features():
    features, _ = make_views([1, 2], ["sum", "none"], [4, 4])
    assert features.stacked is None
