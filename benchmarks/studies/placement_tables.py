"""The markdown of docs/results.md's placements and limits, from the committed JSON of the speed benchmarks.

    python benchmarks/studies/placement_tables.py                         print it
    python benchmarks/studies/placement_tables.py --fill docs/results.md  put it between the page's markers

Reads benchmarks/results/placements_GPU_DATE.json, of each GPU the latest (older ones are named), and limits_*.json. It
works out nothing but medians and ratios of samples that stand in one file, and in one group of contenders that took
turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from studies.paper_table import fill, times

from common import RESULTS

MARKERS = {"placements": ("<!-- placements: begin -->", "<!-- placements: end -->")}
CACHES = ("fbgemm lru", "fbgemm lfu", "fbgemm lru prefetch")
LOGS = {
    "zipf": "independent Zipf 1.05 columns", "criteo": "Criteo-shaped, columns that agree",
}  # fmt: skip


def ratio(rates: dict[str, float], name: str, base: str) -> str:
    """Of two rates; empty where one is missing or both are the same contender."""
    if name not in rates or base not in rates or name == base:
        return ""
    value = rates[name] / rates[base]
    return times(value) if value >= 2 else f"{value:.3f}x"


def group_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """One group of contenders."""
    first = rows[0]
    rates = {row["placement"]: statistics.median(row["samples"]) for row in rows}
    cache = max((name for name in CACHES if name in rates), key=lambda name: rates[name], default="")
    yield (
        f"\n*{LOGS[first['log']]}; batch {first['batch_size']:,}, dim {first['dim']}, {first['optimizer']}*\n\n"
        "| | rows on the GPU, MB | of it ring | M samples/s (range) | over device | over FBGEMM's best cache "
        "| over plain CPU-GPU | over plain CPU |\n|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        name, values = row["placement"], [value / 1e6 for value in row["samples"]]
        digits = 3 if max(values) < 1 else 1
        over = [ratio(rates, name, base) for base in ("device", cache, "plain PyTorch hybrid", "plain PyTorch cpu")]
        yield (
            f"| {name} | {row['gpu_row_bytes'] / 1e6:.0f} | {row['staging_bytes'] / 1e6:.0f} "
            f"| {statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}) | "
            + " | ".join(over) + " |"
        )  # fmt: skip


def placements(path: Path, without: set[str]) -> Iterator[str]:
    """All groups of one file, `without` some contenders."""
    found = json.loads(path.read_text())
    machine = found["machine"]
    commit = found["commit"][:7]
    note = f" {found['note']}" if "note" in found else ""
    yield f"\n**{machine['gpu']}, {machine['threads']} cores of the host** (`{path.name}`, commit `{commit}`):{note}"
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        if row["placement"] not in without:
            groups.setdefault((row["log"], row["batch_size"], row["dim"], row["optimizer"]), []).append(row)
    for rows in groups.values():
        yield from group_lines(rows)


def limits(path: Path) -> Iterator[str]:
    """A file of limits.py: every part's contenders, each beside the part's first."""
    found = json.loads(path.read_text())
    settings, gpu, commit = found["settings"], found["machine"]["gpu"], found["commit"][:7]
    yield (
        f"\n**`limits.py {settings['what']}`, {gpu}** (`{path.name}`, commit `{commit}`), batch "
        f"{settings['batch_size']:,}:\n\n| | contender | M samples/s (range) | over the first |\n|---|---|---|---|"
    )
    for part in found["parts"]:
        what = ", ".join(f"{key} {value}" for key, value in part.items() if key not in ("rates", "rows"))
        first = next(iter(part["rates"].values()))["samples_per_second"]
        for name, rate in part["rates"].items():
            values = [value / 1e6 for value in rate["samples"]]
            yield (
                f"| {what} | {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) "
                f"| {rate['samples_per_second'] / first:.3f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fill", metavar="PAGE", type=Path, help="put the tables between the markers of this page")
    options = parser.parse_args()
    lines: list[str] = []
    by_gpu: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("placements_*_????????.json"), reverse=True):
        by_gpu.setdefault(path.stem.split("_")[1], []).append(path)
    for latest, *older in by_gpu.values():
        # `paper` of the first day left updates out, or swapped behind every batch (docs/journal.md).
        lines += placements(latest, {"paper"} if latest.stem.endswith("_20261124") else set())
        lines += [f"\nOf an older engine: {', '.join(f'`{path.name}`' for path in older)}."] if older else []
    for path in sorted(RESULTS.glob("limits_*.json")):
        lines += limits(path)
    text = "\n".join(lines).strip() + "\n"
    if options.fill:
        fill(options.fill, {"placements": text}, MARKERS)
    else:
        print(text)


if __name__ == "__main__":
    main()
