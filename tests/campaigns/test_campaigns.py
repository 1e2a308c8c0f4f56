"""Short forms of the campaigns; their long forms' results are the JSON files beside the scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHORT = {"raw_logs": 40, "artifacts": 30, "faults": 12, "recipes": 12, "worker_kills": 5}
LONG = {"raw_logs": 1000, "artifacts": 1000, "faults": 200, "recipes": 100, "worker_kills": 60}
UNSEEN = ("a leader that is gone is waited for", "two runs write to one folder")
"""Faults that the 60 cases of `worker_kills` do not see; tests of shared folders and of locks do."""


@pytest.mark.parametrize("name", SHORT)
def test_no_findings(name: str, tmp_path: Path) -> None:
    """Another seed than that of the long form, so that both together see more."""
    out = tmp_path / "record.json"
    command = [sys.executable, "-W", "ignore", HERE / f"{name}.py", "--count", SHORT[name], "--seed", 2, "--out", out]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=550)
    assert out.exists(), done.stderr[-2000:]
    record = json.loads(out.read_text())
    assert record["findings"] == []
    assert done.returncode == 0
    assert record["cases"] == SHORT[name]


@pytest.mark.parametrize("name", LONG)
def test_the_long_form_has_no_findings(name: str) -> None:
    record = json.loads((HERE / f"{name}.json").read_text())
    assert record["findings"] == []
    assert record["cases"] >= LONG[name]


def test_earlier_faults_are_seen() -> None:
    """Each campaign ran with earlier faults put back, and saw each of them."""
    seen = [
        fault
        for name in LONG
        for fault, found in json.loads((HERE / f"{name}_put_back.json").read_text())["faults"].items()
        if found["case"] is not None
    ]
    told = [fault for name in LONG for fault in json.loads((HERE / f"{name}_put_back.json").read_text())["faults"]]
    assert seen == [fault for fault in told if fault not in UNSEEN]
    assert len(seen) >= 16
