"""Run the command line in this process: a small log, a recipe, and the output, status and files of one command."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fae.cli.main import main

STAGES = ("ingest", "profile", "calibrate", "pack", "train")
ARTIFACTS = {"ingest": "log", "profile": "profile", "calibrate": "hot_set", "pack": "packed", "train": "checkpoint"}

HEADER = ("label", "user", "item", "site", "price", "views")

RECIPE: dict[str, dict[str, Any]] = {
    "log": {
        "train": "log.csv",
        "label": "label",
        "categorical": ["user", "item", "site"],
        "dense": ["price", "views"],
        "test_fraction": 0.2,
        "validation_fraction": 0.1,
    },
    "model": {"embedding_dim": 4, "bottom_mlp": [8], "top_mlp": [8]},
    "hot": {"budget": "4KiB", "small_table": "256B", "ring_depth": 2},
    "train": {"batch_size": 32, "learning_rate": 0.1, "seed": 7},
}
"""For the log of `write_log`, whose tables are larger than the budget: it holds the staging ring and some rows."""


@dataclass(frozen=True)
class Done:
    """Status and output of one command."""

    status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> Any:
        """The one JSON object on stdout, read strictly: no NaN, no Infinity, nothing else beside it."""
        assert self.stdout.count("\n") == 1, self.stdout
        found = strict_json(self.stdout)
        assert isinstance(found, dict)
        return found


def strict_json(text: str) -> Any:
    """Parse JSON strictly: no NaN, no Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def fae(*arguments: object) -> Done:
    """Run one command line in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
    return Done(status, stdout.getvalue(), stderr.getvalue())


def succeed(*arguments: object) -> Done:
    """Run one command line that must succeed."""
    done = fae(*arguments)
    assert done.status == 0, done.stderr
    return done


def fault(done: Done, *expected: str) -> str:
    """The one error line of a command that failed because of the user; it must contain all of `expected`."""
    assert done.status == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("fae: ")] == lines[-1:], done.stderr
    assert "Traceback" not in done.stderr
    for text in expected:
        assert text in lines[-1], (text, lines[-1])
    return lines[-1]


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A recipe's text. Values print as TOML because JSON's scalars and lists are TOML's; a table is written inline."""

    def value(this: Any) -> str:
        if isinstance(this, Mapping):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(item)}" for key, item in this.items()) + "}"
        if isinstance(this, (list, tuple)):
            return "[" + ", ".join(map(value, this)) + "]"
        return json.dumps(this)

    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {value(item)}\n" for key, item in table.items())
        for name, table in tables.items()
    )


def write_recipe(folder: Path, name: str = "recipe.toml", **changes: Mapping[str, Any]) -> Path:
    """Write `RECIPE` with keys of its sections replaced; a value of None removes the key."""
    tables = {
        section: {key: value for key, value in {**table, **changes.get(section, {})}.items() if value is not None}
        for section, table in RECIPE.items()
    }
    path = folder / name
    path.write_text(toml(tables))
    return path


def zipf_inputs(num_inputs: int = 600, *, seed: int = 3) -> list[list[object]]:
    """Inputs in the order of `HEADER`: skewed ids, and labels that follow one of them and the price."""
    random = np.random.default_rng(seed)
    columns = []
    for size in (400, 200, 6):
        share = 1.0 / np.arange(1, size + 1) ** 1.1
        columns.append(random.choice(size, num_inputs, p=share / share.sum()))
    price = random.lognormal(1.0, 1.0, num_inputs).round(2)
    views = random.integers(0, 50, num_inputs)
    label = (random.random(num_inputs) < 0.1 + 0.6 * (columns[1] % 2) + 0.02 * (price > 3)).astype(int)
    return [
        [int(label[i]), f"u{columns[0][i]}", f"i{columns[1][i]}", f"s{columns[2][i]}", float(price[i]), int(views[i])]
        for i in range(num_inputs)
    ]


def csv_text(rows: Iterable[Iterable[object]], header: Iterable[str] = HEADER) -> str:
    """The text of a CSV log."""
    return "".join(",".join(map(str, row)) + "\n" for row in (header, *rows))


def write_log(folder: Path, num_inputs: int = 600, *, seed: int = 3) -> Path:
    """Write ``log.csv`` of `zipf_inputs`."""
    path = folder / "log.csv"
    path.write_text(csv_text(zipf_inputs(num_inputs, seed=seed)))
    return path


def unfinished(folder: Path) -> list[Path]:
    """Temporary files and folders, which a stage leaves only if it failed to clean up."""
    return [path for path in folder.rglob(".*") if path.name.endswith((".writing", ".old"))]


def artifacts(folder: Path) -> list[str]:
    """Stages whose artifact is in a run folder."""
    return [stage for stage in STAGES if (folder / ARTIFACTS[stage]).exists()]


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path to bytes of every file of a run, except files with times (the run record, timings).

    What an interrupted ingest has kept is left out too.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("run.json", "timings.json", ".lock", "log.sources.json", "metrics.jsonl")
        and ".partial" not in str(path.relative_to(folder))
    }
