"""What came of a task: its result or its error, run here or handed over as JSON from wherever it ran."""

from __future__ import annotations

import builtins
import functools
import hashlib
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fae.core import errors
from fae.core.threads import one_thread
from fae.engine.plain_values import from_plain, to_plain

_LONGEST_TRACEBACK = 20_000


class TaskError(RuntimeError):
    """The error of a task that ran elsewhere, whose class cannot be made here."""


@dataclass(frozen=True)
class Outcome:
    """What came of one task.

    Attributes
    ----------
    value
        Its result.
    error
        What it raised; None where it has a result.
    """

    value: Any = None
    error: BaseException | None = None

    def result(self) -> Any:
        """The result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


def function_of(task: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a task, which a worker elsewhere must be able to import.

    Raises
    ------
    TypeError
        If it is no function of a module: a lambda, an inner function, a method, or one of ``__main__``.
    """
    function = task
    while isinstance(function, functools.partial):
        function = function.func
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<none>")
    if not module or module == "__main__" or "." in name or "<" in name:
        raise TypeError(f"{function!r} cannot be a task: take a function of a module, or functools.partial of one")
    return function


def package_of(task: Callable[..., Any]) -> str:
    """The top-level package of a task's function, whose dataclasses its results may hold."""
    return str(function_of(task).__module__).split(".")[0]


def digest_of(task: Callable[..., Any], shards: Sequence[Any]) -> str:
    """Sixteen hex digits that name a task with its arguments and its shards: other work has another digest."""
    arguments: list[Any] = []
    part = task
    while isinstance(part, functools.partial):
        arguments.append([list(part.args), dict(sorted(part.keywords.items()))])
        part = part.func
    function = function_of(task)
    text = json.dumps([function.__module__, function.__qualname__, to_plain(arguments), to_plain(list(shards))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def attempt(task: Callable[[Any], Any], shard: Any) -> Outcome:
    """Run a task in this thread, alone: loops that would use all cores run inline."""
    try:
        with one_thread():
            value = task(shard)
        to_plain(value)  # the same results are refused wherever the task runs
    except Exception as error:
        return Outcome(error=error)
    return Outcome(value)


def attempt_apart(task: Callable[[Any], Any], shard: Any) -> dict[str, Any]:
    """Run a task and describe what came of it as JSON: an error of any class can then be handed over."""
    return describe(attempt(task, shard))


def describe(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    error = outcome.error
    if error is None:
        return {"result": to_plain(outcome.value)}
    known = next((kind for kind in type(error).__mro__ if _known_class(kind.__name__) is kind), None)
    arguments: Any = list(error.args) if known is type(error) else [str(error)]
    if isinstance(error, OSError) and error.errno is not None:
        arguments = [error.errno, error.strerror, error.filename]
    try:
        arguments = to_plain(arguments)
    except TypeError:
        arguments = [str(error)]
    told = "".join(traceback.format_exception(error))[-_LONGEST_TRACEBACK:]
    return {
        "error": {
            "class": known.__name__ if known else type(error).__name__,
            "arguments": arguments,
            "text": str(error),
            "traceback": told,
        }
    }


def outcome_of(described: dict[str, Any], package: str) -> Outcome:
    """The outcome that was described.

    Raises
    ------
    ValueError
        If it is no description of one.
    """
    try:
        if "error" not in described:
            return Outcome(from_plain(described["result"], package))
        told = described["error"]
        error = _error_of(told["class"], from_plain(told["arguments"], package), told["text"])
        error.add_note(f"where the task ran:\n{told['traceback']}")
        return Outcome(error=error)
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        raise ValueError(f"no outcome of a task: {error}") from error


def _known_class(name: str) -> type[Exception] | None:
    """A class of errors that every worker has: FAE's, and Python's own."""
    found = getattr(errors, name, None) or getattr(builtins, name, None)
    is_error = isinstance(found, type) and issubclass(found, Exception) and found is not Exception
    return found if is_error else None


def _error_of(name: str, arguments: list[Any], text: str) -> Exception:
    kind = _known_class(name)
    if kind is None:
        return TaskError(f"{name}: {text}")
    try:
        error = kind(*arguments)
        if str(error) == text:
            return error
        return kind(text)
    except Exception:
        return TaskError(f"{name}: {text}")
