"""Raw files through a finished run: ``fae predict`` writes a probability for each input, ``fae evaluate`` metrics.

Ids are those of the run's own vocabulary (`fae.ingest.scored`), rows and weights those its test metrics were computed
with (`fae.run.scoring`). Memory is that of the vocabulary and a few batches, whatever the files' size; `evaluate_files`
also holds a label and a logit of every input, because an exact AUC needs them all.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.checkpoint import read_progress
from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, model_features
from fae.artifacts.manifest import Manifest
from fae.core.errors import LogError, RecipeError, TrainingError
from fae.core.progress import say
from fae.core.units import format_count
from fae.ingest.scored.encoded_inputs import EncodedInputs, regroup
from fae.ingest.scored.known_columns import known_columns
from fae.ingest.scored.raw_inputs import RawInputs
from fae.ingest.scratch import Scratch
from fae.run.context import choose_device
from fae.run.score_file import ScoreFile
from fae.run.scored_run import find_finished
from fae.run.scoring import BATCH_INPUTS, Scorer, unknown_counts
from fae.training.dense_threads import torch_threads
from fae.training.quality.describe import measure_quality, quality_lines
from fae.training.quality.input_columns import InputColumns
from fae.training.quality.metrics import probabilities
from fae.training.quality.single_columns import SingleColumns

_SUSPICIOUS_SHARE = 0.9
"""Share of unknown values of a column from which on it is said: hardly a coincidence."""
_VOCABULARY_BYTES = 2**30


class ScoredFiles:
    """Files and a run, ready to be scored: everything that can be checked early has been."""

    def __init__(
        self, run: str | Path, files: Sequence[str], *, keep: Sequence[str], labelled: bool, device: str | None
    ) -> None:
        found = find_finished(run)
        self.checkpoint: Manifest = found.manifest
        self.log: ColumnarLog = found.log
        self.features: tuple[FeatureSchema, ...] = model_features(found.log.features)
        self._inputs = RawInputs(found.log, files, keep=keep, labelled=labelled)
        self.sources = self._inputs.sources
        self._run, self._device = found, choose_device(device)
        self.num_inputs, self.seconds = 0, 0.0
        tested = read_progress(found.checkpoint)["result"].get("test") or {}
        self.group_by: str | None = (tested.get("group_auc") or {}).get("column")
        self._used = np.zeros(len(self.features), np.int64)
        self._unknown = np.zeros(len(self.features), np.int64)

    def stream(self) -> Generator[tuple[EncodedInputs, npt.NDArray[np.float32]], None, None]:
        """Yield all inputs in order, a batch at a time, and their logits, float32 ``[n]``.

        Raises
        ------
        LogError
            If a file cannot be read as the run's log was, or there are no inputs.
        TrainingError
            If a logit is not a number.
        """
        started = time.perf_counter()
        run = self._run
        scorer = Scorer(run.checkpoint, run.manifest, run.log, device=self._device, command=run.command)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fae-", ignore_cleanup_errors=True))
            scratch = Scratch(Path(folder) / "vocabulary", _VOCABULARY_BYTES)
            stack.enter_context(torch_threads(scorer.threads))
            columns = known_columns(self.log, self._inputs.config, scratch)
            chunks = stack.enter_context(closing(self._inputs.stream(columns)))
            for batch in regroup(chunks, BATCH_INPUTS):
                used, unknown = unknown_counts(batch.ids, self.features)
                self._used += used
                self._unknown += unknown
                logits = scorer.logits(batch.ids, batch.dense)
                if np.isnan(logits).any():
                    row = self.num_inputs + int(np.flatnonzero(np.isnan(logits))[0])
                    raise TrainingError(
                        f"the score of input {row + 1} is not a number: a dense value is far outside those of the "
                        "training, or the run's weights are; look at its [log] dense columns"
                    )
                self.num_inputs += len(logits)
                yield batch, logits
        if not self.num_inputs:
            raise LogError(f"{self._names()} holds no inputs; there is nothing to score")
        self.seconds = time.perf_counter() - started

    def _names(self) -> str:
        return ", ".join(str(source.path) for source in self.sources[:3]) + (", ..." if len(self.sources) > 3 else "")

    def unknown_shares(self) -> dict[str, float | None]:
        """Share of each column's values that have no id of their own; None where it has no values."""
        return {
            feature.name: unknown / used if used else None
            for feature, used, unknown in zip(self.features, self._used.tolist(), self._unknown.tolist(), strict=True)
        }

    def facts(self) -> dict[str, Any]:
        """What predict and evaluate both report."""
        return {
            "num_inputs": self.num_inputs,
            "files": [str(source.path) for source in self.sources],
            "unknown_share": self.unknown_shares(),
            "checkpoint": self.checkpoint.fingerprint,
            "seconds": self.seconds,
        }

    def say_unknown(self, verb: str) -> None:
        """Print the share of unknown values of each column, and a warning where nearly all are."""
        shares = {name: share for name, share in self.unknown_shares().items() if share is not None}
        told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items() if share)
        say(f"{verb}: values without an id of their own: {told or 'none'}")
        for name, share in shares.items():
            if share >= _SUSPICIOUS_SHARE:
                say(
                    f"{verb}: warning: {100 * share:.1f} % of the values of {name!r} are unknown to the run; do the "
                    "files write them differently (case, spaces, 9.0 for 9, leading zeros)?"
                )


def predict(
    run: str | Path,
    files: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    keep: Sequence[str] = (),
    device: str | None = None,
) -> dict[str, Any]:
    """Score raw files with a finished run: the probability of label 1 for each input, in the order of the files.

    Parameters
    ----------
    run
        Folder of the run. Its recipe is not needed.
    files
        Names or globs of raw files in the format of the run's log; labels are not needed.
    out
        A ``.parquet`` or ``.csv`` file to write: the columns of `keep`, then ``score``, float64. None writes none.
    keep
        Columns of the files to copy as they are read; needs `out`.
    device
        Where the model runs: ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.

    Returns
    -------
    dict
        ``num_inputs``, ``mean_score``, ``unknown_share`` (per column: share of values without an id of their own),
        ``files``, ``checkpoint`` (fingerprint), ``seconds``, and ``out``; without `out` ``scores``, float64 ``[n]``.

    Raises
    ------
    FaeError
        If the run is not finished, a file cannot be read, or the result cannot be written. Nothing is left then.
    """
    if isinstance(keep, str):
        raise RecipeError(f"keep = {keep!r} must be a list of names, [{keep!r}]")
    if keep and out is None:
        raise RecipeError(f"keep = {list(keep)!r} needs out, a file to write; without one only scores come back")
    scored = ScoredFiles(run, _texts(files), keep=keep, labelled=False, device=device)
    total, collected = 0.0, []
    written: dict[str, Any]
    if out is None:
        for _, logits in scored.stream():
            collected.append(probabilities(logits))
        scores = np.concatenate(collected)
        total, written = float(scores.sum()), {"scores": scores}
    else:
        path = Path(out)
        _refuse_input(path, scored)
        with ScoreFile(path, keep, scored.checkpoint.fingerprint) as file:
            for batch, logits in scored.stream():
                scores = probabilities(logits)
                file.write(batch.kept, scores)
                total += float(scores.sum())
        written = {"out": str(path)}
    mean = total / scored.num_inputs
    say(
        f"predict: {format_count(scored.num_inputs)} inputs ({format_count(scored.num_inputs / scored.seconds)}/s), "
        f"mean probability {mean:.4f}" + ("" if out is None else f": {out}")
    )
    scored.say_unknown("predict")
    return {**scored.facts(), "mean_score": mean, **written}


def evaluate_files(
    run: str | Path, files: Sequence[str | Path], *, device: str | None = None, group_by: str | None = None
) -> dict[str, Any]:
    """Metrics of a finished run on labelled raw files.

    Parameters
    ----------
    run, files, device
        As in `predict`.
    group_by
        A categorical column within whose values the AUC is measured; None takes that of the run.

    Returns
    -------
    dict
        The keys of ``test`` of the run record, and ``unknown_share``, ``files``, ``checkpoint``, ``seconds``.

    Raises
    ------
    FaeError
        If the run is not finished, a file cannot be read, or the log has no column `group_by`.
    """
    scored = ScoredFiles(run, _texts(files), keep=(), labelled=True, device=device)
    inputs = InputColumns(scored.log.features, scored.group_by if group_by is None else group_by)
    labels, logits, weights = [], [], []
    for batch, values in scored.stream():
        assert batch.labels is not None
        labels.append(batch.labels)
        logits.append(values)
        inputs.add(batch.ids)
        if batch.weights is not None:
            weights.append(batch.weights)
    truth, scores = np.concatenate(labels).astype(np.float32), np.concatenate(logits)
    given = np.concatenate(weights) if weights else None
    quality = measure_quality(truth, scores, given, inputs=inputs, singles=SingleColumns(scored.log))
    result = {**scored.facts(), **quality}
    say(
        f"evaluate: {format_count(quality['num_inputs'])} inputs, AUC {_figure(quality['auc'], 5)}, log loss "
        f"{_figure(quality['log_loss'], 5)}, label rate {_figure(quality['label_rate'], 4)}"
    )
    for line in quality_lines("", result):
        say(f"evaluate: {line}")
    scored.say_unknown("evaluate")
    return result


def _figure(value: float | None, digits: int) -> str:
    return "not defined" if value is None else f"{value:.{digits}f}"


def _texts(files: Sequence[str | Path]) -> list[str]:
    if isinstance(files, (str, Path)):
        raise RecipeError(f"files = {files!r} must be a list of names")
    return [str(name) for name in files]


def _refuse_input(out: Path, scored: ScoredFiles) -> None:
    for source in scored.sources:
        if out.exists() and out.resolve() == source.path.resolve():
            raise RecipeError(f"--out {out} is one of the files to score; choose another name")
