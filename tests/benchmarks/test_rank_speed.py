"""The benchmark of several GPUs runs on two processes of a CPU, and both of its systems train the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "ranks.py"


def start(*words: str) -> subprocess.CompletedProcess:
    # Without Triton's interpreter, which takes minutes.
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
def test_two_ranks_beside_one_and_beside_model_parallelism(tmp_path: Path) -> None:
    done = start("--quick", "--out", str(tmp_path), "--folder", str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    (out,) = tmp_path.glob("ranks_cpu_*.json")
    found = json.loads(out.read_text())
    assert {"command", "commit", "machine", "versions", "check", "rows"} <= found.keys()
    assert len(found["check"]["model parallel"]["losses"]["ranks"]) == 7
    missing = {row["contender"]: row["cannot_be_made"] for row in found["rows"] if "cannot_be_made" in row}
    rows = {(row["case"], row["contender"]): row for row in found["rows"] if "cannot_be_made" not in row}
    others = list(found["check"])
    assert all(check["agree"] for check in found["check"].values())
    assert others == ["model parallel", *(["FBGEMM parallel", "FBGEMM eager"] if find_spec("fbgemm_gpu") else [])]
    assert missing.keys() == {"FBGEMM parallel", "FBGEMM eager"} - found["check"].keys()
    assert all("No module named 'fbgemm_gpu'" in why for why in missing.values())
    names = {"device": ("one", "ranks", *others), "rmc2": ("one", "ranks")}
    names["strong"] = names["device"]
    names["reproducible"] = ("one", "ranks", "one, reproducible", "ranks, reproducible")
    names["criteo_tiered"] = ("one", "ranks")
    assert done.stderr.count(f"wrote {out}") == len(names), "after each case, so that no end takes them away"
    assert rows.keys() == {(case, name) for case in names for name in names[case]}
    assert rows["rmc2", "ranks"]["workload"] == "rmc2"
    assert {rows["rmc2", name]["placement"] for name in names["rmc2"]} == {"tiered"}
    assert rows["criteo_tiered", "ranks"]["log"] == "criteo"
    assert rows["device", "ranks"]["global_batch"] == 256
    assert rows["strong", "ranks"]["global_batch"] == 128
    slices = {name: rows["reproducible", name] for name in names["reproducible"]}
    assert [row["ranks"] for row in slices.values()] == [1, 2, 1, 2]
    received = [row["wire_bytes_an_input"].get("rows") for row in slices.values()]
    assert received[::2] == [None, None]
    assert 0 < received[1] < received[3]  # a row crosses once for each slice that lists it
    ours, theirs = (rows["device", name]["wire_bytes_an_input"] for name in ("ranks", "model parallel"))
    assert theirs["vectors"] == theirs["gradients"] == 2 * 16 * 26 / 2
    assert 0 < ours["rows"] <= 4 * 16 * 26
    assert ours["dense"] == pytest.approx(theirs["dense"])  # two ranks: a ring moves as much as all to all
    assert f"{rows['device', 'ranks']['ratios']['one']['median']:.2f}" in done.stdout


def test_other_cases_are_refused_in_a_line() -> None:
    done = start("devices")
    assert done.returncode == 2
    assert "cases are device, adagrad" in done.stderr
