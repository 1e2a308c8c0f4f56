"""Rand-Em Box: how often its 99.9 % interval covers the true number of hot rows, published form and shipped form.

    python benchmarks/micro/rand_em.py [--draws 1000]

Tables of 8.35 M rows (Criteo Kaggle's C12) in popularity order, three skews, hot shares 1e-1 to 1e-5; 35 chunks of
1,024 rows a draw. Also the interval's width over the true number. The shipped form must cover in 99.5 % of the draws or
more. JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from fae.core.seeds import generator  # noqa: E402
from fae.popularity.rand_em import draw_contiguous, draw_scattered  # noqa: E402

from common import record, save_record  # noqa: E402

NUM_ROWS, CHUNKS, CHUNK_ROWS, CONFIDENCE = 8_351_593, 35, 1024, 0.999
FORMS = {"published": draw_contiguous, "shipped": draw_scattered}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    rows = []
    for exponent in (0.8, 1.05, 1.3):
        counts = (1e7 / np.arange(1, NUM_ROWS + 1) ** exponent + 0.5).astype(np.int64)
        for form, draw in FORMS.items():
            random = generator(1, "rand_em", form, str(exponent))
            thresholds = [int(counts[round(10.0**-power * NUM_ROWS)]) + 1 for power in range(1, 6)]
            truths = [int(np.searchsorted(-counts, -threshold, side="right")) for threshold in thresholds]
            covered, widths = np.zeros(5), np.zeros(5)
            methods: list[Counter[str]] = [Counter() for _ in thresholds]
            for _ in range(options.draws):
                box = draw(counts, CHUNKS, CHUNK_ROWS, random)
                for position, (threshold, truth) in enumerate(zip(thresholds, truths, strict=True)):
                    estimate = box.num_at_least(threshold, CONFIDENCE)
                    covered[position] += estimate.low <= truth <= estimate.high
                    widths[position] += (estimate.high - estimate.low) / truth
                    methods[position][estimate.method] += 1
            for position, truth in enumerate(truths):
                rows.append(
                    {
                        "exponent": exponent,
                        "form": form,
                        "hot_rows": truth,
                        "hot_share": truth / NUM_ROWS,
                        "coverage": covered[position] / options.draws,
                        "mean_width_over_truth": widths[position] / options.draws,
                        "methods": dict(methods[position]),
                    }
                )
    result = record(
        num_rows=NUM_ROWS, chunks=CHUNKS, chunk_rows=CHUNK_ROWS, confidence=CONFIDENCE, draws=options.draws,
        lowest_coverage={
            form: min(row["coverage"] for row in rows if row["form"] == form) for form in FORMS
        },
        rows=rows,
    )  # fmt: skip
    save_record("rand_em", result)


if __name__ == "__main__":
    main()
