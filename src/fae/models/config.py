"""The recipe's ``[model]`` table: one class a model, chosen by ``name``. Imports no library.

An option belongs to the models that use it; a recipe that gives it to another one is refused. A new model adds its
class here and to `MODEL_CONFIGS`, one file beside this one, and one entry to `fae.models.registry.MODELS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from fae.core.config import check_fields, from_table, nearest, to_table, without_defaults
from fae.core.errors import RecipeError
from fae.core.printable import brief

Widths = tuple[int, ...]
_WIDEST = 2**20
"""Two layers of this width have 4 TiB of weights between them."""
_MOST_CROSS_LAYERS = 1000
_LATER_KEYS: dict[str, Any] = {"dropout": 0.0}
"""Keys that runs of earlier versions did not have: at these values they are left out of the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every model takes; a recipe makes one of the classes below.

    Attributes
    ----------
    name
        The model: ``dlrm``, ``tbsm``, ``deepfm``, ``dcnv2`` or ``wide_deep``.
    embedding_dim
        Width D of every row, 1 or 4 to 256. Wider rows can express more and take more memory.
    embedding_dims
        Width of single tables by feature name, where it differs from `embedding_dim`. Smaller ones save memory in large
        tables that need less. A table that columns share has the name of the column that the others name.
    dropout
        Share of the hidden units of every MLP that each training step sets to 0 for each input; the others are divided
        by 1 - dropout. Try 0.1 to 0.5 where validation turns while the training loss still falls. Evaluation and
        prediction use all units.
    dense_share
        Learning rate of the dense weights over the rows' under the two Adagrads, where the recipe sets none. A constant
        of the model, not a key of the recipe (docs/results/accuracy.md, "Learning rate of the dense part").
    rounds_dense
        Whether dense features are read by products alone, whose operands bf16 training rounds. No key either.
    """

    dense_share: ClassVar[float] = 0.5
    rounds_dense: ClassVar[bool] = False
    name: str
    embedding_dim: int = 16
    embedding_dims: dict[str, int] = field(default_factory=dict)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "[model]")
        for what, dim in (("embedding_dim", self.embedding_dim), *self.embedding_dims.items()):
            if dim != 1 and not 4 <= dim <= 256:
                raise RecipeError(f"[model] {what} = {dim} must be 1 or from 4 to 256")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"[model] dropout = {self.dropout} must be from 0 to less than 1")
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if not option.name.endswith("_mlp") or all(1 <= width <= _WIDEST for width in value):
                continue
            limit = "1 or more" if any(width < 1 for width in value) else f"at most {_WIDEST:,}"
            raise RecipeError(f"[model] {option.name} = {brief(list(value))} must hold widths of {limit}")

    def to_parameters(self) -> dict[str, Any]:
        """The table that goes into the fingerprint of a training."""
        return without_defaults(to_table(self), _LATER_KEYS)

    def with_parts(self, tables: Mapping[str, str]) -> Self:
        """The same with the width of its table for each column that shares another one's.

        Parameters
        ----------
        tables
            From the name of each column to that of its table.
        """
        dims = {name: self.embedding_dims[table] for name, table in tables.items() if table in self.embedding_dims}
        return dataclasses.replace(self, embedding_dims={**self.embedding_dims, **dims}) if dims else self

    def check(self, vectors: Mapping[str, int]) -> None:
        """Refuse a log that the model cannot take.

        Parameters
        ----------
        vectors
            For each categorical column, how many vectors of it an input has: 1, or the length of a kept sequence.

        Raises
        ------
        RecipeError
            If a kept sequence meets a model of pooled features, or a width is set that the model has no use for.
        """
        for name, length in vectors.items():
            if length > 1:
                raise RecipeError(
                    f"[log] categorical {name}: pooling = none keeps a sequence, and {self.name} takes pooled "
                    "features; set pooling to sum or mean"
                )

    def dims(self, names: list[str]) -> list[int]:
        """Width D of each of these features."""
        return [self.embedding_dims.get(name, self.embedding_dim) for name in names]

    def _refuse_widths(self, names: Mapping[str, int], *allowed: int) -> None:
        for name in names:
            (dim,) = self.dims([name])
            if dim not in allowed:
                raise RecipeError(
                    f"[model] embedding_dims.{name} = {dim} must be {' or '.join(map(str, allowed))} for {self.name}"
                )


@dataclass(frozen=True, kw_only=True)
class DLRMConfig(ModelConfig):
    """DLRM (Naumov et al., 2019), `fae.models.dlrm`.

    Attributes
    ----------
    bottom_mlp
        Hidden widths of the MLP over the dense features; its output has embedding_dim. Widen it where there are many
        dense features.
    top_mlp
        Hidden widths of the MLP over the interactions; its output is the logit. Most of the dense arithmetic is here:
        widen it for accuracy, narrow it for speed.
    """

    rounds_dense: ClassVar[bool] = True
    # A first step of half the rows' rate switches units of the bottom MLP off for good, on every log tried.
    dense_share: ClassVar[float] = 0.1
    name: Literal["dlrm"] = "dlrm"
    bottom_mlp: Widths = (512, 256, 64)
    top_mlp: Widths = (512, 256)


@dataclass(frozen=True, kw_only=True)
class TBSMConfig(ModelConfig):
    """TBSM (Ishkhanov et al., 2020), `fae.models.tbsm`.

    Attributes
    ----------
    bottom_mlp
        Hidden widths of the MLP over a step's place in time and the dense features; its output has embedding_dim. Empty
        is one linear layer.
    top_mlp
        Widths of the MLP over the interactions of one step; the last is the width of a step's vector. Widen it where a
        step has many features.
    inner
        Product of a step h and the candidate w: ``dot`` h w, ``indefinite`` h A w, ``definite`` h A'A w. ``dot`` has no
        weights to learn.
    attention
        How products become coefficients: ``mlp`` (through an MLP with a sigmoid), ``softmax``, ``dot`` (as they are).
    attention_mlp
        Hidden widths of that MLP; read where `attention` is ``mlp``.
    final_mlp
        Hidden widths of the MLP over context and candidate; its output is the logit.
    """

    name: Literal["tbsm"] = "tbsm"
    bottom_mlp: Widths = ()
    top_mlp: Widths = (15, 15)
    inner: Literal["definite", "indefinite", "dot"] = "definite"
    attention: Literal["mlp", "softmax", "dot"] = "mlp"
    attention_mlp: Widths = (15, 15)
    final_mlp: Widths = (60,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.top_mlp:
            raise RecipeError("[model] top_mlp = [] must hold a width: the last is that of a step's vector")

    def check(self, vectors: Mapping[str, int]) -> None:
        """Refuse a log without kept sequences, with sequences of several lengths, or tables of several widths."""
        lengths = {name: length for name, length in vectors.items() if length > 1}
        if not lengths:
            raise RecipeError(
                "[model] name = 'tbsm' needs a sequence: a column with max_length of 2 or more and pooling = \"none\", "
                "history first and the candidate last"
            )
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise RecipeError(f"[log] tbsm walks through all sequences together, so max_length must be one: {told}")
        self._refuse_widths(vectors, self.embedding_dim)


@dataclass(frozen=True, kw_only=True)
class DeepFMConfig(ModelConfig):
    """DeepFM (Guo et al., 2017), `fae.models.deepfm`.

    Attributes
    ----------
    deep_mlp
        Hidden widths of the deep part. Widen it for interactions of more than two features, narrow it for speed.
    """

    name: Literal["deepfm"] = "deepfm"
    deep_mlp: Widths = (400, 400, 400)

    def check(self, vectors: Mapping[str, int]) -> None:
        """Refuse what `ModelConfig.check` does, and widths other than embedding_dim and 1 (a weight alone)."""
        super().check(vectors)
        _need_factors(self)
        self._refuse_widths(vectors, self.embedding_dim, 1)


@dataclass(frozen=True, kw_only=True)
class DCNv2Config(ModelConfig):
    """DCN V2 (Wang et al., 2021), `fae.models.dcnv2`.

    Attributes
    ----------
    cross_layers
        Number of cross layers; each adds one degree to the interactions that the model can express.
    cross_rank
        Rank r of W = U V' in every cross layer; 0 keeps the whole matrix. Set it where many features make the matrices
        the slowest part.
    structure
        ``stacked``: cross layers, then the deep part; ``parallel``: side by side. Neither is always better.
    deep_mlp
        Hidden widths of the deep part; empty leaves the cross layers alone (only ``stacked``).
    """

    name: Literal["dcnv2"] = "dcnv2"
    cross_layers: int = 3
    cross_rank: int = 0
    structure: Literal["stacked", "parallel"] = "stacked"
    deep_mlp: Widths = (512, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cross_layers < 1:
            raise RecipeError(f"[model] cross_layers = {self.cross_layers} must be 1 or more")
        if self.cross_layers > _MOST_CROSS_LAYERS:
            raise RecipeError(f"[model] cross_layers = {self.cross_layers} must be at most {_MOST_CROSS_LAYERS}")
        if self.cross_rank < 0:
            raise RecipeError(f"[model] cross_rank = {self.cross_rank} must be 1 or more, or 0 for whole matrices")
        if self.cross_rank > _WIDEST:
            raise RecipeError(f"[model] cross_rank = {self.cross_rank} must be at most {_WIDEST:,}")
        if self.structure == "parallel" and not self.deep_mlp:
            raise RecipeError("[model] structure = 'parallel' needs deep_mlp; for cross layers alone leave it stacked")


@dataclass(frozen=True, kw_only=True)
class WideDeepConfig(ModelConfig):
    """Wide & Deep (Cheng et al., 2016), `fae.models.wide_deep`.

    Attributes
    ----------
    wide
        Features that have a weight in the wide part; left out, all of them. Name those whose single values decide much.
    deep_mlp
        Hidden widths of the deep part. Widen it for accuracy, narrow it for speed.
    """

    name: Literal["wide_deep"] = "wide_deep"
    wide: tuple[str, ...] = ()
    deep_mlp: Widths = (1024, 512, 256)

    def check(self, vectors: Mapping[str, int]) -> None:
        """Refuse what `ModelConfig.check` does, names in `wide` that are no column, and rows without factors."""
        super().check(vectors)
        for name in self.wide:
            if name not in vectors:
                raise RecipeError(f"[model] wide names {name!r}, no categorical column; {nearest(name, vectors)}")
        _need_factors(self)


def _need_factors(config: ModelConfig) -> None:
    if config.embedding_dim == 1:
        raise RecipeError(f"[model] embedding_dim = 1 leaves nothing beside the weight; {config.name} needs 4 or more")


MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    "dlrm": DLRMConfig,
    "tbsm": TBSMConfig,
    "deepfm": DeepFMConfig,
    "dcnv2": DCNv2Config,
    "wide_deep": WideDeepConfig,
}


def model_config(table: Mapping[str, Any]) -> ModelConfig:
    """The configuration that a recipe's ``[model]`` table gives; without ``name`` it is DLRM's.

    Raises
    ------
    RecipeError
        For a model that is not there, an option of another model, an unknown option or a value of the wrong type.
    """
    name = table.get("name", "dlrm")
    if not isinstance(name, str) or name not in MODEL_CONFIGS:
        raise RecipeError(
            f"[model] name = {name!r} is not one of {', '.join(MODEL_CONFIGS)}; {nearest(str(name), MODEL_CONFIGS)}"
        )
    options = {model: [option.name for option in dataclasses.fields(cls)] for model, cls in MODEL_CONFIGS.items()}
    for key in table:
        owners = [model for model, known in options.items() if key in known]
        if owners and name not in owners:
            raise RecipeError(
                f"[model] {key} is an option of {', '.join(owners)}, and the model is {name}; take it out"
            )
    return from_table(MODEL_CONFIGS[name], table, "[model]")
