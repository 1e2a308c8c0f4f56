"""Share logs, hot sets, packed batches and the record around a result between the benchmark scripts.

Every result file says on which machine, with which versions and from which commit its figures came. The columns of the
``zipf`` log are independent draws: right for speed, wrong for the share of hot inputs of a real log, whose columns are
correlated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, SPLITS, ColumnarLog, FeatureSchema
from fae.artifacts.manifest import Manifest, Plan, write_artifact
from fae.artifacts.packed import PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.core.config import to_table
from fae.core.seeds import generator
from fae.core.threads import num_threads, run_ranges
from fae.pack.pack import pack
from fae.run.record import library_versions, machine, source_commit
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

# Criteo Kaggle: 26 tables, 33,762,577 rows; 13 dense features.
KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652,
    2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
KAGGLE_DENSE = 13
RING_DEPTH = 8
ZIPF_EXPONENT = 1.05
"""That of the columns of the ``zipf`` log."""

_BLOCK_INPUTS = 65536


def capped_rows(cap: int) -> list[int]:
    """Criteo Kaggle's cardinalities, none above `cap`."""
    return [min(count, cap) for count in KAGGLE_ROWS]


def zipf_ids(draws: npt.NDArray[np.float64], num_rows: int, exponent: float) -> npt.NDArray[np.int64]:
    """Ids in ``[0, num_rows)``, most popular first, from uniform draws: the continuous Zipf law inverted."""
    power = 1.0 - exponent
    values = ((num_rows + 1.0) ** power - 1.0) * draws + 1.0
    return np.minimum(np.floor(values ** (1.0 / power)).astype(np.int64) - 1, num_rows - 1)


def zipf_hot_rows(rows: Sequence[int], share: float, exponent: float = ZIPF_EXPONENT) -> list[int]:
    """Hot rows of each table of a ``zipf`` log where `share` of all rows is hot: its first ids, by the law itself.

    A log of few inputs shows few rows of large tables; which of the others are popular only the law knows.

    >>> zipf_hot_rows([1000, 10], 0.1)
    [91, 10]
    """
    power, sizes = 1.0 - exponent, np.asarray(rows, np.float64)
    # Logarithms of how often a table's first row is looked up; row x of it is looked up x ** exponent times less.
    first = np.log(power / ((sizes + 1.0) ** power - 1.0))

    def hot_above(limit: float) -> npt.NDArray[np.float64]:
        return np.clip(np.floor(np.exp((first - limit) / exponent)), 0, sizes)

    low, high = float((first - exponent * np.log(sizes)).min()) - 1.0, float(first.max()) + 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if hot_above(middle).sum() < share * sizes.sum() else (middle, high)
    return [int(count) for count in hot_above(low)]


def write_log(
    path: Path, rows: Sequence[int], ids: Any, dense: Any, labels: Any, parameters: dict[str, Any], first_table: int = 0
) -> ColumnarLog:
    """Write a columnar log of these arrays; all inputs are training inputs, and tables are named from `first_table`."""
    names, count = [f"C{first_table + i + 1}" for i in range(len(rows))], len(ids)
    features = [FeatureSchema(name=name, num_embeddings=size) for name, size in zip(names, rows, strict=True)]
    summary: dict[str, Any] = {
        "features": [to_table(feature) for feature in features], "dense": [f"I{i + 1}" for i in range(dense.shape[1])],
        "num_inputs": count, "splits": {"train": [0, count], "validation": [count, count], "test": [count, count]},
    }  # fmt: skip
    plan = Plan(kind=KIND, format_version=FORMAT_VERSION, parameters=parameters, parents={}, command="benchmarks")
    with write_artifact(path, plan, summary) as folder:
        counts = [np.bincount(ids[:, column], minlength=size) for column, size in enumerate(rows)]
        arrays = {"ids": ids, "dense": dense, "labels": labels, "counts": np.concatenate(counts).astype(np.int64)}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
    return ColumnarLog(path)


def make_log(
    path: Path,
    num_inputs: int,
    *,
    exponent: float = ZIPF_EXPONENT,
    rows: Sequence[int] = KAGGLE_ROWS,
    num_dense: int = KAGGLE_DENSE,
    seed: int = 1,
) -> ColumnarLog:
    """Write a columnar log of independent Zipf columns; all inputs are training inputs."""
    ids, dense = np.empty((num_inputs, len(rows)), np.int32), np.empty((num_inputs, num_dense), np.float32)
    labels = np.empty(num_inputs, np.uint8)

    def fill(start: int, stop: int) -> None:
        for block in range(start, stop):
            first, last = block * _BLOCK_INPUTS, min((block + 1) * _BLOCK_INPUTS, num_inputs)
            random = generator(seed, "benchmark log", block)
            for column, count in enumerate(rows):
                ids[first:last, column] = zipf_ids(random.random(last - first), count, exponent)
            dense[first:last] = random.random((last - first, num_dense), np.float32)
            labels[first:last] = random.random(last - first) < 0.25

    run_ranges(fill, -(-num_inputs // _BLOCK_INPUTS))
    parameters = {"rows": list(rows), "num_inputs": num_inputs, "exponent": exponent, "seed": seed}
    return write_log(path, rows, ids, dense, labels, parameters)


def open_log(name: str, folder: Path, num_inputs: int, rows: Sequence[int] = KAGGLE_ROWS) -> ColumnarLog:
    """Open the log ``zipf`` or ``criteo`` in `folder`; make it where it is missing.

    ``zipf`` has independent columns of exponent 1.05. ``criteo`` has columns from latent users and items; it touches
    fewer rows, so it is two and a half times as long, or 5 % of the rows would be all that it touches.
    """
    path, made_of = folder / name, {"inputs": num_inputs, "rows": list(rows)}
    if name == "zipf":
        return ColumnarLog(made_once(path, made_of, lambda: make_log(path, num_inputs, rows=rows)))
    scale, longer = min(1.0, max(rows) / max(KAGGLE_ROWS)), 5 * num_inputs // 2
    # Without drift: values that come and go would double the tables.
    config = SyntheticConfig(shape="criteo", num_inputs=longer, scale=scale, drift=0.0)
    return ColumnarLog(made_once(path, asdict(config), lambda: write_columnar(config, path, ids="encoded")))


StorageOrder = Literal["accesses", "vocabulary", "neighbours"]


@lru_cache(maxsize=4)
def storage_ranks(path: Path, order: StorageOrder) -> list[np.ndarray | None]:
    """Rank of every row of each table of a log in this storage order; None where ranks are the ids.

    ``neighbours`` exchanges neighbours: popularity hardly changes, but every lookup goes through the table of ranks, as
    it does after peeling.
    """
    log = ColumnarLog(path)
    ranks: list[np.ndarray | None] = []
    counts = np.asarray(log.counts)
    for first, last in pairwise(log.table_offsets):
        size = last - first
        rank = np.arange(size, dtype=np.int32)
        if order == "accesses":
            rank[np.argsort(-counts[first:last], kind="stable")] = np.arange(size, dtype=np.int32)
        elif order == "neighbours":
            even = size - size % 2
            rank[:even] = rank[:even].reshape(-1, 2)[:, ::-1].reshape(-1)
        ranks.append(None if np.array_equal(rank, np.arange(size)) else rank)
    return ranks


def most_accessed(log: ColumnarLog, share: float) -> list[int]:
    """How many rows of each table are among the most accessed `share` of all rows."""
    counts = np.asarray(log.counts)
    tables = [slice(first, last) for first, last in pairwise(log.table_offsets)]
    sizes, wanted = [part.stop - part.start for part in tables], round(share * len(counts))
    if wanted >= len(counts):
        return sizes
    limit = np.partition(counts, len(counts) - wanted)[len(counts) - wanted] if wanted else counts.max() + 1
    num_hot = [int(np.count_nonzero(counts[part] > limit)) for part in tables]
    missing = wanted - sum(num_hot)
    for table in np.argsort(sizes)[::-1]:  # ties at the limit: the largest tables take them
        more = min(missing, sizes[table] - num_hot[table])
        num_hot[table] += more
        missing -= more
    return num_hot


def hot_set(
    log: ColumnarLog,
    share: float,
    *,
    dim: int,
    batch_size: int,
    mixed: bool,
    optimizer: str = "sgd",
    depth: int = RING_DEPTH,
    order: StorageOrder = "accesses",
    num_hot: Sequence[int] | None = None,
) -> Any:
    """Make the most accessed `share` of all rows hot, with staging for the largest batch of a sample.

    Where `num_hot` has the hot rows of each table, they are taken, the first ones of the storage order.

    Returns an object with the attributes of `fae.artifacts.hot_set.HotSet` that pack and the placements read.
    """
    ranks, sizes = storage_ranks(log.path, order), [feature.num_embeddings for feature in log.features]
    num_hot = most_accessed(log, share) if num_hot is None else num_hot
    layout = RowLayout(log.features, [dim] * len(log.features), num_hot, ranks)
    most = 0
    random = np.random.default_rng(1)
    for name in 2 * SPLITS:
        start, stop = log.split(name)
        if start == stop:
            continue
        chosen = random.choice(stop - start, min(2 * batch_size, stop - start), replace=False) + start
        ids = np.asarray(log.ids[chosen]).astype(np.int64)
        columns = [ids[:, t] if rank is None else rank[ids[:, t]] for t, rank in enumerate(ranks)]
        rank_of = np.stack(columns, axis=1)
        cold = rank_of >= np.array(num_hot)
        if not mixed and name == "train":  # held-out batches take any inputs
            keep = cold.any(axis=1)
            cold, rank_of = cold[keep], rank_of[keep]
        cold, rank_of = cold[:batch_size], rank_of[:batch_size]
        most = max(most, sum(len(np.unique(rank_of[cold[:, t], t])) for t in range(len(log.features))))
    parameters = {"share": share, "mixed": mixed, "batch_size": batch_size}
    staging = min(int(1.08 * most) + len(log.features), sum(sizes) - sum(num_hot))
    return SimpleNamespace(
        layout=layout, ring_depth=depth, staging_rows=(staging,), batch_size=batch_size, mixed=mixed,
        optimizer=optimizer,
        manifest=Manifest(kind="hot_set", format_version=1, fingerprint="0" * 32, parameters=parameters),
    )  # fmt: skip


def packed_log(log: ColumnarLog, hot: Any, folder: Path) -> PackedDataset:
    """Open the packed batches of a hot set in `folder`; make them where they are missing."""
    parameters = hot.manifest.parameters
    name = f"packed_{log.path.name}_{parameters['share']}_{parameters['mixed']}_{parameters['batch_size']}"
    path, made_of = folder / name, {"log": log.manifest.fingerprint, **parameters}
    return PackedDataset(made_once(path, made_of, lambda: pack(log, hot, path, seed=1)))


def made_once(path: Path, made_of: Mapping[str, Any], make: Callable[[], object]) -> Path:
    """Make `path`, or see that it was made of the same: a log of other tables would be another workload, silently.

    What it was made of is kept beside it, as ``.<name>.made_of.json``.
    """
    kept, expected = path.with_name(f".{path.name}.made_of.json"), json.dumps(made_of, default=str, sort_keys=True)
    if path.exists():
        found = kept.read_text() if kept.exists() else "something that was not noted"
        if found != expected:
            raise SystemExit(f"{path} was made of {found}; wanted is {expected}.\nRemove it, or name another --folder.")
        return path
    make()
    kept.write_text(expected)
    return path


@contextmanager
def working_folder(folder: Path | None) -> Iterator[Path]:
    """Yield `folder`, where logs and packed batches stay for the next start, or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def record(**facts: Any) -> dict[str, Any]:
    """Return the record of a benchmark: command, machine, versions and commit, and what the caller adds."""
    changes = subprocess.run(["git", "status", "--porcelain", "src"], capture_output=True, text=True, cwd=ROOT).stdout
    return {
        "command": " ".join(["python", os.path.relpath(Path(sys.argv[0]).resolve(), ROOT), *sys.argv[1:]]),
        "machine": {**machine(), "threads": num_threads()},
        "versions": library_versions(),
        "commit": (source_commit() or "unknown") + ("+changes" if changes.strip() else ""),
        **facts,
    }


def save_record(path: Path | str, result: dict[str, Any]) -> Path:
    """Write a record to `path`, or to ``benchmarks/results/<name>.json``, whole or not at all."""
    path = RESULTS / f"{path}.json" if isinstance(path, str) else path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)
    print(f"wrote {path}", file=sys.stderr)
    return path
