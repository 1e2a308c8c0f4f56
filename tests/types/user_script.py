"""A user's script as a type checker sees it: `make types` checks it, nothing runs it."""

from __future__ import annotations

from collections.abc import Generator
from typing import assert_type

import fae
from fae.artifacts.packed import BatchSet, PackedBatch
from fae.embedding.base import Embeddings
from fae.run.record import RunResult
from fae.streaming.ready_batch import ReadyBatch
from fae.training.quality.metrics import Metrics

recipe = fae.load_recipe("my.toml", ["hot.budget=64MiB"])
assert_type(recipe, fae.Recipe)
folder = fae.RunFolder(recipe, "runs/my")
assert_type(folder.run(), RunResult)
packed, embeddings = folder.open_packed(), folder.open_embeddings()
assert_type(packed, fae.PackedDataset)
assert_type(packed.train, BatchSet)
assert_type(packed.train.batch(0), PackedBatch)
assert_type(embeddings, Embeddings)
assert_type(embeddings.stream(packed.train, range(3)), Generator[ReadyBatch, None, None])
assert_type(folder.open_hot_set(), fae.HotSet)
assert_type(folder.open_log(), fae.ColumnarLog)


def score(trainer: fae.Trainer) -> Metrics:
    """A function of names of `fae` alone."""
    return fae.evaluate(trainer.model, embeddings, packed.test)


fae.nonsense  # type: ignore[attr-defined]  # noqa: B018
