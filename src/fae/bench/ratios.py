"""From measured cells to the paper's table: pure functions of JSON values.

`fae bench paper` calls `tables` after every cell and writes the result beside the cells; `fae report` reads that. Every
figure of a table follows from the cells and facts in the same record.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fae.bench.config import CONTENDERS
from fae.bench.rank_table import rank_rows
from fae.bench.workloads import CLAIMS

LABELS: Mapping[str, str] = {
    "plain cpu": "plain PyTorch, CPU only",
    "plain hybrid": "plain PyTorch, CPU-GPU",
    "cpu": "FAE's kernels, CPU only",
    "hybrid": "FAE's kernels, CPU-GPU",
    "paper": "FAE, paper",
    "tiered": "FAE, tiered",
    "tiered shuffled": "FAE, tiered, shuffled",
    "device": "every row on the GPU",
}
ORDER_OF: Mapping[str, str] = {"paper": "adaptive", "tiered": "interleaved"}
"""The order of batches whose accuracy a contender has; all others train shuffled inputs."""
HOT_SETS = ("paper", "tiered", "tiered shuffled")
"""Contenders for which it matters which rows are hot."""
PACK_OF: Mapping[str, str] = {"paper": "threshold", "tiered shuffled": "mixed"}
"""The packed batches that a contender reads; all others read ``own``."""
_STEADY = 1.5
"""Readings of a quiet host differ by less than this factor."""


def tables(cells: Mapping[str, Any], sizes: Sequence[int], log: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compute one table a batch size.

    Parameters
    ----------
    cells
        ``"<batch size>/speed/<contender>"``, ``"<batch size>/accuracy/<order>"`` and ``"<batch size>/facts"``.
    log
        `Preparation.facts`.
    """
    return [_table(cells, size, log) for size in sizes]


def _table(cells: Mapping[str, Any], size: int, log: Mapping[str, Any]) -> dict[str, Any]:
    facts = cells.get(f"{size}/facts", {})
    keys = {order: f"{size}/accuracy/{order}" for order in ("shuffled", "adaptive", "interleaved")}
    accuracy = {order: cells[key] for order, key in keys.items() if key in cells}
    rows, left_out = [], []
    for name in CONTENDERS:
        cell = cells.get(f"{size}/speed/{name}")
        if cell is None:
            continue
        if cell.get("samples"):
            rows.append(_row(name, cell, facts, accuracy, log))
        else:
            left_out.append({"contender": name, "label": LABELS[name], "why": cell.get("why", "not measured yet")})
    rates = {row["contender"]: row["samples_per_second"] for row in rows}
    for row in rows:
        for base in ("plain cpu", "plain hybrid", "cpu", "hybrid"):
            if rates.get(base):
                row[f"over {base}"] = row["samples_per_second"] / rates[base]
    claims = [
        {
            **claim,
            "ours": {
                name: rates[name] / rates[claim["over"]] for name in ("paper", "tiered") if name in rates
            } if claim["over"] in rates else {},
        }
        for claim in CLAIMS
    ]  # fmt: skip
    gpus = rank_rows(cells, size, LABELS)
    return {
        "batch_size": size, "rows": rows, "left_out": left_out, "claims": claims, "accuracy": accuracy, "facts": facts,
        "host": _host(cells, size),
        "published": _paper_epoch(cells.get(f"{size}/speed/paper"), accuracy.get("adaptive")),
        **({"gpus": gpus} if gpus else {}),
    }  # fmt: skip


def host_warning(readings: Sequence[float]) -> str:
    """A warning about host speeds that are far apart; empty where they are not.

    >>> host_warning([1200.0, 1100.0])
    ''
    """
    if not readings or max(readings) < _STEADY * min(readings):
        return ""
    return (
        f"the host was not steady: its products ran at {min(readings):,.0f} to {max(readings):,.0f} GFLOP/s; ratios "
        "over what computes on the CPU may be far off, run it again on a quiet machine"
    )


def _host(cells: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The host's speed beside a table's samples, least and most, and a warning where they are far apart.

    Sessions are judged one by one, since another session may have had another machine. Empty for records without
    readings.
    """
    readings: dict[Any, list[float]] = {}
    for key, cell in cells.items():
        if key.startswith(f"{size}/speed/"):
            for sample in cell.get("samples", []):
                if "host_gflops" in sample:
                    readings.setdefault(sample.get("session"), []).append(sample["host_gflops"])
    if not readings:
        return {}
    every = [value for values in readings.values() for value in values]
    said = [text for values in readings.values() if (text := host_warning(values))]
    return {"gflops": [min(every), max(every)], **({"warning": said[0]} if said else {})}


def _row(
    name: str, cell: Mapping[str, Any], facts: Mapping[str, Any], accuracy: Mapping[str, Any], log: Mapping[str, Any]
) -> dict[str, Any]:
    rates = [sample["samples_per_second"] for sample in cell["samples"]]
    rate = statistics.median(rates)
    order = ORDER_OF.get(name, "shuffled")
    result = accuracy.get(order, {}).get("test", {})
    pack = facts.get(PACK_OF.get(name, "own"), {})
    to_device, to_host = _moved(name, cell, facts)
    return {
        "contender": name, "label": LABELS[name],
        "samples_per_second": rate, "spread": [min(rates), max(rates)], "num_samples": len(rates),
        "batches_measured": sum(sample["batches"] for sample in cell["samples"]),
        "epoch_seconds": log["train_inputs"] / rate,
        "auc": result.get("auc"), "log_loss": result.get("log_loss"), "accuracy_of_order": order if result else None,
        "input_share": pack.get("input_share") if name in HOT_SETS else None,
        "coverage": pack.get("coverage") if name in HOT_SETS else None,
        "bytes_to_device": to_device, "bytes_to_host": to_host,
        "swaps": sum(cell["swaps"].values()) if "swaps" in cell else 0,
        "device_bytes": cell.get("device_bytes", 0),
    }  # fmt: skip


def _moved(name: str, cell: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes of rows, pooled embeddings and gradients that cross the bus in an epoch, computed from the packs."""
    pooled = 4 * facts.get("width", 0)
    if name in ("plain hybrid", "hybrid"):
        both = pooled * facts.get("own", {}).get("train_inputs", 0)
        return both, both
    if name == "paper":
        pack, swaps = facts.get("threshold", {}), cell.get("swaps", {})
        cold = pooled * pack.get("cold_batches", 0) * facts.get("batch_size", 0)
        swapped = {direction: count * pack.get("hot_bytes", 0) for direction, count in swaps.items()}
        return cold + swapped.get("to_device", 0), cold + swapped.get("to_host", 0)
    if name.startswith("tiered"):
        both = facts.get(PACK_OF.get(name, "own"), {}).get("staged_rows", 0) * facts.get("row_bytes", 0)
        return both, both
    return 0, 0


def _paper_epoch(cell: Mapping[str, Any] | None, epoch: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Where the time of placement `paper` goes: an epoch put together from samples, and one trained to its end."""
    if not cell or not cell.get("samples"):
        return None
    seconds: dict[str, float] = {}
    samples = [sample["phases"] for sample in cell["samples"]]
    for kind in ("cold", "hot"):
        known = [s[kind]["seconds"] / s[kind]["batches"] * s[kind]["epoch_batches"] for s in samples if kind in s]
        if known:
            seconds[kind] = statistics.median(known)
    for direction in ("to_device", "to_host"):
        one = statistics.median(s["swaps"][f"swap_{direction}"] for s in samples)
        seconds[f"swaps_{direction}"] = one * cell["swaps"][direction]
    result: dict[str, Any] = {"epoch_seconds": seconds, "swaps": cell["swaps"]}
    if epoch:
        result["whole_epoch"] = {
            key: epoch["train"].get(key) for key in ("seconds", "phase_seconds", "traffic", "schedule", "num_inputs")
        }
    return result
