"""Which inputs train, validate and test: by fractions, or by the published split of a public log.

The training split comes first in the log and is never empty; every split is one range of inputs.

Sources: DLRM's public code cuts Criteo Kaggle's one file into seven equal parts (the first ones one longer) and
evaluates on the last one; for the Terabyte log it evaluates on the last file. The first half of that, rounded up, is
the test split, the rest is the validation split. Avazu's competition was to predict the day after ten days of training:
here the tenth day is the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.config import LogConfig

Splits = dict[str, list[int]]
SPLITS = ("train", "validation", "test")
_KAGGLE_DAYS = 7


class SplitFinder:
    """Finds the splits while the first pass shows it every chunk of the log in order.

    Attributes
    ----------
    state
        What it has seen so far, as JSON values; a new finder continues from it.
    """

    def __init__(self, config: LogConfig, state: dict[str, Any] | None = None) -> None:
        self._config = config
        self.state: dict[str, Any] = state or {"files": [], "day": "", "day_start": 0}

    def start_file(self, role: str) -> None:
        """Begin another file, named by ``[log] train``, ``validation`` or ``test``; the next chunks are from it."""
        self.state["files"].append([role, 0])

    def add(self, chunk: Any) -> None:
        """Take note of the next chunk."""
        if getattr(chunk, "days", None) is not None and self._config.has_published_split():
            self._add_days(chunk)
        if split := getattr(chunk, "split", ""):
            sizes = self.state.setdefault("sizes", {"train": 0, "validation": 0, "test": 0})
            sizes[split] += chunk.num_inputs
        self.state["files"][-1][1] += chunk.num_inputs

    def add_part(self, state: Mapping[str, Any]) -> None:
        """Take note of the next inputs of this file, from the state of a finder that saw them alone."""
        if state["day"] > self.state["day"]:
            self.state.update(day=state["day"], day_start=self.num_inputs + state["day_start"])
        for split, count in state.get("sizes", {}).items():
            self.state.setdefault("sizes", {"train": 0, "validation": 0, "test": 0})[split] += count
        self.state["files"][-1][1] += sum(count for _, count in state["files"])

    @property
    def num_inputs(self) -> int:
        """Number of inputs so far."""
        return sum(count for _, count in self.state["files"])

    @property
    def file_sizes(self) -> list[int]:
        """Inputs of each file so far."""
        return [count for _, count in self.state["files"]]

    @property
    def role_sizes(self) -> list[int]:
        """Inputs of the train, the validation and the test files so far."""
        return [sum(count for role, count in self.state["files"] if role == wanted) for wanted in SPLITS]

    def require_inputs(self) -> None:
        """Raise `LogError` if the log has no inputs."""
        if not self.num_inputs:
            raise LogError("the files of [log] hold no inputs at all; name the files that hold them")

    def _add_days(self, chunk: Any) -> None:
        runs = pc.run_end_encode(chunk.days)
        starts = [0, *np.asarray(runs.run_ends).tolist()]
        if len(runs.values):
            self.state.setdefault("first_day", runs.values[0].as_py())
        for day, start in zip(runs.values.to_pylist(), starts, strict=False):
            if day < self.state["day"]:
                raise LogError(
                    f"{chunk.locate(start)}: day {day} follows {self.state['day']}, and the split by days wants them "
                    "in order; sort the log by hour, or set [log] test_fraction"
                )
            if day > self.state["day"]:
                self.state["day"], self.state["day_start"] = day, self.num_inputs + start

    def splits(self) -> Splits:
        """Ranges ``[start, stop]`` of the splits in log order.

        Raises
        ------
        LogError
            If nothing is left to train on.
        """
        config, files = self._config, self.state["files"]
        total = self.num_inputs
        self.require_inputs()
        if not config.has_published_split() or config.known is None:
            return split_ranges(config, *self.role_sizes)
        published = config.known.split
        if published == "last day":
            return _last_day_split(config, total, self.state["day_start"])
        if published == "users":
            sizes = self.state.get("sizes", {"train": 0, "validation": 0})
            train, validation = sizes["train"], sizes["validation"]
            _require_training(config, total, train)
            return {"train": [0, train], "validation": [train, train + validation], "test": [train + validation, total]}
        last = (
            total // _KAGGLE_DAYS
            if published == "kaggle"
            else next((count for _, count in reversed(files) if count), 0)
        )
        train = total - last
        _require_training(config, total, train)
        middle = train + (last + 1) // 2
        return {"train": [0, train], "validation": [middle, total], "test": [train, middle]}


def _require_training(config: LogConfig, num_inputs: int, num_training: int) -> None:
    if num_training <= 0:
        raise LogError(
            f"the log has {num_inputs} inputs, and none is left for training by the published split of {config.format} "
            "(see docs/guide/ingest.md); add the files that are missing, or set [log] test_fraction"
        )


def _last_day_split(config: LogConfig, num_inputs: int, test_start: int) -> Splits:
    train = test_start - int(test_start * config.effective_validation_fraction() + 0.5)
    _require_training(config, num_inputs, train)
    return {"train": [0, train], "validation": [train, test_start], "test": [test_start, num_inputs]}


def split_ranges(config: LogConfig, num_train: int, num_validation: int, num_test: int) -> Splits:
    """Ranges ``[start, stop]`` of the splits in log order, from the inputs of the train, validation and test files.

    Fractions are of the inputs of train and test files, rounded to the nearest input. Where validation files are named
    and test files are not, the test split is before the validation split.

    Raises
    ------
    LogError
        If nothing is left to train on.
    """
    test_start = num_train
    if not config.test:
        test_start -= int((num_train + num_test) * config.effective_test_fraction() + 0.5)
    train_stop = test_start - int(test_start * config.effective_validation_fraction() + 0.5)
    if train_stop <= 0:
        raise nothing_to_train(config, num_train + num_validation + num_test)
    return joined_ranges(config, train_stop, test_start, num_train, num_validation, num_test)


def joined_ranges(
    config: LogConfig, train_stop: int, test_start: int, num_train: int, num_validation: int, num_test: int
) -> Splits:
    """Ranges of the splits, from where training stops and the test begins among the inputs of the train files."""
    total = num_train + num_validation + num_test
    if not config.validation:
        return {"train": [0, train_stop], "validation": [train_stop, test_start], "test": [test_start, total]}
    files = num_train + num_validation
    test = [files, total] if config.test else [test_start, num_train]
    return {"train": [0, train_stop], "validation": [num_train, files], "test": test}


def nothing_to_train(config: LogConfig, num_inputs: int) -> LogError:
    """The error for fractions, or a column to split by, that leave no input for training."""
    by = f" and split_by = {config.split_by!r}" if config.split_by else ""
    return LogError(
        f"the log has {num_inputs} inputs, and none is left for training after [log] test_fraction = "
        f"{config.effective_test_fraction()} and validation_fraction = {config.effective_validation_fraction()}{by}; "
        f"lower them{' or choose another column or split_seed' if by else ''}"
    )
