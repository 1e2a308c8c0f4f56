"""The training loop: segments from the schedule, one step function, checkpoints, validation, early stopping.

Everything that decides the next step is in the model, the embeddings, the schedule and `Position`. So a run that was
killed anywhere and is resumed from its checkpoint ends with the same bytes (on a CPU). Several ranks run this same
loop; the first alone writes and talks (`fae.training.ranks.decisions`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import Plan
from fae.artifacts.packed import PackedDataset
from fae.checkpoint.more_epochs import BEST, LAST
from fae.core.host_memory import keep_freed_memory
from fae.core.interrupts import Interrupted, is_interrupted, put_off
from fae.core.progress import say, task
from fae.core.seeds import derive_seed
from fae.embedding.base import Embeddings
from fae.streaming.ready_batch import ReadyBatch
from fae.training.config import TrainConfig
from fae.training.dense import make_dense_optimizer
from fae.training.dense_threads import dense_threads, torch_threads
from fae.training.kept_states import KeptStates
from fae.training.own_plan import plan_own_training
from fae.training.position import Position
from fae.training.quality.describe import has_groups
from fae.training.quality.evaluate import evaluate, validation_sample
from fae.training.quality.meter import QualityMeter
from fae.training.ranks.decisions import RankDecisions
from fae.training.ranks.rank_work import RankWork
from fae.training.real_inputs import dense_sent_for
from fae.training.runner import StepRunner
from fae.training.schedule import Schedule, Segment
from fae.training.step import Precision, honoured_precision
from fae.training.step_controls import StepControls
from fae.training.watching.best_weights import BestWeights
from fae.training.watching.callbacks import Callback
from fae.training.watching.causes import cause_of_divergence
from fae.training.watching.loss_windows import LossWindows
from fae.training.watching.result import train_result
from fae.training.watching.stop_rule import StopRule
from fae.training.watching.watch import Watch

_CURVE_POINTS = 200
"""Points of the loss curve in the first epoch; the windows of epoch k are k times as long."""


class Trainer:
    """Trains one model on one packed log.

    Parameters
    ----------
    model
        Any module of ``(dense [B, K], embeddings)`` to logits ``[B]``, on the device of `embeddings`.
    embeddings
        Rows of any placement, initialised.
    folder
        Receives the checkpoints (`fae.training.kept_states`); None writes none, and the best weights are kept in host
        memory.
    plan
        Names the run, by default after the model's class, the configuration and the batches
        (`fae.training.own_plan`): a checkpoint of the same plan is resumed, one that differs in its epochs alone is
        continued, one of another plan is replaced.
    log
        The columnar log that was packed: group AUC, unknown ids and single columns in the result come from it; None
        leaves these out.
    callbacks
        They see the training and may end it (`fae.Callback`).
    on_replace
        Called once, when the first checkpoint is whole and before it takes the place of an earlier one in `folder`:
        what describes that one is no longer true then.

    Raises
    ------
    ArtifactError
        If `folder` has a finished training of something else, and no plan is given.
    RecipeError
        If `log` is another one, or has no column ``group_by``; if several ranks cannot train this model.

    Attributes
    ----------
    schedule
        The order of batches.
    dense_optimizer
        Optimizer of the dense weights.
    """

    def __init__(
        self,
        model: nn.Module,
        embeddings: Embeddings,
        packed: PackedDataset,
        config: TrainConfig,
        *,
        folder: str | Path | None = None,
        plan: Plan | None = None,
        log: ColumnarLog | None = None,
        callbacks: Sequence[Callback] = (),
        on_replace: Callable[[], None] | None = None,
    ) -> None:
        if folder is not None and plan is None:
            plan = plan_own_training(Path(folder), model, embeddings, packed, config)
        self.model, self.embeddings, self.packed, self.config = model, embeddings, packed, config
        group = embeddings.group
        self._ranks = RankDecisions(group)
        self._ranks.require_fit(model, reproducible=config.reproducible)
        self._work = RankWork(embeddings, model)
        self._best: BestWeights | None = None
        train = packed.train
        self.schedule = Schedule(
            config.order, num_hot=train.num_hot_batches, num_cold=train.num_batches - train.num_hot_batches,
            epochs=config.epochs, seed=config.seed, rate=config.adaptive_rate, tail=config.adaptive_tail,
        )  # fmt: skip
        if not (on_gpu := embeddings.device.type == "cuda"):
            keep_freed_memory()
        self._precision: Precision = honoured_precision(embeddings.device, config.precision)
        if self._precision != config.precision:
            say(f"train: precision {self._precision}: this CPU has no units for {config.precision} (AMX)")
        self.dense_optimizer = make_dense_optimizer(
            config.optimizer, model, config.dense_rate, flat=on_gpu, bf16=on_gpu and config.precision == "bf16",
            weight_decay=config.weight_decay, group=group,
        )  # fmt: skip
        self._kept: KeptStates | None = None
        if folder is not None and plan is not None:
            self._kept = KeptStates(
                Path(folder), plan, model, self.dense_optimizer, embeddings,
                early_stopping=config.early_stopping > 0, on_replace=on_replace,
            )  # fmt: skip
        self._controls = StepControls(config, model, embeddings, self.dense_optimizer, train.num_batches)
        if on_gpu and self._controls.seeds_within_steps:
            say("train: kernels are launched one by one, since each slice of a batch draws masks of dropout of its own")
        self._runner = StepRunner(
            model, embeddings, self.dense_optimizer, precision=self._precision,
            capture=config.capture and not self._controls.seeds_within_steps,
            compiled=config.compile, before_slice=self._controls.before_slice,
        )  # fmt: skip
        self._meter, self._stop_rule = QualityMeter(packed, log, config.group_by), StopRule(config)
        self._watch = Watch(
            callbacks if group.is_first else (), config, train.num_batches,
            folder=Path(folder) if folder is not None and group.is_first else None, plan=plan,
            rate_factor=self._controls.factor,
        )  # fmt: skip
        self._validation_sample = validation_sample(packed.validation)
        self._position, self._curve_every = Position(), 1
        self._windows = LossWindows(self._add_to_curve, in_step=on_gpu and group.world > 1)
        self._started = self._last_saved = time.monotonic()

    def __repr__(self) -> str:
        position, config = self._position, self.config
        return (
            f"Trainer({type(self.model).__name__}, {type(self.embeddings).__name__}, order={config.order!r}, "
            f"optimizer={config.optimizer!r}, {position.batches:,} batches trained of "
            f"{self.packed.train.num_batches * config.epochs:,})"
        )

    def fit(self) -> dict[str, Any]:
        """Train to the end, or continue from the checkpoint of `plan`.

        Returns
        -------
        dict
            ``train``, ``validation`` and ``test``, as the run record (``run.json``) has them.

        Raises
        ------
        TrainingError
            If the loss is not finite, or a callback fails.
        """
        torch.manual_seed(derive_seed(self.config.seed, "training"))
        self._resume()
        self._ranks.agree(self.model, self.embeddings, self.packed, self.config, self._position, self._precision)
        self._controls.begin(self._position)
        if self._position.complete and has_groups(self._position.result, self.config.group_by):
            return self._position.result
        if self.embeddings.device.type == "cpu" and not self._position.threads:
            self._position.threads = dense_threads(self.model, self.packed.batch_size, self.config.threads)
        # A signal ends a step first, and training with a checkpoint.
        with (
            put_off(), torch_threads(self._ranks.threads(self._position.threads, self.config)), closing(self._watch),
            dense_sent_for(self.model, self.embeddings, self._precision, self.packed),
        ):  # fmt: skip
            if self._position.complete:
                say(f"train: finished; AUC within {self.config.group_by} is added, of the same weights")
                self._position.result |= self._measure()
                self._save("checkpoint")
                return self._position.result
            self._watch.begin(self._position)
            try:
                self._train()
                counted = self._position.counted(self.embeddings)
                if self.config.early_stopping and self._position.best_loss is not None:
                    if self._position.epochs_without_gain and not self._position.stopped_early:
                        self._save(LAST)  # more epochs continue from there
                    self._load_best()
                measured = self._measure()
                result = train_result(self._position, self.schedule, self.embeddings, self._precision, self._work)
                self._position.result = {"train": result, **measured}
            except Interrupted:
                if self._position.batches:
                    self._save("checkpoint")
                raise
            self._position.complete = True
            self._position.count_from(counted, self.embeddings)
            self._save("checkpoint")
            self._watch.end(self._position.result)
            if self._kept is not None:
                self._kept.remove_old_last()
        return self._position.result

    def _train(self) -> None:
        position = self._position
        with task("train", self.packed.train.num_batches * self.config.epochs, "batches") as progress:
            progress.find(position.batches)
            while not self.schedule.done and not position.stopped_early:
                position.schedule = self.schedule.state()
                # By the number of this epoch, not of all: more epochs continue the curve of fewer.
                self._curve_every = max(1, self.schedule.num_batches * (self.schedule.epoch + 1) // _CURVE_POINTS)
                segment = self.schedule.next_segment()
                before = position.seconds
                self._train_segment(segment, progress.advance)
                position.spend(segment.phase, position.seconds - before)
                if position.stopped_early:
                    break
                validated = len(position.validation)
                try:
                    if segment.wants_loss and len(self._validation_sample):
                        loss = self._validate(whole=False)["log_loss"]
                        self.schedule.observe(math.nan if loss is None else loss)
                    if segment.ends_epoch:
                        self._end_epoch()
                except Interrupted:
                    del position.validation[validated:]  # the resumed run trains no batch of the segment, and validates
                    raise
                position.in_segment = 0

    def _train_segment(self, segment: Segment, advance: Callable[..., None]) -> None:
        position = self._position
        self.model.train()
        while position.in_segment < len(segment.batches):
            if self._stop_rule.is_due(position, self.packed.validation):
                self._judge(self._validate(whole=True, ends_epoch=False))
                self.model.train()
            if self._is_stopped():
                return
            stop = len(segment.batches)
            for every in (self.config.checkpoint_batches, self.config.validate_batches):
                stop = min(stop, position.in_segment + every - position.batches % every) if every else stop
            with closing(
                self.embeddings.stream(self.packed.train, segment.batches[position.in_segment : stop])
            ) as stream:
                self._train_stream(stream, advance)
            self._ranks.group.raise_interrupt(f"batch {position.batches}")
            # Not at a stop that is there for a validation alone.
            every = self.config.checkpoint_batches
            wanted = position.in_segment < stop or (every and position.batches % every == 0)
            if wanted and position.in_segment < len(segment.batches):
                self._save("checkpoint")

    def _is_stopped(self) -> bool:
        """Whether early stopping or a callback has ended the training."""
        position = self._position
        reason = self._ranks.reason_of_first(self._watch.stop_reason, position.batches)
        if reason is not None and not position.stopped_early:
            position.stopped_early, position.stopped_by = True, reason
            say(f"train: stopped by {reason}")
        return position.stopped_early

    def _train_stream(self, stream: Iterable[ReadyBatch], advance: Callable[..., None]) -> None:
        position, started = self._position, time.perf_counter()
        first, was_timed = True, False
        for batch in self._work.counted(stream):
            self._controls.before_step()
            self._runner(batch)
            position.window_inputs += batch.total_inputs if batch.weights is None else batch.total_weight
            position.in_segment += 1
            position.batches += 1
            position.inputs += batch.total_inputs
            if position.batches % self._curve_every == 0:
                self._close_window()
            now = time.perf_counter()
            position.seconds += now - started
            # The first step of a stream also fills the pipeline; some compile kernels or capture a graph.
            was_timed = not (first or self._runner.setting_up)
            if was_timed:
                position.timed_seconds += now - started
                position.timed_inputs += batch.total_inputs
            else:
                self._position.spend("setting_up", now - started)
            started, first = now, False
            advance(1, note=f"loss {position.curve[-1][1]:.4f}" if position.curve else "")
            minutes = self.config.checkpoint_minutes
            overdue = minutes and time.monotonic() - self._last_saved > 60 * minutes
            if self._ranks.wants_pause(bool(overdue or is_interrupted() or self._watch.stop_reason), position.batches):
                break
        self._take_loss()  # waits for the device, so what it still had to do is counted
        position.seconds += time.perf_counter() - started
        if was_timed:
            position.timed_seconds += time.perf_counter() - started

    def _take_loss(self) -> None:
        """Add the loss of the steps since the last window to the open one, all others settled; waits for the device."""
        position = self._position
        self._windows.settle(wait=True)
        loss = self._runner.take_loss()
        self._require_finite(loss, position.batches)
        position.window_loss += loss

    def _close_window(self) -> None:
        position = self._position
        if position.window_inputs:
            self._windows.close(
                position.inputs, position.window_inputs, position.batches, position.window_loss,
                self._runner.mark_loss(),
            )  # fmt: skip
            position.window_loss, position.window_inputs = 0.0, 0

    def _add_to_curve(self, inputs: int, window_inputs: float, batches: int, loss: float) -> None:
        self._require_finite(loss, batches)
        self._position.curve.append([inputs, loss / window_inputs])
        self._position.epoch_loss += loss
        self._position.epoch_weight += window_inputs
        self._watch.window(inputs, batches, loss / window_inputs)

    def _require_finite(self, loss: float, batches: int) -> None:
        if not math.isfinite(loss):
            rates = f"learning_rate ({self.config.learning_rate}) or dense_learning_rate ({self.config.dense_rate})"
            cause = cause_of_divergence(self.packed) or f"lower [train] {rates}"
            raise self._ranks.fault(f"training diverged: the loss of a batch up to number {batches} is {loss}; {cause}")

    def _validate(self, *, whole: bool, ends_epoch: bool = True) -> dict[str, Any]:
        """Metrics of the validation split, or of its fixed sample; kept in the curve."""
        order, started = None if whole else self._validation_sample, time.perf_counter()
        metrics = evaluate(
            self.model, self.embeddings, self.packed.validation, order, label="validate", precision=self._precision
        )
        self._position.spend("validation", time.perf_counter() - started)
        entry = {"inputs": self._position.inputs, "whole": whole, **dataclasses.asdict(metrics)}
        self._position.validation.append(entry if ends_epoch else {**entry, "ends_epoch": False})
        self._watch.validation(entry, ends_epoch=whole and ends_epoch)
        return entry

    def _judge(self, validated: dict[str, Any]) -> None:
        """Keep the weights of the best validation, and end the training after too many that are no better."""
        if self._stop_rule.judge(validated, self._position) and self._stop_rule.on:
            if self._kept is not None:
                self._save(BEST)
            else:
                self._best = BestWeights(self.model, self.dense_optimizer, self.embeddings)
        if self._position.stopped_early:
            say(self._stop_rule.why(self._position))

    def _end_epoch(self) -> None:
        position = self._position
        validated = self._validate(whole=True) if self.packed.validation.num_inputs else None
        position.schedule, position.in_segment = self.schedule.state(), 0
        entry = position.end_epoch(self.schedule.epoch, validated)
        if validated is not None:
            self._judge(validated)
        self._watch.epoch(entry)
        if not self.schedule.done and not self._is_stopped():
            self._save("checkpoint")

    def _measure(self) -> dict[str, Any]:
        """``test`` and ``validation`` of the result."""
        return self._meter.measure_both(self.model, self.embeddings, self.packed, precision=self._precision)

    def _save(self, name: str) -> None:
        self._last_saved = time.monotonic()
        if self._kept is None:
            return
        self._take_loss()
        with self._ranks.checkpoint(self.model, self.embeddings, self._position.batches):
            self._kept.save(name, self._position.to_checkpoint(self.embeddings, time.monotonic() - self._started))
        self._watch.checkpoint(name)

    def _load_best(self) -> None:
        if self._kept is not None:
            self._kept.load_best()
        elif self._best is not None:
            self._best.restore(self.model, self.dense_optimizer, self.embeddings)

    def _resume(self) -> None:
        found = None if self._kept is None else self._kept.resume()
        if found is None:
            return
        self._position = found
        if not found.complete:
            self.schedule.restore(found.schedule)
            say(f"train: continues after batch {found.batches}")
