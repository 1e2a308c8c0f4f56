"""Plain PyTorch over plain dicts: what a recipe of one day, or of a day that continues another, must come to."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from fae.artifacts.columnar_log import ColumnarLog
from fae.ingest.config import LogConfig
from fae.models.registry import build_model
from fae.run.folder import RunFolder
from fae.run.recipe import Recipe
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer
from fae.training.plain import PlainEmbeddings, PlainRowUpdate
from fae.training.schedule import Schedule
from ingest_reference import check_ids, reference

LOSS_TOLERANCE = 2e-3
STRICT_ROWS = {"rtol": 1e-3, "atol": 2e-4}


def compare_log(
    log: ColumnarLog, config: LogConfig, rows: list[dict[str, Any]], before: Reference | None
) -> tuple[str, dict[str, Any]]:
    """What differs between the log and the reference's, empty if nothing; and the reference's."""
    expected = reference(config, rows, len(rows), before.log if before else None)
    expected["dense"] = np.array(
        [[_transformed(row[name], config.dense_transform) for name in config.dense_columns()] for row in rows]
    ).reshape(len(rows), -1)
    expected["labels"] = np.array([row["y"] for row in rows])
    try:
        check_ids(log, expected)
        np.testing.assert_array_equal(log.labels, expected["labels"])
        np.testing.assert_allclose(log.dense, expected["dense"], rtol=1e-6, atol=1e-7)
        assert {name: list(log.split(name)) for name in expected["splits"]} == expected["splits"], "splits"
    except AssertionError as error:
        return " ".join(str(error).split())[:300] or "an assertion", expected
    return "", expected


def _transformed(value: float | None, transform: str) -> float:
    value = value or 0.0
    if transform == "none":
        return value
    return math.copysign(math.log1p(abs(value)), value) if transform == "signed_log1p" else math.log1p(max(value, 0.0))


class Reference:
    """Trains what the recipe trains, on the batches that the schedule names.

    Parameters
    ----------
    log
        The reference's ids, dense values and labels.
    before
        The reference of the day before, whose training this one continues.
    """

    def __init__(self, recipe: Recipe, run: RunFolder, log: dict[str, Any], before: Reference | None) -> None:
        self.recipe, self.run, self.log = recipe, run, log
        features, config = run.open_log().features, recipe.train
        dims = recipe.model.dims([feature.name for feature in features])
        self.ids = torch.from_numpy(np.concatenate([np.array(table["ids"]) for table in log["tables"]], axis=1)).long()
        self.dense = torch.from_numpy(log["dense"].astype(np.float32))
        self.labels = torch.from_numpy(log["labels"].astype(np.float32))
        self.tables = PlainEmbeddings(features, dims, seed=config.seed)
        self.model = build_model(recipe.model, features, self.dense.shape[1], seed=config.seed)
        self.dense_optimizer = make_dense_optimizer(config.optimizer, self.model, config.dense_rate)
        self.update = PlainRowUpdate(
            self.tables, RowOptimizer(name=config.optimizer, learning_rate=config.learning_rate)
        )
        if before is not None:
            self._continue(before)

    def _continue(self, before: Reference) -> None:
        self.model.load_state_dict(before.model.state_dict())
        state = before.dense_optimizer.state_dict()
        # The weights continue; the rates are those of this day.
        state["param_groups"] = self.dense_optimizer.state_dict()["param_groups"]
        self.dense_optimizer.load_state_dict(state)
        parameters = list(self.tables.parameters())
        for index, (old, new) in enumerate(zip(before.tables.parameters(), parameters, strict=True)):
            was, now = before.log["tables"][index]["unknown"], self.log["tables"][index]["unknown"]
            places = torch.arange(len(old))
            places[was] = now
            with torch.no_grad():
                new[places] = old
            self._continue_state(before, index, old, new, places)

    def _continue_state(
        self, before: Reference, index: int, old: nn.Parameter, new: nn.Parameter, places: torch.Tensor
    ) -> None:
        ours, theirs = self.update.optimizer, before.update.optimizer
        if not isinstance(ours, torch.optim.Optimizer):
            ours.states[index][places] = theirs.states[index]  # type: ignore[union-attr]
            return
        assert isinstance(theirs, torch.optim.Optimizer)
        if old not in theirs.state:
            return
        for name, value in theirs.state[old].items():
            if torch.is_tensor(value) and value.shape == old.shape:
                grown = torch.zeros_like(new)
                grown[places] = value
                ours.state[new][name] = grown
            else:
                ours.state[new][name] = value.clone() if torch.is_tensor(value) else value

    def _state(self) -> dict[str, Any]:
        rows = self.update.optimizer
        return {
            "tables": self.tables.state_dict(), "model": self.model.state_dict(),
            "dense": self.dense_optimizer.state_dict(),
            "rows": rows.state_dict() if isinstance(rows, torch.optim.Optimizer) else rows.states,
        }  # fmt: skip

    def _restore(self, state: dict[str, Any]) -> None:
        """A later day continues from the best epoch, whose optimizer states belong to it."""
        self.tables.load_state_dict(state["tables"])
        self.model.load_state_dict(state["model"])
        self.dense_optimizer.load_state_dict(state["dense"])
        if isinstance(self.update.optimizer, torch.optim.Optimizer):
            self.update.optimizer.load_state_dict(state["rows"])
        else:
            self.update.optimizer.states = state["rows"]

    def _step(self, inputs: torch.Tensor) -> None:
        self.dense_optimizer.zero_grad()
        logits = self.model(self.dense[inputs], self.tables(self.ids[inputs]))
        nn.functional.binary_cross_entropy_with_logits(logits, self.labels[inputs]).backward()  # type: ignore[no-untyped-call]
        self.update.step()
        self.dense_optimizer.step()

    def _loss(self, split: str) -> float | None:
        start, stop = self.log["splits"][split]
        if start == stop:
            return None
        self.model.eval()
        with torch.no_grad():
            logits = self.model(self.dense[start:stop], self.tables(self.ids[start:stop]))
        self.model.train()
        return float(nn.functional.binary_cross_entropy_with_logits(logits.double(), self.labels[start:stop].double()))

    def compare(self, record: dict[str, Any]) -> str:
        """Train; return what differs from the run's record and checkpoint, empty if nothing."""
        packed, config = self.run.open_packed(), self.recipe.train
        batches = [inputs[inputs >= 0] for inputs in packed.train.inputs]
        start, stop = self.log["splits"]["train"]
        if not np.array_equal(np.sort(np.concatenate(batches)), np.arange(start, stop)):
            return "the batches of an epoch do not hold every training input once"
        schedule = Schedule(
            config.order, num_hot=packed.train.num_hot_batches,
            num_cold=packed.train.num_batches - packed.train.num_hot_batches, epochs=config.epochs, seed=config.seed,
            rate=config.adaptive_rate, tail=config.adaptive_tail,
        )  # fmt: skip
        curve = record["train"]["validation_curve"]
        seen = iter([point["log_loss"] for point in curve if not point["whole"]])
        whole = [point["log_loss"] for point in curve if point["whole"]]
        best = whole.index(min(whole)) + 1 if config.early_stopping and whole else None
        kept: dict[str, Any] | None = None
        self.model.train()
        while not schedule.done and schedule.epoch < record["train"]["epochs"]:
            segment = schedule.next_segment()
            for number in segment.batches.tolist():
                self._step(torch.from_numpy(batches[number]))
            if segment.wants_loss:
                schedule.observe(next(seen))
            if segment.ends_epoch and schedule.epoch == best:
                kept = copy.deepcopy(self._state())
        if kept is not None:
            self._restore(kept)
        for split in ("test", "validation"):
            ours, theirs = self._loss(split), record[split]["log_loss"]
            if (ours is None) != (theirs is None) or (ours is not None and abs(ours - theirs) > LOSS_TOLERANCE):
                return f"{split} log loss {theirs}, expected {ours}"
        return self._compare_tables()

    def _compare_tables(self) -> str:
        folder = self.run.out / "checkpoint" / "tables"
        for index, parameter in enumerate(self.tables.parameters()):
            found = load_file(folder / f"{index}.safetensors")["weight"]
            if found.shape != parameter.shape:
                return f"table {index} has shape {tuple(found.shape)}, expected {tuple(parameter.shape)}"
            strict = self.recipe.train.optimizer == "sgd"
            # The first step of the others is a whole learning rate, however small the gradient.
            atol = STRICT_ROWS["atol"] if strict else 0.5 * self.recipe.train.learning_rate
            far = ~torch.isclose(found, parameter.detach(), rtol=STRICT_ROWS["rtol"], atol=atol).all(1)
            share, allowed = float(far.float().mean()), 0.0 if strict else 0.1
            if share > allowed:
                worst = float((found - parameter.detach()).abs().max())
                return f"{share:.1%} of the rows of table {index} differ, by up to {worst:.2g}"
        return ""
