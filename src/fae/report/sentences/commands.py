"""One thing to try, and the command line that repeats a run with something changed, from the one in its record."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from fae.report.records import RunRecord

_WITH_VALUE, _ALONE = ("--out",), ("--json", "--replace", "--quiet")
UNKNOWN_RECIPE = "RECIPE.toml"
"""What takes the place of the recipe where the record does not say which it was."""


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """One thing to try.

    Attributes
    ----------
    title
        What to do.
    why
        What in the record says so.
    command
        What to type.
    """

    title: str
    why: str
    command: str


def run_arguments(run: RunRecord) -> list[str] | None:
    """The recipe and options of the `fae run` that made a record, without those for its output; None if unknown."""
    text = run.text("command")
    try:
        words = shlex.split(text) if text else []
    except ValueError:
        return None
    if len(words) < 3 or PurePosixPath(words[0]).name != "fae" or words[1] != "run":
        return None
    kept, skip = list[str](), False
    for word in words[2:]:
        if skip:
            skip = False
        elif word in _WITH_VALUE:
            skip = True
        elif word not in _ALONE and not word.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            kept.append(word)
    return kept


def folder_of(run: RunRecord) -> str:
    """The folder of a run as a command line names it."""
    text = run.text("command")
    try:
        words = shlex.split(text) if text else []
    except ValueError:
        words = []
    for place, word in enumerate(words):
        if word == "--out" and place + 1 < len(words):
            return words[place + 1]
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    arguments = run_arguments(run)
    recipe = next((word for word in arguments or () if word.endswith(".toml")), None)
    return f"runs/{PurePosixPath(recipe).stem}" if recipe else run.label


def again(run: RunRecord, option: str, value: str, *, name: str = "") -> str:
    """A command that runs the recipe with one change, into a folder of its own.

    Parameters
    ----------
    option, value
        ``--budget`` and a size, or a key of the recipe, such as ``train.epochs``, and its value.
    name
        What the folder is called behind the run's own name; "" for the same folder.
    """
    words = run_arguments(run) or [UNKNOWN_RECIPE]
    change = [option, value] if option.startswith("-") else ["--set", f"{option}={value}"]
    kept = _without(words, option)
    folder = folder_of(run) + (f"_{name}" if name else "")
    return "fae run " + " ".join(shlex.quote(word) for word in [*kept, "--out", folder, *change])


def _without(words: list[str], option: str) -> list[str]:
    """Arguments without what sets the same thing."""
    kept = list[str]()
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        after = words[place + 1] if place + 1 < len(words) else ""
        of_set = (word, before) if before == "--set" else (after, word)
        same_set = of_set[1] == "--set" and of_set[0].startswith(f"{_key(option)}=")
        same_budget = _key(option) == "hot.budget" and "--budget" in (word, before)
        if not same_set and not same_budget:
            kept.append(word)
    return kept


def _key(option: str) -> str:
    return "hot.budget" if option == "--budget" else option
