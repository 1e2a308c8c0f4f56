"""Torch's libraries are loaded beside imports, where something will be trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fae
from fae.distributed.places import RankPlace
from fae.run.ahead import libraries_ahead as libraries

from commands import write_recipe

_PROGRAM = """
import sys
from fae.run.ahead.libraries_ahead import load_libraries
load_libraries(False)
assert "torch" not in sys.modules
maps = open("/proc/self/maps").read()
assert "libtorch_cpu.so" in maps, "not loaded"
assert "libtorch_python.so" not in maps, "this one calls Python"
import torch
assert torch.nn.Linear(2, 1)(torch.ones(1, 2)).shape == (1, 1)
"""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call was for a GPU; nothing is loaded."""
    calls: list[bool] = []
    monkeypatch.setattr(libraries, "load_libraries", calls.append)
    monkeypatch.setattr(libraries, "seems_to_have_gpu", lambda: True)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return calls


def begin(folder: Path, device: str | None = None, overrides: tuple[str, ...] = ()) -> None:
    thread = libraries.libraries_ahead(fae.load_recipe(write_recipe(folder), overrides), folder / "run", device)
    if thread is not None:
        thread.join()


def test_torch_works_with_libraries_that_were_loaded_before() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("device", "on_gpu"), [(None, True), ("cuda", True), ("cpu", False)])
def test_the_gpu_is_opened_where_the_command_will_use_it(
    tmp_path: Path, loaded: list[bool], device: str | None, on_gpu: bool
) -> None:
    begin(tmp_path, device)
    assert loaded == [on_gpu]


def test_rows_of_the_placement_cpu_need_no_gpu(tmp_path: Path, loaded: list[bool]) -> None:
    begin(tmp_path, overrides=("train.placement=cpu",))
    assert loaded == [False]


def test_the_first_gpu_is_that_of_the_first_rank_of_a_host(
    tmp_path: Path, loaded: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = RankPlace(rank=3, world=4, local_rank=1, local_world=2, port=29500)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    begin(tmp_path)
    assert loaded == [False]


def test_nothing_is_loaded_for_a_run_that_was_trained(tmp_path: Path, loaded: list[bool]) -> None:
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    begin(tmp_path)
    assert loaded == []
