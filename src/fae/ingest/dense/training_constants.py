"""Constants of dense columns from the training split: mean, deviation and the ends of clips, once the splits are known.

The first pass keeps the raw numbers of such columns as float64 beside the rows, in ``work/raw_dense.npy`` of the
unfinished log (NaN where one is missing), and ``dense.npy`` is written anew from them. Constants do not depend on
blocks, threads or kills, and are rounded to 14 digits, so that no order of a sum shows in them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.errors import LogError
from fae.core.npy import NpyRows, NpyWriter
from fae.core.progress import task
from fae.ingest.dense.dense_rules import DenseRule, Numbers
from fae.ingest.resume import IngestProgress
from fae.ingest.splits import Splits

RAW_ROWS = "work/raw_dense"
"""Name of the array of rows: float64 ``[n, U]``, of the U columns whose constants are not known at first."""
_ROWS_AT_ONCE = 1 << 18
_QUANTILE_ROWS = 1_000_000
"""Training inputs whose quantiles are the ends of a clip, evenly spaced; all where there are fewer."""


def complete_dense(rules: Sequence[DenseRule], splits: Splits, progress: IngestProgress) -> list[DenseRule]:
    """Find the constants that are not known, and write ``dense.npy`` with them; return the rules with all constants.

    What was found before a kill is in ``state["dense_constants"]`` of `progress`.

    Raises
    ------
    LogError
        If the numbers of a column leave no finite float32.
    """
    if all(rule.is_known for rule in rules):
        return list(rules)
    if "dense_constants" in progress.state:
        return [DenseRule(**facts) for facts in progress.state["dense_constants"]]
    with NpyRows(progress.folder / f"{RAW_ROWS}.npy") as raw:
        rules = _with_constants(rules, raw, splits["train"][1])
        writer = _write(rules, raw, progress)
    progress.state["dense_constants"] = [dataclasses.asdict(rule) for rule in rules]
    progress.replace_rows({"dense": writer}, dropped=[RAW_ROWS])
    return list(rules)


def _with_constants(rules: Sequence[DenseRule], raw: NpyRows, num_training: int) -> list[DenseRule]:
    unknown = [rule for rule in rules if not rule.is_known]
    if any(rule.quantiles for rule in unknown):
        sample = _evenly_spaced(raw, num_training)
        unknown = [_with_ends(rule, sample[:, index]) for index, rule in enumerate(unknown)]
    with task("ingest: constants of dense columns", 2 * num_training) as bar:
        counts, sums = np.zeros(len(unknown)), np.zeros(len(unknown))
        for block in _clipped_blocks(unknown, raw, num_training):
            counts += np.count_nonzero(~np.isnan(block), axis=0)
            sums += np.nansum(block, axis=0)
            bar.advance(len(block))
        means = sums / np.maximum(counts, 1.0)
        squares = np.zeros(len(unknown))
        for block in _clipped_blocks(unknown, raw, num_training):
            squares += np.nansum((block - means) ** 2, axis=0)
            bar.advance(len(block))
    deviations = np.sqrt(squares / np.maximum(counts, 1.0))
    # Equal values leave what rounding leaves.
    deviations[deviations <= 1e-12 * np.maximum(np.abs(means), 1e-300)] = 1.0
    found = iter(zip(unknown, means.tolist(), deviations.tolist(), strict=True))
    result = []
    for rule in rules:
        if rule.is_known:
            result.append(rule)
            continue
        known, mean, deviation = next(found)
        if known.transform == "standardize":
            known = dataclasses.replace(known, mean=_rounded(mean), deviation=_rounded(deviation))
        result.append(known)
    return result


def _clipped_blocks(rules: Sequence[DenseRule], raw: NpyRows, stop: int) -> Iterator[Numbers]:
    for start in range(0, stop, _ROWS_AT_ONCE):
        rows = raw.read(start, min(start + _ROWS_AT_ONCE, stop))
        yield np.stack([rule.clip(rows[:, index]) for index, rule in enumerate(rules)], axis=1)


def _evenly_spaced(raw: NpyRows, num_training: int) -> Numbers:
    if num_training <= _QUANTILE_ROWS:
        return raw.read(0, num_training)
    places = np.linspace(0, num_training - 1, _QUANTILE_ROWS).round().astype(np.int64)
    parts = []
    for start in range(0, num_training, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, num_training)
        here = places[np.searchsorted(places, start) : np.searchsorted(places, stop)]
        parts.append(raw.read(start, stop)[here - start])
    return np.concatenate(parts)


def _with_ends(rule: DenseRule, values: Numbers) -> DenseRule:
    values = values[~np.isnan(values)]
    if rule.quantiles is None or not len(values):
        return dataclasses.replace(rule, quantiles=None)
    low, high = np.quantile(values, rule.quantiles).tolist()
    return dataclasses.replace(rule, low=_rounded(low), high=_rounded(high), quantiles=None)


def _rounded(value: float) -> float:
    return float(f"{value:.14g}")


def _write(rules: Sequence[DenseRule], raw: NpyRows, progress: IngestProgress) -> NpyWriter:
    """Write ``dense.npy`` anew, beside the old one; return its closed writer."""
    largest = progress.state["dense"]["largest"]
    columns = [index for index, rule in enumerate(rules) if rule.name in progress.state["raw_dense"]]
    with (
        NpyRows(progress.folder / "dense.npy") as old,
        NpyWriter(progress.work / "completed_dense.npy", np.float32, (len(rules),), keeps_checksum=True) as writer,
    ):
        for start in range(0, len(old), _ROWS_AT_ONCE):
            rows = old.read(start, min(start + _ROWS_AT_ONCE, len(old))).copy()
            numbers = raw.read(start, start + len(rows))
            for place, index in enumerate(columns):
                rows[:, index] = _finished(rules[index], numbers[:, place])
                largest[index] = max(largest[index], float(np.abs(rows[:, index]).max(initial=0.0)))
            writer.append(rows)
        writer.sync()
    return writer


def _finished(rule: DenseRule, numbers: Numbers) -> npt.NDArray[np.float32]:
    missing = np.isnan(numbers)
    with np.errstate(over="ignore"):
        found: npt.NDArray[Any] = np.where(missing, 0.0, rule.apply(np.where(missing, 0.0, numbers)))
        result: npt.NDArray[np.float32] = found.astype(np.float32)
    if not np.isfinite(result).all():
        value = numbers[int(np.flatnonzero(~np.isfinite(result))[0])]
        raise LogError(
            f"the dense column {rule.name!r} has the value {value:g}, which is no finite number behind the transform "
            f"(mean {rule.mean}, deviation {rule.deviation}); clip it ([log] dense_clip), or leave it out"
        )
    return result
