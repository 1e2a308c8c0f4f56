"""One finished run that command line tests look at, or copy before they change it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from commands import succeed, write_log, write_recipe


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """Models of a few kilobytes: where cores are shared, threads that wait for each other take most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``log.csv``, ``recipe.toml`` and the whole run in ``run``: read it, never write it."""
    folder = tmp_path_factory.mktemp("finished")
    write_log(folder)
    succeed("run", write_recipe(folder), "--out", folder / "run")
    return folder


@pytest.fixture
def finished(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of `finished_run` to do with as one likes."""
    folder = tmp_path / "finished"
    shutil.copytree(finished_run, folder)
    return folder
