"""What a recipe's ``[train]`` table may say. Imports no library."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from fae.core.errors import RecipeError
from fae.core.optimizers import optimizer_facts

_DENSE_SHARE = 0.1
"""Of a model that does not say: the share that kills no units (docs/results.md, "Learning rate of the dense part")."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model is trained.

    Attributes
    ----------
    from_
        ``from`` in a recipe: the run folder (or its checkpoint) whose training this one continues, see
        ``docs/guide/train.md``; None starts anew. It is named in artifacts by its fingerprint, not by this path.
    batch_size
        Inputs of a (global) batch, B.
    optimizer
        Of the rows; the dense weights take plain SGD, Adagrad or Adam beside it.
    learning_rate, dense_learning_rate
        Of the rows; of the dense weights. Where the second is left out it is a share of the first under the two
        Adagrads, whose first steps move *every* dense weight by the whole rate: a tenth for ``dlrm``, half for the
        other models (`fae.models.config.ModelConfig.dense_share`), a tenth for a model of your own. Under ``sgd`` and
        ``adam`` it is the same.
    placement
        ``tiered`` (FAE), ``device`` (every row on the device), ``cpu`` (every row and all arithmetic on the CPU),
        ``hybrid`` (rows and their arithmetic on the CPU, dense part on the device), ``paper`` (FAE as published).
    order
        ``interleaved``: hot and cold batches in proportion; ``adaptive``: the paper's shuffle scheduler;
        ``fixed_rate``: its phases without its adaptation; ``shuffled``: mixed batches of inputs in random order.
    adaptive_rate
        First rate of the adaptive order, the rate of ``fixed_rate``: R(r) of the paper, in per cent (R(50)).
    adaptive_tail
        Share of an epoch that these two orders keep for its end, where hot and cold batches run in proportion; 0 is
        the paper's order.
    precision
        Of the dense part: ``fp32``, or ``bf16`` (products of bfloat16 operands, float32 weights and sums) on a GPU and
        on CPUs with AMX; other CPUs train in ``fp32`` and say so. Rows are float32 either way.
    capture
        On a GPU: whole steps as CUDA graphs. False launches every kernel by itself, which is slower, to find faults.
    compile
        On a GPU: run the dense part through `torch.compile`, which takes half a minute and then spares launches: worth
        it for a model without kernels of ours (TBSM, one of your own) at small batches. A model that has them (DLRM's
        in ``bf16``) is left as it is.
    early_stopping
        Stop after this many epochs without a lower validation loss, keeping the best; 0 trains all epochs.
    checkpoint_minutes, checkpoint_batches
        How often to save inside an epoch; 0 switches either off. The end of every epoch is always saved.
    seed
        Of everything random: sampling, packing, initial weights, order.
    """

    from_: str | None = None
    batch_size: int = 2048
    epochs: int = 1
    optimizer: Literal["sgd", "rowwise_adagrad", "adagrad", "adam"] = "rowwise_adagrad"
    learning_rate: float = 0.02
    dense_learning_rate: float | None = None
    placement: Literal["tiered", "device", "cpu", "hybrid", "paper"] = "tiered"
    order: Literal["interleaved", "adaptive", "fixed_rate", "shuffled"] = "interleaved"
    adaptive_rate: int = 50
    adaptive_tail: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    capture: bool = True
    compile: bool = False
    early_stopping: int = 0
    checkpoint_minutes: float = 10.0
    checkpoint_batches: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.from_ == "":
            raise RecipeError("[train] from is empty; name the run folder to continue, or leave it out")
        positive = {"batch_size": self.batch_size, "epochs": self.epochs, "learning_rate": self.learning_rate}
        if self.dense_learning_rate is not None:
            positive["dense_learning_rate"] = self.dense_learning_rate
        for name, value in positive.items():
            if not value > 0:
                raise RecipeError(f"[train] {name} = {value} must be more than 0")
        counts = {
            "early_stopping": self.early_stopping,
            "checkpoint_minutes": self.checkpoint_minutes,
            "checkpoint_batches": self.checkpoint_batches,
            "seed": self.seed,
        }
        for name, value in counts.items():
            if value < 0:
                raise RecipeError(f"[train] {name} = {value} must be 0 or more")
        if not 1 <= self.adaptive_rate <= 100:
            raise RecipeError(f"[train] adaptive_rate = {self.adaptive_rate} must be from 1 to 100")
        if not 0 <= self.adaptive_tail <= 1:
            raise RecipeError(f"[train] adaptive_tail = {self.adaptive_tail} must be from 0 to 1")
        if self.batch_size > 2**20:
            raise RecipeError(f"[train] batch_size = {self.batch_size} is more than {2**20}")

    @property
    def _is_adagrad(self) -> bool:
        return optimizer_facts(self.optimizer).dense == "adagrad"

    @property
    def dense_rate(self) -> float:
        """Learning rate of the dense weights."""
        if self.dense_learning_rate is not None:
            return self.dense_learning_rate
        return self.learning_rate * (_DENSE_SHARE if self._is_adagrad else 1.0)

    def with_dense_share(self, share: float) -> TrainConfig:
        """The same with `share` of the rows' rate for the dense weights, where that is not given and is no default."""
        given = self.dense_learning_rate is not None
        if given or not self._is_adagrad or share == _DENSE_SHARE:
            return self
        return dataclasses.replace(self, dense_learning_rate=share * self.learning_rate)
