"""What a recipe's ``[model]`` table may say. Imports no library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fae.core.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model and its sizes.

    Attributes
    ----------
    name
        ``dlrm`` (Naumov et al., 2019).
    embedding_dim
        D of every table, 1 or 4 to 256.
    embedding_dims
        D of single tables by feature name, where it differs.
    bottom_mlp
        Hidden widths of the MLP over the dense features; its output has embedding_dim.
    top_mlp
        Hidden widths of the MLP over the interactions; its output is the logit.
    """

    name: Literal["dlrm"] = "dlrm"
    embedding_dim: int = 16
    embedding_dims: dict[str, int] = field(default_factory=dict)
    bottom_mlp: tuple[int, ...] = (512, 256, 64)
    top_mlp: tuple[int, ...] = (512, 256)

    def __post_init__(self) -> None:
        for what, dim in (("embedding_dim", self.embedding_dim), *self.embedding_dims.items()):
            if dim != 1 and not 4 <= dim <= 256:
                raise RecipeError(f"[model] {what} = {dim} must be 1 or from 4 to 256")
        for what, widths in (("bottom_mlp", self.bottom_mlp), ("top_mlp", self.top_mlp)):
            if any(width < 1 for width in widths):
                raise RecipeError(f"[model] {what} = {list(widths)} must hold widths of 1 or more")
