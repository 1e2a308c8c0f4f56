"""Figures: that they are pictures of what they were given. What they look like was judged by eye."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from fae.core.errors import ArtifactError
from fae.report import figures
from fae.report.figures import BudgetPoint, LossCurve, TableSkew, draw_budgets, draw_bytes, draw_losses, draw_skew


def colours(path: Path) -> set[str]:
    """Every colour in a picture that fills more than a few pixels, as #RRGGBB."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = (imread(path)[:, :, :3] * 255).round().astype(np.uint8).reshape(-1, 3)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return {"#" + bytes(value).hex().upper() for value, count in zip(values, counts, strict=True) if count > 20}


def zipf(size: int, exponent: float = 1.1) -> np.ndarray:
    return np.random.default_rng(1).permutation((1e6 * np.arange(1, size + 1) ** -exponent).astype(np.int64))


def test_skew_names_the_largest_tables(tmp_path: Path) -> None:
    tables = [TableSkew(name=f"C{size}", counts=zipf(size), num_hot=size // 20) for size in range(100, 1000, 100)]
    draw_skew([*tables, TableSkew(name="unused", counts=np.zeros(7), num_hot=1)], tmp_path / "skew.png")
    assert set(figures.PALETTE) | {"#BBBBBB"} <= colours(tmp_path / "skew.png")
    draw_skew(tables[:1], tmp_path / "one.png")
    assert figures.PALETTE[1] not in colours(tmp_path / "one.png")


def test_cumulative_shares_are_exact_and_thinned() -> None:
    rows, accesses = figures._cumulative(np.array([1, 5, 0, 4]))
    assert rows.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert accesses.tolist() == [0.5, 0.9, 1.0, 1.0]
    rows, accesses = figures._cumulative(zipf(100_000))
    assert len(rows) <= 400
    assert (np.diff(accesses) >= 0).all()
    assert accesses[-1] == 1.0


def test_budgets_and_losses(tmp_path: Path) -> None:
    points = [BudgetPoint(budget_bytes=2**k, input_share=k / 40, coverage=k / 30) for k in (28, 20, 24)]
    draw_budgets(points, tmp_path / "budget.png", chosen_bytes=2**24)
    draw_budgets(points, tmp_path / "unchosen.png")
    assert set(figures.PALETTE[:2]) <= colours(tmp_path / "budget.png")
    assert (tmp_path / "budget.png").read_bytes() != (tmp_path / "unchosen.png").read_bytes()
    curves = [LossCurve(label=name, inputs_seen=[0, 10, 20], values=[0.6, np.nan, 0.5]) for name in ("FAE", "plain")]
    draw_losses(curves, tmp_path / "loss.png", what="validation loss")
    # Two equal curves: the dashes of the second leave the first to be seen.
    assert set(figures.PALETTE[:2]) <= colours(tmp_path / "loss.png")
    draw_losses([], tmp_path / "none.png")


def test_bytes_of_tiers(tmp_path: Path) -> None:
    tiers = {"hot rows": 600_000, "staging ring": 300_000, "cold rows": 4_400_000}
    draw_bytes(tiers, tmp_path / "bytes.png", budget_bytes=2**20)
    assert set(figures.PALETTE[:3]) <= colours(tmp_path / "bytes.png")
    draw_bytes({"nothing": 0}, tmp_path / "empty.png")
    assert figures.PALETTE[0] not in colours(tmp_path / "empty.png")


def test_equal_numbers_give_equal_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_bytes({"hot rows": 10, "cold rows": 20}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    width, height = struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24])
    assert width > height > 200


def test_no_pyplot_state() -> None:
    code = "import sys, fae.report.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_numbers_on_axes_read_well() -> None:
    assert [figures._percent(value, None) for value in (1.0, 0.2, 0.0001)] == ["100 %", "20 %", "0.01 %"]
    assert [figures._short_count(value) for value in (0, 500, 20_000, 4.5e7, 2e9)] == [
        "0",
        "500",
        "20 k",
        "45 M",
        "2 G",
    ]
    assert [figures._short_bytes(value) for value in (0, 2**20, 1.5 * 2**30)] == ["0 B", "1 MiB", "1.5 GiB"]


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ArtifactError, match="cannot write"):
        draw_bytes({"hot rows": 1}, tmp_path / "folder.png")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
