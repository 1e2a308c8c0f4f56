"""Write a synthetic click log as text, whose best possible AUC is known; ingest reads it like any log.

Criteo's format (label, counts, ids of 8 hex digits, tab-separated, no header) or CSV with a header line; lists are
separated by ``|``. `log_config` tells how ingest has to read it. The bytes depend on the configuration alone, and a
shorter log is the beginning of a longer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import temporary_path
from fae.core.progress import task
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.synthetic.click_log import ClickTally, SyntheticLog, SyntheticSummary, auc_of_histogram
from fae.synthetic.columns import MAX_COUNT, MISSING_COUNT
from fae.synthetic.config import CRITEO_FORMAT, SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS, ColumnFacts

__all__ = [
    "SyntheticConfig", "SyntheticLog", "SyntheticSummary", "auc_of_histogram", "encode_lines", "log_config",
    "write_criteo_tsv", "write_text",
]  # fmt: skip

_COUNT_WIDTH = len(str(MAX_COUNT)) + 1
_COUNT_TEXT = np.concatenate(
    [np.zeros(1, "S5"), np.arange(MISSING_COUNT + 1, MAX_COUNT + 1).astype("S5")],
).view(np.uint8).reshape(-1, _COUNT_WIDTH - 1)  # fmt: skip
_HEX_PAIR = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)
_ID_WIDTH = 9


def log_config(config: SyntheticConfig, train: str) -> LogConfig:
    """The configuration with which ingest reads the log that `write_text` wrote to the file `train`."""
    if _is_tsv(config):
        return LogConfig(train=train, format="criteo")
    columns = SyntheticLog(config).columns
    names = tuple(
        column.name if column.length == 1 else ColumnConfig(name=column.name, max_length=column.length, pooling="none")
        for column in columns
    )
    return LogConfig(train=train, categorical=names)


def _is_tsv(config: SyntheticConfig) -> bool:
    return config.shape in CRITEO_FORMAT


def write_criteo_tsv(config: SyntheticConfig, path: Path, *, num_inputs: int | None = None) -> SyntheticSummary:
    """`write_text`, for shapes of Criteo's format only.

    Raises
    ------
    RecipeError
        If the shape has another format.
    """
    if not _is_tsv(config):
        raise RecipeError(f"a log shaped like {config.shape} is no Criteo TSV; use write_text")
    return write_text(config, path, num_inputs=num_inputs)


def write_text(config: SyntheticConfig, path: Path, *, num_inputs: int | None = None) -> SyntheticSummary:
    """Write the log as text: Criteo's TSV or, for ``avazu`` and ``taobao``, CSV with a header line.

    Parameters
    ----------
    path
        Written under a temporary name and renamed when complete.
    num_inputs
        Write only the first `num_inputs` inputs; None writes all.

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
    log, tally, num_bytes = SyntheticLog(config), ClickTally(), 0
    separator = "\t" if _is_tsv(config) else ","
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # of a killed one; a link would be followed
        with temporary.open("xb") as file, task("synthetic log", total) as progress:
            if separator == ",":
                num_bytes += file.write(",".join(["label", *(c.name for c in log.columns)]).encode() + b"\n")
            for start in range(0, total, CHUNK_INPUTS):
                chunk = log.chunk(start // CHUNK_INPUTS)
                keep = slice(0, min(CHUNK_INPUTS, total - start))
                labels = chunk.labels[keep]
                num_bytes += file.write(
                    encode_lines(labels, chunk.counts[keep], chunk.ids[keep], log.columns, separator)
                )
                tally.add(labels, chunk.probabilities[keep])
                progress.advance(len(labels))
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
    finally:
        temporary.unlink(missing_ok=True)
    return tally.summary(num_bytes)


def scrambled_ids(values: npt.NDArray[np.int32], column: int) -> npt.NDArray[np.uint32]:
    """Ids as the log shows them, uint32: in no order, and different for different values (a bijection of 32 bits)."""
    mixed = values.astype(np.uint32) ^ np.uint32((column + 1) * 0x9E3779B1 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))


def encode_lines(
    labels: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int32],
    ids: npt.NDArray[np.int32],
    columns: Sequence[ColumnFacts],
    separator: str = "\t",
) -> bytes:
    """Encode inputs as lines of text: label, counts, ids of 8 hex digits.

    Parameters
    ----------
    labels
        uint8 ``[n]``, 0 or 1.
    counts
        int32 ``[n, K]``, `MISSING_COUNT` where there is none.
    ids
        int32 ``[n, S]``, -1 where there is none.
    columns
        The columns of the ids, in the order of their slots; the ids of a list are separated by ``|``.
    """
    # Every field is as wide as its longest value, padded with zero bytes; one pass then drops all zero bytes.
    num_lines, num_counts = counts.shape
    between = ord(separator)
    end_of_counts = 2 + num_counts * _COUNT_WIDTH
    text = np.zeros((num_lines, end_of_counts + ids.shape[1] * _ID_WIDTH), np.uint8)
    text[:, 0] = labels + ord("0")
    text[:, 1] = between
    fields = text[:, 2:end_of_counts].reshape(num_lines, num_counts, _COUNT_WIDTH)
    fields[:, :, :-1] = _COUNT_TEXT[counts - MISSING_COUNT]
    fields[:, :, -1] = between
    text[:, 2:end_of_counts] = fields.reshape(num_lines, -1)
    slot = 0
    for index, column in enumerate(columns):
        for position in range(column.length):
            place = text[:, end_of_counts + slot * _ID_WIDTH :][:, :_ID_WIDTH]
            values = ids[:, slot]
            shown = scrambled_ids(values, index).astype(">u4").view(np.uint8).reshape(num_lines, 4)
            place[:, :8] = _HEX_PAIR[shown].reshape(num_lines, 8)
            place[:, 8] = between
            place[values < 0, :8] = 0
            if position < column.length - 1:
                # Used slots come first, so there is a bar only where another id follows.
                place[:, 8] = np.where(ids[:, slot + 1] >= 0, ord("|"), 0)
            slot += 1
    text[:, -1] = ord("\n")
    flat = text.ravel()
    return bytes(flat[flat != 0])
