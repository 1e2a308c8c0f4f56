"""Labels, weights and dense features of every Arrow type become numbers."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.dense_values import to_dense, to_labels, to_weights


def nowhere(row: int) -> str:
    return f"row {row}"


def config(**settings: Any) -> LogConfig:
    return LogConfig(train="a", categorical=("c",), **settings)


def test_labels_and_dense_of_every_kind() -> None:
    for array in (
        pa.array([0, 1, 1]), pa.array([0.0, 1.0, 1.0]), pa.array([False, True, True]),
        pa.array(["0", "1.0", "True"]), pa.array(["false", "1", " 1 "]).dictionary_encode(),
        pa.array([Decimal("0.00"), Decimal("1.00"), Decimal(1)]), pa.array([b"0", b"1", b"TRUE"]),
        pa.array([-0.0, 1.0, 1.0], pa.float16()), pa.array(["0", "1", "1"], pa.string_view()),
    ):  # fmt: skip
        assert to_labels(array, "y", nowhere).tolist() == [0, 1, 1]
    e = float(np.float32(np.log1p(3.0)))
    for array in (
        pa.array([3, None, -5]), pa.array(["3", "", "-5"]), pa.array(["3", None, "-5"]).dictionary_encode(),
        pa.array([3.0, None, -5.0], pa.float32()), pa.array([Decimal("3.0"), None, Decimal("-5.0")]),
        pa.array([b" 3\t", None, b"-5"]),
    ):  # fmt: skip
        assert to_dense(array, "log1p", "x", nowhere).values.tolist() == [e, 0.0, 0.0]
        assert to_dense(array, "none", "x", nowhere).values.tolist() == [3.0, 0.0, -5.0]
    assert to_dense(pa.array([None, None]), "none", "x", nowhere).values.tolist() == [0.0, 0.0]
    assert to_dense(pa.array([2**63], pa.uint64()), "none", "x", nowhere).values.tolist() == [2.0**63]


def test_what_is_told_of_a_dense_column() -> None:
    column = to_dense(pa.array([3.0, None, -5.0, -1.0]), "log1p", "x", nowhere)
    assert column.missing is not None
    assert (column.missing.tolist(), column.vanished) == ([False, True, False, False], 2)
    assert column.largest == float(np.float32(math.log(4)))
    column = to_dense(pa.array([3.0, -7.0]), "signed_log1p", "x", nowhere)
    assert column.values.tolist() == [float(np.float32(math.log(4))), float(np.float32(-math.log(8)))]
    assert (column.missing, column.vanished, column.largest) == (None, 0, float(np.float32(math.log(8))))
    empty = to_dense(pa.array([], pa.float64()), "none", "x", nowhere)
    assert (empty.values.tolist(), empty.vanished, empty.largest) == ([], 0, 0.0)


def test_missing_words_and_the_decimal_point_of_numbers() -> None:
    text = to_dense(pa.array(["1", "NA", ""]), "none", "x", nowhere, missing=["NA"])
    numbers = to_dense(pa.array([1.0, -999.0, float("nan")]), "none", "x", nowhere, missing=["-999", "nan", "NA"])
    for column in (text, numbers):
        assert column.missing is not None
        assert (column.values.tolist(), column.missing.tolist()) == ([1.0, 0.0, 0.0], [False, True, True])
    assert to_dense(pa.array(["1,5"]), "none", "x", nowhere, decimal=",").values.tolist() == [1.5]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array(["1", "5\xa0"]), r"row 1: the dense column 'x' is '5\\xa0', expected a number"),
        (pa.array(["1", "1_000"]), "row 1: the dense column 'x' is '1_000', expected a number"),
        (pa.array(["1", "\\N"]), r"row 1: the dense column 'x' is .*\[log\] missing"),
        (pa.array([1.0, float("inf")]), "row 1: the dense column 'x' is inf"),
        (pa.array([[1.0]]), "the dense column 'x' is of type list"),
        (pa.array([0], pa.date32()), "the dense column 'x' is of type date32"),
    ],
)
def test_what_is_no_number(array: Any, message: str) -> None:
    with pytest.raises(LogError, match=message):
        to_dense(array, "none", "x", nowhere)


@pytest.mark.parametrize(
    "label", ["", "\uff11", "+1", "1e0", "01", "-0", "1.", "2", "yes", None, 2, 0.5, Decimal("0.5"), b"2", float("nan")]
)
def test_what_is_no_label(label: Any) -> None:
    good = None if label is None else b"1" if isinstance(label, bytes) else type(label)("1")
    with pytest.raises(LogError, match=rf"row {0 if label is None else 1}: the label 'y' is .*expected 0 or 1"):
        to_labels(pa.array([good, label]), "y", nowhere)


def test_what_labels_mean() -> None:
    signs = config(label_map={"1": 1, "-1": 0})
    for array in (pa.array([1, -1]), pa.array([1.0, -1.0]), pa.array(["1", "-1"]), pa.array([Decimal(1), Decimal(-1)])):
        assert to_labels(array, "y", nowhere, signs).tolist() == [1, 0]
    words = config(label_map={"": 0, "click": 1}, missing=("NULL",))
    assert to_labels(pa.array(["click", None, "", "NULL"]), "y", nowhere, words).tolist() == [1, 0, 0, 0]
    stars = config(label_threshold=3.5, decimal=",")
    for array in (
        pa.array([3, 4]),
        pa.array(["3,4", " 3,5"]),
        pa.array([3.25, 1e9]),
        pa.array([Decimal(3), Decimal(9)]),
    ):
        assert to_labels(array, "y", nowhere, stars).tolist() == [0, 1]
    with pytest.raises(LogError, match="row 1: the label 'y' is 'Click', expected one of"):
        to_labels(pa.array(["click", "Click"]), "y", nowhere, words)
    for value in (None, "five", float("nan")):
        with pytest.raises(LogError, match=r"row 0: the label 'y' is .*expected a number"):
            to_labels(pa.array([value]), "y", nowhere, stars)


def test_weights() -> None:
    weights = to_weights(pa.array([0, 0.25, 3]), "w", nowhere)
    assert (weights.dtype, weights.tolist()) == (np.float32, [0.0, 0.25, 3.0])
    assert to_weights(pa.array(["1", " 0,5"]), "w", nowhere, config(decimal=",")).tolist() == [1.0, 0.5]
    for bad in (-1.0, None, float("nan"), float("inf"), 1e300):
        with pytest.raises(LogError, match="row 1: the weight 'w' is "):
            to_weights(pa.array([1.0, bad]), "w", nowhere)
    for column in (pa.array(["x"]), pa.array([[1.0]])):
        with pytest.raises(LogError, match="row 0: the weight 'w' is "):
            to_weights(column, "w", nowhere)
