"""Run records as reports read them: found, checked, labelled, and read value by value.

A record of any age, or written by another program, never raises once it is loaded: what is missing, or is of another
type than expected, is None or empty.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fae.core.config import check_path
from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST
from fae.core.text_files import read_text

_RUN_FILE = "run.json"
_BENCH_FILE = "paper.json"
"""The record of `fae bench paper`."""
_SECTIONS = ("recipe", "train", "test", "hot", "workload")
"""A JSON object without any of these is no run record."""
_LARGEST = 1e150


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of one run, and its name on the page.

    Attributes
    ----------
    label
        Short, and different from the other runs'.
    record
        The JSON object of ``run.json``.
    """

    label: str
    record: Mapping[str, Any]

    def get(self, *path: str) -> Any:
        """The value at a path of keys, or None; without a path the whole record."""
        value: Any = self.record
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def has(self, *path: str) -> bool:
        """Whether the record has a value at a path, also null: recorded, though perhaps not defined."""
        return isinstance(parent := self.get(*path[:-1]), Mapping) and path[-1] in parent

    def number(self, *path: str) -> float | None:
        """The finite number at a path, or None."""
        return as_number(self.get(*path))

    def text(self, *path: str) -> str | None:
        """The text at a path if it is not empty, or None."""
        value = self.get(*path)
        return value if isinstance(value, str) and value else None

    def table(self, *path: str) -> Mapping[str, Any]:
        """The object at a path; an empty one where there is none."""
        value = self.get(*path)
        return value if isinstance(value, Mapping) else {}

    def items(self, *path: str) -> list[Mapping[str, Any]]:
        """The objects of the list at a path; none where there is no list."""
        value = self.get(*path)
        return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def as_number(value: Any) -> float | None:
    """The value if it is a number that a page can calculate with, or None; 0 for the very smallest.

    Products and ratios of two of them are finite and not 0.

    >>> as_number(3), as_number("3"), as_number(True), as_number(float("nan")), as_number(1e308), as_number(5e-324)
    (3, None, None, None, None, 0.0)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not -_LARGEST <= value <= _LARGEST:  # NaN too, and integers of JSON that are too large for a float
        return None
    return 0.0 if 0 < abs(value) < 1 / _LARGEST else value


def points_of(value: Any) -> list[tuple[float, float]]:
    """The pairs of finite numbers of a list, such as a loss curve.

    >>> points_of([[1, 0.5], [2, None], "x", [3, 0.4]])
    [(1, 0.5), (3, 0.4)]
    """
    found = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
            x, y = as_number(item[0]), as_number(item[1])
            if x is not None and y is not None:
                found.append((x, y))
    return found


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not an object, under its dotted name.

    >>> list(flatten({"hot": {"budget": "1MiB"}, "seed": 1}))
    [('hot.budget', '1MiB'), ('seed', 1)]
    """
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def load_runs(paths: Sequence[str | Path]) -> list[RunRecord]:
    """Read the records of some runs.

    Parameters
    ----------
    paths
        Folders of runs, or files of records.

    Raises
    ------
    ArtifactError
        If one is not there or is not a run record.
    """
    files = [_record_file(Path(path)) for path in paths]
    return [
        RunRecord(label=label, record=_load(file))
        for label, file in zip(_labels([Path(os.path.abspath(file)) for file in files]), files, strict=True)
    ]


def _record_file(path: Path) -> Path:
    check_path(str(path), "run")
    if path.is_file():
        return path
    if not path.exists():
        raise ArtifactError(
            f"there is no run {path}; give the folder of a run (see `fae run --help`) or its {_RUN_FILE}"
        )
    for name in (_RUN_FILE, _BENCH_FILE):
        if (path / name).is_file():
            return path / name
    if (path / MANIFEST).is_file():
        raise ArtifactError(
            f"{path} is one of the folders of a run, and {_RUN_FILE} is beside it; name the run, "
            f"{Path(os.path.abspath(path)).parent}"
        )
    inner = next((found.parent for found in sorted(path.glob(f"*/{_RUN_FILE}"))), None)
    if inner is not None:
        raise ArtifactError(f"{path} holds no {_RUN_FILE}, but {inner} does; type `fae report {inner}`")
    raise ArtifactError(
        f"{path} holds no {_RUN_FILE}: nothing was run there, or not to the end; finish it with "
        f"`fae run RECIPE.toml --out {path}`"
    )


def _load(file: Path) -> Mapping[str, Any]:
    fix = "name the folder of a run"
    if file.name == _RUN_FILE:
        fix = f"move it away and make it again with `fae run RECIPE.toml --out {file.parent}`"
    try:
        record = json.loads(read_text(file))
    except OSError as error:
        raise ArtifactError(f"cannot read {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} is not JSON ({error}); {fix}") from None
    if not isinstance(record, dict) or not any(isinstance(record.get(name), dict) for name in _SECTIONS):
        raise ArtifactError(f"{file} is JSON but no run record (it has none of {', '.join(_SECTIONS)}); {fix}")
    return record


def _labels(files: Sequence[Path]) -> list[str]:
    """The shortest end of each path that tells it from the others; a number behind a path that is there twice."""
    parts = [
        (*file.parent.parts[1:], *([] if file.name in (_RUN_FILE, _BENCH_FILE) else [file.stem])) or ("run",)
        for file in files
    ]
    # A folder that is called run says nothing.
    depth, deepest = 2 if any(part[-1] == "run" for part in parts) else 1, max(map(len, parts), default=1)
    while depth < deepest and len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    labels: list[str] = []
    for part in parts:
        label, times = "/".join(part[-depth:]), 1
        while (label if times == 1 else f"{label} ({times})") in labels:
            times += 1
        labels.append(label if times == 1 else f"{label} ({times})")
    return labels
