"""The training loop: segments from the schedule, one step function, checkpoints, validation, early stopping.

Invariant: everything that decides the next step is in the model, the embeddings, the schedule and `_Position`; a run
killed anywhere and resumed from its checkpoint ends with the same bytes (CPU).
"""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fae.artifacts.manifest import Plan, is_current
from fae.artifacts.packed import BatchSet, PackedDataset
from fae.checkpoint.save_load import load_dense, load_tables, open_checkpoint, read_progress, save_checkpoint
from fae.core.errors import ArtifactError, TrainingError
from fae.core.host_memory import keep_freed_memory
from fae.core.progress import say, task
from fae.core.seeds import derive_seed
from fae.embedding.base import Embeddings
from fae.training.config import TrainConfig
from fae.training.dense import make_dense_optimizer
from fae.training.evaluate import evaluate, validation_sample
from fae.training.loss_windows import LossWindows
from fae.training.metrics import Metrics
from fae.training.runner import StepRunner
from fae.training.schedule import Schedule, Segment
from fae.training.step import Precision, honoured_precision

_CURVE_POINTS = 200


@dataclass
class _Position:
    """Where training stands; plain values only, so that it goes through JSON unchanged."""

    schedule: dict[str, Any] = field(default_factory=dict)
    """Of the schedule *before* the segment in hand was asked for."""
    in_segment: int = 0
    batches: int = 0
    inputs: int = 0
    window_loss: float = 0.0
    window_inputs: int = 0
    curve: list[list[float]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float | None = None
    epochs_without_gain: int = 0
    seconds: float = 0.0
    stage_seconds: float = 0.0
    """Of all that the processes before this one did up to their last checkpoint and, in a checkpoint, up to it."""
    timed_seconds: float = 0.0
    timed_inputs: int = 0
    traffic: dict[str, int] = field(default_factory=dict)
    """What the placement counted before the last resume, and, in a checkpoint, up to it."""
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """Likewise: steps by phase (``cold``, ``hot``, ``mixed``), ``validation``, and what the placement times itself."""
    stopped_early: bool = False
    complete: bool = False
    result: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Trains one model on one packed log.

    Parameters
    ----------
    model
        Any module of ``(dense [B, K], embeddings)`` to logits ``[B]``, on the device of `embeddings`.
    embeddings
        Initialised, of any placement.
    folder
        Where checkpoints go (``checkpoint/`` and, with early stopping, ``best/``); None keeps none.
    plan
        Names the run: a checkpoint of the same plan is resumed, one of another plan is replaced.
    """

    def __init__(
        self,
        model: nn.Module,
        embeddings: Embeddings,
        packed: PackedDataset,
        config: TrainConfig,
        *,
        folder: Path | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.model, self.embeddings, self.packed, self.config = model, embeddings, packed, config
        self._folder, self._plan = folder, plan
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
            config.optimizer, model, config.dense_rate, flat=on_gpu, bf16=on_gpu and config.precision == "bf16"
        )
        self._runner = StepRunner(
            model, embeddings, self.dense_optimizer, precision=self._precision, capture=config.capture,
            compiled=config.compile,
        )  # fmt: skip
        self._validation_sample = validation_sample(packed.validation)
        self._position = _Position()
        self._windows = LossWindows(self._settled)
        self._curve_every = max(1, train.num_batches * config.epochs // _CURVE_POINTS)
        self._started = self._last_saved = time.monotonic()

    def fit(self) -> dict[str, Any]:
        """Train to the end (or resume), and return what `fae.run.record` writes under ``train`` and ``test``."""
        torch.manual_seed(derive_seed(self.config.seed, "training"))
        self._resume()
        if self._position.complete:
            return self._position.result
        total = self.packed.train.num_batches * self.config.epochs
        with task("train", total, "batches") as progress:
            progress.advance(self._position.batches)
            while not self.schedule.done and not self._position.stopped_early:
                self._position.schedule = self.schedule.state()
                segment = self.schedule.next_segment()
                before = self._position.seconds
                self._train_segment(segment, progress.advance)
                self._spent(segment.phase, self._position.seconds - before)
                self._position.in_segment = 0
                if segment.wants_loss and len(self._validation_sample):
                    self.schedule.observe(self._validation_loss(whole=False))
                if segment.ends_epoch:
                    self._end_epoch()
        if self.config.early_stopping and self._position.best_loss is not None and self._folder is not None:
            load_tables(self._folder / "best", self.embeddings)
            load_dense(self._folder / "best", self.model, self.dense_optimizer)  # a later run may continue this one
        self._position.complete = True
        self._position.result = self._result()
        self._save("checkpoint")
        return self._position.result

    def _train_segment(self, segment: Segment, advance: Any) -> None:
        position = self._position
        self.model.train()
        while position.in_segment < len(segment.batches):
            every = self.config.checkpoint_batches
            stop = len(segment.batches) if not every else position.in_segment + every - position.batches % every
            with closing(
                self.embeddings.stream(self.packed.train, segment.batches[position.in_segment : stop])
            ) as stream:
                self._train_stream(stream, advance)
            if position.in_segment < len(segment.batches):
                self._save("checkpoint")

    def _train_stream(self, stream: Any, advance: Any) -> None:
        position, started = self._position, time.perf_counter()
        first, was_timed = True, False
        for batch in stream:
            self._runner(batch)
            position.window_inputs += batch.num_inputs
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
                self._spent("setting_up", now - started)
            started, first = now, False
            advance(1, note=f"loss {position.curve[-1][1]:.4f}" if position.curve else "")
            minutes = self.config.checkpoint_minutes
            if minutes and time.monotonic() - self._last_saved > 60 * minutes:
                break
        self._take_loss()  # waits for the device, so what it still had to do is counted
        position.seconds += time.perf_counter() - started
        if was_timed:
            position.timed_seconds += time.perf_counter() - started

    def _take_loss(self) -> None:
        """Settle every window and add the loss of the steps since the last to the open one; waits for the device."""
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

    def _settled(self, inputs: int, window_inputs: int, batches: int, loss: float) -> None:
        self._require_finite(loss, batches)
        self._position.curve.append([inputs, loss / window_inputs])

    def _require_finite(self, loss: float, batches: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"training diverged: the loss of a batch up to number {batches} is {loss}; lower [train] "
                f"learning_rate ({self.config.learning_rate}) or dense_learning_rate ({self.config.dense_rate})"
            )

    def _evaluate(self, batches: BatchSet, order: npt.NDArray[np.int64] | None = None, *, label: str) -> Metrics:
        return evaluate(self.model, self.embeddings, batches, order, label=label, precision=self._precision)

    def _spent(self, phase: str, seconds: float) -> None:
        spent = self._position.phase_seconds
        spent[phase] = spent.get(phase, 0.0) + seconds

    def _validation_loss(self, *, whole: bool) -> float:
        order, started = None if whole else self._validation_sample, time.perf_counter()
        metrics = self._evaluate(self.packed.validation, order, label="validate")
        self._spent("validation", time.perf_counter() - started)
        self._position.validation.append(
            {"inputs": self._position.inputs, "whole": whole, **dataclasses.asdict(metrics)}
        )
        return float("nan") if metrics.log_loss is None else metrics.log_loss

    def _end_epoch(self) -> None:
        position = self._position
        position.schedule = self.schedule.state()
        if self.packed.validation.num_inputs:
            loss = self._validation_loss(whole=True)
            say(f"epoch {self.schedule.epoch}: validation log loss {loss:.5f}")
            if position.best_loss is None or loss < position.best_loss:
                position.best_loss, position.epochs_without_gain = loss, 0
                if self.config.early_stopping:
                    self._save("best")
            else:
                position.epochs_without_gain += 1
            if self.config.early_stopping and position.epochs_without_gain >= self.config.early_stopping:
                position.stopped_early = True
                say(f"stopped early: no gain in {position.epochs_without_gain} epochs")
        if not self.schedule.done:
            self._save("checkpoint")

    def _save(self, name: str) -> None:
        self._last_saved = time.monotonic()
        if self._folder is None or self._plan is None:
            return
        self._take_loss()
        save_checkpoint(
            self._folder / name,
            self._plan,
            model=self.model,
            dense_optimizer=self.dense_optimizer,
            embeddings=self.embeddings,
            progress={
                **dataclasses.asdict(self._position),
                "traffic": self._traffic(),
                "phase_seconds": self._phase_seconds(),
                "stage_seconds": self._position.stage_seconds + time.monotonic() - self._started,
            },
        )

    def _traffic(self) -> dict[str, int]:
        """Counted by the placement since the run began; exporting rows may itself move some."""
        before = self._position.traffic
        return {name: before.get(name, 0) + count for name, count in self.embeddings.traffic.items()}

    def _phase_seconds(self) -> dict[str, float]:
        """Seconds since the run began. Swaps are part of the phases and of the validations in which they happen."""
        spent = dict(self._position.phase_seconds)
        for name, seconds in self.embeddings.seconds.items():
            spent[name] = spent.get(name, 0.0) + seconds
        return spent

    def _resume(self) -> None:
        if self._folder is None or self._plan is None:
            return
        path = self._folder / "checkpoint"
        if not is_current(path, self._plan):
            return
        load_tables(path, self.embeddings)
        load_dense(path, self.model, self.dense_optimizer)
        self._position = _Position(**read_progress(path))
        if not self._position.complete:
            self.schedule.restore(self._position.schedule)
            if self.config.early_stopping and self._position.best_loss is not None:
                _check_best(path, self._folder / "best", self._plan)
            say(f"train: going on behind batch {self._position.batches}")

    def _result(self) -> dict[str, Any]:
        position = self._position
        self._close_window()
        self._windows.settle(wait=True)
        test = self._evaluate(self.packed.test, label="test")
        validation = self._evaluate(self.packed.validation, label="validate")
        timed = position.timed_seconds > 0
        return {
            "train": {
                "samples_per_second": (
                    position.timed_inputs / position.timed_seconds if timed
                    else position.inputs / position.seconds if position.seconds else None
                ),
                "seconds": position.seconds,
                "num_inputs": position.inputs,
                "num_batches": position.batches,
                "epochs": self.schedule.epoch,
                "stopped_early": position.stopped_early,
                "loss_curve": position.curve,
                "validation_curve": position.validation,
                "schedule": self.schedule.trace,
                "precision": self._precision,
                "device_bytes": self.embeddings.device_bytes,
                "traffic": self._traffic(),
                "phase_seconds": self._phase_seconds(),
            },
            "test": dataclasses.asdict(test),
            "validation": dataclasses.asdict(validation),
        }  # fmt: skip


def _check_best(path: Path, best: Path, plan: Plan) -> None:
    """Find out now, and not when training is through, that the weights to go back to at its end are not there."""
    mend = f"{path} goes on to its end and then back to {best}; delete both and run `{plan.command}`"
    try:
        if is_current(best, plan):
            open_checkpoint(best)
            return
    except ArtifactError as error:
        raise ArtifactError(f"{str(error).split(';')[0]}; {mend}") from error
    raise ArtifactError(f"{best} is not there or of another run; {mend}")
