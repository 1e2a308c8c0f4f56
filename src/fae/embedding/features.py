"""What a model receives: the embeddings of a batch's features, by name, as views of one buffer per group.

A view is valid until the next lookup of the same embeddings; the buffers are reused, because fresh ones cost more than
the lookup itself. A view is made when it is read: 26 slices that autograd tracks cost a tenth of the lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.columnar_log import FeatureSchema, first_slots
from fae.core.config import nearest
from fae.core.errors import TrainingError
from fae.core.pooling import POOLING_CODE
from fae.kernels.geometry import GroupGeometry


class UnknownFeatureError(TrainingError, KeyError):
    """A model reads a feature that the log does not have, or the lengths of one that keeps no sequence."""

    def __str__(self) -> str:
        return str(self.args[0])


class FeatureViews:
    """Where each feature is in the groups' output buffers; made once per embeddings.

    Parameters
    ----------
    names
        Feature names in slot order.
    groups
        Feature indices of each group.
    """

    def __init__(
        self, names: Sequence[str], groups: Sequence[Sequence[int]], geometries: Sequence[GroupGeometry]
    ) -> None:
        self.names = tuple(names)
        self._places: dict[str, tuple[int, int, int, int, bool]] = {}
        for group, (members, geometry) in enumerate(zip(groups, geometries, strict=True)):
            for position, feature in enumerate(members):
                is_sequence = bool(geometry.pooling[position] == POOLING_CODE["none"])
                length = int(geometry.length[position]) if is_sequence else 1
                column = int(geometry.column[position])
                self._places[self.names[feature]] = (group, column, length, geometry.embedding_dim, is_sequence)
        one_width = len(geometries) == 1 and geometries[0].width == len(names) * geometries[0].embedding_dim
        self._stacked_dim = geometries[0].embedding_dim if one_width else 0

    def view(self, buffers: Sequence[Tensor], name: str) -> Tensor:
        """One feature, ``[B, D]``, or ``[B, L, D]`` where its sequence is kept; else an `UnknownFeatureError`."""
        if name not in self._places:
            raise UnknownFeatureError(
                f"the model reads embeddings[{name!r}], and there is no such feature; {nearest(str(name), self.names)}"
            )
        group, column, length, dim, is_sequence = self._places[name]
        part = buffers[group][:, column : column + length * dim]
        return part.view(len(part), length, dim) if is_sequence else part

    def stacked(self, buffers: Sequence[Tensor]) -> Tensor | None:
        """All features as one ``[B, F, D]`` without a copy, where they have one width and are side by side."""
        if not self._stacked_dim:
            return None
        return buffers[0].view(len(buffers[0]), len(self.names), self._stacked_dim)


class SequenceLengths:
    """How many slots of each kept sequence are in use, read from the addresses (a row of zeros need not be a pad).

    Parameters
    ----------
    sequences
        ``(feature name, first slot, slots)`` of every kept sequence.
    """

    def __init__(self, sequences: Sequence[tuple[str, int, int]]) -> None:
        self._sequences = tuple(sequences)

    def __len__(self) -> int:
        return len(self._sequences)

    def read(self, addresses: npt.NDArray[np.int32] | Tensor, device: torch.device) -> dict[str, Tensor]:
        """int64 ``[B]`` on `device` per sequence, of a batch's addresses ``[B, S]`` in either memory.

        Addresses that are already on `device` are counted there, and nothing waits.
        """
        lengths = {}
        for name, first, length in self._sequences:
            used = addresses[:, first : first + length] >= 0
            count = used.sum(1) if isinstance(used, Tensor) else torch.from_numpy(np.count_nonzero(used, axis=1))
            lengths[name] = count.to(device)
        return lengths


def sequences_of(features: Sequence[FeatureSchema]) -> SequenceLengths:
    """Lengths of the sequences that these features of a model keep."""
    return SequenceLengths(
        [
            (feature.name, first, feature.length)
            for feature, first in zip(features, first_slots(features), strict=False)
            if feature.pooling == "none"
        ]
    )


class FeatureEmbeddings(Mapping[str, Tensor]):
    """Feature name to tensor: ``[B, D]`` where rows are pooled, ``[B, L, D]`` where the sequence is kept.

    Parameters
    ----------
    views
        Where the features are.
    buffers
        One per group, float32 ``[B, W]``, or a function that reads them when the first feature is used.
    interact
        The fused lookup and dot interaction, where there is one.
    lengths
        Slots in use of kept sequences, int64 ``[B]``, by feature name.

    Attributes
    ----------
    require_valid
        Called before features are read; raises where the memory behind them is another lookup's by now.
    """

    def __init__(
        self,
        views: FeatureViews,
        buffers: Sequence[Tensor] | Callable[[], Sequence[Tensor]],
        lengths: Mapping[str, Tensor] | None = None,
        interact: Callable[[Tensor], Tensor | None] | None = None,
    ) -> None:
        self._views, self._source, self._lengths, self._interact = views, buffers, lengths or {}, interact
        self.require_valid: Callable[[], None] | None = None

    def _buffers(self) -> Sequence[Tensor]:
        if self.require_valid is not None:
            self.require_valid()
        if callable(self._source):
            self._source = self._source()
        return self._source

    def parts(self) -> tuple[FeatureViews, Sequence[Tensor], dict[str, Tensor]]:
        """Views, buffers and lengths, from which another one of the same features can be made."""
        return self._views, self._buffers(), dict(self._lengths)

    def first(self, count: int) -> FeatureEmbeddings:
        """The same features of the first `count` inputs, as views."""
        lengths = {name: each[:count] for name, each in self._lengths.items()}
        return FeatureEmbeddings(self._views, lambda: [buffer[:count] for buffer in self._buffers()], lengths)

    def __getitem__(self, name: str) -> Tensor:
        return self._views.view(self._buffers(), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views.names)

    def __len__(self) -> int:
        return len(self._views.names)

    @property
    def stacked(self) -> Tensor | None:
        """All features as one ``[B, F, D]`` without a copy, or None where they differ in width."""
        return self._views.stacked(self._buffers())

    def dot_interaction(self, dense: Tensor) -> Tensor | None:
        """All features with `dense`, in one kernel: ``[B, D + pairs]``, padded with zeros to a multiple of 8 columns.

        Columns are those of `dense` (bfloat16 ``[B, D]``), then the dot products of all pairs of vectors, `dense`
        first, as `fae.models.layers.DotInteraction` orders them. None where there is no such kernel: then the model
        does the same from the features.
        """
        if self.require_valid is not None:
            self.require_valid()
        return None if self._interact is None else self._interact(dense)

    def lengths(self, name: str) -> Tensor:
        """Slots in use of a kept sequence, int64 ``[B]``: the first ones; the pads after them are rows of zeros."""
        if name not in self._lengths:
            kept = ", ".join(map(repr, self._lengths)) or "no feature"
            raise UnknownFeatureError(
                f'the model reads the lengths of {name!r}, and {kept} keeps its sequence; set pooling = "none" for '
                "that column in [log] categorical"
            )
        return self._lengths[name]
