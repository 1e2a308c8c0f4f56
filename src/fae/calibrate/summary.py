"""What calibrate says of its selection: figures, intervals, the paper's grid, the Rand-Em Box, notes in words.

The result is the hot set's summary: JSON values only. Nothing here changes what was selected.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.calibrate.budget_search import HotSetFit
from fae.calibrate.candidates import Candidate
from fae.calibrate.coverage import MeasuredCoverage, training_coverage
from fae.calibrate.rand_em import draw_rows
from fae.calibrate.selection import Selection
from fae.calibrate.table_facts import Tables
from fae.calibrate.threshold import ThresholdSets, threshold_grid, thresholds_above
from fae.core.compiled import Int64
from fae.core.seeds import generator
from fae.core.units import format_bytes, format_count
from fae.profile.config import HotConfig

_BOX_TABLES = 3
"""How many of the largest tables the Box is reported for: in smaller ones it would read most of the rows."""


def summarize_hot_set(
    tables: Tables,
    config: HotConfig,
    fit: HotSetFit,
    ranks: npt.NDArray[np.int32] | None,
    measured: MeasuredCoverage,
    *,
    num_training_inputs: int,
    small: tuple[int, ...],
) -> dict[str, Any]:
    """Figures that every hot set has, for the hot set's summary."""
    coverage, coverage_of_table = training_coverage(tables, ranks, fit.num_hot)
    sampled = measured.coverage_interval(num_training_inputs, config.confidence)
    share = measured.input_share_interval(num_training_inputs, config.confidence)
    if coverage == 1.0:  # every lookup of the training split is hot, so every input is
        share = (1.0, 1.0)
    return {
        "num_rows": int(fit.num_hot.sum()),
        "bytes": fit.bytes,
        "staging_rows": fit.staging_rows.tolist(),
        "staging_bytes": fit.staging_bytes,
        "ring_depth": fit.ring_depth,
        "budget_bytes": config.budget_bytes,
        "coverage": coverage,
        "sampled_coverage": {"value": measured.coverage, "low": sampled[0], "high": sampled[1]},
        "input_share": measured.input_share,
        "num_measured_inputs": measured.num_inputs,
        "intervals": {
            "confidence": config.confidence,
            "coverage": [coverage, coverage],
            "input_share": list(share),
        },
        "label_rate": measured.label_rate(),
        "features": [feature.to_summary() for feature in tables.features],
        "tables": [
            {
                "name": feature.name,
                "num_embeddings": feature.num_embeddings,
                "embedding_dim": tables.embedding_dims[table],
                "num_hot": int(fit.num_hot[table]),
                "bytes": int(fit.num_hot[table] * tables.row_bytes[table]),
                "coverage": coverage_of_table[table],
                "small": table in small,
            }
            for table, feature in enumerate(tables.features)
        ],
    }


def measure_grid(
    tables: Tables, config: HotConfig, candidate: Candidate, sample_counts: Int64, seed: int
) -> list[dict[str, Any]]:
    """Figures of the paper's thresholds, highest first, with the Rand-Em Box beside the exact counts.

    Thresholds above the configured grid come first where its highest one does not fit the budget.
    """
    sets = candidate.sets
    assert isinstance(sets, ThresholdSets)
    largest = np.argsort(-tables.sizes, kind="stable")[:_BOX_TABLES]
    drawn = config.rand_em_chunks * config.rand_em_chunk_rows
    boxes = {
        int(table): draw_rows(
            tables.of_table(sample_counts, int(table)),
            config.rand_em_chunks,
            config.rand_em_chunk_rows,
            generator(seed, "calibrate", "rand_em", int(table)),
        )
        for table in largest
        if tables.sizes[table] > drawn and table not in sets.candidates
    }

    def entry(threshold: float) -> dict[str, Any]:
        num_hot = sets.at(threshold).num_hot
        num_bytes = tables.bytes(num_hot)
        staging_bytes = candidate.search.ring_bytes(candidate.search.staging_rows(num_bytes))
        by_threshold = sets.rows_by_threshold(threshold)
        return {
            "threshold": threshold,
            "num_rows": int(num_hot.sum()),
            "bytes": num_bytes,
            "staging_bytes": staging_bytes,
            "fits": num_bytes + staging_bytes <= config.budget_bytes,
            "rand_em": {
                tables.features[table].name: {
                    "exact": int(by_threshold[table]),
                    **asdict(box.num_at_least(sets.count_at(table, threshold), config.confidence)),
                }
                for table, box in boxes.items()
            },
        }

    grid = [entry(threshold) for threshold in threshold_grid(config)]
    for threshold in thresholds_above(config):
        if grid[0]["fits"]:
            break
        grid.insert(0, entry(threshold))
    return grid


def overlap(tables: Tables, candidate: Candidate, sample_counts: Int64) -> float | None:
    """Share of the rows that the sample's own counts would select which the popularity prefix holds too.

    The sample decides how long each prefix is; the counts of the whole training split decide which rows are in it.
    Tables that are hot as a whole are left out; None where nothing else is hot.
    """
    threshold = candidate.step.threshold if candidate.step else None
    if threshold is None:
        return None
    assert isinstance(candidate.sets, ThresholdSets)
    lengths = candidate.sets.rows_by_threshold(threshold)
    picked = shared = 0
    for table in range(len(tables)):
        if table in candidate.small:
            continue
        prefix = tables.by_popularity(sample_counts, table)[: lengths[table]]
        picked += int(lengths[table])
        shared += int((prefix >= candidate.sets.count_at(table, threshold)).sum())
    return shared / picked if picked else None


def notes(tables: Tables, config: HotConfig, selection: Selection, *, num_read: int, is_exact: bool) -> list[str]:
    """What people should know of this selection, in sentences."""
    winner, lines = selection.winner, []
    fit, sets = winner.fit, selection.threshold.sets
    assert fit is not None
    assert isinstance(sets, ThresholdSets)
    if config.selection == "auto":
        shares = ", ".join(f"{name} {100 * one['input_share']:.2f} %" for name, one in selection.candidates.items())
        lines.append(f"auto took {winner.method}; hot inputs on {_judged_on(selection)}: {shares}")
    if config.selection == "peeling" and winner.method == "threshold":
        lines.append(
            "peeling was requested, but its batches need a larger ring, and at this budget the threshold serves more "
            "of the inputs that were read: the threshold was taken"
        )
    if not is_exact:
        fitted = f"{format_count(winner.num_fitted)} sampled inputs"
        lines.append(f"fitted on {fitted}; hot-input share counted on {selection.measured_on}")
    if winner.num_fitted < num_read:
        lines.append(
            f"the peeling read {format_count(winner.num_fitted)} of {format_count(num_read)} inputs, at even "
            "distances, to stay within its memory"
        )
    if len(winner.small) < len(sets.candidates):
        names = ", ".join(tables.features[table].name for table in winner.small) or "none"
        limit = max((int(tables.sizes[t] * tables.row_bytes[t]) for t in winner.small), default=0)
        lines.append(
            f"the small-table limit was lowered from {format_bytes(config.small_table_bytes)} to {format_bytes(limit)} "
            f"so that small tables take no more than half of the hot bytes; hot as a whole: {names}"
        )
    if np.all(fit.num_hot >= tables.num_accessed):
        lines.append("every row that the training split accesses is hot")
    elif (step := winner.step) is not None:
        if step.num_extra:
            reached = "every row that the sample saw fits" if step.beyond_sample else "the next threshold does not fit"
            lines.append(
                f"{reached}; what was left of the budget went to {format_count(step.num_extra)} rows more, the most "
                "accessed of the training split first"
            )
        if step.threshold is None or step.threshold > config.max_threshold:
            lines.append(f"the budget holds less than max_threshold = {config.max_threshold:g} requests: it went up")
    if not fit.num_hot.any():
        lines.append("the budget holds the staging ring and no hot row")
    return lines


def _judged_on(selection: Selection) -> str:
    return next((str(one["judged_on"]) for one in selection.candidates.values()), selection.measured_on)
