"""Re-calibration between two days: rows change tier with weight and state, bit for bit, and training continues."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.row_layout import RowLayout
from fae.checkpoint.continuation import move_rows
from fae.core.errors import ArtifactError
from fae.core.optimizers import OPTIMIZERS
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer, initial_rows
from fae.training.dense import make_dense_optimizer
from fae.training.runner import StepRunner

from cases import Log, assert_same_bytes, make_embeddings, random_log

SEED = 7


def day(log: Log, seed: int) -> Log:
    """Other inputs over the same tables."""
    other = random_log(seed, lists=len(log.features) > 3)
    return dataclasses.replace(log, ids=other.ids, dense=other.dense, labels=other.labels, groups=other.groups)


def tables_of(embeddings) -> list[torch.Tensor]:
    return [tensor for table in range(len(embeddings.layout.features)) for tensor in embeddings.export_table(table)]


def hot_ids(layout: RowLayout, table: int) -> np.ndarray:
    return layout.ranks[table] < layout.num_hot[table]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.1, 0.6), (0.6, 0.1), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("placements", [("tiered", "tiered"), ("paper", "tiered"), ("tiered", "hybrid")])
def test_rows_change_tier_with_their_state(optimizer, shares, placements) -> None:
    log = random_log(1, lists=True)
    layouts = [log.layout(share, seed) for seed, share in enumerate(shares)]
    rule = RowOptimizer(name=optimizer, learning_rate=0.1)
    old, new = (
        make_embeddings(placement, log, layout, rule) for placement, layout in zip(placements, layouts, strict=True)
    )
    for table, (feature, dim) in enumerate(zip(log.features, log.embedding_dims, strict=True)):
        # Numbers that no two rows share; subnormal and extreme ones among them.
        weight = torch.randn(feature.num_embeddings, dim)
        weight[0], weight[1] = 1e-42, -3.4e38
        old.import_table(table, weight, torch.rand(feature.num_embeddings, rule.state_width(dim)))
    old.steps = 41
    expected = tables_of(old)
    move_rows(old, new, seed=SEED)
    assert_same_bytes(tables_of(new), expected)
    assert new.steps == 41
    pairs = [[hot_ids(layout, table) for layout in layouts] for table in range(len(log.features))]
    assert any((before & ~after).any() for before, after in pairs) == (shares[0] > 0), "rows went from hot to cold"
    assert any((after & ~before).any() for before, after in pairs) == (shares[1] > 0), "rows went from cold to hot"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_days_with_three_hot_sets_are_three_days_in_one_place(optimizer) -> None:
    """Tiered with another hot set each day, against all rows in one place throughout."""
    first = random_log(1)
    days = [first, day(first, 2), day(first, 3)]
    rule = RowOptimizer(name=optimizer, learning_rate=0.1)

    def run(placement: str, layouts: list[RowLayout]) -> list[torch.Tensor]:
        model = build_model(first.config(), first.features, first.dense.shape[1], seed=SEED)
        dense = make_dense_optimizer(optimizer, model, 0.05)
        embeddings = make_embeddings(placement, days[0], layouts[0], rule)
        embeddings.initialise(SEED)
        for log, layout in zip(days, layouts, strict=True):
            if layout is not embeddings.layout:
                following = make_embeddings(placement, log, layout, rule)
                move_rows(embeddings, following, seed=SEED)
                embeddings = following
            packed, runner = log.packed(layout), StepRunner(model, embeddings, dense)
            for batch in embeddings.stream(packed, range(packed.num_batches)):
                runner(batch)
        return [*tables_of(embeddings), *(parameter.detach() for parameter in model.parameters())]

    one_place = first.layout(0.4, 9)
    expected = run("cpu", [one_place] * 3)
    assert_same_bytes(run("tiered", [first.layout(0.4, 9), first.layout(0.2, 10), first.layout(0.6, 11)]), expected)


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_rows_that_the_log_has_shown_since(optimizer) -> None:
    log = random_log(1)
    grown = tuple(
        dataclasses.replace(feature, num_embeddings=feature.num_embeddings + 9 * table)
        for table, feature in enumerate(log.features)
    )
    rule = RowOptimizer(name=optimizer, learning_rate=0.1)
    old = make_embeddings("tiered", log, log.layout(0.3, 1), rule)
    old.initialise(1)
    later = dataclasses.replace(log, features=grown)
    new = make_embeddings("tiered", later, later.layout(0.3, 2), rule)
    move_rows(old, new, seed=SEED)
    for table, (before, after) in enumerate(zip(log.features, grown, strict=True)):
        dim, known = log.embedding_dims[table], before.num_embeddings
        (weight, state), (kept, kept_state) = new.export_table(table), old.export_table(table)
        fresh = torch.from_numpy(initial_rows(SEED, after.name, after.num_embeddings, dim, 0, after.num_embeddings))
        assert_same_bytes([weight[:known], state[:known]], [kept, kept_state])
        assert_same_bytes([weight[known:]], [fresh[known:]])
        assert not state[known:].any()


def test_what_does_not_fit_is_refused() -> None:
    log = random_log(1)
    sgd = RowOptimizer(name="sgd", learning_rate=0.1)
    old = make_embeddings("cpu", log, log.layout(0.3, 1), sgd)
    adam = make_embeddings("cpu", log, log.layout(0.3, 1), RowOptimizer(name="adam", learning_rate=0.1))
    with pytest.raises(ArtifactError, match="trained with sgd"):
        move_rows(old, adam, seed=SEED)
    fewer = dataclasses.replace(log, features=(FeatureSchema(name="a", num_embeddings=49), *log.features[1:]))
    smaller = make_embeddings("cpu", fewer, fewer.layout(0.3, 1), sgd)
    with pytest.raises(ArtifactError, match="'a' has 50 rows, its successor 49"):
        move_rows(old, smaller, seed=SEED)
    other = dataclasses.replace(log, features=(dataclasses.replace(log.features[0], name="z"), *log.features[1:]))
    renamed = make_embeddings("cpu", other, other.layout(0.3, 1), sgd)
    with pytest.raises(ArtifactError, match="cannot move"):
        move_rows(old, renamed, seed=SEED)
