"""Random recipes of one and two days against plain PyTorch: vocabulary, ids, batches, losses and final tables.

    python tests/campaigns/recipes.py [--count 100] [--seed 1] [--only 7] [--put-back]

Each case draws a log (plain, encoded and list columns, some that share a table, rare and missing values, dense
columns), a model, an optimizer, a placement, an order of batches and a budget, and runs the recipe. The reference reads
the raw rows as Python values, numbers them with plain dicts (tests/support/ingest_reference.py), trains
`torch.nn.EmbeddingBag` tables with torch's own sparse optimizers on the batches that the schedule names, and evaluates.
Compared are: vocabularies, ids, counts, splits and dense values exactly; that the batches of an epoch hold every
training input once; losses and final tables within rounding. Half of the cases have a second day that continues the
first one.

Rounding: gradients that are 0 in exact arithmetic are rounding noise in one of the two, and the first step of the two
Adagrads and of Adam turns the smallest gradient into a whole step. So tables are compared strictly under SGD, and
otherwise by the share of rows that differ.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

from campaign import Tried, run_campaign  # noqa: E402

MODELS: dict[str, dict[str, Any]] = {
    "dlrm": {"bottom_mlp": [6], "top_mlp": [7]},
    "deepfm": {"deep_mlp": [7]},
    "dcnv2": {"deep_mlp": [7], "cross_layers": 2},
    "wide_deep": {"deep_mlp": [7]},
    "tbsm": {"top_mlp": [6, 5], "final_mlp": [6], "attention_mlp": [5]},
}
OPTIMIZERS = ("sgd", "rowwise_adagrad", "adagrad", "adam")
PLACEMENTS = ("tiered", "tiered", "device", "cpu", "hybrid", "paper")
ORDERS = ("interleaved", "shuffled", "adaptive", "fixed_rate")


def draw_recipe(draw: random.Random) -> dict[str, dict[str, Any]]:
    """A recipe whose tables are mostly larger than its budget."""
    model = draw.choice(list(MODELS))
    length = draw.randint(2, 4)
    columns: list[Any] = ["user", {"name": "item", "min_frequency": draw.choice([1, 2, 4])}]
    if draw.random() < 0.5:
        columns.append({"name": "code", "encoded": True})
    if model == "tbsm":
        columns.append({"name": "tags", "max_length": length, "pooling": "none"})
    elif draw.random() < 0.7:
        columns.append({"name": "tags", "max_length": length, "pooling": draw.choice(["sum", "mean"])})
    if draw.random() < 0.5:
        columns.append({"name": "last", "table": "item"})
    if draw.random() < 0.3:
        pooling = draw.choice(["none"] if model == "tbsm" else ["sum", "mean"])
        columns.append({"name": "seen", "table": "item", "max_length": length, "pooling": pooling})
    draw.shuffle(columns)
    early = draw.choice([0, 0, 1])
    return {
        "log": {
            "train": "train.csv", "label": "y", "categorical": columns, "dense": draw.choice([[], ["x"], ["x", "z"]]),
            "dense_transform": draw.choice(["log1p", "signed_log1p", "none"]), "min_frequency": draw.choice([1, 1, 3]),
            "test_fraction": draw.choice([0.1, 0.25]), "validation_fraction": draw.choice([0.1, 0.3]),
        },
        "model": {"name": model, "embedding_dim": draw.choice([4, 8]), **MODELS[model]},
        "hot": {
            "budget": draw.choice(["6KiB", "9KiB", "13KiB", "20KiB", "4MiB"]), "small_table": "128B", "ring_depth": 2,
        },
        "train": {
            "batch_size": draw.choice([8, 17, 32]), "epochs": draw.randint(1, 3),
            "optimizer": draw.choice(OPTIMIZERS), "learning_rate": draw.choice([0.01, 0.05]),
            "placement": draw.choice(PLACEMENTS), "order": draw.choice(ORDERS), "early_stopping": early,
            "adaptive_tail": draw.choice([0.0, 0.3]), "seed": draw.randint(1, 99),
        },
    }  # fmt: skip


def draw_rows(draw: random.Random, num_rows: int, first: int) -> list[dict[str, Any]]:
    """Inputs as Python values; day after day other ids come first."""

    def skewed(size: int) -> int:
        return min(int(draw.paretovariate(0.3)) - 1, size - 1) + first

    rows = []
    for _ in range(num_rows):
        item = skewed(150)
        rows.append({
            "y": int(draw.random() < 0.2 + 0.5 * (item % 2)), "user": f"u{skewed(300)}",
            "item": "" if draw.random() < 0.05 else f"i{item}", "code": None if draw.random() < 0.05 else skewed(30),
            "tags": [f"t{skewed(25)}" for _ in range(draw.randrange(5))],
            "last": "" if draw.random() < 0.1 else f"i{skewed(150)}",
            "seen": [f"i{skewed(150)}" for _ in range(draw.randrange(4))],
            "x": None if draw.random() < 0.1 else round(draw.lognormvariate(0, 1), 3),
            "z": round(draw.gauss(0, 1), 3),
        })  # fmt: skip
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    for row in rows:
        cells = [
            "|".join(value) if isinstance(value, list) else "" if value is None else value for value in row.values()
        ]
        writer.writerow(cells)
    path.write_text(text.getvalue())


def case(draw: random.Random, folder: Path) -> Tried:
    """One recipe, of one or two days."""
    import torch

    from campaign_reference import Reference, compare_log
    from fae.core.errors import FaeError
    from fae.run.folder import RunFolder
    from fae.run.recipe import parse_recipe

    torch.set_num_threads(1)
    tables = draw_recipe(draw)
    days = draw.choice([1, 2])
    kind = f"{tables['model']['name']}, {tables['train']['optimizer']}, {days} day{'s' * (days > 1)}"
    reference: Reference | None = None
    streamed = False
    for day in range(days):
        rows = draw_rows(draw, draw.randint(300, 700), 9 * day)
        write_rows(folder / "train.csv", rows)
        tables["train"].pop("from", None)
        if day:
            tables["train"] |= {"from": str(folder / "run0"), "seed": tables["train"]["seed"] + 1}
        recipe = parse_recipe(tables, base=folder)
        run = RunFolder(recipe, folder / f"run{day}", device="cpu")
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                record: dict[str, Any] = dict(run.run())
        except FaeError as error:
            if "budget" in str(error):
                return Tried(kind, "the budget is refused")
            return Tried(kind, "refused", str(error))
        found, log = compare_log(run.open_log(), recipe.log, rows, reference)
        if found:
            return Tried(kind, "another log", f"day {day}: {found}")
        reference = Reference(recipe, run, log, reference)
        found = reference.compare(json.loads(json.dumps(record)))
        if found:
            return Tried(kind, "another model", f"day {day}: {found}; {json.dumps(tables)}")
        streamed |= run.open_packed().train.num_batches > run.open_packed().train.num_hot_batches
    return Tried(kind, "equal, with cold batches" if streamed else "equal, all hot")


def _patch(module: str, name: str, value: Any) -> None:
    import importlib

    owner = importlib.import_module(module)
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    setattr(owner, name.split(".")[-1], value)


def _no_mean() -> None:
    from fae.core.pooling import POOLING_CODE

    POOLING_CODE["mean"] = POOLING_CODE["sum"]


def _last_batch_lost() -> None:
    from fae.training.schedule import Schedule, Segment

    class ShortSchedule(Schedule):
        def next_segment(self) -> Segment:
            segment = super().next_segment()
            return dataclasses.replace(segment, batches=segment.batches[:-1])

    _patch("fae.training.trainer", "Schedule", ShortSchedule)


def _rare_values_keep_ids() -> None:
    import fae.ingest.provisional_ids as module

    original = module.number_by_popularity
    _patch(module.__name__, "number_by_popularity", lambda counts, minimum, scratch: original(counts, 1, scratch))


def _new_rows_are_zero() -> None:
    import fae.checkpoint.continuation as module

    original = module.initial_rows
    _patch(module.__name__, "initial_rows", lambda *arguments: 0 * original(*arguments))


def _moved_reserved_row_lost() -> None:
    _patch("fae.checkpoint.continuation", "moved_reserved_id", lambda old, new: None)


def _state_is_lost() -> None:
    import fae.checkpoint.continuation as module

    original = module.load_table

    def without_state(*arguments: Any, **named: Any) -> Any:
        weight, state = original(*arguments, **named)
        return weight, 0 * state

    _patch(module.__name__, "load_table", without_state)


def _negatives_vanish() -> None:
    import fae.ingest.dense_values as module

    original = module.to_dense

    def to_dense(array: Any, transform: str, *others: Any, **named: Any) -> Any:
        return original(array, "log1p" if transform == "signed_log1p" else transform, *others, **named)

    _patch("fae.ingest.chunk_encoding", "to_dense", to_dense)


FAULTS: dict[str, Callable[[], None]] = {
    "mean is sum": _no_mean,
    "the last batch of an epoch is lost": _last_batch_lost,
    "rare values keep ids": _rare_values_keep_ids,
    "new rows of the second day are zero": _new_rows_are_zero,
    "the reserved row stays where it was": _moved_reserved_row_lost,
    "optimizer state of the first day is lost": _state_is_lost,
    "negative values vanish under signed_log1p": _negatives_vanish,
}

if __name__ == "__main__":
    sys.exit(run_campaign(__file__, case, count=100, faults=FAULTS, doc=__doc__ or "", arguments=sys.argv[1:]))
