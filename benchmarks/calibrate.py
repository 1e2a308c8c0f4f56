"""Seconds of profile and calibrate on a large columnar log in the page cache.

    python benchmarks/calibrate.py [--inputs 10000000] [--repeats 3] [--selection auto] [--budget 512MiB] [--quick]

What do the two stages cost on a log of Criteo Kaggle's size? The log is `fae synthetic`'s ``criteo`` shape at scale 1
(26 tables, 33.8 M rows, columns from latent users and items). It is made in a temporary folder (1.1 GB for 10 M inputs)
and removed afterwards. Kernels are compiled on a small log first, outside the samples. Every sample writes both
artifacts, checksums included. Writes benchmarks/results/profile_calibrate.json (``--name`` for another).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.progress import say
from fae.profile.config import HotConfig
from fae.run.prepare import PackOptions, make_hot_set, make_profile
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

from common import record, save_record

FOUND = (
    "selection", "threshold", "num_rows", "bytes", "staging_bytes", "budget_bytes", "coverage", "input_share",
    "intervals", "bound", "candidates", "measured_on", "overlap", "notes",
)  # fmt: skip


def make_log(path: Path, num_inputs: int, scale: float) -> ColumnarLog:
    """A log whose inputs are all for training."""
    config = SyntheticConfig(shape="criteo", num_inputs=num_inputs, scale=scale, drift=0.0)
    write_columnar(config, path, test_fraction=0.0, validation_fraction=0.0)
    return ColumnarLog(path)


def run_once(log: ColumnarLog, config: HotConfig, folder: Path, batch_size: int) -> tuple[dict[str, float], Any]:
    """Seconds of both stages, and the hot set."""
    options = PackOptions(
        hot=config, embedding_dims=(16,) * len(log.features), optimizer="rowwise_adagrad", batch_size=batch_size,
        mixed=False, seed=1,
    )  # fmt: skip
    start = time.perf_counter()
    opened = make_profile(log, options, folder / "profile")
    middle = time.perf_counter()
    hot_set = make_hot_set(log, opened, options, folder / "hot_set")
    end = time.perf_counter()
    return {"profile": middle - start, "calibrate": end - middle, "total": end - start}, hot_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--scale", type=float, default=1.0, help="rows of the large tables, 1 for Criteo Kaggle's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--selection", default="auto")
    parser.add_argument("--budget", default="512MiB")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary log goes")
    parser.add_argument("--name", default="profile_calibrate", help="of the result file")
    parser.add_argument("--quick", action="store_true", help="tiny, one repeat, no file: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.inputs, options.scale, options.repeats, options.budget = 20_000, 0.01, 1, "1MiB"
        options.batch_size = 256
    config = HotConfig(budget=options.budget, selection=options.selection, ring_depth=4)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        small = make_log(folder / "small", 5000, 0.01)
        run_once(small, HotConfig(budget="1MiB", sample=0.2, sample_min_inputs=0), folder / "warm", 32)
        say("making the log")
        log = make_log(folder / "log", options.inputs, options.scale)
        samples = []
        for repeat in range(options.repeats):
            seconds, hot_set = run_once(log, config, folder, options.batch_size)
            say(f"{repeat}: " + ", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items()))
            samples.append(seconds)
        summary, num_rows = hot_set.summary, int(log.table_offsets[-1])
    result = record(
        num_inputs=options.inputs,
        num_rows=num_rows,
        samples_seconds=samples,
        median_seconds={stage: statistics.median(sample[stage] for sample in samples) for stage in samples[0]},
        found={key: summary[key] for key in FOUND},
    )
    if not options.quick:
        save_record(options.name, result)


if __name__ == "__main__":
    main()
