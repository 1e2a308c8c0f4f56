"""Labels and dense features of every Arrow type become numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fae.ingest.dense_values import to_dense, to_labels


def nowhere(row: int) -> str:
    return f"row {row}"


def test_labels_and_dense_of_every_kind() -> None:
    for array in (
        pa.array([0, 1, 1]), pa.array([0.0, 1.0, 1.0]), pa.array([False, True, True]),
        pa.array(["0", "1.0", "True"]), pa.array(["false", "1", " 1 "]).dictionary_encode(),
    ):  # fmt: skip
        assert to_labels(array, "y", nowhere).tolist() == [0, 1, 1]
    e = float(np.float32(np.log1p(3.0)))
    for array in (
        pa.array([3, None, -5]), pa.array(["3", "", "-5"]), pa.array(["3", None, "-5"]).dictionary_encode(),
        pa.array([3.0, None, -5.0], pa.float32()),
    ):  # fmt: skip
        assert to_dense(array, "log1p", "x", nowhere).values.tolist() == [e, 0.0, 0.0]
        assert to_dense(array, "none", "x", nowhere).values.tolist() == [3.0, 0.0, -5.0]
    assert to_dense(pa.array([None, None]), "none", "x", nowhere).values.tolist() == [0.0, 0.0]
    assert to_dense(pa.array([2**63], pa.uint64()), "none", "x", nowhere).values.tolist() == [2.0**63]
