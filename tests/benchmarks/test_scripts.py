"""Every benchmark script explains itself, and the quick ones run at toy size on a CPU."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
MODULES = sorted(BENCHMARKS.rglob("*.py"))
SCRIPTS = [path for path in MODULES if '__name__ == "__main__"' in path.read_text()]
SHARED = [path for path in MODULES if path not in SCRIPTS]
QUICK = {
    "calibrate": ["calibrate.py", "--quick"],
    "pack": ["pack.py", "--quick"],
    "plan": ["plan.py", "--quick"],
    "predict": ["predict.py", "--quick"],
    "synthetic": ["synthetic.py", "speed", "--quick"],
}
SLOW = {
    "placements": ["placements.py", "--quick", "--only", "zipf 32768 16 sgd"],
    "limits threads": ["limits.py", "threads", "--quick", "--logs", "zipf"],
    "rows": ["rows.py", "--quick"],
    "ingest": ["ingest.py", "--quick"],
    "plan_stages": ["plan_stages.py", "--quick"],
    "start": ["start.py", "--quick"],
    "pipeline": ["pipeline.py", "--quick", "--shares", "0.05", "--settings", "depth 4"],
    "roofline": ["roofline.py", "--quick", "--device", "cpu", "--optimizers", "sgd"],
    "gpu_step": [
        "gpu_step.py", "dlrm", "--device", "cpu", "--inputs", "20000", "--cap", "2000", "--batch-sizes", "256",
        "--steps", "3", "--rounds", "1",
    ],
    "auc of ranks": [
        "studies/auc_of_ranks.py", "--ranks", "1", "2", "--seeds", "1", "--inputs", "20000", "--scale", "0.002",
        "--budget", "1MiB", "--batch-size", "512", "--precision", "fp32", "--device", "cpu",
    ],
    "accuracy": [
        "studies/accuracy.py", "truth", "--inputs", "10000", "--scale", "0.01", "--seeds", "1", "--device", "cpu",
    ],
}  # fmt: skip
WRITES_NOTHING_WHEN_QUICK = ("calibrate", "pack", "synthetic", "rows", "ingest")


def start(*words: str, seconds: float = 300) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / words[0]), *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_says_what_it_answers_and_how_to_start_it(script: Path) -> None:
    assert f"python {script.relative_to(ROOT)}" in (ast.get_docstring(ast.parse(script.read_text())) or "")


@pytest.mark.parametrize("module", SHARED, ids=lambda path: path.stem)
def test_what_is_no_script_is_imported_by_one(module: Path) -> None:
    """By itself or by what it imports."""
    needed, last = {path.stem for path in SCRIPTS}, set[str]()
    while needed != last:
        last = needed
        needed = last.union(*(imported(path) for path in MODULES if path.stem in last))
    assert module.stem in needed


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


STARTED = {words[0] for words in (*QUICK.values(), *SLOW.values())}


@pytest.mark.parametrize("script", [s for s in SCRIPTS if str(s.relative_to(BENCHMARKS)) not in STARTED], ids=str)
def test_it_starts(script: Path) -> None:
    """Scripts that no test below runs."""
    done = start(str(script.relative_to(BENCHMARKS)), "--help")
    assert done.returncode == 0, done.stderr
    assert f"python {script.relative_to(ROOT)}" in done.stdout


def runs(name: str, words: list[str], folder: Path) -> None:
    out = folder / "out.json"
    writes = name.split()[0] not in WRITES_NOTHING_WHEN_QUICK
    more = ["--out", str(out)] if writes else []
    more += ["--folder", str(folder / "data")] if words[0].startswith("studies") else []
    done = start(*words, *more, seconds=570)
    assert done.returncode == 0, done.stderr
    if writes:
        assert {"command", "commit", "machine", "versions"} <= json.loads(out.read_text()).keys()


@pytest.mark.parametrize("name", QUICK)
def test_it_runs_at_toy_size(name: str, tmp_path: Path) -> None:
    runs(name, QUICK[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_it_runs_at_small_size(name: str, tmp_path: Path) -> None:
    runs(name, SLOW[name], tmp_path)


@pytest.mark.parametrize(
    "words",
    [["placements"], ["paper"], ["accuracy", "accuracy_frappe"], ["drift"], ["selections", "selections_cost"],
     ["sampled_counts"], ["rand_em_box"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_the_tables_come_from_the_committed_results(words: list[str]) -> None:
    done = start("studies/tables.py", *words)
    assert done.returncode == 0, done.stderr
    assert "|---|" in done.stdout
