"""Model, budget and training for a log of a size: what a first recipe says behind [log]."""

from __future__ import annotations

import math

from fae.core.units import format_bytes
from fae.inspect.inspection import Inspection

_SMALL, _MIDDLE = 300_000, 3_000_000
"""Inputs below which a log is trained for several epochs by a small model, and by a middle one."""
_FEW_OF_A_CLASS = 2000
"""Labels of the rarer class below which a log says little: a small model, slow steps."""
_LEAST_TO_VALIDATE = 200
_STEPS = 1200
_LEAST_BATCH, _MOST_BATCH = 64, 2048
_LEAST_BUDGET, _MOST_BUDGET = 16 * 2**20, 512 * 2**20


def _num_rows(found: Inspection) -> int:
    """Rows of all tables: what was seen, and of a sample as many times more values seen once as there are inputs."""
    growth = found.num_lines / max(1, found.lines_read)
    tables = [column.values for column in found.columns if column.kind in ("categorical", "list")]
    return int(sum(values.distinct + values.seen_once * (growth**0.5 - 1) for values in tables))


def num_of_rarer_class(found: Inspection) -> int:
    """Labels of the class that has fewer, estimated of the whole log."""
    rate = 0.5 if found.label is None else found.label.rate
    return round(found.num_lines * min(rate, 1 - rate))


def says_little(found: Inspection) -> bool:
    """Whether one class has so few labels that a large model learns them by heart."""
    return num_of_rarer_class(found) < _FEW_OF_A_CLASS


def can_validate(found: Inspection) -> bool:
    """Whether a validation split would hold enough inputs to say something."""
    return found.num_lines >= _LEAST_TO_VALIDATE


def embedding_dim(found: Inspection) -> int:
    """Width of rows."""
    return 8 if _num_rows(found) < 1000 or says_little(found) else 16


def batch_size(found: Inspection) -> int:
    """A power of two that gives an epoch some 1,200 steps."""
    wanted = found.num_lines / (_STEPS / 8 if says_little(found) else _STEPS)
    return int(min(max(2 ** round(math.log2(max(wanted, 1))), _LEAST_BATCH), _MOST_BATCH))


def model_lines(found: Inspection) -> list[str]:
    """The table [model]."""
    if found.shape.name == "taobao":
        return ["[model]", 'name = "tbsm"                   # a candidate behind a history', "embedding_dim = 16"]
    has_dense = any(column.kind in ("count", "number") for column in found.columns)
    if says_little(found):
        bottom, top = [], [32]
    elif found.num_lines < _SMALL:
        bottom, top = [64], [64, 32]
    elif found.num_lines < _MIDDLE:
        bottom, top = [128, 64], [128, 64]
    else:
        bottom, top = [512, 256, 64], [512, 256]
    return [
        "[model]",
        'name = "dlrm"                   # or deepfm, dcnv2, wide_deep: docs/guide/models.md',
        f"embedding_dim = {embedding_dim(found)}",
        f"bottom_mlp = {bottom if has_dense else []}" + ("" if has_dense else "                 # no dense columns"),
        f"top_mlp = {top}",
    ]


def training_lines(found: Inspection) -> list[str]:
    """The tables [hot] and [train]."""
    row_bytes = 4 * embedding_dim(found) + 4
    rows = _num_rows(found)
    whole = rows * row_bytes
    budget = int(min(max(2 ** math.ceil(math.log2(max(2 * whole, 1))), _LEAST_BUDGET), _MOST_BUDGET))
    fits = "holds all of them" if whole < budget / 2 else "holds the hot ones: `fae plan` says what others would"
    lines = [
        "[hot]",
        f"# About {rows:,} rows of {row_bytes} bytes, {format_bytes(whole)}; this {fits}.",
        f'budget = "{budget // 2**20}MiB"',
        "",
        "[train]",
        f"batch_size = {batch_size(found)}",
    ]
    if found.num_lines < _MIDDLE:
        lines.append("epochs = 5")
        if can_validate(found):
            lines.append("early_stopping = 1              # the best epoch by the validation split is kept")
    if says_little(found):
        few = f"about {num_of_rarer_class(found):,} labels of one class say little: small steps"
        return [*lines, 'optimizer = "rowwise_adagrad"', f"learning_rate = 0.02            # {few}"]
    rate = 0.1 if found.num_lines < _MIDDLE else 0.05
    return [*lines, 'optimizer = "rowwise_adagrad"', f"learning_rate = {rate}             # always worth a search"]
