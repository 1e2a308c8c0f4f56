"""README's headline figures, out of the file of results that they come from."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_headline() -> None:
    """The lower of two logs, 5 % of the rows hot, mixed batches, beside every row on the GPU and the best cache."""
    text = " ".join((ROOT / "README.md").read_text().split())
    found = re.search(
        r"\*\*([\d.]+) of the speed .* with (\d+) % of the memory, (\d+) to (\d+)x FBGEMM's best cache", text
    )
    assert found is not None
    speed, share = float(found[1]), int(found[2])
    for day, cache in (("20261125", int(found[3])), ("20261127", int(found[4]))):
        check_day(day, speed, share, cache)


def check_day(day: str, speed: float, share: int, cache: int) -> None:
    """Compare the headline with both logs of one day's file; each day had a machine of its own."""
    rows = json.loads((ROOT / "benchmarks" / "results" / f"placements_h100_{day}.json").read_text())["rows"]
    for log in ("zipf", "criteo"):
        group = {
            row["placement"]: row
            for row in rows
            if (row["log"], row["batch_size"], row["dim"], row["optimizer"]) == (log, 32768, 16, "sgd")
        }
        rate = {name: row["samples_per_second"] for name, row in group.items()}
        tiered, device = group["tiered 0.05"], group["device"]
        caches = [name for name in rate if name.startswith("fbgemm") and "device" not in name]
        assert all(group[name]["gpu_row_bytes"] == tiered["gpu_row_bytes"] for name in caches)
        assert rate["tiered 0.05"] / rate["device"] >= speed
        assert tiered["gpu_row_bytes"] / device["gpu_row_bytes"] <= share / 100
        assert rate["tiered 0.05"] / max(rate[name] for name in caches) >= cache
