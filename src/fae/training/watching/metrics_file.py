"""``metrics.jsonl`` in the run folder: the course of a training, a JSON object a line, written while it runs.

It is part of no artifact. Lines are flushed one by one, so that a killed process loses none, and synchronised to the
disk with every checkpoint, from which a resumed training continues: lines behind the checkpoint are removed then, and
points of it that the file has lost are written again, without a time. A file that cannot be written costs its lines and
no more.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from fae.core.progress import say
from fae.core.whole_files import json_values, parse_json, read_plain, write_durably
from fae.training.watching.callbacks import Callback
from fae.training.watching.events import (
    CheckpointSaved,
    EpochEnded,
    TrainingEnded,
    TrainingEvent,
    TrainingStarted,
    Validated,
    WindowClosed,
)

METRICS = "metrics.jsonl"
"""Its name in the run folder."""
_POINTS = ("window", "validation", "epoch")
"""Events that a checkpoint knows as well."""


class MetricsFile(Callback):
    """Writes ``metrics.jsonl``.

    Parameters
    ----------
    folder
        The run folder.
    series
        What names the training without its number of epochs, as in `TrainingStarted`.
    """

    def __init__(self, folder: Path, series: str) -> None:
        self.path, self._series = folder / METRICS, series
        self._file: IO[str] | None = None

    def begin(self, inputs: int, points: Sequence[dict[str, Any]]) -> None:
        """Take the file of this training up to a checkpoint; begin a new one where there is none.

        Parameters
        ----------
        inputs
            Inputs trained up to the checkpoint; 0 begins anew.
        points
            Events that must be there: windows, validations and epochs up to the checkpoint.
        """
        wanted = {_key(point): point for point in points}
        kept = []
        for line in self._read() if inputs else []:
            # A validation that was interrupted is made again; so is a batch behind the checkpoint.
            if line["inputs"] <= inputs and (line.get("event") not in _POINTS or wanted.pop(_key(line), None)):
                kept.append(line)
        lost = [{**point, "time": None} for point in wanted.values()]
        lines = sorted(kept + lost, key=lambda line: line["inputs"])  # stable: those of one place stay in order
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self.path, "".join(map(_line, lines)))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._file = os.fdopen(descriptor, "a", encoding="utf-8")
        except OSError as error:
            self._give_up(error)

    def _read(self) -> list[dict[str, Any]]:
        """The lines that are there, where they are of this training; a line that was cut off is not there."""
        lines = []
        with contextlib.suppress(OSError):
            for text in read_plain(self.path).splitlines():
                with contextlib.suppress(ValueError):
                    line = parse_json(text)
                    if isinstance(line, dict) and isinstance(line.get("inputs"), int):
                        lines.append(line)
        starts = [line for line in lines if line.get("event") == "start"]
        return lines if starts and starts[-1].get("series") == self._series else []

    def _write(self, event: TrainingEvent, *, durable: bool = False) -> None:
        if self._file is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(_line({**event.to_json(), "time": now}))
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        say(f"train: {self.path} cannot be written ({error}); training continues without it")
        self.close()

    def close(self) -> None:
        """As `Callback.close`."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def on_start(self, started: TrainingStarted) -> None:
        """As `Callback.on_start`."""
        self._write(started, durable=True)

    def on_window(self, window: WindowClosed) -> None:
        """As `Callback.on_window`."""
        self._write(window)

    def on_validation(self, validation: Validated) -> None:
        """As `Callback.on_validation`."""
        self._write(validation)

    def on_epoch(self, epoch: EpochEnded) -> None:
        """As `Callback.on_epoch`."""
        self._write(epoch, durable=True)

    def on_checkpoint(self, checkpoint: CheckpointSaved) -> None:
        """As `Callback.on_checkpoint`."""
        self._write(checkpoint, durable=True)

    def on_end(self, ended: TrainingEnded) -> None:
        """As `Callback.on_end`."""
        self._write(ended, durable=True)


def _line(values: dict[str, Any]) -> str:
    return json.dumps(json_values(values), allow_nan=False) + "\n"


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two lines the same point."""
    return line.get("event"), line["inputs"], line.get("whole")
