"""``fae bench paper --gpus``, on processes of the CPU: its rows, prepared, measured and drawn; a rank that fails."""

from __future__ import annotations

import html
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import strict_json, succeed

TINY = ("bench", "paper", "rmc2", "--scale", "0.0005", "--inputs", "1500", "--batch-sizes", "64", "--seconds", "0",
        "--min-batches", "1", "--rounds", "2", "--device", "cpu", "--accuracy", "none", "--gpus", "2")  # fmt: skip
FAULTY = """
import os
if os.environ.get("RANK") == "1":
    from fae.bench.contenders import OurContender
    sample = OurContender.sample
    def fails(self, *arguments):
        if self._group.world > 1 and self.embeddings.placement == "tiered":
            raise ValueError("rank 1 is ill")
        return sample(self, *arguments)
    OurContender.sample = fails
"""


def started(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; modules of `path` come first."""
    # Without Triton's interpreter, which nothing here needs.
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (path, *sys.path)))
    command = [sys.executable, "-m", "fae", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three contenders on two processes, prepared first."""
    out = tmp_path_factory.mktemp("bench") / "two"
    words = (*TINY, "--contenders", "cpu,paper,tiered", "--out", str(out))
    prepared = succeed(*words, "--prepare", "--json").result
    assert not prepared["complete"]
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    done = started(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert strict_json(done.stdout) == strict_json((out / "paper.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} == made
    assert "2 x FAE, tiered" in done.stderr
    return out


def test_the_record_has_the_rows(measured: Path) -> None:
    record = strict_json((measured / "paper.json").read_text())
    assert record["complete"]
    assert "gpus" not in record["settings"]
    (table,) = record["tables"]
    rows: dict[tuple[int, str], dict[str, Any]] = {(row["gpus"], row["contender"]): row for row in table["gpus"]}
    assert list(rows) == [(gpus, name) for gpus in (1, 2) for name in ("cpu", "paper", "tiered")]
    for (gpus, name), row in rows.items():
        assert (row["num_samples"], row["global_batch"]) == (2, 64 * gpus)
        assert row["spread"][0] <= row["samples_per_second"] <= row["spread"][1]
        base = rows[gpus, "cpu"]["samples_per_second"]
        assert row["over data parallel"] == pytest.approx(row["samples_per_second"] / base)
        if gpus == 2:
            one = rows[1, name]["samples_per_second"]
            assert row["over one"] == pytest.approx(row["samples_per_second"] / one)
    for sample in record["cells"]["64/gpus/2/paper"]["samples"]:
        assert {"hot", "swaps"} <= set(sample["phases"])


def test_nothing_is_taken_twice(measured: Path) -> None:
    before = strict_json((measured / "paper.json").read_text())["cells"]
    words = (*TINY, "--contenders", "cpu,paper,tiered", "--out", str(measured))
    assert succeed(*words, "--json").result["cells"] == before


def test_the_report_draws_them(measured: Path) -> None:
    succeed("report", measured)
    page = html.unescape((measured / "report.html").read_text())
    assert "2 x FAE, tiered" in page
    assert "over data parallel" in page


def test_a_rank_that_fails_ends_all_with_its_line(tmp_path: Path) -> None:
    """And what was measured before is kept."""
    (tmp_path / "sitecustomize.py").write_text(FAULTY)
    # A CPU that multiplies bfloat16 would take samples of each contender before the first turn, to choose a precision.
    words = (*TINY, "--precision", "fp32", "--contenders", "cpu,tiered", "--out", str(tmp_path / "out"))
    done = started(*words, path=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("fae: ")]
    assert lines == [
        "fae: FAE, tiered failed on rank 1 of 2: ValueError: rank 1 is ill; the same command continues behind the "
        "samples that are there, --contenders leaves it out"
    ]
    cells = strict_json((tmp_path / "out" / "paper.json").read_text())["cells"]
    assert len(cells["64/gpus/2/cpu"]["samples"]) == 1
    assert not cells["64/gpus/2/tiered"]["samples"]
