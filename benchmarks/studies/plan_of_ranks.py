"""Predicted and measured steps of `benchmarks/ranks.py` side by side, as Markdown: the plan for several GPUs.

    python benchmarks/studies/plan_of_ranks.py FILE ... [--card h200] [--host-rate 34e9]
    python benchmarks/studies/plan_of_ranks.py --predict CASE ...

The work of each case is counted in inputs drawn by the law of its log. Constants are the published ones of the card, so
the step of one GPU is a prediction, too; what several GPUs add to it has a column. The host is by default one of which
16 threads move 34 GB/s of single rows. With --predict nothing needs to have run: cases of 1, 2, 4 and 8 GPUs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FeatureSchema
from fae.bench.config import LARGE_BATCH
from fae.planning.cards import card_constants, wire_constants
from fae.planning.several_gpus import GpuGroup
from fae.planning.step_work import StepSettings, StepWork

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import (
    KAGGLE_DENSE,
    KAGGLE_ROWS,
    RING_DEPTH,
    ZIPF_EXPONENT,
    most_accessed,
    open_log,
    storage_ranks,
    working_folder,
    zipf_hot_rows,
    zipf_ids,
)
from rank_data import CASES, Case

PREDICTED = (1, 2, 4, 8)
_BATCHES, _CRITEO_INPUTS = 4, 600_000


Sample = tuple[list[int], list[int], npt.NDArray[np.int32]]
"""Rows of each table, how many of them are hot, and inputs by tables: the place of each row in its table."""


def zipf_sample(case: Case, num_inputs: int) -> Sample:
    """A sample of independent Zipf columns."""
    rows = case.table_rows if case.workload else list(KAGGLE_ROWS)
    random = np.random.default_rng(1)
    columns = [zipf_ids(random.random(num_inputs), count, ZIPF_EXPONENT) for count in rows]
    return rows, zipf_hot_rows(rows, case.share), np.stack(columns, axis=1).astype(np.int32)


def criteo_sample(case: Case, num_inputs: int) -> Sample:
    """A sample of columns that agree, of the log that `ranks` makes."""
    with working_folder(None) as folder:
        log = open_log("criteo", folder, max(_CRITEO_INPUTS, -(-2 * num_inputs // 5)))
        ids, places = np.asarray(log.ids[:num_inputs]), storage_ranks(log.path, "accesses")
        columns = [ids[:, table] if place is None else place[ids[:, table]] for table, place in enumerate(places)]
        rows = [feature.num_embeddings for feature in log.features]
        return rows, most_accessed(log, case.share), np.stack(columns, axis=1).astype(np.int32)


def works(case: Case, sizes: set[int]) -> dict[int, StepWork]:
    """The work of batches of these sizes."""
    rows, num_hot, ranks = (criteo_sample if case.log == "criteo" else zipf_sample)(case, _BATCHES * max(sizes))
    num_hot = rows if case.placement == "device" else num_hot
    features = tuple(FeatureSchema(name=f"C{index}", num_embeddings=count) for index, count in enumerate(rows))
    made = {}
    for size in sizes:
        settings = StepSettings(
            model=case.options("cuda")["model"], features=features, embedding_dims=(case.dim,) * len(rows),
            num_dense=KAGGLE_DENSE, optimizer=case.optimizer, batch_size=size, precision="bf16",
        )  # fmt: skip
        made[size] = StepWork.from_sample(settings, ranks, num_hot, ring_depth=RING_DEPTH)
    return made


def line(row: dict[str, Any], one: dict[str, Any], card: str, host_rate: float) -> str:
    """One row of the table: a contender of several ranks."""
    case, world, whole = CASES[row["case"]], row["ranks"], row["global_batch"]
    own = one["global_batch"]
    found = works(case, {own, whole, whole // world})
    machine = card_constants(card, found[own].settings, host_rate=host_rate)
    wire = wire_constants(machine)
    alone = GpuGroup(gpus=1, slice_work=found[own], host_work=found[own], whole_work=found[own])
    group = GpuGroup(
        gpus=world, slice_work=found[whole // world], host_work=found[whole], whole_work=found[whole]
    )  # fmt: skip
    first, _ = alone.step(one["placement"], machine, wire)
    seconds, _ = group.step(row["placement"], machine, wire)
    measured = [each["milliseconds_a_step"] * 1000 for each in (one, row)]
    predicted = [1e6 * first, 1e6 * seconds]
    received = [
        sum(row["wire_bytes_an_input"].values()),
        group.received(row["placement"]) * world / whole,
    ]
    times = [whole / own * before / after for before, after in (measured, predicted)]
    cells = [
        f"{row['case']}, {row['placement']}",
        f"{group.slice_work.cold_rows:,.0f}",
        *(f"{now:,.0f} / {then:,.0f} us" for now, then in zip(predicted, measured, strict=True)),
        f"{predicted[1] - predicted[0]:,.0f} / {measured[1] - measured[0]:,.0f} us",
        f"{times[1]:.2f} / {times[0]:.2f}",
        f"{received[1]:,.0f} / {received[0]:,.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def prediction(name: str, card: str, host_rate: float) -> str:
    """One row of the table of what is predicted alone."""
    case, own = CASES[name], LARGE_BATCH
    found = works(case, {own * gpus for gpus in PREDICTED})
    machine = card_constants(card, found[own].settings, host_rate=host_rate)
    wire, cells, alone = wire_constants(machine), [f"{name}, {case.placement}"], 0.0
    for gpus in PREDICTED:
        group = GpuGroup(
            gpus=gpus, slice_work=found[own], host_work=found[gpus * own], whole_work=found[gpus * own]
        )  # fmt: skip
        seconds, _ = group.step(case.placement, machine, wire)
        alone = alone or seconds
        received = group.received(case.placement) / own
        cells.append(f"{1e6 * seconds:,.0f} us" + (f", {gpus * alone / seconds:.2f}, {received:,.0f}" * (gpus > 1)))
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--predict", nargs="+", choices=CASES, metavar="CASE", default=[])
    parser.add_argument("--card", default="h200")
    parser.add_argument("--host-rate", type=float, default=34e9, help="bytes/s of single rows")
    options = parser.parse_args()
    if options.predict:
        print("| case, placement | " + " | ".join(f"{gpus} GPUs" for gpus in PREDICTED) + " |")
        print("|---" * (1 + len(PREDICTED)) + "|")
        for name in options.predict:
            print(prediction(name, options.card, options.host_rate), flush=True)
        return
    print("| case, placement | cold rows a slice | one GPU | all GPUs | beyond one | over one | bytes an input |")
    print("|---|---|---|---|---|---|---|")
    for path in options.files:
        rows = [row for row in json.loads(path.read_text())["rows"] if "cannot_be_made" not in row]
        one = {row["case"]: row for row in rows if row["contender"] == "one"}
        for row in rows:
            if row["contender"] in ("ranks", "tiered ranks") and row["case"] in one:
                print(line(row, one[row["case"]], options.card, options.host_rate), flush=True)


if __name__ == "__main__":
    main()
