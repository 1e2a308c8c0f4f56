"""How near each part of a GPU step is to what the device could do, from the kernel times of `gpu_step.py`. Markdown.

    python benchmarks/micro/gpu_roofline.py [--file benchmarks/results/gpu_step_h100.json] [--placement device]

Bytes and operations are counted by hand for DLRM 13-512-256-64-16 / 512-256-1 over 26 tables, each operand once, and
lookups of rows as if none was in a cache. Ceilings: 4.03 TB/s on an H200 and 2.96 TB/s on an H100 (a copy, measured),
and 989 TFLOP/s (bfloat16, data sheet). The ideal time is the larger of the two; a step that ran every part in its ideal
time, one after the other, is the limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import RESULTS

BYTES_A_SECOND = {"H200": 4.03e12, "H100 80GB HBM3": 2.96e12}
OPERATIONS_A_SECOND = 989e12
FEATURES, DIM, PADDED_DENSE, JOINED = 26, 16, 16, 368
BOTTOM = [(PADDED_DENSE, 512), (512, 256), (256, 64), (64, DIM)]
TOP = [(JOINED, 512), (512, 256)]
HALF, FULL = 2, 4  # bytes of bfloat16 and float32
UNIQUE_ROWS_AN_INPUT = 4.0
"""Rows that a batch of 32,768 touches, over its inputs: independent Zipf 1.05 columns, Criteo's cardinalities."""


@dataclass(frozen=True)
class Part:
    """Kernels whose names hold one of `names` (and none of `but`), and what one batch of B inputs asks of them."""

    what: str
    names: tuple[str, ...]
    bytes_an_input: float
    operations_an_input: float = 0.0
    but: tuple[str, ...] = ()

    def holds(self, kernel: str) -> bool:
        """Whether a kernel belongs here."""
        return any(name in kernel for name in self.names) and not any(name in kernel for name in self.but)


def products(layers: list[tuple[int, int]], operands: int) -> tuple[float, float]:
    """Bytes and operations an input of one product a layer; `operands` of 2 or 3 matrices of B rows."""
    moved = sum(HALF * (a + b if operands == 2 else 2 * a + b) for a, b in layers)
    return moved, sum(2.0 * a * b for a, b in layers)


def parts() -> list[Part]:
    """All of a step; a kernel counts for the first part that holds it."""
    rows = FEATURES * (DIM * FULL + 4)
    row_gradients = FEATURES * DIM * HALF
    pairs = 2.0 * (FEATURES + 1) ** 2 * DIM
    return [
        Part("forward products, with bias and ReLU", ("relubias",), *products(BOTTOM + TOP, 2)),
        Part("gradients of weights", ("splitK",), *products(BOTTOM + TOP, 2)),
        Part("gradients of inputs through ReLU", ("_masked_product",), *products([*BOTTOM[1:], TOP[1]], 3)),
        Part("gradient of the joined vectors", ("_NNN",), *products(TOP[:1], 2)),
        Part("lookup and dot interaction", ("_forward_kernel",), rows + HALF * (DIM + JOINED), pairs),
        Part(
            "lookup and interaction, backward", ("_backward_kernel",),
            rows + row_gradients + HALF * (2 * DIM + JOINED), pairs, but=("logit", "relu"),
        ),
        Part(
            "sums of rows' gradients, update", ("_block_sums", "_long_rows"),
            row_gradients + FEATURES * 4 + UNIQUE_ROWS_AN_INPUT * (2 * DIM * FULL + 8),
        ),
        Part(
            "last layer, loss, their gradients", ("_logit", "_loss"),
            HALF * 256 * 3 + 5 * FULL, 6.0 * 256,
        ),
        Part("ReLU backward of the bottom's end", ("_relu_backward",), HALF * 3 * DIM),
        Part("dense input to bfloat16", ("bfloat16_copy",), 13 * FULL + PADDED_DENSE * HALF),
        Part("biases, dense weights, fills", ("_sum_parts", "_dense_update", "Memset", "FillFunctor"), 0.0),
    ]  # fmt: skip


def rows_of(kernels: list[dict[str, Any]], batch_size: int, bytes_a_second: float) -> list[dict[str, Any]]:
    """One row a part: microseconds, megabytes, billions of operations, ideal microseconds."""
    table = [
        {"part": part.what, "us": 0.0, "mb": part.bytes_an_input * batch_size / 1e6,
         "gop": part.operations_an_input * batch_size / 1e9}
        for part in parts()
    ]  # fmt: skip
    for kernel in kernels:
        for part, row in zip(parts(), table, strict=True):
            if part.holds(kernel["kernel"]):
                row["us"] += kernel["microseconds_a_step"]
                break
        else:
            if "Memcpy" not in kernel["kernel"]:
                raise SystemExit(f"no part holds the kernel {kernel['kernel']}")
    for row in table:
        row["ideal"] = max(row["mb"] * 1e12 / bytes_a_second, row["gop"] * 1e15 / OPERATIONS_A_SECOND)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=RESULTS / "gpu_step_h100.json")
    parser.add_argument("--placement", default="device")
    parser.add_argument("--optimizer", default="sgd")
    options = parser.parse_args()
    record = json.loads(options.file.read_text())
    gpu = str(record["machine"]["gpu"])
    if (card := next((name for name in BYTES_A_SECOND if name in gpu), None)) is None:
        raise SystemExit(f"no ceiling is known of {gpu}; measure a copy and add it to BYTES_A_SECOND")
    found = [
        row for row in record["rows"]
        if row["placement"] == options.placement and row["optimizer"] == options.optimizer and row["dim"] == DIM
    ]  # fmt: skip
    if not found:
        raise SystemExit(f"{options.file} has no {options.placement} with {options.optimizer} at dim {DIM}")
    step = found[0]
    table = rows_of(step["kernels"], step["batch_size"], BYTES_A_SECOND[card])
    print("| part | us | MB | Gop | ideal us | share of the ceiling |\n|---|---|---|---|---|---|")
    for row in sorted(table, key=lambda row: -row["us"]):
        share = f"{100 * row['ideal'] / row['us']:.0f} %" if row["us"] and row["ideal"] else ""
        print(
            f"| {row['part']} | {row['us']:.1f} | {row['mb']:.0f} | {row['gop']:.1f} | {row['ideal']:.1f} | {share} |"
        )
    busy, ideal = (sum(row[key] for row in table) for key in ("us", "ideal"))
    alone = 1e6 * step["seconds_alone"]["run_graph"]
    print(f"| all kernels | {busy:.0f} | | | {ideal:.0f} | {100 * ideal / busy:.0f} % |")
    print(f"| the step alone, overlapped | {alone:.0f} | | | {ideal:.0f} | {100 * ideal / alone:.0f} % |")


if __name__ == "__main__":
    main()
