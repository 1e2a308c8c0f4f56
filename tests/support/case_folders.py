"""Run a folder of tests/cases: its recipe and its small log, copied to a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fae.artifacts.columnar_log import ColumnarLog

from commands import Done, fae

CASES = Path(__file__).resolve().parents[1] / "cases"


@dataclass(frozen=True)
class Case:
    """A copy of one case folder, in which commands may write."""

    folder: Path

    def fae(self, verb: str, *arguments: object, recipe: str = "recipe.toml") -> Done:
        """Run ``fae VERB recipe.toml --out out`` on the copy, in this process."""
        return fae(verb, self.folder / recipe, "--out", self.folder / "out", *arguments)

    def ingest(self, *settings: str, recipe: str = "recipe.toml") -> ColumnarLog:
        """Ingest the copy, with ``--set`` settings, and open the log; fails with the error line if that fails."""
        done = self.fae("ingest", "--replace", *(part for text in settings for part in ("--set", text)), recipe=recipe)
        assert done.status == 0, done.stderr
        return ColumnarLog(self.folder / "out" / "log")


def copy_case(name: str, folder: Path) -> Case:
    """Copy tests/cases/NAME into `folder`; links stay links."""
    shutil.copytree(CASES / name, folder / name, symlinks=True)
    return Case(folder / name)


def column_values(log: ColumnarLog, name: str) -> list[Any]:
    """The text of a plain column, input by input; None where it has the reserved id."""
    index = next(i for i, feature in enumerate(log.features) if feature.name == name)
    slot = sum(feature.length for feature in log.features[:index])
    values = vocabulary(log, name)
    return [values[identity] for identity in log.ids[:, slot].tolist()]


def list_values(log: ColumnarLog, name: str) -> list[list[Any]]:
    """The items of a list column, input by input."""
    index = next(i for i, feature in enumerate(log.features) if feature.name == name)
    slot = sum(feature.length for feature in log.features[:index])
    values = vocabulary(log, name)
    rows = log.ids[:, slot : slot + log.features[index].length].tolist()
    return [[values[identity] for identity in row if identity >= 0] for row in rows]


def vocabulary(log: ColumnarLog, name: str) -> list[Any]:
    """The values of a column in id order; None for the reserved id."""
    index = next(i for i, feature in enumerate(log.features) if feature.name == name)
    found: list[Any] = pq.read_table(log.path / "vocabulary" / f"{index}.parquet").column("value").to_pylist()
    return found


def fae_process(
    *arguments: object, folder: Path, environment: Mapping[str, str] | None = None, timeout: float = 120, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own, in `folder`: for signals, closed streams and limits."""
    return subprocess.run(
        [sys.executable, "-m", "fae.cli.main", *map(str, arguments)],
        cwd=folder, env={**os.environ, **(environment or {})}, text=True, timeout=timeout,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip
