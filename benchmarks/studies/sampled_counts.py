"""Sampled against exact counts: what a hot set chosen from a sample loses against one chosen from every input.

    python benchmarks/studies/sampled_counts.py [--only frappe criteo] [--seeds 5] [--logs 3]

How large must the sample be? Samples of 1, 5, 10 and 20 % and all training inputs, on Frappe (``recipes/frappe.toml``)
and on Criteo-shaped synthetic logs (`fae synthetic --columnar`, 4 M inputs at scale 1). Each seed draws another sample;
each synthetic log has a seed too. For every sample:

* *threshold, shipped*: access threshold, hot bytes, hot-input share on all training inputs and on later ones (the
  test split). The sample fixes how long each table's hot prefix is, the exact counts of ingest which rows are in it;
* *threshold, by the sample alone*: a set of as many bytes as the paper picks it, by sampled counts, ties at random;
* *estimated bytes*: what the sample says the hot rows of a threshold of the paper's grid take, over what all inputs
  say;
* *peeling*: fitted on the sample, counted on the same inputs; and what ``auto`` took.

Writes benchmarks/results/sampled_counts.json; cells that it has are not measured again. `studies/tables.py
sampled_counts` prints and draws. About 10 minutes on 2 cores, 1 GB of disk in a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog
from fae.calibrate.candidates import CandidateBuilder
from fae.calibrate.selection import choose
from fae.calibrate.staging_rows import StagingProbe
from fae.calibrate.table_facts import Tables
from fae.calibrate.threshold import ThresholdSets, threshold_grid
from fae.core.compiled import Int64
from fae.core.seeds import generator
from fae.profile.config import HotConfig
from fae.profile.counting import count_accesses
from fae.profile.sampling import sample_without_replacement

from study import Cells, frappe_log, inputs_of, measured, open_cells, shares, synthetic_log

NAME = "sampled_counts"
SAMPLES = (0.01, 0.05, 0.1, 0.2, 1.0)
FRAPPE = HotConfig(budget="128KiB", small_table="1KB", ring_depth=2)
CRITEO = HotConfig(budget="64MiB", ring_depth=4)
BATCH = {"frappe": 128, "criteo": 2048}
CRITEO_INPUTS = 4_000_000
CRITEO_SAMPLES = 1
"""Samples of each synthetic log: the logs differ more than samples of one do."""


def picked_by_sample(
    tables: Tables, sample_counts: Int64, small: tuple[int, ...], num_bytes: int, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """bool, flat: the hot rows as the paper picks them, from sampled counts alone, in that many bytes.

    Small tables whole, then rows by their share of the table's sampled accesses; equals in random order, because the
    order of ids knows the exact counts. Rows that the sample did not see are never taken.
    """
    hot = np.zeros(sample_counts.size, bool)
    score = np.zeros(sample_counts.size)
    for table in range(len(tables)):
        where = slice(int(tables.offsets[table]), int(tables.offsets[table + 1]))
        if table in small:
            hot[where] = True
            num_bytes -= int(tables.sizes[table] * tables.row_bytes[table])
        else:
            score[where] = sample_counts[where] / max(1, int(sample_counts[where].sum()))
    seen = np.flatnonzero(score)
    seen = seen[np.lexsort((random.random(seen.size), -score[seen]))]
    table_of = np.searchsorted(tables.offsets, seen, side="right") - 1
    hot[seen[: int(np.searchsorted(np.cumsum(tables.row_bytes[table_of]), num_bytes, side="right"))]] = True
    return hot


def measure_sample(log: ColumnarLog, config: HotConfig, sample: float, seed: int, batch_size: int) -> dict[str, Any]:
    """The figures of one sample; see the module."""
    tables = Tables(log.features, log.counts, [16] * len(log.features), "rowwise_adagrad")
    everything, later = inputs_of(log, "train"), inputs_of(log, "test")
    inputs, is_exact = everything, sample >= 1
    if not is_exact:
        drawn = sample_without_replacement(
            generator(seed, "profile", "sample"), len(everything), round(sample * len(everything))
        )
        inputs = everything.take(drawn).cached()
    counts = count_accesses(inputs, tables.features)
    probe = StagingProbe(tables, everything, len(everything), batch_size=batch_size, mixed=False, seed=seed)
    builder = CandidateBuilder(tables=tables, config=config, probe=probe)
    selection = choose(builder, inputs, counts, is_exact=is_exact, batch_size=batch_size, seed=seed)
    threshold = selection.threshold
    assert threshold.fit is not None
    assert threshold.step is not None
    assert isinstance(threshold.sets, ThresholdSets)
    peeling = selection.winner
    if selection.winner.method != "peeling":
        peeling = builder.peeling(inputs, counts, threshold.small)
    assert peeling.fit is not None
    # What the peeling would reserve if probe batches came from the inputs that it was fitted to.
    of_sample = StagingProbe(tables, inputs, len(everything), batch_size=batch_size, mixed=False, seed=seed)
    short_ring = of_sample.use_ranks(peeling.ranks).staging_rows(peeling.fit.num_hot)
    by_sample = picked_by_sample(
        tables, counts, threshold.small, threshold.fit.bytes, generator(seed, "sampled_counts", "ties")
    )
    on = {"packed": everything, "later": later}
    ones = np.ones(len(tables), np.int64)
    return {
        "sample": sample, "seed": seed, "num_inputs": len(inputs), "auto": selection.winner.method,
        "budget_bytes": config.budget_bytes,
        "threshold": {
            "threshold": threshold.step.threshold, "bytes": threshold.fit.bytes,
            "staging_bytes": threshold.fit.staging_bytes, "num_extra_rows": threshold.step.num_extra,
            "num_rows": int(threshold.fit.num_hot.sum()),
            **shares(tables, threshold.ranks, threshold.fit.num_hot, **on),
        },
        "by_sample_alone": {
            "bytes": int(sum(np.count_nonzero(tables.of_table(by_sample, t)) * tables.row_bytes[t]
                             for t in range(len(tables)))),
            **shares(tables, np.where(by_sample, 0, 1).astype(np.int32), ones, **on),
        },
        "peeling": {
            "bytes": peeling.fit.bytes, "staging_bytes": peeling.fit.staging_bytes,
            "staging_bytes_if_probed_on_sample": peeling.search.ring_bytes(short_ring),
            **shares(tables, peeling.ranks, peeling.fit.num_hot, **on),
        },
        "bytes_of_grid": {
            f"{value:g}": tables.bytes(threshold.sets.at(value).num_hot) for value in threshold_grid(config)
        },
    }  # fmt: skip


def run_log(cells: Cells, label: str, log: ColumnarLog, config: HotConfig, batch_size: int, seeds: int) -> None:
    """All samples of one log; reading every input needs one seed only."""
    for sample in SAMPLES:
        for seed in range(1, (1 if sample >= 1 else seeds) + 1):
            measured(
                cells,
                f"{label}/{sample:g}/{seed}",
                lambda sample=sample, seed=seed: measure_sample(log, config, sample, seed, batch_size),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["frappe", "criteo"], choices=["frappe", "criteo"])
    parser.add_argument("--seeds", type=int, default=5, help="samples of Frappe")
    parser.add_argument("--logs", type=int, default=3, help="Criteo-shaped logs, one sample of each size from each")
    parser.add_argument("--inputs", type=int, default=CRITEO_INPUTS, help="of a Criteo-shaped log")
    parser.add_argument("--folder", type=Path, default=None, help="where temporary logs go")
    parser.add_argument("--name", default=NAME, help="of the result file")
    options = parser.parse_args()
    cells = open_cells(
        options.name,
        {"samples": list(SAMPLES), "criteo_inputs": options.inputs, "criteo_budget": CRITEO.budget,
         "frappe_budget": FRAPPE.budget, "embedding_dim": 16, "optimizer": "rowwise_adagrad", "batch_size": BATCH},
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if "frappe" in options.only:
            run_log(cells, "frappe", frappe_log(Path(name)), FRAPPE, BATCH["frappe"], options.seeds)
        for seed in range(1, options.logs + 1) if "criteo" in options.only else ():
            if not cells.missing(f"criteo{seed}/{sample:g}/1" for sample in SAMPLES):
                continue
            with synthetic_log(Path(name), "criteo", options.inputs, seed=seed) as log:
                run_log(cells, f"criteo{seed}", log, CRITEO, BATCH["criteo"], CRITEO_SAMPLES)


if __name__ == "__main__":
    main()
