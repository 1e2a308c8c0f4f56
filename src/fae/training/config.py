"""The recipe's ``[train]`` table: its keys, defaults and limits. Imports no library."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from fae.core.config import check_fields, check_path, to_table, without_defaults
from fae.core.errors import RecipeError
from fae.core.optimizers import optimizer_facts
from fae.distributed.slice_plan import REPRODUCIBLE_SLICES, next_batch_size
from fae.training.rate_schedule import READ_BY, RateSchedule, check_rates

_DENSE_SHARE = 0.1
"""Share for a model that does not name one: no unit dies of it (docs/results/accuracy.md, "Learning rate of the
dense part")."""

_LARGEST_RATE = 1e38
"""Weights are float32, and a larger rate is no number of that kind."""
_MOST_EPOCHS = 10**6

_LATER_KEYS: dict[str, Any] = {
    "compile": False, "threads": 0, "rate_schedule": "constant", "warmup_epochs": 0.0, "final_rate": 0.0,
    "step_epochs": 1.0, "step_factor": 0.1, "patience": 1, "weight_decay": 0.0, "row_weight_decay": 0.0,
    "stop_on": "log_loss", "min_gain": 0.0, "validate_batches": 0, "reproducible": False,
}  # fmt: skip
"""Keys that runs of earlier versions did not have: at these values they are left out of the fingerprint."""

ONLY_ON_CPUS_REPRODUCIBLE = ("hybrid", "paper")
"""Placements that `reproducible` trains on CPUs alone: on a GPU, CPUs compute rows beside it."""

_SHAPES_NOTHING = ("from", "rows_from", "group_by", "checkpoint_minutes", "checkpoint_batches")
"""Keys that no weight depends on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model is trained.

    Attributes
    ----------
    from_
        ``from`` in a recipe: the run folder (or its checkpoint) whose training this one continues, for example on the
        next days of a log. Leave it out to start with new weights. Artifacts name it by its fingerprint, not by this
        path.
    rows_from
        Folder of pretrained rows whose values these rows begin with, such as one of ``fae export``:
        ``vocabulary/<table>.parquet`` and ``tables/<table>.safetensors``. Values that it does not have, and dense
        weights, begin as always. ``fae import`` says what would be taken. Artifacts name it by its content.
    batch_size
        Inputs of a (global) batch, B. Larger batches train more inputs a second; a much larger one may need another
        learning rate and more epochs for the same accuracy.
    epochs
        Passes over the training split.
    optimizer
        Optimizer of the rows: ``sgd`` needs no memory beside a row, ``rowwise_adagrad`` 4 bytes, ``adagrad`` as much as
        the row, ``adam`` twice that, and all of it counts against the budget. The dense weights take plain SGD, Adagrad
        or Adam beside it.
    learning_rate
        Learning rate of the rows. Lower it where the loss is not finite or rises.
    dense_learning_rate
        Learning rate of the dense weights. Left out, it is `learning_rate` under ``sgd`` and ``adam``. Under the two
        Adagrads, whose first steps move every dense weight by the whole rate, it is a share of `learning_rate`: a tenth
        for ``dlrm``, half for the other models (`fae.models.config.ModelConfig.dense_share`), a tenth for one of your
        own.
    rate_schedule
        How both learning rates change over the training: ``constant``, ``linear`` or ``cosine`` (down to `final_rate`
        over all epochs), ``step`` (times `step_factor` after every `step_epochs`), ``plateau`` (times `step_factor`
        where validation no longer gains). ``linear`` and ``cosine`` gain most where the number of epochs is
        known before.
    warmup_epochs
        Epochs, a fraction as well, over which both rates rise from almost 0 before the schedule begins: 0.05 is a
        twentieth of an epoch. Set it where large batches or large rates diverge at the start.
    final_rate
        Share of the rates at the end of ``linear`` and ``cosine``, and their lowest under ``step`` and ``plateau``.
    step_epochs
        Epochs, a fraction as well, between two falls under ``step``.
    step_factor
        What a fall multiplies both rates by, under ``step`` and ``plateau``.
    patience
        Epochs without a gain in validation after which the rates fall, under ``plateau``; `stop_on` and `min_gain` say
        what a gain is. Keep it smaller than `early_stopping`, which otherwise ends the training first.
    weight_decay
        Weight decay of the dense weights: every matrix is multiplied by 1 - rate * weight_decay before a step, under
        every optimizer, as in torch's AdamW; biases are not. Try 0.0001 to 0.1 where validation turns while the
        training loss still falls.
    row_weight_decay
        The same for rows, each time a batch looks one up. Rows that are looked up often shrink most; try less than
        for dense weights.
    placement
        Where rows are: ``tiered`` (FAE: hot rows on the GPU, the rest in host memory), ``device`` (every row on the
        GPU), ``spread`` (hot rows on every GPU, each other row on one of several GPUs, so that they hold larger tables
        together), ``cpu`` (every row and all arithmetic on the CPU), ``hybrid`` (rows and their arithmetic on the CPU,
        dense part on the GPU), ``paper`` (FAE as the paper describes it). It changes speed and memory, not what is
        computed.
    order
        Order of batches: ``shuffled`` (batches that mix hot and cold inputs, in random order, as plain training has
        them), ``interleaved`` (hot and cold batches in proportion; cold rows come in fewer batches, so it is the faster
        one where few host threads stream), ``adaptive`` (the paper's shuffle scheduler), ``fixed_rate`` (its phases at
        one rate).
    adaptive_rate
        Length of a phase in per cent of the hot (cold) batches, the paper's R(r): the first one of ``adaptive``, every
        one of ``fixed_rate``. Lower it for shorter phases and more swaps.
    adaptive_tail
        Share of an epoch that ``adaptive`` and ``fixed_rate`` keep for its end, where hot and cold batches run in
        proportion; 0 is the paper's order. Raise it where an epoch must not end on batches of one kind.
    precision
        Precision of the dense part: ``fp32``, or ``bf16`` (products of bfloat16 operands, float32 weights and sums),
        which is faster on a GPU and on CPUs with AMX; other CPUs train in ``fp32`` and say so. Rows are float32 either
        way.
    capture
        On a GPU, run whole steps as CUDA graphs. Set it to false to launch every kernel by itself, which is slower, to
        look for a fault.
    compile
        On a GPU, run the dense part through `torch.compile`, which takes half a minute and then saves launches. Set it
        to true at small batches for a model without kernels of its own (TBSM, one of yours); a model that has them
        (DLRM in ``bf16``) is left as it is.
    threads
        On a CPU, threads of the dense part, at most 256. With 0 its size decides, 1 to 16, whatever cores there are, so
        that the bytes are the same on every number of cores: sums are rounded where threads cut them. Set it to the
        number of cores where a large dense part has more of them than 16.
    reproducible
        Train to the same bytes on any number of ranks: every batch is computed in 8 slices, one after the other on each
        rank, and sums are taken by slice. `batch_size` must be divisible by 8. Set it to true where runs of 1, 2, 4 and
        8 ranks are compared, or continue one another; it costs time where slices are small. On GPUs it trains
        placements ``device``, ``spread`` and ``tiered``, and the same bytes on GPUs of the same kind.
    early_stopping
        Stop after this many epochs without a gain in validation and keep the best weights; 0 trains all epochs. With
        `validate_batches` it counts validations.
    stop_on
        What a gain is one of: ``log_loss``, or ``auc`` where only the order of inputs matters. The weights that are
        kept are the best by it.
    min_gain
        By how much a validation must be better than the best one to count as a gain, for example 0.0001; the weights
        that are kept are those of the latest gain. Raise it where training creeps on for little.
    validate_batches
        Batches between validations of the whole split inside an epoch; 0 validates at the end of each epoch only. Set
        it where an epoch is long and the best weights may lie inside one.
    group_by
        A categorical column, such as the user: AUC within each of its values is reported beside the AUC over all
        inputs. It changes no weight; named after a training has finished, the run is evaluated again and not trained.
    checkpoint_minutes
        Minutes between checkpoints inside an epoch; 0 switches them off. Lower it where processes are killed often. The
        end of every epoch is always saved.
    checkpoint_batches
        Batches between checkpoints inside an epoch; 0 switches them off. Set it for checkpoints at the same place in
        every run.
    seed
        Seed of everything random: the sample of the profile, the order of inputs, initial weights, order of batches.
        Change it to see how much of a difference is chance.
    """

    from_: str | None = None
    rows_from: str | None = None
    batch_size: int = 2048
    epochs: int = 1
    optimizer: Literal["sgd", "rowwise_adagrad", "adagrad", "adam"] = "rowwise_adagrad"
    learning_rate: float = 0.02
    dense_learning_rate: float | None = None
    rate_schedule: Literal["constant", "linear", "cosine", "step", "plateau"] = "constant"
    warmup_epochs: float = 0.0
    final_rate: float = 0.0
    step_epochs: float = 1.0
    step_factor: float = 0.1
    patience: int = 1
    weight_decay: float = 0.0
    row_weight_decay: float = 0.0
    placement: Literal["tiered", "device", "spread", "cpu", "hybrid", "paper"] = "tiered"
    order: Literal["shuffled", "interleaved", "adaptive", "fixed_rate"] = "shuffled"
    adaptive_rate: int = 50
    adaptive_tail: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    capture: bool = True
    compile: bool = False
    threads: int = 0
    reproducible: bool = False
    early_stopping: int = 0
    stop_on: Literal["log_loss", "auc"] = "log_loss"
    min_gain: float = 0.0
    validate_batches: int = 0
    group_by: str | None = None
    checkpoint_minutes: float = 10.0
    checkpoint_batches: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "[train]")
        if self.from_ == "":
            raise RecipeError("[train] from is empty; name the run folder to continue, or leave it out")
        if self.from_ is not None:
            check_path(self.from_, "[train] from =")
        if self.rows_from is not None:
            check_path(self.rows_from, "[train] rows_from =")
            if not self.rows_from or self.from_ is not None:
                raise RecipeError(
                    f"[train] rows_from = {self.rows_from!r} must name a folder of rows, and a run that continues "
                    "another (from) has rows already; keep one of them"
                )
        positive = {"batch_size": self.batch_size, "epochs": self.epochs, "learning_rate": self.learning_rate}
        if self.dense_learning_rate is not None:
            positive["dense_learning_rate"] = self.dense_learning_rate
        for name, value in positive.items():
            if not value > 0:
                raise RecipeError(f"[train] {name} = {value} must be more than 0")
            if name.endswith("rate") and value > _LARGEST_RATE:
                raise RecipeError(f"[train] {name} = {value} must be at most {_LARGEST_RATE:g}")
        counts = {
            "threads": self.threads,
            "early_stopping": self.early_stopping,
            "min_gain": self.min_gain,
            "validate_batches": self.validate_batches,
            "weight_decay": self.weight_decay,
            "row_weight_decay": self.row_weight_decay,
            "checkpoint_minutes": self.checkpoint_minutes,
            "checkpoint_batches": self.checkpoint_batches,
            "seed": self.seed,
        }
        for name, value in counts.items():
            if value < 0:
                raise RecipeError(f"[train] {name} = {value} must be 0 or more")
        unread = [f'stop_on = "{self.stop_on}"'] * (self.stop_on != "log_loss")
        unread += [f"min_gain = {self.min_gain}"] * (self.min_gain != 0)
        if unread and not self.early_stopping and self.rate_schedule != "plateau":
            raise RecipeError(
                f"[train] {' and '.join(unread)} is read by early_stopping, which is 0; set both, or none"
            )
        if self.group_by == "":
            raise RecipeError("[train] group_by is empty; name a categorical column of the log, or leave it out")
        if self.rate_schedule == "plateau" and 0 < self.early_stopping <= self.patience:
            raise RecipeError(
                f"[train] early_stopping = {self.early_stopping} ends the training before rates fall on a plateau "
                f"(patience = {self.patience}); make early_stopping more than patience"
            )
        if not 1 <= self.adaptive_rate <= 100:
            raise RecipeError(f"[train] adaptive_rate = {self.adaptive_rate} must be from 1 to 100")
        if not 0 <= self.adaptive_tail <= 1:
            raise RecipeError(f"[train] adaptive_tail = {self.adaptive_tail} must be from 0 to 1")
        for name, epochs in (("epochs", self.epochs), ("warmup_epochs", self.warmup_epochs),
                             ("step_epochs", self.step_epochs)):  # fmt: skip
            if epochs > _MOST_EPOCHS:
                raise RecipeError(f"[train] {name} = {epochs} is more than {_MOST_EPOCHS:,}")
        if self.threads > 256:
            raise RecipeError(f"[train] threads = {self.threads} is more than 256")
        if self.batch_size > 2**20:
            raise RecipeError(f"[train] batch_size = {self.batch_size} is more than {2**20}")
        if self.reproducible and self.batch_size % REPRODUCIBLE_SLICES:
            raise RecipeError(
                f"[train] batch_size = {self.batch_size} cannot be cut into the {REPRODUCIBLE_SLICES} equal slices of "
                f"reproducible = true; set train.batch_size={next_batch_size(self.batch_size, REPRODUCIBLE_SLICES)}"
            )
        for name, decay, rate in (
            ("weight_decay", self.weight_decay, self.dense_rate),
            ("row_weight_decay", self.row_weight_decay, self.learning_rate),
        ):
            if decay * rate >= 1:
                raise RecipeError(
                    f"[train] {name} = {decay} times a learning rate of {rate:g} must be less than 1: a step takes "
                    "that share of a weight away"
                )
        check_rates(self.rates(1), given=[key for key in READ_BY if getattr(self, key) != _LATER_KEYS[key]])

    def rates(self, epoch_batches: int) -> RateSchedule:
        """How the learning rates change over epochs of that many batches."""
        return RateSchedule(
            name=self.rate_schedule, epoch_batches=epoch_batches, epochs=self.epochs, warmup_epochs=self.warmup_epochs,
            final_rate=self.final_rate, step_epochs=self.step_epochs, step_factor=self.step_factor,
            patience=self.patience, min_gain=self.min_gain,
        )  # fmt: skip

    def to_parameters(self) -> dict[str, Any]:
        """The table that goes into the fingerprint of a training.

        How often to save and what is reported shape no weight, and a parent is named by its fingerprint.
        """
        table = without_defaults(to_table(self), _LATER_KEYS)
        return {key: value for key, value in table.items() if key not in _SHAPES_NOTHING}

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
        """The same with `share` of the rows' rate for the dense weights, where the recipe sets none."""
        if self.dense_learning_rate is not None or not self._is_adagrad or share == _DENSE_SHARE:
            return self
        return dataclasses.replace(self, dense_learning_rate=share * self.learning_rate)
