"""Values as JSON: the same value comes back, anything else is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fae.engine.plain_values import from_plain, to_plain

from engine_tasks import Counted, Part

TEXTS = st.text(max_size=5) | st.sampled_from(["$path", "$tuple", "$", "$class", "nan", "\udcff"])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.binary(max_size=4)
    | st.builds(lambda name: Path("folder", name), st.text("abc", min_size=1, max_size=3))
)  # fmt: skip


def larger(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.builds(Part, values, st.integers(), values)
    keys = TEXTS | st.integers() | st.tuples(st.integers(), TEXTS)
    return (
        st.lists(values, max_size=3)
        | st.lists(values, max_size=3).map(tuple)
        | st.dictionaries(keys, values, max_size=3)
        | parts
        | st.builds(Counted, parts, values, values)
    )


@given(st.recursive(LEAVES, larger, max_leaves=8))
def test_the_same_value_comes_back(value: Any) -> None:
    back = from_plain(json.loads(json.dumps(to_plain(value), allow_nan=False)), "engine_tasks")
    assert repr(back) == repr(value)
    assert back == value


def test_no_number_is_kept_as_such() -> None:
    assert repr(from_plain(to_plain(float("nan")), "fae")) == "nan"


@dataclass
class Open:
    """A dataclass that can be changed."""

    value: int = 1


@pytest.mark.parametrize("value", [{1}, np.float64(1.0), np.int64(1), np.zeros(2), Open(), object(), [Open()]])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be handed to or from a task"):
        to_plain(value)


def test_a_file_makes_nothing_but_dataclasses_of_the_package() -> None:
    """A folder that others write to must not run code."""
    form = to_plain(Part(Path("a"), 1, 2))
    assert from_plain(form, "engine_tasks") == Part(Path("a"), 1, 2)
    with pytest.raises(ValueError, match="is not of the package fae"):
        from_plain(form, "fae")
    with pytest.raises(ValueError, match="is no dataclass"):
        from_plain({"$class": "engine_tasks:square", "fields": {}}, "engine_tasks")
    with pytest.raises(ValueError, match="is no form"):
        from_plain({"$call": "os:system"}, "fae")
