"""The training loop: segments from the schedule, one step function, checkpoints, validation, early stopping.

Everything that decides the next step is in the model, the embeddings, the schedule and `Position`. So a run that was
killed anywhere and is resumed from its checkpoint ends with the same bytes (on a CPU).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fae.artifacts.manifest import Plan
from fae.artifacts.packed import BatchSet, PackedDataset
from fae.checkpoint.more_epochs import BEST, LAST
from fae.core.errors import TrainingError
from fae.core.host_memory import keep_freed_memory
from fae.core.interrupts import Interrupted, is_interrupted, put_off, raise_interrupt
from fae.core.progress import say, task
from fae.core.seeds import derive_seed
from fae.embedding.base import Embeddings
from fae.streaming.ready_batch import ReadyBatch
from fae.training.best_weights import BestWeights
from fae.training.config import TrainConfig
from fae.training.dense import make_dense_optimizer
from fae.training.dense_threads import dense_threads, torch_threads
from fae.training.evaluate import evaluate, validation_sample
from fae.training.kept_states import KeptStates
from fae.training.metrics import Metrics
from fae.training.position import Position
from fae.training.runner import StepRunner
from fae.training.schedule import Schedule, Segment
from fae.training.step import Precision, honoured_precision
from fae.training.step_settings import StepSettings
from fae.training.watching.causes import cause_of_divergence, worse_than_the_rate
from fae.training.watching.loss_windows import LossWindows

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
        Receives the checkpoints (`fae.training.kept_states`), needs a plan; None writes none, and the best weights are
        kept in host memory.
    plan
        Names the run: a checkpoint of the same plan is resumed, one that differs in its epochs alone is continued, one
        of another plan is replaced.

    Raises
    ------
    ValueError
        For a folder without a plan.

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
    ) -> None:
        if folder is not None and plan is None:
            raise ValueError(f"folder = {str(folder)!r} needs a plan, which names the checkpoints; give both, or none")
        self.model, self.embeddings, self.packed, self.config = model, embeddings, packed, config
        self._best: BestWeights | None = None
        train = packed.train
        self.schedule = Schedule(
            config.order,
            num_hot=train.num_hot_batches,
            num_cold=train.num_batches - train.num_hot_batches,
            epochs=config.epochs,
            seed=config.seed,
            rate=config.adaptive_rate,
            tail=config.adaptive_tail,
        )
        on_gpu = embeddings.device.type == "cuda"
        if not on_gpu:
            keep_freed_memory()
        self._precision: Precision = honoured_precision(embeddings.device, config.precision)
        if self._precision != config.precision:
            say(f"train: precision {self._precision}: this CPU has no units for {config.precision} (AMX)")
        self.dense_optimizer = make_dense_optimizer(
            config.optimizer, model, config.dense_rate, flat=on_gpu, bf16=on_gpu and config.precision == "bf16",
            weight_decay=config.weight_decay,
        )  # fmt: skip
        self._kept: KeptStates | None = None
        if folder is not None and plan is not None:
            self._kept = KeptStates(
                Path(folder), plan, model, self.dense_optimizer, embeddings,
                early_stopping=config.early_stopping > 0,
            )  # fmt: skip
        self._runner = StepRunner(
            model, embeddings, self.dense_optimizer, precision=self._precision, capture=config.capture,
            compiled=config.compile,
        )  # fmt: skip
        self._settings = StepSettings(config, embeddings, self.dense_optimizer, train.num_batches)
        self._validation_sample = validation_sample(packed.validation)
        self._position = Position()
        self._windows = LossWindows(self._add_to_curve)
        self._curve_every = 1
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
            If the loss is not finite.
        """
        torch.manual_seed(derive_seed(self.config.seed, "training"))
        self._resume()
        self._settings.begin(self._position)
        if self._position.complete:
            return self._position.result
        if self.embeddings.device.type == "cpu" and not self._position.threads:
            self._position.threads = dense_threads(self.model, self.packed.batch_size, self.config.threads)
        with (
            put_off(),
            torch_threads(self._position.threads),
        ):  # a signal ends a step first, and training with a checkpoint
            try:
                self._train()
                counted = self._position.counted(self.embeddings)
                if self.config.early_stopping and self._position.best_loss is not None:
                    if self._position.epochs_without_gain and not self._position.stopped_early:
                        self._save(LAST)  # more epochs continue from there
                    self._load_best()
                self._position.result = self._result()
            except Interrupted:
                if self._position.batches:
                    self._save("checkpoint")
                raise
            self._position.complete = True
            self._position.count_from(counted, self.embeddings)
            self._save("checkpoint")
            if self._kept is not None:
                self._kept.remove_old_last()
        return self._position.result

    def _train(self) -> None:
        position = self._position
        with task("train", self.packed.train.num_batches * self.config.epochs, "batches") as progress:
            progress.advance(position.batches)
            while not self.schedule.done and not position.stopped_early:
                position.schedule = self.schedule.state()
                # By the number of this epoch, not of all: more epochs continue the curve of fewer.
                self._curve_every = max(1, self.schedule.num_batches * (self.schedule.epoch + 1) // _CURVE_POINTS)
                segment = self.schedule.next_segment()
                before = position.seconds
                self._train_segment(segment, progress.advance)
                position.spend(segment.phase, position.seconds - before)
                validated = len(position.validation)
                try:
                    if segment.wants_loss and len(self._validation_sample):
                        self.schedule.observe(self._validation_loss(whole=False))
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
            every = self.config.checkpoint_batches
            stop = len(segment.batches) if not every else position.in_segment + every - position.batches % every
            with closing(
                self.embeddings.stream(self.packed.train, segment.batches[position.in_segment : stop])
            ) as stream:
                self._train_stream(stream, advance)
            raise_interrupt()
            if position.in_segment < len(segment.batches):
                self._save("checkpoint")

    def _train_stream(self, stream: Iterable[ReadyBatch], advance: Callable[..., None]) -> None:
        position, started = self._position, time.perf_counter()
        first, was_timed = True, False
        for batch in stream:
            self._settings.before_step()
            self._runner(batch)
            position.window_inputs += batch.num_inputs if batch.weights is None else batch.total_weight
            position.in_segment += 1
            position.batches += 1
            position.inputs += batch.num_inputs
            if position.batches % self._curve_every == 0:
                self._close_window()
            now = time.perf_counter()
            position.seconds += now - started
            # The first step of a stream also fills the pipeline; some compile kernels or capture a graph.
            was_timed = not (first or self._runner.setting_up)
            if was_timed:
                position.timed_seconds += now - started
                position.timed_inputs += batch.num_inputs
            else:
                self._position.spend("setting_up", now - started)
            started, first = now, False
            advance(1, note=f"loss {position.curve[-1][1]:.4f}" if position.curve else "")
            minutes = self.config.checkpoint_minutes
            if is_interrupted() or (minutes and time.monotonic() - self._last_saved > 60 * minutes):
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

    def _require_finite(self, loss: float, batches: int) -> None:
        if not math.isfinite(loss):
            rates = f"learning_rate ({self.config.learning_rate}) or dense_learning_rate ({self.config.dense_rate})"
            cause = cause_of_divergence(self.packed) or f"lower [train] {rates}"
            raise TrainingError(f"training diverged: the loss of a batch up to number {batches} is {loss}; {cause}")

    def _evaluate(self, batches: BatchSet, order: npt.NDArray[np.int64] | None = None, *, label: str) -> Metrics:
        return evaluate(self.model, self.embeddings, batches, order, label=label, precision=self._precision)

    def _validation_loss(self, *, whole: bool) -> float:
        order, started = None if whole else self._validation_sample, time.perf_counter()
        metrics = self._evaluate(self.packed.validation, order, label="validate")
        self._position.spend("validation", time.perf_counter() - started)
        self._position.validation.append(
            {"inputs": self._position.inputs, "whole": whole, **dataclasses.asdict(metrics)}
        )
        return float("nan") if metrics.log_loss is None else metrics.log_loss

    def _end_epoch(self) -> None:
        position = self._position
        loss = self._validation_loss(whole=True) if self.packed.validation.num_inputs else None
        position.schedule, position.in_segment = self.schedule.state(), 0
        if loss is not None:
            say(f"epoch {self.schedule.epoch}: validation log loss {loss:.5f}")
            if position.best_loss is None or loss < position.best_loss:
                position.best_loss, position.epochs_without_gain = loss, 0
                if self.config.early_stopping and self._kept is not None:
                    self._save(BEST)
                elif self.config.early_stopping:
                    self._best = BestWeights(self.model, self.dense_optimizer, self.embeddings)
            else:
                position.epochs_without_gain += 1
            if self.config.early_stopping and position.epochs_without_gain >= self.config.early_stopping:
                position.stopped_early = True
                say(f"stopped early: no gain in {position.epochs_without_gain} epochs")
        if not self.schedule.done:
            self._save("checkpoint")

    def _save(self, name: str) -> None:
        self._last_saved = time.monotonic()
        if self._kept is None:
            return
        self._take_loss()
        self._kept.save(name, self._position.to_checkpoint(self.embeddings, time.monotonic() - self._started))

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

    def _result(self) -> dict[str, Any]:
        position = self._position
        curve = list(position.curve)  # the open window stays open in the checkpoint: more epochs continue it
        if position.window_inputs:
            curve.append([position.inputs, position.window_loss / position.window_inputs])
        test = self._evaluate(self.packed.test, label="test")
        validation = self._evaluate(self.packed.validation, label="validate")
        for name, metrics in (("validation", validation), ("test", test)):
            line = worse_than_the_rate(name, dataclasses.asdict(metrics), self.packed)
            if line:
                say(f"train: {line}")
        return {
            "train": {
                "samples_per_second": position.inputs_per_second(),
                "seconds": position.seconds,
                "num_inputs": position.inputs,
                "num_batches": position.batches,
                "epochs": self.schedule.epoch,
                "stopped_early": position.stopped_early,
                "loss_curve": curve,
                "validation_curve": position.validation,
                "schedule": self.schedule.trace,
                "precision": self._precision,
                "threads": position.threads,
                "device_bytes": self.embeddings.device_bytes,
                "traffic": position.traffic_since_start(self.embeddings),
                "phase_seconds": position.phases_since_start(self.embeddings),
            },
            "test": dataclasses.asdict(test),
            "validation": dataclasses.asdict(validation),
        }  # fmt: skip
