"""A look at the recipe before what reads recipes is imported; faults in it are named later."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

_LARGEST_RECIPE = 1 << 20


def early_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's table as it is in the file.

    Raises
    ------
    Exception
        If it cannot be read. A pipe is not waited for, and a log that was named in its place is not read whole.
    """
    path = Path(options.recipe)
    if not path.is_file() or path.stat().st_size > _LARGEST_RECIPE:
        raise OSError(f"{path} is no recipe")
    return tomllib.loads(path.read_text())


def early_run_folder(options: argparse.Namespace) -> Path:
    """The folder of the run."""
    return Path(options.out) if options.out else Path("runs") / Path(options.recipe).stem
