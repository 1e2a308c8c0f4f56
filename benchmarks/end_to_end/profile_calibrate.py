"""Seconds of profile and calibrate on a large columnar log in the page cache.

    python benchmarks/end_to_end/profile_calibrate.py [--inputs 10000000] [--repeats 3] [--selection auto]

The log has Criteo Kaggle's 26 tables (33.8 M rows) and correlated columns: an input has a latent user and a latent
item, and most of its ids follow from one of the two. It is made in a temporary folder (1.1 GB for 10 M inputs) and
removed afterwards. Kernels are compiled on a small log first; what that takes with an empty cache is not part of the
samples. The budget is the default 512 MiB; every sample writes both artifacts, checksums included. JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, ColumnarLog, FeatureSchema  # noqa: E402
from fae.artifacts.manifest import Plan, write_artifact
from fae.calibrate.calibrate import calibrate  # noqa: E402
from fae.core.config import to_table  # noqa: E402
from fae.core.progress import say  # noqa: E402
from fae.core.seeds import derive_seed, generator  # noqa: E402
from fae.core.threads import run_ranges  # noqa: E402
from fae.profile.config import HotConfig  # noqa: E402
from fae.profile.profile import profile

from common import KAGGLE_ROWS, record, save_record, zipf_ids  # noqa: E402

BLOCK = 65_536
LATENT_SHARE = 0.7
EXPONENT = 0.9


def latent_position(latent: np.ndarray, salt: int) -> np.ndarray:
    """A fixed uniform number for each latent and column (multiply-shift hash)."""
    mixed = (latent.astype(np.uint64) + np.uint64(1)) * np.uint64(salt | 1)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def correlated_block(seed: int, block: int, size: int, rows: tuple[int, ...]) -> np.ndarray:
    """Raw ids int32 ``[size, S]`` of one block of inputs."""
    random = generator(seed, "ids", block)
    user = zipf_ids(random.random(size), 20_000_000, 0.7)
    item = zipf_ids(random.random(size), 1_000_000, 0.9)
    ids = np.empty((size, len(rows)), np.int32)
    for column, count in enumerate(rows):
        own = latent_position(user if column % 3 else item, derive_seed(seed, "column", column))
        draws = np.where(random.random(size) < LATENT_SHARE, own, random.random(size))
        ids[:, column] = zipf_ids(draws, count, EXPONENT)
    return ids


def make_correlated_log(path: Path, num_inputs: int, rows: tuple[int, ...], seed: int = 1) -> ColumnarLog:
    """Write the log as ingest would: ids by popularity, all inputs in the training split."""
    features = [FeatureSchema(name=f"C{index + 1}", num_embeddings=count) for index, count in enumerate(rows)]
    summary: dict[str, Any] = {
        "features": [to_table(feature) for feature in features], "dense": [], "num_inputs": num_inputs,
        "splits": {"train": [0, num_inputs], "validation": [num_inputs] * 2, "test": [num_inputs] * 2},
    }  # fmt: skip
    plan = Plan(
        kind=KIND, format_version=FORMAT_VERSION, parents={}, command=Path(__file__).name,
        parameters={"num_inputs": num_inputs, "rows": list(rows), "seed": seed},
    )  # fmt: skip
    with write_artifact(path, plan, summary) as folder:
        ids = open_memmap(folder / "ids.npy", mode="w+", dtype=np.int32, shape=(num_inputs, len(rows)))
        num_blocks = -(-num_inputs // BLOCK)

        def fill(start: int, stop: int) -> None:
            for block in range(start, stop):
                first, last = block * BLOCK, min((block + 1) * BLOCK, num_inputs)
                ids[first:last] = correlated_block(seed, block, last - first, rows)

        run_ranges(fill, num_blocks)
        counts, ranks = [], []
        for column, count in enumerate(rows):
            raw = np.bincount(ids[:, column], minlength=count)
            order = np.argsort(-raw, kind="stable")
            counts.append(raw[order])
            ranks.append(np.empty(count, np.int32))
            ranks[-1][order] = np.arange(count, dtype=np.int32)

        def rename(start: int, stop: int) -> None:
            for first in range(start * BLOCK, min(stop * BLOCK, num_inputs), BLOCK):
                part = ids[first : first + BLOCK]
                for column, rank in enumerate(ranks):
                    part[:, column] = rank[part[:, column]]

        run_ranges(rename, num_blocks)
        random = generator(seed, "labels")
        np.save(folder / "counts.npy", np.concatenate(counts).astype(np.int64))
        np.save(folder / "labels.npy", (random.random(num_inputs) < 0.25).astype(np.uint8))
        np.save(folder / "dense.npy", np.zeros((num_inputs, 0), np.float32))
    return ColumnarLog(path)


def run_once(log: ColumnarLog, config: HotConfig, folder: Path, batch_size: int) -> tuple[dict[str, float], Any]:
    """Both stages; seconds of each, and the hot set."""
    start = time.perf_counter()
    opened = profile(log, config, folder / "profile", seed=1)
    middle = time.perf_counter()
    hot_set = calibrate(
        log, opened, config, folder / "hot_set", embedding_dims=[16] * len(log.features), optimizer="rowwise_adagrad",
        batch_size=batch_size, mixed=False, seed=1,
    )  # fmt: skip
    end = time.perf_counter()
    return {"profile": middle - start, "calibrate": end - middle, "total": end - start}, hot_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--selection", default="auto")
    parser.add_argument("--budget", default="512MiB")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary log goes")
    parser.add_argument("--name", default="profile_calibrate", help="of the result file")
    options = parser.parse_args()
    config = HotConfig(budget=options.budget, selection=options.selection, ring_depth=4)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        small = make_correlated_log(folder / "small", 5000, (50, 400, 3000))
        run_once(small, HotConfig(budget="40KiB", sample=0.2, sample_min_inputs=0), folder / "warm", 32)
        say("making the log")
        log = make_correlated_log(folder / "log", options.inputs, KAGGLE_ROWS)
        samples = []
        for repeat in range(options.repeats):
            seconds, hot_set = run_once(log, config, folder, options.batch_size)
            say(f"{repeat}: " + ", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items()))
            samples.append(seconds)
        summary = hot_set.summary
    found = (
        "selection", "threshold", "num_rows", "bytes", "staging_bytes", "budget_bytes", "coverage", "input_share",
        "intervals", "bound", "candidates", "measured_on", "overlap", "notes",
    )  # fmt: skip
    result = record(
        num_inputs=options.inputs,
        num_rows=sum(KAGGLE_ROWS),
        samples_seconds=samples,
        median_seconds={
            stage: float(np.median([sample[stage] for sample in samples]))
            for stage in ("profile", "calibrate", "total")
        },
        found={key: summary[key] for key in found},
    )
    save_record(options.name, result)


if __name__ == "__main__":
    main()
