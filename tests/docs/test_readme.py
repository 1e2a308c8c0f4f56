"""README's headline figures, out of the file of results that they come from."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_headline() -> None:
    """The lower of two logs, 5 % of the rows hot, mixed batches, beside every row on the GPU and the best cache."""
    text = " ".join((ROOT / "README.md").read_text().split())
    found = re.search(r"\*\*([\d.]+) of the speed .* with (\d+) % of the memory, (\d+)x FBGEMM's best cache", text)
    assert found is not None
    speed, share, cache = float(found[1]), int(found[2]), int(found[3])
    rows = json.loads((ROOT / "benchmarks" / "results" / "placements_h100_20261127.json").read_text())["rows"]
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
