"""What dealing the inputs of a batch to slices would save on the wire, against slices as they come.

    python benchmarks/studies/dealt_inputs.py [--inputs 262144] [--passes 8]

Several GPUs train a batch in slices, and each row is exchanged once for every slice that looks it up. A sum does not
depend on which slice has an input, so pack could deal inputs such that rows repeat within a slice. Dealt here by a
greedy rule, input after input, in several passes: an input goes to the slice that has most of its rows, times the share
of the slice that is still free (slices may be 2 % larger than equal ones, which flatters the rule). Logs: ``zipf`` with
columns that know nothing of each other, and the Criteo-shaped log of `fae synthetic`, whose columns agree.

Writes benchmarks/results/dealt_inputs.json: rows of all slices, and the share of them that dealing saves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.compiled import Int64, compiled
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import ZIPF_EXPONENT, zipf_ids
from study import KAGGLE_ROWS, open_cells

CASES = ((65_536, 2), (65_536, 8), (8_192, 2), (16_384, 8))
"""Inputs of a batch, and slices."""
_SLACK = 1.02
Int32 = npt.NDArray[np.int32]


@compiled
def deal(rows: Int32, counts: Int32, slice_of: Int32, sizes: Int64, most: int) -> None:
    """One pass: move each input to the slice that suits it best.

    Parameters
    ----------
    rows
        int32 ``[B, S]``: rows of each input, numbered over all tables.
    counts
        int32 ``[rows, slices]``: how many inputs of each slice have a row.
    slice_of
        int32 ``[B]``, -1 at first.
    sizes
        int64 ``[slices]``: inputs of each slice.
    most
        Inputs of a slice at most.
    """
    for i in range(len(rows)):
        old = slice_of[i]
        if old >= 0:
            sizes[old] -= 1
            for row in rows[i]:
                counts[row, old] -= 1
        best, best_score = 0, -1.0
        for s in range(len(sizes)):
            if sizes[s] >= most:
                continue
            known = 0
            for row in rows[i]:
                known += counts[row, s] > 0
            score = (known + 0.01) * (1.0 - sizes[s] / most)
            if score > best_score:
                best, best_score = s, score
        slice_of[i] = best
        sizes[best] += 1
        for row in rows[i]:
            counts[row, best] += 1


def saved(ids: Int32, size: int, slices: int, passes: int) -> dict[str, Any]:
    """The rows of all slices of the first batch, and the share of them that dealing saves."""
    ends = np.cumsum([0, *(ids.max(axis=0) + 1)])[:-1]
    _, numbers = np.unique(ids[:size] + ends, return_inverse=True)
    rows = numbers.reshape(size, -1).astype(np.int32)
    num_rows = int(rows.max()) + 1
    counts, sizes = np.zeros((num_rows, slices), np.int32), np.zeros(slices, np.int64)
    slice_of = np.full(size, -1, np.int32)
    for _ in range(passes):
        deal(rows, counts, slice_of, sizes, int(_SLACK * size) // slices)
    before = sum(len(np.unique(part)) for part in np.split(rows, slices))
    return {"rows_of_batch": num_rows, "rows_of_slices": before, "saved": 1 - int((counts > 0).sum()) / before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=262_144)
    parser.add_argument("--passes", type=int, default=8)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    logs = {"zipf": np.stack([zipf_ids(random.random(options.inputs), rows, ZIPF_EXPONENT) for rows in KAGGLE_ROWS], 1)}
    with tempfile.TemporaryDirectory() as folder:
        write_columnar(SyntheticConfig(num_inputs=options.inputs, scale=1.0), Path(folder) / "log")
        ids = np.array(ColumnarLog(Path(folder) / "log").ids)
    logs["criteo"] = ids[random.permutation(len(ids))]
    cells = open_cells("dealt_inputs", {"inputs": options.inputs, "passes": options.passes})
    for name, found in logs.items():
        for size, slices in CASES:
            cell = cells.measure(
                f"{name}/{size}/{slices}",
                lambda found=found, size=size, slices=slices: saved(found, size, slices, options.passes),
            )
            print(f"{name:8} batches of {size:7,}, {slices} slices: {cell['saved']:.1%} of {cell['rows_of_slices']:,}")


if __name__ == "__main__":
    main()
