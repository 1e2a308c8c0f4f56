"""What all tests share: the GPU gate, hypothesis settings, where coverage is measured, a notice of what was not run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before anything imports Triton: where there is no GPU, its kernels run in its interpreter.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

import coverage
import pytest
from hypothesis import settings

from disks import NO_DISK

# No deadline: the first example of a test may compile a kernel. A failing example prints how to repeat it.
settings.register_profile("fae", deadline=None, print_blob=True)
settings.load_profile("fae")

_TESTS = Path(__file__).parent
MEASURED = ("contract", "unit")
"""Folders of tests whose lines coverage counts."""
_FEW_GPUS = "fewer GPUs here than it needs"  # as in support/gpus.py, which needs torch
_NO_GPU = "no GPU here (torch.cuda.is_available() is False)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The GPU gate: tests marked ``gpu``, and all under tests/gpu, are skipped where there is none."""
    for item in items:
        if item.path.is_relative_to(_TESTS / "gpu"):
            item.add_marker("gpu")
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=_NO_GPU))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Coverage counts lines that a test of a part alone reaches, and its tracer does not slow whole runs down.

    A line that only whole runs pass through is tested by nothing that says what the line is for.
    """
    measured = coverage.Coverage.current()
    if measured is None or item.path.relative_to(_TESTS).parts[0] in MEASURED:
        return (yield)
    measured.stop()
    try:
        return (yield)
    finally:
        measured.start()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of a machine: a green line must not be read as more than it is."""
    for what, why, untested in (
        ("GPU tests", _NO_GPU, "The GPU paths are"),
        ("tests of several GPUs", _FEW_GPUS, "What GPUs do together is"),
        ("full-disk tests", NO_DISK, "What happens on a full or read-only disk is"),
    ):
        skipped = [report for report in terminalreporter.stats.get("skipped", []) if why in str(report.longrepr)]
        if skipped:
            terminalreporter.section(what, sep="=", yellow=True, bold=True)
            terminalreporter.line(f"{len(skipped)} {what} were SKIPPED: {why}. {untested} untested by this run.")
