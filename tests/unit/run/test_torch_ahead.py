"""What is imported ahead, and what is known of a GPU before it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fae
import fae.run.folder
from fae.engine.local import LocalEngine
from fae.run.ahead import torch_ahead

from commands import write_log, write_recipe

_PROGRAM = """
import json, sys
from types import SimpleNamespace
from fae.run.ahead.torch_ahead import import_ahead
assert "torch" not in sys.modules
recipe = SimpleNamespace(train=SimpleNamespace(placement="tiered"))
thread = import_ahead(recipe, "cpu")
from torch import nn  # waits for the thread
assert nn.Linear(1, 1).weight.shape == (1, 1)
thread.join()
assert import_ahead(recipe, "cpu") is None
print(json.dumps(sorted(sys.modules)))
"""


def test_torch_and_what_trains_are_there_when_the_thread_has_ended():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert set(torch_ahead._MODULES) <= set(json.loads(done.stdout))


def test_a_module_that_cannot_be_imported_is_left_to_who_needs_it():
    torch_ahead._import_all(("json", "fae.there_is_no_such_module"))


def test_the_gpu_is_woken_when_all_is_imported_and_where_it_will_be_used(monkeypatch):
    woken: list[str] = []
    monkeypatch.setattr(torch_ahead, "_wake_gpu", lambda: woken.append("woken"))
    torch_ahead._import_all(("json",))
    torch_ahead._import_all(("json", "fae.there_is_no_such_module"), True)
    assert woken == []
    torch_ahead._import_all(("json",), True)
    assert woken == ["woken"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a driver, a GPU and torch for it, as far as files say."""
    (tmp_path / "driver").touch()
    (tmp_path / "nvidia0").touch()
    (tmp_path / "version.py").write_text("from typing import Optional\ncuda: Optional[str] = '12.8'\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch_ahead, "_DRIVER", tmp_path / "driver")
    monkeypatch.setattr(torch_ahead, "_DEVICES", tmp_path)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(torch_ahead.importlib.util, "find_spec", lambda name: spec)
    return tmp_path


def test_a_gpu_that_all_files_speak_of(machine: Path):
    assert torch_ahead.seems_to_have_gpu()


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_a_gpu_that_this_process_must_not_see(machine: Path, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not torch_ahead.seems_to_have_gpu()


@pytest.mark.parametrize("gone", ["driver", "nvidia0", "version.py"])
def test_a_machine_without_one_of_these_files(machine: Path, gone):
    (machine / gone).unlink()
    assert not torch_ahead.seems_to_have_gpu()


@pytest.mark.parametrize("text", ["cuda: Optional[str] = None", "cuda = None\nhip = '6.4'", "# cuda = '12.8'", ""])
def test_a_torch_without_cuda(machine: Path, text):
    (machine / "version.py").write_text(text)
    assert not torch_ahead.seems_to_have_gpu()


def test_no_torch(machine: Path, monkeypatch):
    monkeypatch.setattr(torch_ahead.importlib.util, "find_spec", lambda name: None)
    assert not torch_ahead.seems_to_have_gpu()


def test_torch_is_imported_when_processes_have_read_or_behind_ingest(tmp_path: Path, monkeypatch):
    """An engine that waits for its tasks may never have any: the log may be there already."""
    calls: list[str] = []
    monkeypatch.setattr(fae.run.folder, "import_ahead", lambda *_, **__: calls.append("import"))
    write_log(tmp_path)
    run = fae.RunFolder(fae.load_recipe(write_recipe(tmp_path)), tmp_path / "run", device="cpu")
    run.run()
    assert calls == ["import", "import"]
    calls.clear()
    run.engine = LocalEngine()
    monkeypatch.setattr(run.engine, "when_tasks_have_run", lambda call: calls.append("told"))
    ingested = run._run_stage

    def stage(which):
        calls.append(which.name)
        return ingested(which)

    monkeypatch.setattr(run, "_run_stage", stage)
    run.run()
    assert calls[:4] == ["told", "ingest", "import", "profile"]


_EARLY = """
import sys
import fae.run.folder
from fae.cli.main import main
fae.run.folder.import_ahead = lambda *_, **__: None
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
assert status == 2, status
assert "torch" not in sys.modules
"""


def test_no_data_stage_waits_for_torch(tmp_path: Path):
    recipe = write_recipe(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _EARLY, "run", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "log.csv does not exist" in done.stderr
