"""The embedding half of a CPU step, and the whole step, against plain PyTorch.

    python benchmarks/micro/row_kernels.py [--batch-sizes 8192 2048 256] [--repeats 40] [--quick]
    python benchmarks/micro/row_kernels.py --optimizers adagrad adam --rows 2000000     # another record

Work: 26 tables of Criteo Kaggle's cardinalities (33.8 M rows) capped by ``--rows``, dim 16, ids from Zipf 1.05.
Half: lookup, gradient sums, update. Whole: DLRM 13-512-256-64-16 / 512-256-1 around it. Ours against 26
``nn.EmbeddingBag(sparse=True)`` with the matching sparse optimizer; the row-wise Adagrad that torch does not have is
written with coalesced tensors, and torch's own sparse Adagrad stands beside it. Interleaved, medians; JSON.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin, for both sides

import numpy as np
import torch

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.row_layout import RowLayout
from fae.core.optimizers import OPTIMIZERS
from fae.embedding.resident import ResidentEmbeddings
from fae.models.config import DLRMConfig
from fae.models.registry import build_model
from fae.pack.compose import pack_groups
from fae.streaming.ready_batch import make_ready
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer
from fae.training.plain import PlainEmbeddings, PlainTrainer
from fae.training.step import train_step

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import KAGGLE_ROWS, record, save_record, zipf_ids

DIM, NUM_DENSE, NUM_BATCHES = 16, 13, 8
USUAL = ["sgd", "rowwise_adagrad"]


def timed(function: Callable[[int], object], index: int) -> float:
    start = time.perf_counter()
    function(index)
    return 1e3 * (time.perf_counter() - start)


def interleaved(candidates: dict[str, Callable[[int], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every call, the candidates taking turns; two warm-up rounds are dropped."""
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 2):
        for name, function in candidates.items():
            sample = timed(function, repeat % NUM_BATCHES)
            if repeat >= 2:
                samples[name].append(sample)
    return samples


def measure(batch_size: int, optimizer_name: str, cardinalities: list[int], repeats: int) -> list[dict]:
    random = np.random.default_rng(1)
    features = tuple(FeatureSchema(name=f"C{i + 1}", num_embeddings=n) for i, n in enumerate(cardinalities))
    num_inputs = NUM_BATCHES * batch_size
    ids = np.stack([zipf_ids(random.random(num_inputs), n, 1.05) for n in cardinalities], 1).astype(np.int32)
    dense = random.normal(size=(num_inputs, NUM_DENSE)).astype(np.float32)
    labels = (random.random(num_inputs) < 0.25).astype(np.uint8)
    groups = [np.arange(first, first + batch_size) for first in range(0, num_inputs, batch_size)]

    # Ours: as `placement = "cpu"` runs it, 5 % of each table hot (so that addresses go through the cold lists).
    layout = RowLayout(features, [DIM] * len(features), [n // 20 for n in cardinalities])
    optimizer = RowOptimizer(name=optimizer_name, learning_rate=0.01)
    cpu = torch.device("cpu")
    embeddings = ResidentEmbeddings(layout, optimizer, batch_size, cpu)
    embeddings.initialise(1)
    batches = [make_ready(packed, cpu, 0) for packed in pack_groups(ids, dense, labels, groups, layout, batch_size)]
    model = build_model(DLRMConfig(embedding_dim=DIM), features, NUM_DENSE, seed=1)
    dense_optimizer = make_dense_optimizer(optimizer_name, model, 0.01)
    gradient = torch.randn(batch_size, len(features) * DIM) * 1e-3

    def our_half(index: int) -> None:
        embeddings.lookup(batches[index])
        embeddings._outputs[0].grad = gradient
        embeddings.update(batches[index])

    def our_step(index: int) -> None:
        float(train_step(model, embeddings, dense_optimizer, batches[index]))

    # Plain PyTorch: its ids are per table and contiguous already, which costs it nothing here.
    plain = PlainEmbeddings(features, [DIM] * len(features), seed=1)
    plain_model = build_model(DLRMConfig(embedding_dim=DIM), features, NUM_DENSE, seed=1)
    trainer = PlainTrainer(plain_model, plain, optimizer)
    tensors = [(torch.from_numpy(ids[g].astype(np.int64)), torch.from_numpy(dense[g]),
                torch.from_numpy(labels[g].astype(np.float32))) for g in groups]  # fmt: skip
    columns = [[t[:, f].contiguous() for f in range(len(features))] for t, _, _ in tensors]
    offsets = torch.arange(batch_size)
    table_gradients = [gradient[:, f * DIM : (f + 1) * DIM].contiguous() for f in range(len(features))]
    # Of the others torch has the very optimizer, and `trainer` uses it.
    has_other = optimizer_name == "rowwise_adagrad"
    torch_adagrad = torch.optim.Adagrad(list(plain.parameters()), lr=0.01) if has_other else None

    def plain_half(index: int, row_optimizer: object) -> None:
        outputs = [table(column, offsets) for table, column in zip(plain.tables, columns[index], strict=True)]
        torch.autograd.backward(outputs, table_gradients)
        row_optimizer.step()
        for parameter in plain.parameters():
            parameter.grad = None

    halves = {"fae": our_half, "embedding_bags": lambda index: plain_half(index, trainer._row_optimizer)}
    if torch_adagrad is not None:
        halves["embedding_bags_torch_adagrad"] = lambda index: plain_half(index, torch_adagrad)
    steps = {"fae": our_step, "embedding_bags": lambda index: trainer.step(*tensors[index])}
    rows = []
    for part, candidates in (("embedding_half", halves), ("whole_step", steps)):
        samples = interleaved(candidates, repeats)
        ours = np.array(samples["fae"])
        row = {"part": part, "batch_size": batch_size, "optimizer": optimizer_name, "dim": DIM}
        for name, values in samples.items():
            paired = np.array(values) / ours
            row[name] = {"median_ms": float(np.median(values)), "ratio_to_fae": float(np.median(paired)),
                         "ratio_quartiles": np.percentile(paired, [25, 75]).tolist(), "samples_ms": values}  # fmt: skip
            print(f"{part:15} B={batch_size:5} {optimizer_name:16} {name:30} {np.median(values):8.2f} ms "
                  f"({np.median(paired):.2f} x)", file=sys.stderr)  # fmt: skip
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8192, 2048, 256])
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=USUAL)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--rows", type=int, default=20_000_000, help="cap of one table")
    parser.add_argument("--quick", action="store_true", help="small tables, few repeats: shows that it runs")
    options = parser.parse_args()
    cap, repeats = (2_000, 3) if options.quick else (options.rows, options.repeats)
    cardinalities = [min(n, cap) for n in KAGGLE_ROWS]
    rows = []
    for batch_size in [64] if options.quick else options.batch_sizes:
        for optimizer in options.optimizers:
            rows += measure(batch_size, optimizer, cardinalities, repeats)
    if not options.quick:
        name = "row_kernels" if options.optimizers == USUAL else "_".join(["row_kernels", *options.optimizers])
        save_record(name, record(torch_version=torch.__version__, rows=rows))


if __name__ == "__main__":
    main()
