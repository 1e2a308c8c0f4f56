"""Recipes: what only the sections together can say wrong, and which options belong to which model."""

from __future__ import annotations

from pathlib import Path

import pytest

from fae.core.errors import RecipeError
from fae.run.recipe import parse_recipe


def test_dlrm_takes_no_sequence():
    column = {"name": "history", "max_length": 5, "pooling": "none"}
    recipe = parse_recipe({"log": {"train": "log.csv", "categorical": ["a", column]}}, base=Path())
    with pytest.raises(RecipeError, match=r"history: pooling = none .* set pooling to sum or mean"):
        recipe.check_model()


def test_widths_are_of_columns_that_exist():
    tables = {"log": {"train": "log.csv", "categorical": ["user"]}, "model": {"embedding_dims": {"usr": 8}}}
    with pytest.raises(RecipeError, match="did you mean 'user'"):
        parse_recipe(tables, base=Path())


SEQUENCES = [
    "user",
    {"name": "item", "max_length": 6, "pooling": "none"},
    {"name": "category", "max_length": 6, "pooling": "none"},
]


def parse(model, categorical=("a", "b")):
    recipe = parse_recipe({"log": {"train": "log.csv", "categorical": list(categorical)}, "model": model}, base=Path())
    recipe.check_model()
    return recipe.model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "deepfmm"}, "name = 'deepfmm' is not one of dlrm, .*; did you mean 'deepfm'?"),
        ({"name": 3}, "name = 3 is not one of dlrm"),
        ({"name": "dcnv2", "cros_rank": 8}, "no key 'cros_rank'; did you mean 'cross_rank'?"),
        ({"cross_rank": 8}, "cross_rank is an option of dcnv2, and the model is dlrm; take it out"),
        ({"name": "dcnv2", "top_mlp": [8]}, "top_mlp is an option of dlrm, tbsm, and the model is dcnv2"),
        ({"name": "deepfm", "bottom_mlp": [8]}, "bottom_mlp is an option of dlrm, tbsm, and the model is deepfm"),
        ({"name": "dcnv2", "structure": "paralel"}, "structure = 'paralel' .* did you mean 'parallel'?"),
        ({"name": "dcnv2", "structure": "parallel", "deep_mlp": []}, "structure = 'parallel' needs deep_mlp"),
        ({"name": "dcnv2", "cross_layers": 0}, "cross_layers = 0 must be 1 or more"),
        ({"name": "dcnv2", "cross_rank": -1}, "cross_rank = -1 must be 1 or more, or 0"),
        ({"name": "wide_deep", "wide": ["aa"]}, "wide names 'aa', no categorical column; did you mean 'a'|known: a, b"),
        ({"name": "wide_deep", "deep_mlp": [8, 0]}, r"deep_mlp = \[8, 0\] must hold widths of 1 or more"),
        ({"name": "wide_deep", "embedding_dim": 1}, "embedding_dim = 1 leaves nothing beside the weight"),
        ({"name": "deepfm", "embedding_dims": {"a": 8}}, "embedding_dims.a = 8 must be 16 or 1 for deepfm"),
        ({"name": "tbsm"}, "'tbsm' needs a sequence: .* history first and the candidate last"),
        ({"name": "tbsm", "top_mlp": []}, r"top_mlp = \[\] must hold a width"),
    ],
)
def test_models_that_cannot_be(model, expected):
    with pytest.raises(RecipeError, match=expected):
        parse(model)


def test_sequences_that_cannot_be():
    other = [*SEQUENCES[:2], {"name": "category", "max_length": 5, "pooling": "none"}]
    with pytest.raises(RecipeError, match="max_length must be one: item 6, category 5"):
        parse({"name": "tbsm"}, other)
    with pytest.raises(RecipeError, match=r"embedding_dims\.user = 8 must be 16 for tbsm"):
        parse({"name": "tbsm", "embedding_dims": {"user": 8}}, SEQUENCES)
    for name in ("dlrm", "deepfm", "dcnv2", "wide_deep"):
        with pytest.raises(RecipeError, match=f"item: pooling = none keeps a sequence, and {name} takes pooled"):
            parse({"name": name}, SEQUENCES)


def test_options_reach_their_model():
    assert parse({"name": "tbsm", "attention": "softmax", "top_mlp": [9]}, SEQUENCES).attention == "softmax"
    assert parse({"name": "deepfm", "embedding_dims": {"a": 1}}).dims(["a", "b"]) == [1, 16]
    assert parse({}).name == "dlrm"
