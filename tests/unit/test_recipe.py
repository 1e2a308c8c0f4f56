"""Recipes: what only the sections together can say wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fae.core.errors import RecipeError
from fae.recipe import parse_recipe


def test_dlrm_takes_no_sequence():
    column = {"name": "history", "max_length": 5, "pooling": "none"}
    recipe = parse_recipe({"log": {"train": "log.csv", "categorical": ["a", column]}}, base=Path())
    with pytest.raises(RecipeError, match=r"history: pooling = none .* set pooling to sum or mean"):
        recipe.check_model()


def test_widths_are_of_columns_that_exist():
    tables = {"log": {"train": "log.csv", "categorical": ["user"]}, "model": {"embedding_dims": {"usr": 8}}}
    with pytest.raises(RecipeError, match="did you mean 'user'"):
        parse_recipe(tables, base=Path())
