"""Share what the studies need: resumable cells with their commit, memory at its peak, logs, shares served.

A cell is measured once, its figures are on disk before the next one begins, and cells of other settings are refused.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fae.artifacts.columnar_log import ColumnarLog
from fae.bench.cells import Cells
from fae.calibrate.coverage import MeasuredCoverage, measure
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.core.progress import say
from fae.profile.sampling import SampledInputs
from fae.run.folder import RunFolder
from fae.run.recipe import load_recipe
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

from common import KAGGLE_ROWS, RESULTS, ROOT, make_log, record

__all__ = ["KAGGLE_ROWS", "RESULTS", "ROOT", "make_log"]  # of `common`, which is found only behind the path above


def open_cells(name: str | Path, settings: Mapping[str, Any], **options: Any) -> Cells:
    """The cells of ``benchmarks/results/<name>.json``, or of a path, with the record of this run around them."""
    path = RESULTS / f"{name}.json" if isinstance(name, str) else name
    return Cells(path, settings, header=record(), **options)


def measured(cells: Cells, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The cell from the file, or else from `work`, with the commit, the machine's load before it and its seconds."""

    def work_with_facts() -> dict[str, Any]:
        load, began = os.getloadavg()[0], time.perf_counter()
        facts = {**work(), "load_before": round(load, 2), "commit": cells.record["commit"]}
        say(f"{cells.path.stem} {key}: {time.perf_counter() - began:.1f} s")
        return facts

    return cells.measure(key, work_with_facts)


class PeakMemory:
    """Most bytes that this process held for itself inside the block, above what it held before.

    Pages of mapped files are not counted: the system takes them back when it needs them. Linux only.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        self._stop, self._before = threading.Event(), anonymous_bytes()
        self._most = self._before
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self._most = max(self._most, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self._most = max(self._most, anonymous_bytes())
        self._stop.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        """The peak less the bytes before."""
        return self._most - self._before


def anonymous_bytes() -> int:
    """Bytes of memory that this process holds, without pages of mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon: this needs Linux")


@contextmanager
def synthetic_log(
    folder: Path, shape: str, num_inputs: int, *, scale: float = 1.0, seed: int = 1, test_fraction: float = 0.1
) -> Iterator[ColumnarLog]:
    """Yield a synthetic columnar log; it is removed at the end, because the large ones take 7 GB."""
    config = SyntheticConfig(
        shape=shape, num_inputs=num_inputs, scale=scale, seed=seed, **({"drift": 0.0} if shape == "zipf" else {})
    )  # fmt: skip
    path = folder / f"{shape}-{num_inputs}-{scale}-{seed}"
    shutil.rmtree(path, ignore_errors=True)
    say(f"making {num_inputs:,} inputs like {shape}")
    try:
        write_columnar(config, path, test_fraction=test_fraction, validation_fraction=0.05 if test_fraction else 0.0)
        yield ColumnarLog(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def frappe_settings() -> list[str]:
    """Overrides of ``recipes/frappe.toml`` that name the file; it is looked for in ``shared/data`` or further up."""
    places = (up / "shared/data/frappe_86k.csv.gz" for up in ROOT.parents)
    data = next((place for place in places if place.is_file()), None)
    return [f"log.train={data}"] if data else []


def frappe_log(folder: Path) -> ColumnarLog:
    """Frappe as ``recipes/frappe.toml`` reads it, ingested into `folder`; the recipe says where the file is from."""
    run = RunFolder(load_recipe(ROOT / "recipes/frappe.toml", frappe_settings()), folder / "frappe")
    run.stage("ingest")
    return ColumnarLog(run.path("ingest"))


def inputs_of(log: ColumnarLog, split: str) -> SampledInputs:
    """All inputs of a split."""
    return SampledInputs(log.ids, log.labels, range(*log.split(split)))


def shares(tables: Tables, ranks: Any, num_hot: Int64, **inputs: SampledInputs) -> dict[str, dict[str, Any]]:
    """Hot-input share and coverage on each of the named inputs."""
    found: dict[str, MeasuredCoverage] = {name: measure(tables, some, ranks, num_hot) for name, some in inputs.items()}
    return {
        name: {"input_share": one.input_share, "num_hot_inputs": one.num_hot_inputs, "num_inputs": one.num_inputs,
               "coverage": one.coverage}
        for name, one in found.items()
    }  # fmt: skip
