"""The embedding half of a CPU step, and the whole step, against plain PyTorch.

    python benchmarks/rows.py [--batch-sizes 8192 2048 256] [--repeats 40] [--quick]
    python benchmarks/rows.py --optimizers adagrad adam --rows 2000000     # another record

How much faster are the CPU kernels than `nn.EmbeddingBag(sparse=True)`? Work: Criteo Kaggle's 26 tables (33.8 M rows)
capped by ``--rows``, dim 16, ids from Zipf 1.05, fp32. Half: lookup, gradient sums, update. Whole: DLRM
13-512-256-64-16 / 512-256-1 around it. The row-wise Adagrad that torch does not have is written with coalesced tensors,
and torch's own sparse Adagrad is measured beside it. Contenders take turns; medians. Writes
benchmarks/results/row_kernels.json, or row_kernels_<optimizers>.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin, for both sides

import numpy as np
import torch

from fae.core.optimizers import OPTIMIZERS
from fae.streaming.batch_turn import BatchTurn
from fae.streaming.ready_batch import make_ready

from common import capped_rows, hot_set, make_log, packed_log, record, save_record
from contenders import OurPlacement, PlainPyTorch

DIM, NUM_BATCHES = 16, 8
USUAL = ["sgd", "rowwise_adagrad"]


def interleaved(candidates: dict[str, Callable[[int], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every call, the candidates taking turns; two warm-up rounds are dropped."""
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 2):
        for name, function in candidates.items():
            start = time.perf_counter()
            function(repeat % NUM_BATCHES)
            if repeat >= 2:
                samples[name].append(1e3 * (time.perf_counter() - start))
    return samples


def measure(log: Any, folder: Path, batch_size: int, optimizer: str, repeats: int) -> list[dict[str, Any]]:
    """Both parts with one optimizer and batch size."""
    kind: dict[str, Any] = {"dim": DIM, "optimizer": optimizer, "device": "cpu"}
    hot = hot_set(log, 0.05, dim=DIM, batch_size=batch_size, mixed=True, optimizer=optimizer)
    packed = packed_log(log, hot, folder)
    ours = OurPlacement(packed, hot, "cpu", **kind)
    cpu, embeddings = torch.device("cpu"), ours.embeddings
    batches = [make_ready(packed.train.batch(index), cpu, 0, BatchTurn(embeddings)) for index in range(NUM_BATCHES)]
    gradient = torch.randn(batch_size, len(log.features) * DIM) * 1e-3

    def our_half(index: int) -> None:
        batches[index].turn.reopen()
        _, (buffer,), _ = embeddings.lookup(batches[index]).parts()
        buffer.grad = gradient
        embeddings.update(batches[index])

    plain = PlainPyTorch(log, batch_size=batch_size, num_batches=NUM_BATCHES, bf16=False, **kind)

    def plain_half(index: int) -> None:
        plain.update(plain.look_up(index), gradient)

    halves = {"fae": our_half, "embedding_bags": plain_half}
    if optimizer == "rowwise_adagrad":  # torch has the others, and `plain` uses them
        parameters = list(plain.embeddings.parameters())
        torch_adagrad = torch.optim.Adagrad(parameters, lr=0.01)

        def torch_half(index: int) -> None:
            outputs = plain.look_up(index)
            torch.autograd.backward(outputs, torch.split(gradient, DIM, 1))
            torch_adagrad.step()
            torch_adagrad.zero_grad(set_to_none=True)

        halves["embedding_bags_torch_adagrad"] = torch_half

    def our_step(index: int) -> None:
        batches[index].turn.reopen()
        ours.runner(batches[index])

    steps = {"fae": our_step, "embedding_bags": plain.step}
    rows = []
    for part, candidates in (("embedding_half", halves), ("whole_step", steps)):
        samples = interleaved(candidates, repeats)
        our_times = np.array(samples["fae"])
        row: dict[str, Any] = {"part": part, "batch_size": batch_size, "optimizer": optimizer, "dim": DIM}
        for name, values in samples.items():
            paired = np.array(values) / our_times
            row[name] = {"median_ms": float(np.median(values)), "ratio_to_fae": float(np.median(paired)),
                         "ratio_quartiles": np.percentile(paired, [25, 75]).tolist(), "samples_ms": values}  # fmt: skip
            print(f"{part:15} B={batch_size:5} {optimizer:16} {name:30} {np.median(values):8.2f} ms "
                  f"({np.median(paired):.2f} x)", file=sys.stderr)  # fmt: skip
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8192, 2048, 256])
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=USUAL)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--rows", type=int, default=20_000_000, help="cap of one table")
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary logs go")
    parser.add_argument("--quick", action="store_true", help="small tables, few repeats: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeats, options.batch_sizes = 2000, 3, [64]
    rows = []
    for batch_size in options.batch_sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            log = make_log(Path(name) / "zipf", NUM_BATCHES * batch_size, rows=capped_rows(options.rows))
            for optimizer in options.optimizers:
                rows += measure(log, Path(name), batch_size, optimizer, options.repeats)
    if not options.quick:
        name = "row_kernels" if options.optimizers == USUAL else "_".join(["row_kernels", *options.optimizers])
        save_record(name, record(torch_version=torch.__version__, rows=rows))


if __name__ == "__main__":
    main()
