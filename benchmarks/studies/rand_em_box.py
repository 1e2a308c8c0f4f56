"""Rand-Em Box against the full scan: how often its interval covers the truth, how wide it is, what it costs.

    python benchmarks/studies/rand_em_box.py [--draws 1000] [--seed 1]

Can its interval be trusted? Tables of 8,351,593 rows (Criteo Kaggle's C12). Three kinds of skew: a Zipf law, a
log-normal one, and a step (a head of 2 % of the rows with 90 % of the accesses, flat inside head and tail). Three
orders of the rows: *popularity* (as ingest numbers them), *shuffled*, and *arrival* (numbered as they first appear in a
log of 50 M accesses, as the usual preprocessing of Criteo does). Hot shares 1e-1 to 1e-5; the threshold is placed so
that exactly this share is hot.

Forms: *shipped* is `fae.calibrate.rand_em` as calibrate calls it; *published* is the paper's: 35 contiguous chunks
of 1,024 rows, Student's t. Each draw is one call for the Box and one a threshold for its interval, at 99.9 %. The
shipped form must cover in 99.5 % or more of the draws of every cell; the study ends with exit status 1 if it does
not.

Writes benchmarks/results/rand_em_box.json; cells that it has
are not measured again. `studies/tables.py rand_em_box` prints and draws. About 15 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from fae.calibrate.rand_em import RandEmBox, draw_chunks, draw_rows
from fae.core.progress import say
from fae.core.seeds import generator

from study import measured, open_cells

NAME = "rand_em_box"
NUM_ROWS, CHUNKS, CHUNK_ROWS, CONFIDENCE = 8_351_593, 35, 1024, 0.999
LOG_ACCESSES = 50_000_000
HOT_SHARES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
MUST_COVER = 0.995
FORMS: dict[str, Callable[..., RandEmBox]] = {"shipped": draw_rows, "published": draw_chunks}
ORDERS = ("popularity", "shuffled", "arrival")


def popularity(kind: str, num_rows: int) -> npt.NDArray[np.float64]:
    """float64 ``[num_rows]``, descending, sum 1: each row's share of the accesses."""
    place = np.arange(1, num_rows + 1, dtype=np.float64)
    if kind == "zipf":
        weights = place**-1.05
    elif kind == "lognormal":  # its quantiles, so that the law is exact and every row differs
        weights = np.exp(-2.5 * ndtri((place - 0.5) / num_rows))
    else:
        head = num_rows // 50
        weights = np.where(place <= head, 0.9 / head, 0.1 / (num_rows - head))
    return weights / weights.sum()


SKEWS = ("zipf", "lognormal", "step")


def rows_in_order(order: str, shares: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """int64 ``[N]``: which row of the popularity order is at each place of the table."""
    if order == "popularity":
        return np.arange(shares.size)
    if order == "shuffled":
        return random.permutation(shares.size)
    # A row of share p first appears after a waiting time of mean 1/p; rows that the log does not show come last.
    first_seen = random.standard_exponential(shares.size) / shares
    unseen = first_seen > LOG_ACCESSES
    first_seen[unseen] = LOG_ACCESSES * (1 + random.random(int(unseen.sum())))
    return np.argsort(first_seen, kind="stable")


def distinct_counts(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Counts that fall with popularity and never tie, so that any share of the rows can be cut off exactly.

    How large the counts are does not matter to the Box, only which rows reach the threshold.
    """
    return rows.size - rows


def cover(skew: str, order: str, form: str, draws: int, seed: int) -> dict[str, Any]:
    """Coverage, mean width over the truth and methods of one form, at every hot share."""
    random = generator(seed, "rand_em_box", skew, order, form)
    counts = distinct_counts(rows_in_order(order, popularity(skew, NUM_ROWS), random))
    truths = [round(share * NUM_ROWS) for share in HOT_SHARES]
    thresholds = [NUM_ROWS - truth + 1 for truth in truths]
    found = [{"covered": 0, "below": 0, "above": 0, "width": 0.0, "methods": Counter[str]()} for _ in truths]
    for _ in range(draws):
        box = FORMS[form](counts, CHUNKS, CHUNK_ROWS, random)
        for entry, threshold, truth in zip(found, thresholds, truths, strict=True):
            estimate = box.num_at_least(threshold, CONFIDENCE)
            entry["covered"] += estimate.low <= truth <= estimate.high
            entry["below"] += estimate.high < truth
            entry["above"] += truth < estimate.low
            entry["width"] += (estimate.high - estimate.low) / truth
            entry["methods"][estimate.method] += 1
    return {
        "by_hot_share": [
            {
                "hot_share": share, "hot_rows": truth, "coverage": entry["covered"] / draws,
                "interval_below_truth": entry["below"], "interval_above_truth": entry["above"],
                "mean_width_over_truth": entry["width"] / draws, "methods": dict(entry["methods"]),
            }
            for share, truth, entry in zip(HOT_SHARES, truths, found, strict=True)
        ]
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes for the draws")
    parser.add_argument("--name", default=NAME, help="of the result file")
    options = parser.parse_args()
    cells = open_cells(
        options.name,
        {"num_rows": NUM_ROWS, "chunks": CHUNKS, "chunk_rows": CHUNK_ROWS, "confidence": CONFIDENCE,
         "draws": options.draws, "seed": options.seed},
    )  # fmt: skip
    keys = [(form, skew, order) for form in FORMS for skew in SKEWS for order in ORDERS]
    wanted = [key for key in keys if "/".join(key) not in cells]
    with ProcessPoolExecutor(options.workers) as pool:
        running = {key: pool.submit(cover, key[1], key[2], key[0], options.draws, options.seed) for key in wanted}
        for key, future in running.items():
            measured(cells, "/".join(key), future.result)
    lowest = {
        form: min(entry["coverage"] for key, cell in cells.items() if key.startswith(form + "/")
                  for entry in cell["by_hot_share"])
        for form in FORMS
    }  # fmt: skip
    say(f"lowest coverage: shipped {lowest['shipped']:.4f}, published {lowest['published']:.4f}")
    if lowest["shipped"] < MUST_COVER:
        sys.exit(
            f"the shipped form covers in {lowest['shipped']:.2%} of the draws of some cell, not in {MUST_COVER:.1%}"
        )


if __name__ == "__main__":
    main()
