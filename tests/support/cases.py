"""Logs, batches and trainings for the equivalence suites: the same batches under any hot set and placement."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fae.artifacts.columnar_log import FeatureSchema, TablePart, model_features
from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.embedding.base import Embeddings
from fae.embedding.placements import find_placement
from fae.models.config import DLRMConfig, ModelConfig, TBSMConfig
from fae.models.registry import build_model
from fae.pack.in_memory import compose_batch_set
from fae.streaming.row_store import RowOptimizer
from fae.streaming.staging import NO_FAULTS
from fae.training.dense import make_dense_optimizer
from fae.training.quality.evaluate import predict_split
from fae.training.runner import StepRunner

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Log:
    """A small log and the groups of inputs that make its batches."""

    ids: np.ndarray
    dense: np.ndarray
    labels: np.ndarray
    groups: list[np.ndarray]
    features: tuple[FeatureSchema, ...]
    embedding_dims: tuple[int, ...]
    batch_size: int
    dense_rate: float = 0.05
    model: ModelConfig | None = None
    weights: np.ndarray | None = None

    def layout(self, share: float, seed: int) -> RowLayout:
        """A hot set of about `share` of each table under a random storage order."""
        random = np.random.default_rng(seed)
        ranks = [random.permutation(f.num_embeddings).astype(np.int32) for f in self.features]
        num_hot = [round(share * f.num_embeddings) for f in self.features]
        return RowLayout(self.features, self.embedding_dims, num_hot, ranks)

    def packed(self, layout: RowLayout) -> BatchSet:
        return compose_batch_set(self.ids, self.dense, self.labels, self.groups, layout, self.batch_size, self.weights)

    def config(self) -> ModelConfig:
        if self.model is not None:
            return self.model
        dim = max(self.embedding_dims)
        dims = {f.name: d for f, d in zip(self.features, self.embedding_dims, strict=True) if d != dim}
        return DLRMConfig(embedding_dim=dim, embedding_dims=dims, bottom_mlp=(8,), top_mlp=(8,))


def random_log(seed, *, num_inputs=150, batch_size=16, skew=1.2, lists=False, num_dense=3) -> Log:
    """Zipf-like ids over three or four tables; with `lists` also pooled lists and a second width."""
    random = np.random.default_rng(seed)
    features = [
        FeatureSchema(name="a", num_embeddings=50),
        FeatureSchema(name="b", num_embeddings=7),
        FeatureSchema(name="c", num_embeddings=120),
    ]
    dims = [8, 8, 8]
    if lists:
        features += [
            FeatureSchema(name="d", num_embeddings=40, length=3, pooling="mean"),
            FeatureSchema(name="e", num_embeddings=30, length=2, pooling="sum"),
        ]
        dims += [8, 4]
    columns = []
    for feature in features:
        ids = np.minimum(random.zipf(skew, (num_inputs, feature.length)) - 1, feature.num_embeddings - 1)
        if feature.length > 1:
            lengths = random.integers(0, feature.length + 1, num_inputs)
            ids[np.arange(feature.length)[None, :] >= lengths[:, None]] = -1
        columns.append(ids)
    order = random.permutation(num_inputs)
    return Log(
        ids=np.concatenate(columns, 1).astype(np.int32),
        dense=random.normal(size=(num_inputs, num_dense)).astype(np.float32),
        labels=(random.random(num_inputs) < 0.3).astype(np.uint8),
        groups=[order[first : first + batch_size] for first in range(0, num_inputs, batch_size)],
        features=tuple(features),
        embedding_dims=tuple(dims),
        batch_size=batch_size,
    )


def shared_log(seed, *, num_inputs=150, batch_size=16, widths=(8, 8, 8), skew=1.2) -> Log:
    """Two tables that several columns share, summed, averaged and as they are, and one of a single column."""
    random = np.random.default_rng(seed)
    features = (
        FeatureSchema(
            name="item", num_embeddings=60, length=6,
            parts=(
                TablePart(name="item"), TablePart(name="last"), TablePart(name="cart", length=4, pooling="mean"),
            ),
        ),
        FeatureSchema(name="user", num_embeddings=30),
        FeatureSchema(
            name="shop", num_embeddings=20, length=3, pooling="mean",
            parts=(TablePart(name="shop", length=2), TablePart(name="home")),
        ),
    )  # fmt: skip
    columns = []
    for feature in model_features(features):
        ids = np.minimum(random.zipf(skew, (num_inputs, feature.length)) - 1, feature.num_embeddings - 1)
        if feature.length > 1:
            lengths = random.integers(0, feature.length + 1, num_inputs)
            ids[np.arange(feature.length)[None, :] >= lengths[:, None]] = -1
        columns.append(ids)
    columns[1][::3] = columns[0][::3]  # one row looked up twice in one input
    order = random.permutation(num_inputs)
    return Log(
        ids=np.concatenate(columns, 1).astype(np.int32),
        dense=random.normal(size=(num_inputs, 3)).astype(np.float32),
        labels=(random.random(num_inputs) < 0.3).astype(np.uint8),
        groups=[order[first : first + batch_size] for first in range(0, num_inputs, batch_size)],
        features=features,
        embedding_dims=tuple(widths),
        batch_size=batch_size,
    )


def shared_history_log(seed) -> Log:
    """The log of `history_log` with two sequences and a plain column over one table."""
    base = history_log(seed)
    user, item, _ = base.features
    length = item.length
    parts = (
        TablePart(name="item", length=length, pooling="none"), TablePart(name="other", length=length, pooling="none"),
        TablePart(name="shown"),
    )  # fmt: skip
    items = base.ids[:, 1 : 1 + length]
    shared = FeatureSchema(name="item", num_embeddings=100, length=2 * length + 1, pooling="none", parts=parts)
    shown = np.abs(items[:, :1])
    ids = np.concatenate([base.ids[:, :1], items, np.where(items < 0, -1, 99 - items), shown], 1)
    return Log(**{**vars(base), "ids": ids.astype(np.int32), "features": (user, shared), "embedding_dims": (8, 8)})


def flat_shared_log(seed, **options) -> Log:
    """One width and no lists: two of the three columns share a table; `options` of `random_log`."""
    base = random_log(seed, **options)
    first, _, third = base.features
    ids = base.ids.copy()
    ids[:, 1] = np.minimum(ids[:, 2], first.num_embeddings - 1)
    shared = FeatureSchema(
        name="a", num_embeddings=first.num_embeddings, length=2, parts=(TablePart(name="a"), TablePart(name="b"))
    )
    return Log(**{**vars(base), "ids": ids, "features": (shared, third), "embedding_dims": (8, 8)})


def hot_and_cold_log() -> Log:
    """Six batches: hot, hot, cold, cold, hot, cold under a hot set of the first half of every table."""
    base = random_log(7, num_inputs=96)
    ids = base.ids.copy()
    groups = [np.arange(first, first + 16) for first in range(0, 96, 16)]
    half = np.array([feature.num_embeddings // 2 for feature in base.features], np.int32)
    for number, group in enumerate(groups):
        ids[group] = ids[group] % half + (half if number in (2, 3, 5) else 0)
    # Cold batches look up hot rows as well, so that each side changes rows that the other reads.
    ids[groups[2], 0] = ids[groups[0], 0]
    ids[groups[5], 1] = ids[groups[4], 1]
    return Log(**{**vars(base), "ids": ids, "groups": groups})


def in_order_layout(log: Log) -> RowLayout:
    """The first half of every table is hot, in vocabulary order."""
    return RowLayout(log.features, log.embedding_dims, [feature.num_embeddings // 2 for feature in log.features])


def history_log(seed, *, num_inputs=150, batch_size=16, length=5, model: ModelConfig | None = None) -> Log:
    """A user, and sequences of items and categories of every length from 0 to full; the last item is the candidate."""
    random = np.random.default_rng(seed)
    features = (
        FeatureSchema(name="user", num_embeddings=30),
        FeatureSchema(name="item", num_embeddings=100, length=length, pooling="none"),
        FeatureSchema(name="category", num_embeddings=12, length=length, pooling="none"),
    )
    items = np.minimum(random.zipf(1.2, (num_inputs, length)) - 1, 99)
    items[np.arange(length) >= random.integers(0, length + 1, num_inputs)[:, None]] = -1
    users = np.minimum(random.zipf(1.2, (num_inputs, 1)) - 1, 29)
    order = random.permutation(num_inputs)
    return Log(
        ids=np.concatenate([users, items, np.where(items < 0, -1, items % 12)], 1).astype(np.int32),
        dense=np.empty((num_inputs, 0), np.float32),
        labels=(random.random(num_inputs) < 0.4).astype(np.uint8),
        groups=[order[first : first + batch_size] for first in range(0, num_inputs, batch_size)],
        features=features,
        embedding_dims=(8, 8, 8),
        batch_size=batch_size,
        model=model or TBSMConfig(embedding_dim=8, top_mlp=(9, 9), attention_mlp=(7,), final_mlp=(11,)),
    )


class WideLog(Log):
    """A log for a model that the fused kernels can run: width 16, layers of multiples of 16."""

    def config(self) -> DLRMConfig:
        return DLRMConfig(name="dlrm", embedding_dim=16, bottom_mlp=(32,), top_mlp=(32, 16))


def wide_log(log: Log) -> WideLog:
    """The same log for `WideLog`'s model."""
    return WideLog(**{**vars(log), "embedding_dims": tuple(16 for _ in log.features)})


def many_rows_log() -> Log:
    """Several blocks of rows in each group of a batch, so that hosts have several parts of them."""
    log = random_log(9, num_inputs=330, batch_size=160)
    ids = np.random.default_rng(9).integers(0, 150, log.ids.shape).astype(np.int32)
    features = tuple(dataclasses.replace(each, num_embeddings=150) for each in log.features)
    return dataclasses.replace(log, ids=ids, features=features)


def adversarial_logs() -> dict[str, Log]:
    """Logs whose batches are made to break a pipeline."""
    base = random_log(0)
    ids = base.ids.copy()

    def with_ids(new, **changes) -> Log:
        values = {**vars(base), "ids": new.astype(np.int32), **changes}
        return Log(**values)

    same = ids.copy()
    for group in base.groups:  # consecutive batches that share all their rows
        same[group] = ids[base.groups[0]][: len(group)]
    dominated = ids.copy()
    dominated[np.random.default_rng(1).random(len(ids)) < 0.94, 2] = 5  # one id takes 94 % of a column
    shared = np.repeat(ids[:, 1:2] % 7, 3, axis=1)  # the same id in every table's list
    alternating = ids.copy()
    for number, group in enumerate(base.groups):  # rows that come back every second batch
        alternating[group, 2] = (np.arange(len(group)) + 60 * (number % 2)) % 120
    return {
        "consecutive batches share all rows": with_ids(same),
        "one id takes 94 % of a column": with_ids(dominated),
        "the same ids in every table": with_ids(shared),
        "rows come back every second batch": with_ids(alternating),
        "batches of one input": with_ids(ids, groups=[np.array([i]) for i in range(12)]),
        "nothing but padding in lists": Log(
            **{**vars(random_log(2, lists=True)), "ids": np.where(np.arange(8) < 3, random_log(2, lists=True).ids, -1)}
        ),
    }


def mapped(batches: BatchSet, folder: Path) -> BatchSet:
    """The same batches in files, mapped as training maps them."""
    count = itertools.count()

    def moved(value):
        if isinstance(value, np.ndarray):
            path = folder / f"{next(count)}.npy"
            np.save(path, value)
            return np.asarray(np.load(path, mmap_mode="r"))
        if isinstance(value, tuple):
            return tuple(moved(each) for each in value)
        if dataclasses.is_dataclass(value):
            return type(value)(**{name: moved(each) for name, each in vars(value).items()})
        return value

    return BatchSet(moved(batches.arrays), batches.num_hot_batches)


def make_embeddings(
    placement, log: Log, layout: RowLayout, optimizer, *, depth=2, faults=NO_FAULTS, device=CPU, engine=None, group=None
) -> Embeddings:
    """Embeddings of a layout; staging of exactly what the largest batch needs."""
    hot_set = sized_hot_set(log, layout, depth=depth)
    return find_placement(placement).make(hot_set, optimizer, device, engine=engine, faults=faults, group=group)


def sized_hot_set(log: Log, layout: RowLayout, *, depth: int) -> Any:
    """What placements read of a hot set, with slots of exactly what the largest batch needs."""
    return SimpleNamespace(
        layout=layout, ring_depth=depth, batch_size=log.batch_size,
        staging_rows=tuple(log.packed(layout).most_cold_rows),
    )  # fmt: skip


def train(
    log: Log,
    layout,
    optimizer_name,
    placement,
    *,
    depth=2,
    faults=NO_FAULTS,
    epochs=1,
    device=CPU,
    engine=None,
    precision="fp32",
    capture=True,
    compiled=False,
    dense_graph=True,
    group=None,
    with_loss=False,
    rounds_dense=False,
) -> list[torch.Tensor]:
    """Train on the log's batches in order; every table (vocabulary order), its state, every dense weight.

    With a `group` of ranks this is one of them; with `rounds_dense` dense features are sent in bfloat16. With
    `with_loss` the logits of all inputs, half-way and at the end, and the sum of the losses come last.
    """
    optimizer = RowOptimizer(name=optimizer_name, learning_rate=0.1)
    embeddings = make_embeddings(
        placement, log, layout, optimizer, depth=depth, faults=faults, device=device, engine=engine, group=group
    )
    embeddings.initialise(7)
    embeddings.round_dense(rounds=rounds_dense)
    model = build_model(log.config(), log.features, log.dense.shape[1], seed=7).to(embeddings.device)
    flat = device.type == "cuda" or engine == "triton"
    dense_optimizer = make_dense_optimizer(
        optimizer_name, model, log.dense_rate, flat=flat, bf16=flat and precision == "bf16", group=group
    )
    runner = StepRunner(
        model, embeddings, dense_optimizer, precision=precision, capture=capture, compiled=compiled,
        dense_graph=dense_graph,
    )  # fmt: skip
    packed, logits = log.packed(layout), []
    for _ in range(epochs):
        for part in np.array_split(np.arange(packed.num_batches), 2 if with_loss else 1):
            for batch in embeddings.stream(packed, part):
                runner(batch)
            if with_loss:
                found = predict_split(model, embeddings, as_evaluated(packed), precision=precision)[1]
                logits.append(torch.from_numpy(found))
    loss = runner.take_loss()
    assert math.isfinite(loss)
    tables = [tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)]
    weights = [parameter.detach().cpu() for parameter in model.parameters()]
    return [*tables, *weights, *logits, *([torch.tensor([loss])] if with_loss else [])]


def as_evaluated(packed: BatchSet) -> BatchSet:
    """The same batches as those of a split that is not trained."""
    none = np.zeros((0, *packed.arrays.shape), np.int32)
    addresses = np.stack([batch.addresses for batch in packed]) if packed.num_batches else none
    arrays = dataclasses.replace(
        packed.arrays, addresses=addresses, order=None, segments=None, hot_segments=None, group_places=None
    )  # fmt: skip
    return BatchSet(arrays, packed.num_hot_batches)


def assert_same_bytes(ours, expected) -> None:
    """Equal bit for bit (so NaN shows too), whatever device each is on."""
    for index, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert not torch.isnan(one).any(), f"tensor {index} has NaN"
        assert one.cpu().numpy().tobytes() == other.cpu().contiguous().numpy().tobytes(), f"tensor {index} differs"


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process that can import the same modules."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
