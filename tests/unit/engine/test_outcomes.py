"""Tasks, their names and their errors."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from fae.core.errors import LogError
from fae.engine.engine import check_name
from fae.engine.outcomes import TaskError, attempt, attempt_apart, digest_of, outcome_of

import engine_tasks as tasks


class Local:
    """Has a method, which is no task."""

    def method(self, number: int) -> int:
        return number


def test_only_what_others_can_import_is_a_task() -> None:
    def inner(number: int) -> int:
        return number

    for task in (inner, lambda number: number, Local().method, functools.partial(inner, 1), Local()):
        with pytest.raises(TypeError, match="cannot be a task"):
            digest_of(task, [1])  # type: ignore[arg-type]


def test_other_work_has_another_digest() -> None:
    count = functools.partial(tasks.count, 3)
    part = tasks.Part(Path("a"), 1, 2)
    digests = {
        digest_of(count, [part]),
        digest_of(functools.partial(tasks.count, 4), [part]),
        digest_of(functools.partial(tasks.count, factor=3), [part]),
        digest_of(count, [part, part]),
        digest_of(count, [tasks.Part(Path("a"), 1, 3)]),
        digest_of(tasks.square, [1]),
        digest_of(tasks.square, [1.0]),
        digest_of(tasks.square, [(1,)]),
        digest_of(tasks.square, [[1]]),
    }
    assert len(digests) == 9
    assert digest_of(count, [part]) == digest_of(functools.partial(tasks.count, 3), [tasks.Part(Path("a"), 1, 2)])


@pytest.mark.parametrize(("number", "kind"), [(0, LogError), (2, OSError), (4, KeyError), (6, TaskError)])
def test_an_error_is_the_same_after_its_way(number: int, kind: type[Exception]) -> None:
    here = attempt(tasks.fail_with, number).error
    there = outcome_of(json.loads(json.dumps(attempt_apart(tasks.fail_with, number))), "engine_tasks").error
    assert type(there) is kind
    assert str(here) in str(there)
    assert "in fail_with" in "".join(there.__notes__), "where it was raised is kept for --debug"


def test_an_odd_result_is_an_error_everywhere() -> None:
    error = attempt(tasks.odd_result, 1).error
    assert isinstance(error, TypeError)
    assert "builtins.set cannot be handed" in str(error)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"error": 1}', '{"error": {"class": "LogError"}}', '{"result": {"$": 1}}']
)
def test_damaged_outcomes_are_seen(text: str) -> None:
    described = json.loads(text)
    with pytest.raises(ValueError, match=r"no (outcome|form)"):
        outcome_of(described, "fae")


@pytest.mark.parametrize("name", ["", "/", "a/", "../a", ".a", "a b", "-a", "a/.b", "é", "a\n"])
def test_names_of_maps_are_names_of_folders(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a map"):
        check_name(name)
    check_name("ingest/parse_2-a")
