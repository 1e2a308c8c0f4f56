"""A made-up click log in Criteo's text format, whose best possible AUC is known. Stands in front of ingest.

Invariant: the bytes depend on the configuration alone, and a part of the log is the beginning of the whole.
It draws nothing itself (`fae.data.synthetic_inputs` does) and needs numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.core.errors import ArtifactError, RecipeError
from fae.core.progress import task
from fae.data.synthetic_columns import COLUMNS, COUNTS, MAX_COUNT, MISSING_COUNT, IntArray
from fae.data.synthetic_inputs import CHUNK_INPUTS, SyntheticConfig, SyntheticLog

__all__ = ["SyntheticConfig", "SyntheticLog", "SyntheticSummary", "encode_lines", "write_criteo_tsv"]

_AUC_BINS = 65_536
_COUNT_WIDTH = len(str(MAX_COUNT)) + 1
_COUNT_TEXT = np.concatenate(
    [np.zeros(1, "S5"), np.arange(MISSING_COUNT + 1, MAX_COUNT + 1).astype("S5")],
).view(np.uint8).reshape(-1, _COUNT_WIDTH - 1)  # fmt: skip
_HEX_PAIR = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)
_ID_WIDTH = 9


@dataclass(frozen=True, kw_only=True)
class SyntheticSummary:
    """What was written.

    Attributes
    ----------
    best_auc, best_log_loss
        Of the planted probabilities on this log: no model can do better, but for chance. The AUC is NaN where only
        one label was drawn.
    """

    num_inputs: int
    num_bytes: int
    click_rate: float
    best_auc: float
    best_log_loss: float


def write_criteo_tsv(config: SyntheticConfig, path: Path, *, num_inputs: int | None = None) -> SyntheticSummary:
    """Write the log as tab-separated text: label, 13 counts, 26 ids of 8 hex digits, no header.

    Parameters
    ----------
    path
        Written under a temporary name and renamed when whole.
    num_inputs
        Write only the first so many inputs; None writes all.

    Raises
    ------
    RecipeError
        If `num_inputs` is less than 1 or more than the configuration's.
    ArtifactError
        If the file cannot be written.
    """
    total = config.num_inputs if num_inputs is None else num_inputs
    if not 1 <= total <= config.num_inputs:
        raise RecipeError(f"synthetic num_inputs = {total} must be from 1 to the log's {config.num_inputs}")
    log = SyntheticLog(config)
    histogram = np.zeros((2, _AUC_BINS), np.int64)
    loss, num_bytes = 0.0, 0
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file, task("synthetic log", total) as progress:
            for start in range(0, total, CHUNK_INPUTS):
                chunk = log.chunk(start // CHUNK_INPUTS)
                keep = slice(0, min(CHUNK_INPUTS, total - start))
                labels, probabilities = chunk.labels[keep], chunk.probabilities[keep]
                num_bytes += file.write(encode_lines(labels, chunk.counts[keep], chunk.ids[keep]))
                bins = (probabilities * _AUC_BINS).astype(np.int64)
                for label in (0, 1):
                    histogram[label] += np.bincount(bins[labels == label], minlength=_AUC_BINS)
                loss -= float(np.log(np.where(labels == 1, probabilities, 1.0 - probabilities)).sum())
                progress.advance(len(labels))
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
    finally:
        temporary.unlink(missing_ok=True)
    return SyntheticSummary(
        num_inputs=total,
        num_bytes=num_bytes,
        click_rate=float(histogram[1].sum() / total),
        best_auc=auc_of_histogram(histogram),
        best_log_loss=loss / total,
    )


def auc_of_histogram(histogram: npt.NDArray[np.int64]) -> float:
    """Area under the ROC curve from counts ``[2, bins]`` of negatives and positives by rising score; ties count half.

    >>> auc_of_histogram(np.array([[2, 0], [0, 3]])), auc_of_histogram(np.array([[1, 1], [1, 1]]))
    (1.0, 0.5)
    """
    negatives, positives = histogram.astype(np.float64)
    below = np.cumsum(negatives) - negatives
    pairs = negatives.sum() * positives.sum()
    return float(positives @ (below + 0.5 * negatives) / pairs) if pairs else float("nan")


def scrambled_ids(values: IntArray, column: int) -> npt.NDArray[np.uint32]:
    """uint32 as the log shows them: no order left, and no two values of a column alike (a bijection of 32 bits)."""
    mixed = values.astype(np.uint32) ^ np.uint32((column + 1) * 0x9E3779B1 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))


def encode_lines(labels: npt.NDArray[np.uint8], counts: IntArray, ids: IntArray) -> bytes:
    """Lines of the Criteo format: label, 13 counts, 26 ids of 8 hex digits, tab-separated.

    Parameters
    ----------
    labels
        uint8 ``[n]``, 0 or 1.
    counts
        int64 ``[n, 13]``, `MISSING_COUNT` where there is none.
    ids
        int64 ``[n, 26]``, -1 where there is none.
    """
    # Every field gets its widest room, filled with zero bytes; one pass then drops all zero bytes of the chunk.
    num_lines = len(labels)
    text = np.zeros((num_lines, 2 + len(COUNTS) * _COUNT_WIDTH + len(COLUMNS) * _ID_WIDTH), np.uint8)
    text[:, 0] = labels + ord("0")
    text[:, 1] = ord("\t")
    end_of_counts = 2 + len(COUNTS) * _COUNT_WIDTH
    fields = text[:, 2:end_of_counts].reshape(num_lines, len(COUNTS), _COUNT_WIDTH)
    fields[:, :, :-1] = _COUNT_TEXT[counts - MISSING_COUNT]
    fields[:, :, -1] = ord("\t")
    text[:, 2:end_of_counts] = fields.reshape(num_lines, -1)
    for column in range(len(COLUMNS)):
        place = text[:, end_of_counts + column * _ID_WIDTH :][:, :_ID_WIDTH]
        shown = scrambled_ids(ids[:, column], column).astype(">u4").view(np.uint8).reshape(num_lines, 4)
        place[:, :8] = _HEX_PAIR[shown].reshape(num_lines, 8)
        place[ids[:, column] < 0, :8] = 0
        place[:, 8] = ord("\t")
    text[:, -1] = ord("\n")
    flat = text.ravel()
    return bytes(flat[flat != 0])
