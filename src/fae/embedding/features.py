"""What a model receives: the embeddings of a batch's features, by name, as views of one buffer per group.

Invariant: a view is valid until the next lookup of the same embeddings; the buffers are reused, because fresh ones
cost more than the lookup itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from fae.kernels.geometry import GroupGeometry


class FeatureEmbeddings(Mapping[str, Tensor]):
    """Feature name to tensor: ``[B, D]`` where rows are pooled, ``[B, L, D]`` where the sequence is kept.

    Parameters
    ----------
    names
        Feature names in slot order.
    tensors
        One per feature.
    stacked
        All features as one ``[B, F, D]``, where they have one width, are pooled and lie side by side; else None.
    """

    def __init__(self, names: Sequence[str], tensors: Sequence[Tensor], stacked: Tensor | None = None) -> None:
        self._tensors = dict(zip(names, tensors, strict=True))
        self._stacked = stacked

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def stacked(self) -> Tensor | None:
        """``[B, F, D]`` without a copy, or None."""
        return self._stacked


def split_features(
    names: Sequence[str],
    groups: Sequence[Sequence[int]],
    geometries: Sequence[GroupGeometry],
    buffers: Sequence[Tensor],
) -> FeatureEmbeddings:
    """View the groups' output buffers ``[B, W]`` feature by feature.

    Parameters
    ----------
    groups
        Feature indices of each group.
    """
    tensors: list[Tensor | None] = [None] * len(names)
    for members, geometry, buffer in zip(groups, geometries, buffers, strict=True):
        dim = geometry.embedding_dim
        for position, feature in enumerate(members):
            column, length = int(geometry.column[position]), int(geometry.length[position])
            if geometry.pooling[position] == 2:
                tensors[feature] = buffer[:, column : column + length * dim].view(len(buffer), length, dim)
            else:
                tensors[feature] = buffer[:, column : column + dim]
    stacked = None
    if len(buffers) == 1 and geometries[0].width == len(names) * geometries[0].embedding_dim:
        stacked = buffers[0].view(len(buffers[0]), len(names), geometries[0].embedding_dim)
    return FeatureEmbeddings(names, [tensor for tensor in tensors if tensor is not None], stacked)
