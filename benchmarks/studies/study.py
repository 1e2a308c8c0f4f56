"""What the calibrator's studies share: cells that survive a stop, memory at its peak, logs to study, figures as SVG.

Invariants: a cell is measured once, its figures are on disk before the next one begins, and cells of other settings
are never mixed in. A figure is drawn from the committed JSON alone. Decides nothing about hot sets.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from fae.artifacts.columnar_log import ColumnarLog  # noqa: E402
from fae.calibrate.coverage import MeasuredCoverage, measure  # noqa: E402
from fae.calibrate.table_facts import IntArray, Tables  # noqa: E402
from fae.core.progress import say  # noqa: E402
from fae.profile.sampling import SampledInputs  # noqa: E402
from fae.run.folder import RunFolder  # noqa: E402
from fae.run.recipe import load_recipe  # noqa: E402
from fae.synthetic.columnar_writer import write_columnar  # noqa: E402
from fae.synthetic.config import SyntheticConfig  # noqa: E402

from common import RESULTS, record, save_record  # noqa: E402

IMAGES = ROOT / "docs/images"
FRAPPE = "frappe_86k.csv.gz"
COLOURS = {"threshold": "#0072B2", "peeling": "#D55E00", "bound": "#767676", "other": "#009E73", "more": "#CC79A7"}


class Cells:
    """The cells of a study, by name, in ``benchmarks/results/<name>.json``.

    Parameters
    ----------
    settings
        What all cells have in common. A file of other settings is begun anew.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, json.loads(json.dumps(settings))
        self.cells: dict[str, dict[str, Any]] = {}
        path = RESULTS / f"{name}.json"
        if path.is_file():
            found = json.loads(path.read_text())
            if found["settings"] == self.settings:
                self.cells = found["cells"]
                for cell in self.cells.values():  # cells of one file may come from several runs
                    cell.setdefault("commit", found["commit"])
            else:
                say(f"{path.name} has other settings: its cells are measured again")

    def __contains__(self, key: str) -> bool:
        return key in self.cells

    def measure(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of a cell: from the file if they are there, else by doing the work."""
        if key not in self.cells:
            load, began = os.getloadavg()[0], time.perf_counter()
            facts = work()
            result = record(settings=self.settings, cells=self.cells)
            self.cells[key] = {**facts, "load_before": round(load, 2), "commit": result["commit"]}
            say(f"{self.name} {key}: {time.perf_counter() - began:.1f} s")
            save_record(self.name, result)
        return self.cells[key]


def read_cells(name: str) -> dict[str, dict[str, Any]]:
    """The cells of a committed study."""
    cells: dict[str, dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["cells"]
    return cells


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
        """The peak less what was there before."""
        return self._most - self._before

    @property
    def process_bytes(self) -> int:
        """The peak of the whole process."""
        return self._most


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
    """A made-up columnar log; removed at the end, because the large ones take 7 GB."""
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


def frappe_log(folder: Path) -> ColumnarLog:
    """Frappe as ``recipes/frappe.toml`` reads it, ingested into `folder`.

    The file is looked for in ``shared/data`` beside the checkout or further up; see the recipe for where it is from.
    """
    data = next((up / "shared/data" / FRAPPE for up in ROOT.parents if (up / "shared/data" / FRAPPE).is_file()), None)
    settings = [f"log.train={data}"] if data else []
    run = RunFolder(load_recipe(ROOT / "recipes/frappe.toml", settings), folder / "frappe")
    run.stage("ingest")
    return ColumnarLog(run.path("ingest"))


def inputs_of(log: ColumnarLog, split: str) -> SampledInputs:
    """All inputs of a split."""
    return SampledInputs(log.ids, log.labels, range(*log.split(split)))


def shares(tables: Tables, ranks: Any, num_hot: IntArray, **inputs: SampledInputs) -> dict[str, dict[str, Any]]:
    """Hot-input share and coverage on each of the named inputs."""
    found: dict[str, MeasuredCoverage] = {name: measure(tables, some, ranks, num_hot) for name, some in inputs.items()}
    return {
        name: {"input_share": one.input_share, "num_hot_inputs": one.num_hot_inputs, "num_inputs": one.num_inputs,
               "coverage": one.coverage}
        for name, one in found.items()
    }  # fmt: skip


def mean_and_range(values: list[float]) -> tuple[float, float, float]:
    """Mean, smallest, largest.

    >>> mean_and_range([1.0, 2.0, 6.0])
    (3.0, 1.0, 6.0)
    """
    return float(np.mean(values)), float(np.min(values)), float(np.max(values))


def percent(share: float, digits: int = 3) -> str:
    """A share in per cent, with so many significant digits, never as a power of ten.

    >>> percent(0.12345), percent(0.000012345), percent(0.0), percent(1.0)
    ('12.3', '0.00123', '0', '100')
    """
    if share == 0:
        return "0"
    places = max(0, digits - 1 - int(np.floor(np.log10(abs(100 * share)))))
    return f"{100 * share:.{places}f}"


def save_svg(figure: Any, name: str) -> None:
    """Write a figure into docs/images, the same bytes for the same numbers."""
    from matplotlib import rc_context

    IMAGES.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    say(f"wrote docs/images/{name}.svg")


def new_figure(columns: int, width: float = 3.6, height: float = 3.0) -> tuple[Any, list[Any]]:
    """A figure with panels side by side."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    FigureCanvasSVG(figure)
    panels = list(np.atleast_1d(figure.subplots(1, columns)))
    for panel in panels:
        panel.grid(color="#E3E3E3", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels
