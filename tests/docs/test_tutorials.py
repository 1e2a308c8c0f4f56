"""Tutorials as they are typed: each page in a folder of its own, every command and Python block, every output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fae.planning import target_gpu
from fae.planning.machine_constants import MachineConstants

from doc_pages import COMMANDS, MARK, TUTORIALS, Terminal, blocks, difference

PAGES = sorted(TUTORIALS.glob("*.md"))
CONSTANTS = MachineConstants(
    source="measured", device="cpu", name="a CPU of tests", memory_bytes=0, memory_rate=1e10, product_rate=1e11,
    kernel_seconds=1e-5, host_rate=1e9, bus_rate=0, margin=0.15,
)  # fmt: skip


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal in an empty folder, on a machine whose speed need not be measured."""
    threads = torch.get_num_threads()
    folder = tmp_path / "page"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(target_gpu, "measure_constants", lambda device, works: CONSTANTS)
    found = Terminal(folder, hidden=tmp_path / "hidden")
    yield found
    found.close()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(terminal: Terminal, page: Path) -> None:
    printed = None
    for number, block in enumerate(blocks(page)):
        if MARK.fullmatch(block.mark):
            continue
        if block.language in COMMANDS:
            for step in block.steps:
                told = terminal.run(step.line)
                if step.output is not None:
                    assert not (wrong := difference(step.output, told)), f"{page.name}: $ {step.line}\n{wrong}"
            printed = None
        elif block.language == "python":
            printed = terminal.python(block.text, f"{page.name}, block {number + 1}")
        elif block.language == "text" and printed is not None:
            assert not (wrong := difference(block.text, printed)), f"{page.name}, block {number + 1}\n{wrong}"
            printed = None


def test_pages_show_outputs() -> None:
    """Every page is short, shows outputs, and not only dots in them."""
    index = (TUTORIALS.parent / "index.md").read_text()
    for page in PAGES:
        assert 40 <= len(page.read_text().splitlines()) <= 165, page.name
        assert f"(tutorials/{page.name})" in index, page.name
        shown = [step.output for block in blocks(page, "console") for step in block.steps]
        shown += [block.text for block in blocks(page, "text")]
        assert shown, page.name
        assert all(output is None or not output or output.replace(".", "").strip() for output in shown), page.name


def test_notebook(tmp_path: Path) -> None:
    """The notebook runs in an empty folder and prints what is stored in it."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TUTORIALS / "first_steps.ipynb", as_version=4)
    stored = [printed_by(cell) for cell in notebook.cells]
    assert sum(map(bool, stored)) >= 5
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [printed_by(cell) for cell in notebook.cells] == stored


def printed_by(cell: Any) -> str:
    """What a cell of a notebook printed."""
    return "".join(output["text"] for output in cell.get("outputs", []) if output.get("name") == "stdout")
