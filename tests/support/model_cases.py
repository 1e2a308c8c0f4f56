"""Models in every form that the suites run, and batches for them as the embeddings would hand them over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fae.artifacts.columnar_log import FeatureSchema, first_slots
from fae.embedding.features import FeatureEmbeddings, FeatureViews, SequenceLengths
from fae.kernels.geometry import group_geometries
from fae.models.config import DCNv2Config, DeepFMConfig, DLRMConfig, ModelConfig, TBSMConfig, WideDeepConfig
from fae.models.registry import build_model

POOLED = (
    FeatureSchema(name="a", num_embeddings=11),
    FeatureSchema(name="b", num_embeddings=5, length=3, pooling="mean"),
    FeatureSchema(name="c", num_embeddings=40, length=2, pooling="sum"),
    FeatureSchema(name="d", num_embeddings=7, pooling="none"),
)
HISTORY = (
    FeatureSchema(name="user", num_embeddings=11),
    FeatureSchema(name="item", num_embeddings=50, length=6, pooling="none"),
    FeatureSchema(name="site", num_embeddings=4),
    FeatureSchema(name="category", num_embeddings=9, length=6, pooling="none"),
)
DIM = 8


@dataclass(frozen=True)
class Case:
    """One model in one form."""

    config: ModelConfig
    features: tuple[FeatureSchema, ...] = POOLED
    num_dense: int = 3

    def build(self, *, seed: int = 1) -> torch.nn.Module:
        return build_model(self.config, self.features, self.num_dense, seed=seed)


MIXED = {"b": 4, "c": 12}
CASES = {
    "dlrm": Case(DLRMConfig(embedding_dim=DIM, bottom_mlp=(8,), top_mlp=(8,))),
    "dlrm, two widths": Case(DLRMConfig(embedding_dim=DIM, embedding_dims=MIXED, bottom_mlp=(8,), top_mlp=(8,))),
    "dlrm, no dense": Case(DLRMConfig(embedding_dim=DIM, top_mlp=(8,)), num_dense=0),
    "deepfm": Case(DeepFMConfig(embedding_dim=DIM, deep_mlp=(9, 8))),
    "deepfm, a weight alone": Case(DeepFMConfig(embedding_dim=DIM, embedding_dims={"c": 1}, deep_mlp=(8,))),
    "deepfm, no dense": Case(DeepFMConfig(embedding_dim=DIM, deep_mlp=(8,)), num_dense=0),
    "dcnv2": Case(DCNv2Config(embedding_dim=DIM, cross_layers=2, deep_mlp=(9, 8))),
    "dcnv2, low rank": Case(DCNv2Config(embedding_dim=DIM, cross_rank=3, deep_mlp=(8,))),
    "dcnv2, parallel": Case(
        DCNv2Config(embedding_dim=DIM, embedding_dims=MIXED, structure="parallel", cross_rank=5, deep_mlp=(8,))
    ),
    "dcnv2, cross layers alone, no dense": Case(DCNv2Config(embedding_dim=DIM, deep_mlp=()), num_dense=0),
    "wide_deep": Case(WideDeepConfig(embedding_dim=DIM, deep_mlp=(9, 8))),
    "wide_deep, crosses": Case(
        WideDeepConfig(embedding_dim=DIM, embedding_dims={"c": 1, "b": 4}, wide=("c", "a"), deep_mlp=(8,))
    ),
    "wide_deep, no dense": Case(WideDeepConfig(embedding_dim=DIM, deep_mlp=(8,)), num_dense=0),
    **{
        f"tbsm, {inner}, {attention}": Case(
            TBSMConfig(embedding_dim=DIM, inner=inner, attention=attention, attention_mlp=(7,), final_mlp=(9,)),
            HISTORY,
            num_dense=0,
        )
        for inner in ("definite", "indefinite", "dot")
        for attention in ("mlp", "softmax", "dot")
    },
    "tbsm, dense": Case(TBSMConfig(embedding_dim=DIM, bottom_mlp=(5,), top_mlp=(12, 10)), HISTORY, num_dense=2),
}


@dataclass(frozen=True)
class Batch:
    """What a model receives, with the buffers behind it."""

    dense: torch.Tensor
    embeddings: FeatureEmbeddings
    buffers: list[torch.Tensor]
    lengths: np.ndarray
    views: FeatureViews

    def gradients(self) -> FeatureEmbeddings:
        """What has come back to each feature."""
        return FeatureEmbeddings(self.views, [buffer.grad for buffer in self.buffers])

    def rows(self, feature: FeatureSchema, index: int) -> np.ndarray:
        """One input's vector of a feature, or its sequence without pads."""
        rows = self.embeddings[feature.name][index].detach().double().cpu().numpy()
        if feature.pooling != "none":
            return rows
        return rows[: self.lengths[index]] if feature.length > 1 else rows[0]


def make_batch(case: Case, lengths: list[int], *, seed=0, dtype=torch.float32, device="cpu", pads=0.0) -> Batch:
    """A batch of inputs whose kept sequences have these lengths; pads hold `pads` (the embeddings write zeros)."""
    random, size = np.random.default_rng(seed), len(lengths)
    names = [feature.name for feature in case.features]
    dims = case.config.dims(names)
    geometries = group_geometries([f.length for f in case.features], [f.pooling for f in case.features], dims)
    members = [[i for i, d in enumerate(dims) if d == geometry.embedding_dim] for geometry in geometries]
    slots = first_slots(case.features)
    addresses = np.zeros((size, slots[-1]), np.int32)
    for feature, first in zip(case.features, slots, strict=False):
        if feature.pooling == "none":
            addresses[:, first : first + feature.length][np.arange(feature.length) >= np.array(lengths)[:, None]] = -1
    buffers = [torch.from_numpy(random.normal(size=(size, g.width))).to(dtype) for g in geometries]
    views = FeatureViews(names, members, geometries)
    plain = FeatureEmbeddings(views, buffers)
    for feature in case.features:
        if feature.pooling == "none":
            for index, length in enumerate(lengths):
                plain[feature.name][index, length:] = pads
    buffers = [buffer.to(device).requires_grad_() for buffer in buffers]
    sequences = [
        (f.name, first, f.length) for f, first in zip(case.features, slots, strict=False) if f.pooling == "none"
    ]
    read = SequenceLengths(sequences).read(addresses, torch.device(device))
    dense = torch.from_numpy(random.normal(size=(size, case.num_dense))).to(dtype).to(device)
    return Batch(dense, FeatureEmbeddings(views, buffers, read), buffers, np.array(lengths), views)
