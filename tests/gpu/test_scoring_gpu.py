"""On a GPU: the model of a finished run scores as on the CPU, its rows gathered and pooled by the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fae.run.predictions import evaluate_files, predict

from commands import succeed, write_log, write_recipe


@pytest.mark.parametrize("trained_on", ["cpu", "cuda"])
def test_scores_are_those_of_the_cpu(tmp_path: Path, trained_on: str) -> None:
    log = write_log(tmp_path)
    succeed("run", write_recipe(tmp_path), "--out", tmp_path / "run", "--device", trained_on)
    on_cpu, on_gpu = (predict(tmp_path / "run", [log], device=device) for device in ("cpu", "cuda"))
    assert on_gpu["scores"] == pytest.approx(on_cpu["scores"], abs=1e-5)
    metrics = [evaluate_files(tmp_path / "run", [log], device=device)["log_loss"] for device in ("cpu", "cuda")]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
