"""What the benchmark scripts share: a synthetic columnar log, a hot set for it, and the record around the figures.

Invariant: every result file says on which machine, with which versions and from which commit its samples came. The
log's columns are independent Zipf draws: right for speed, wrong for the share of hot inputs of a real log, whose
columns are correlated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, ColumnarLog, FeatureSchema
from fae.artifacts.manifest import Manifest, Plan, write_artifact
from fae.artifacts.row_layout import RowLayout
from fae.core.config import to_table
from fae.core.seeds import generator
from fae.core.threads import num_threads, run_ranges
from fae.run.record import library_versions, machine, source_commit

RESULTS = Path(__file__).parent / "results"

# Criteo Kaggle: 26 tables, 33,762,577 rows; 13 dense features.
KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652,
    2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
KAGGLE_DENSE = 13

_BLOCK_INPUTS = 65536


def zipf_ids(draws: npt.NDArray[np.float64], num_rows: int, exponent: float) -> npt.NDArray[np.int64]:
    """Ids in ``[0, num_rows)``, most popular first, from uniform draws: the continuous Zipf law inverted."""
    power = 1.0 - exponent
    values = ((num_rows + 1.0) ** power - 1.0) * draws + 1.0
    return np.minimum(np.floor(values ** (1.0 / power)).astype(np.int64) - 1, num_rows - 1)


def make_log(
    path: Path,
    num_inputs: int,
    *,
    exponent: float = 1.05,
    rows: Sequence[int] = KAGGLE_ROWS,
    num_dense: int = KAGGLE_DENSE,
    seed: int = 1,
) -> ColumnarLog:
    """Write a columnar log of independent Zipf columns, straight in its final form; all inputs are training inputs."""
    features = [FeatureSchema(name=f"C{i + 1}", num_embeddings=count) for i, count in enumerate(rows)]
    summary: dict[str, Any] = {
        "features": [to_table(feature) for feature in features],
        "dense": [f"I{i + 1}" for i in range(num_dense)],
        "num_inputs": num_inputs,
        "splits": {
            "train": [0, num_inputs], "validation": [num_inputs, num_inputs], "test": [num_inputs, num_inputs],
        },
    }  # fmt: skip
    parameters = {"rows": list(rows), "num_inputs": num_inputs, "exponent": exponent, "seed": seed}
    plan = Plan(kind=KIND, format_version=FORMAT_VERSION, parameters=parameters, parents={}, command="make_log")
    with write_artifact(path, plan, summary) as folder:
        ids = open_memmap(folder / "ids.npy", mode="w+", dtype=np.int32, shape=(num_inputs, len(rows)))
        dense = open_memmap(folder / "dense.npy", mode="w+", dtype=np.float32, shape=(num_inputs, num_dense))
        labels = open_memmap(folder / "labels.npy", mode="w+", dtype=np.uint8, shape=(num_inputs,))

        def fill(start: int, stop: int) -> None:
            for block in range(start, stop):
                first, last = block * _BLOCK_INPUTS, min((block + 1) * _BLOCK_INPUTS, num_inputs)
                random = generator(seed, "benchmark log", block)
                for column, count in enumerate(rows):
                    ids[first:last, column] = zipf_ids(random.random(last - first), count, exponent)
                dense[first:last] = random.random((last - first, num_dense), np.float32)
                labels[first:last] = random.random(last - first) < 0.25

        run_ranges(fill, -(-num_inputs // _BLOCK_INPUTS))
        counts = [np.bincount(ids[:, column], minlength=count) for column, count in enumerate(rows)]
        np.save(folder / "counts.npy", np.concatenate(counts).astype(np.int64))
        for array in (ids, dense, labels):
            array.flush()
    return ColumnarLog(path)


def make_hot_set(
    log: ColumnarLog, hot_share: float, *, embedding_dim: int, batch_size: int, permuted: bool = False, seed: int = 1
) -> Any:
    """A hot set of the most accessed rows, with the attributes that pack reads.

    Parameters
    ----------
    hot_share
        Of all rows.
    permuted
        Give every table a storage order that is not the vocabulary's, as peeling does: neighbours are exchanged, so
        that popularity hardly changes but every lookup goes through the table of ranks.
    """
    counts = np.asarray(log.counts)
    wanted = int(hot_share * len(counts))
    limit = np.partition(counts, len(counts) - wanted)[len(counts) - wanted]
    above = counts > limit
    num_hot = [
        int(np.count_nonzero(above[log.table_offsets[table] : log.table_offsets[table + 1]]))
        for table in range(len(log.features))
    ]
    # What is missing are ties at the limit: the largest table takes them.
    largest = int(np.argmax([feature.num_embeddings for feature in log.features]))
    num_hot[largest] += wanted - sum(num_hot)
    ranks: list[npt.NDArray[np.int32] | None] = [None] * len(log.features)
    if permuted:
        ranks = [_exchange_neighbours(feature.num_embeddings) for feature in log.features]
    layout = RowLayout(log.features, [embedding_dim] * len(log.features), num_hot, ranks)
    # The batches that need staging are those of cold inputs.
    sample = np.asarray(log.ids[: 16 * batch_size])
    sample = sample[np.any(sample >= np.array(num_hot), axis=1)]
    cold = [
        sum(len(np.unique(column[column >= hot])) for column, hot in zip(batch.T, num_hot, strict=True))
        for batch in np.split(sample, range(batch_size, len(sample), batch_size))
    ]
    parameters = {"hot_share": hot_share, "permuted": permuted, "batch_size": batch_size}
    return SimpleNamespace(
        layout=layout, ring_depth=4, staging_rows=(int(1.1 * max(cold)) + len(log.features),), batch_size=batch_size,
        mixed=False, optimizer="sgd",
        manifest=Manifest(kind="hot_set", format_version=1, fingerprint="0" * 32, parameters=parameters),
    )  # fmt: skip


def _exchange_neighbours(size: int) -> npt.NDArray[np.int32]:
    ranks = np.arange(size, dtype=np.int32)
    even = size - size % 2
    ranks[:even] = ranks[:even].reshape(-1, 2)[:, ::-1].reshape(-1)
    return ranks


@contextmanager
def working_folder(folder: Path | None) -> Iterator[Path]:
    """For logs and packed batches: `folder`, where they stay for the next start, or one that goes afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def record(**facts: Any) -> dict[str, Any]:
    """The record of a benchmark: command, machine, versions and commit, and what the caller adds."""
    changes = subprocess.run(
        ["git", "status", "--porcelain", "src"], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    ).stdout
    script = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parents[1]
    return {
        "command": " ".join(["python", os.path.relpath(script, root), *sys.argv[1:]]),
        "machine": {**machine(), "threads": num_threads()},
        "versions": library_versions(),
        "commit": (source_commit() or "unknown") + ("+changes" if changes.strip() else ""),
        **facts,
    }


def save_record(name: str, result: dict[str, Any]) -> Path:
    """Write a record to ``benchmarks/results/<name>.json`` and say so on stderr."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}", file=sys.stderr)
    return path
