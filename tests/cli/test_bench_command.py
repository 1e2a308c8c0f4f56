"""``fae bench paper`` on the command line: the whole verb at a tiny scale on the CPU, killed, misused, and drawn."""

from __future__ import annotations

import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fae.bench.config import CONTENDERS, BenchConfig
from fae.bench.workloads import WORKLOADS
from fae.core.errors import RecipeError

from commands import fae, fault, strict_json, succeed

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--scale", 0.0005, "--inputs", 1500, "--batch-sizes", 64, "--seconds", 0, "--min-batches", 1, "--rounds", 2,
        "--device", "cpu")  # fmt: skip
ON_THE_CPU = ["plain cpu", "cpu", "paper", "tiered", "tiered shuffled"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RMC2, measured to its end."""
    out = tmp_path_factory.mktemp("bench") / "rmc2"
    done = succeed("bench", "paper", "rmc2", *TINY, "--out", out, "--json")
    assert done.result == strict_json((out / "paper.json").read_text())
    assert "inputs/s" in done.stderr
    assert "left out: needs a GPU" in done.stderr
    return out


def test_the_record_says_all(measured: Path) -> None:
    record = strict_json((measured / "paper.json").read_text())
    assert record["complete"]
    assert record["log"]["touched_rows"] < record["log"]["num_rows"]
    (table,) = record["tables"]
    assert [row["contender"] for row in table["rows"]] == ON_THE_CPU
    assert [each["contender"] for each in table["left_out"]] == ["plain hybrid", "hybrid", "device"]
    rows = {row["contender"]: row for row in table["rows"]}
    for row in rows.values():
        assert row["num_samples"] == 2
        assert row["spread"][0] <= row["samples_per_second"] <= row["spread"][1]
        assert row["epoch_seconds"] == pytest.approx(record["log"]["train_inputs"] / row["samples_per_second"])
        assert row["over plain cpu"] == pytest.approx(
            row["samples_per_second"] / rows["plain cpu"]["samples_per_second"]
        )
        assert 0 < row["log_loss"] < 1
    for name in ON_THE_CPU:
        for sample in record["cells"][f"{table['batch_size']}/speed/{name}"]["samples"]:
            assert sample["host_gflops"] > 0
            assert sample["stolen_core_seconds"] >= 0
    assert table["facts"]["mixed"]["hot_batches"] == 0
    assert rows["tiered shuffled"]["accuracy_of_order"] == "shuffled"
    assert rows["plain cpu"]["auc"] == rows["cpu"]["auc"]
    assert rows["paper"]["accuracy_of_order"] == "adaptive"
    assert rows["tiered"]["accuracy_of_order"] == "interleaved"
    assert rows["cpu"]["bytes_to_device"] == 0
    assert rows["paper"]["bytes_to_device"] > rows["tiered"]["bytes_to_device"] > 0
    assert table["claims"][0]["ours"]["paper"] == rows["paper"]["over plain cpu"]
    assert table["claims"][1]["ours"] == {}


def test_the_placement_of_the_paper_is_counted(measured: Path) -> None:
    (table,) = strict_json((measured / "paper.json").read_text())["tables"]
    published, facts = table["published"], table["facts"]["threshold"]
    assert facts["selection"] == "threshold"
    assert facts["hot_batches"] > 0
    assert set(published["epoch_seconds"]) == {"cold", "hot", "swaps_to_device", "swaps_to_host"}
    whole = published["whole_epoch"]
    assert {"cold", "hot", "validation", "swap_to_device", "swap_to_host"} <= set(whole["phase_seconds"])
    assert whole["traffic"]["swaps"] >= sum(published["swaps"].values()) > 0
    assert sum(phase["batches"] for phase in whole["schedule"]) == facts["hot_batches"] + facts["cold_batches"]
    assert whole["schedule"][0]["rate"] == 50
    # Worked out: cold batches send pooled vectors, every swap the hot rows.
    (row,) = [row for row in table["rows"] if row["contender"] == "paper"]
    pooled = 4 * facts["cold_batches"] * 64 * table["facts"]["width"]
    assert row["bytes_to_host"] == pooled + published["swaps"]["to_host"] * facts["hot_bytes"]


def test_it_continues_and_takes_nothing_twice(measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(measured, out)
    before = strict_json((out / "paper.json").read_text())
    del before["cells"]["64/speed/tiered"]["samples"][1:], before["cells"]["64/accuracy/adaptive"]
    (out / "paper.json").write_text(json.dumps(before))
    done = succeed("bench", "paper", "rmc2", *TINY, "--out", out, "--json")
    after = done.result
    assert "calibrate" not in done.stderr
    assert done.stderr.count("an epoch to its end") == 1
    assert after["cells"]["64/speed/plain cpu"]["samples"] == before["cells"]["64/speed/plain cpu"]["samples"]
    assert [sample["session"] for sample in after["cells"]["64/speed/tiered"]["samples"]] == [0, 1]
    original = strict_json((measured / "paper.json").read_text())["cells"]["64/accuracy/adaptive"]
    assert after["cells"]["64/accuracy/adaptive"]["test"] == original["test"], "the same seed, the same model"
    unchanged = succeed("bench", "paper", "rmc2", *TINY, "--out", out, "--json")
    assert unchanged.result["cells"] == after["cells"]


def test_killed_and_typed_again(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    words = ["bench", "paper", "rmc2", *map(str, TINY), "--rounds", "40", "--accuracy", "none", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fae.cli.main", *words], env=environment, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end and not (out / "paper.json").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = strict_json((out / "paper.json").read_text())["cells"]
    done = succeed(*words[:-2], "--out", out, "--rounds", 2, "--json")
    assert done.result["complete"]
    for key, cell in kept.items():
        if "speed" in key:
            samples = done.result["cells"][key].get("samples", [])
            assert samples[: len(cell.get("samples", []))] == cell.get("samples", [])


def test_prepared_and_then_measured(tmp_path: Path) -> None:
    out = tmp_path / "rmc1"
    some = ("--contenders", "tiered,paper", "--accuracy", "first", "--out", out)
    prepared = succeed("bench", "paper", "rmc1", *TINY, *some, "--prepare", "--json").result
    assert not prepared["complete"]
    assert not [cell for cell in prepared["cells"].values() if cell.get("samples")]
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    assert {path.parts[-4] for path in made if "packed" in path.parts} == {"threshold", "mixed"}
    assert succeed("bench", "paper", "rmc1", *TINY, *some, "--json").result["complete"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} == made


def test_sequences_and_a_log_of_ones_own(tmp_path: Path) -> None:
    """TBSM under Adagrad; and the log of a run folder in the place of a synthetic one."""
    words = ("bench", "paper", "rmc1", *TINY, "--contenders", "plain cpu,cpu", "--accuracy", "none", "--json")
    first = succeed(*words, "--selection", "peeling", "--out", tmp_path / "a").result
    chosen = [strict_json(file.read_text()) for file in (tmp_path / "a").glob("*/*/hot_set/manifest.json")]
    assert {manifest["parameters"]["selection"] for manifest in chosen} >= {"peeling"}
    assert [row["contender"] for row in first["tables"][0]["rows"]] == ["plain cpu", "cpu"]
    second = succeed(*words, "--out", tmp_path / "b", "--log", tmp_path / "a" / "log").result
    assert not second["log"]["made_up"]
    assert second["log"]["fingerprint"] == first["log"]["fingerprint"]
    assert not (tmp_path / "b" / "log").exists()


def test_the_report_draws_it(measured: Path, finished: Path) -> None:
    succeed("report", measured)
    page = (measured / "report.html").read_text()
    record = strict_json((measured / "paper.json").read_text())
    for text in ("The paper's table: RMC2", "Batches of 64", "FAE, paper", "plain PyTorch, CPU only",
                 "needs a GPU: without one it is cpu", "The scheduler's phases: cold R(50)", "2.30x"):  # fmt: skip
        assert text in html.unescape(page), text
    for row in record["tables"][0]["rows"]:
        assert f"{row['auc']:.4f}" in page
    assert "not recorded" not in page
    succeed("report", measured, finished / "run", "--out", finished / "both.html")
    both = (finished / "both.html").read_text()
    assert "Batches of 64" in both
    assert "Table by table" in both


def test_a_foreign_record_never_breaks_the_page(measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    path.write_text(json.dumps({"kind": "paper_table", "workload": {}, "tables": [{"rows": [{}], "claims": [{}]}, 3]}))
    succeed("report", path, "--out", tmp_path / "page.html")
    assert "not recorded" in (tmp_path / "page.html").read_text()


def test_a_record_from_before_a_setting_was_there_continues(measured: Path, tmp_path: Path) -> None:
    """It was made with what is the setting's default now."""
    out = tmp_path / "older"
    shutil.copytree(measured, out)
    record = strict_json((out / "paper.json").read_text())
    assert record["settings"].pop("no_compile") is False
    (out / "paper.json").write_text(json.dumps(record))
    again = succeed("bench", "paper", "rmc2", *TINY, "--out", out, "--json").result
    assert again["cells"] == record["cells"]
    fault(fae("bench", "paper", "rmc2", *TINY, "--out", out, "--no-compile"), "no_compile = False and not True")


def test_what_a_user_can_do_wrong_is_one_line(measured: Path, tmp_path: Path) -> None:
    fault(fae("bench"), "KIND", "--help")
    fault(fae("bench", "paper"), "WORKLOAD")
    fault(fae("bench", "paper", "rmc4"), "'rmc4'", "rmc1, rmc2, rmc3")
    fault(fae("bench", "paper", "rmc2", "--contenders", "papre"), "'papre'", "paper")
    fault(fae("bench", "paper", "rmc2", "--batch-sizes", "many"), "whole numbers")
    fault(fae("bench", "paper", "rmc2", "--batch-sizes", "0"), "from 1")
    fault(fae("bench", "paper", "rmc2", "--inputs", "-1"), "--inputs -1")
    fault(fae("bench", "paper", "rmc2", "--scale", "0"), "--scale")
    fault(fae("bench", "paper", "rmc2", "--rounds", "0"), "--rounds 0")
    fault(fae("bench", "paper", "rmc2", "--budget", "lots"), "--budget")
    fault(fae("bench", "paper", "rmc2", "--gpus", "0"), "--gpus 0 must be 1, 2, 4 or 8")
    fault(fae("bench", "paper", "rmc2", *TINY, "--out", measured, "--seed", 2), "seed = 1 and not 2", "another --out")
    fault(fae("bench", "paper", "rmc2", *TINY, "--out", tmp_path / "a", "--batch-sizes", 5000), "fewer than one batch")
    fault(fae("bench", "paper", "rmc2", *TINY, "--out", tmp_path / "b", "--log", tmp_path / "none"), "none")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "paper.json").write_text("{}")
    fault(fae("bench", "paper", "rmc2", *TINY, "--out", tmp_path / "c"), "no record of `fae bench paper`")


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_workloads_are_their_recipes(workload) -> None:
    recipe = tomllib.loads((ROOT / "recipes" / workload.recipe).read_text())
    assert {name: dict(getattr(workload, name)) for name in ("model", "hot", "train")} == {
        name: recipe[name] for name in ("model", "hot", "train")
    }


def test_defaults() -> None:
    config = BenchConfig(workload="rmc1")
    assert config.sizes() == (256, 32768)
    assert config.contenders == CONTENDERS
    with pytest.raises(RecipeError, match="names none"):
        BenchConfig(workload="rmc1", contenders=())


def test_memory_that_contenders_share(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What RMC3 does on a machine that cannot hold the tables of all contenders side by side: the same accuracy."""
    monkeypatch.setattr("fae.bench.shared_rows._SHARED_FROM", 0.0)
    monkeypatch.setattr("fae.streaming.huge_pages._HUGE_PAGE_BYTES", 4096)
    done = succeed("bench", "paper", "rmc2", *TINY, "--out", tmp_path / "shared", "--json")
    assert "for the tables of all contenders" in done.stderr
    shared, apart = done.result["tables"][0], strict_json((measured / "paper.json").read_text())["tables"][0]
    assert [row["auc"] for row in shared["rows"]] == [row["auc"] for row in apart["rows"]]
    assert np.isfinite([row["samples_per_second"] for row in shared["rows"]]).all()
