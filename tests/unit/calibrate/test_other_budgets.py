"""Other budgets in a hot set's summary: the same figures as calibrations at those budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.calibrate import other_budgets
from fae.calibrate.calibrate import calibrate
from fae.profile.config import HotConfig
from fae.profile.profile import profile

from logs import zipf_log


def summary(log: ColumnarLog, folder: Path, **config: Any) -> dict[str, Any]:
    settings = HotConfig(ring_depth=2, small_table=1, **config)
    opened = profile(log, settings, folder / "profile", seed=1)
    hot_set = calibrate(
        log, opened, settings, folder / "hot_set",
        embedding_dims=[4] * len(log.features), optimizer="rowwise_adagrad", batch_size=8, mixed=False, seed=1,
    )  # fmt: skip
    return hot_set.summary


@pytest.mark.parametrize("selection", ["threshold", "peeling"])
def test_points_are_what_calibrate_would_find(tmp_path: Path, selection: str) -> None:
    log = zipf_log(tmp_path, num_inputs=1500, sizes=(300, 500, 200))
    found = summary(log, tmp_path, budget="8KiB", selection=selection)["budgets"]
    assert (found["selection"], found["num_inputs"]) == (selection, 1500)
    points = found["points"]
    assert len(points) >= 3
    assert points[-1]["coverage"] == points[-1]["input_share"] == 1.0, "the last budget holds every row"
    for point in points:
        other = summary(log, tmp_path, budget=point["budget_bytes"], selection=selection)
        assert {key: other[key] for key in point} == point
        assert point["bytes"] + point["staging_bytes"] <= point["budget_bytes"]
    for key in ("num_rows", "coverage", "input_share"):
        values = [point[key] for point in points]
        assert values == sorted(values)


def test_a_peeling_of_a_sample_is_not_judged_by_that_sample(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=4000, sizes=(300, 500, 200))
    found = summary(log, tmp_path, budget="8KiB", selection="peeling", sample=0.1, sample_min_inputs=0)
    assert (found["selection"], found["budgets"]["selection"]) == ("peeling", "threshold")
    assert found["budgets"]["num_inputs"] == 400


def test_long_logs_are_read_at_even_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = zipf_log(tmp_path, num_inputs=1500)
    whole = summary(log, tmp_path / "whole", budget="8KiB")
    monkeypatch.setattr(other_budgets, "MEASURED_INPUTS", 700)
    part = summary(log, tmp_path / "part", budget="8KiB")
    assert part["budgets"]["num_inputs"] == 700
    assert {key: value for key, value in part.items() if key != "budgets"} == {
        key: value for key, value in whole.items() if key != "budgets"
    }


def test_where_every_row_is_hot_smaller_budgets_are_shown(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=1500, sizes=(300, 500, 200))
    found = summary(log, tmp_path, budget="1GiB")
    assert found["measured_on"] == "every row is hot"
    points = found["budgets"]["points"]
    assert points[-1]["budget_bytes"] == found["bytes"], "the last one is what all rows take"
    assert len(points) >= 3
    for point in points:
        other = summary(log, tmp_path, budget=point["budget_bytes"], selection="threshold")
        assert {key: other[key] for key in point} == point


def test_budgets() -> None:
    down, up = other_budgets.budgets_around(1000, 10**9)
    assert down == [1000, 500, 250, 125, 62, 31]
    assert up == [2000, 4000, 8000, 16000, 32000]
    assert other_budgets.budgets_around(1, 3) == ([1], [2, 3])
    assert other_budgets.budgets_around(8, 8) == ([8, 4, 2, 1], [])


def test_budgets_that_are_nearly_all_ring_are_left_out(tmp_path: Path) -> None:
    log = zipf_log(tmp_path, num_inputs=1500, sizes=(300, 500, 200))
    found = summary(log, tmp_path, budget="8KiB")["budgets"]["points"]
    assert found[0]["budget_bytes"] >= 2 * found[1]["staging_bytes"] or found[0]["budget_bytes"] == 8192
