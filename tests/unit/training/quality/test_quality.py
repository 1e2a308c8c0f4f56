"""Calibration, group AUC, unknown ids and single columns, against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fae.artifacts.columnar_log import FeatureSchema
from fae.core.errors import RecipeError
from fae.training.quality import single_columns
from fae.training.quality.calibration import measure_calibration
from fae.training.quality.describe import describe_quality, quality_lines
from fae.training.quality.group_auc import measure_group_auc
from fae.training.quality.input_columns import InputColumns, columns_of_log
from fae.training.quality.metrics import compute_metrics, probabilities
from fae.training.quality.single_columns import SMOOTHING, SingleColumns
from fae.training.quality.turning import find_turn, turn_line

from logs import zipf_log


def predictions(seed=0, num=3000, groups=40):
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 1.5, num).round(1)  # with ties
    labels = (random.random(num) < probabilities(logits.astype(np.float32))).astype(np.float64)
    return labels, logits, random.integers(0, groups, num).astype(np.int32), random.integers(0, 4, num).astype(float)


def test_calibration_of_right_probabilities_is_one():
    labels, logits, _, _ = predictions(num=200_000)
    found = measure_calibration(labels, probabilities(logits.astype(np.float32)))
    assert found["ratio"] == pytest.approx(1, abs=0.02)
    assert found["expected_error"] < 0.005
    doubled = measure_calibration(labels, np.minimum(1, 2 * probabilities(logits.astype(np.float32))))
    assert doubled["ratio"] > 1.6
    assert doubled["expected_error"] > 0.1


def test_calibration_bins_by_hand():
    shown = np.repeat([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95], 7)
    labels = np.tile([1.0, 0, 0, 0, 0, 0, 1], 10)
    bins = measure_calibration(labels, shown)["bins"]
    assert [each["num_inputs"] for each in bins] == [7] * 10
    assert [each["mean_prediction"] for each in bins] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    )
    assert all(each["lowest"] == each["highest"] for each in bins)
    expected = np.mean(np.abs(np.unique(shown) - 2 / 7))
    assert measure_calibration(labels, shown)["expected_error"] == pytest.approx(expected)
    assert len(measure_calibration(labels, np.full(70, 0.25))["bins"]) == 1
    mixed = np.random.default_rng(1).permutation(70)
    for one, other in zip(measure_calibration(labels[mixed], shown[mixed])["bins"], bins, strict=True):
        assert one == pytest.approx(other)


def test_a_weight_of_two_is_the_input_twice():
    labels, logits, groups, weights = predictions()
    twice = np.repeat(np.arange(len(labels)), weights.astype(int))
    shown = probabilities(logits.astype(np.float32))
    weighted, repeated = measure_calibration(labels, shown, weights), measure_calibration(labels[twice], shown[twice])
    assert weighted["expected_error"] == pytest.approx(repeated["expected_error"])
    assert [each["weight"] for each in weighted["bins"]] == [each["num_inputs"] for each in repeated["bins"]]
    one = measure_group_auc(labels, logits, groups, column="user", unknown_id=-1, weights=weights)
    two = measure_group_auc(labels[twice], logits[twice], groups[twice], column="user", unknown_id=-1)
    assert one["auc"] == pytest.approx(two["auc"])
    assert one["num_groups"] == two["num_groups"]


def test_group_auc_is_the_mean_over_groups_by_inputs():
    labels, logits, groups, _ = predictions(groups=900)  # some groups of one class
    found = measure_group_auc(labels, logits, groups, column="user", unknown_id=7)
    total = weight = left_out = 0
    for group in set(groups.tolist()) - {7}:
        chosen = groups == group
        if len(set(labels[chosen])) < 2:
            left_out += 1
            continue
        total += chosen.sum() * roc_auc_score(labels[chosen], logits[chosen])
        weight += chosen.sum()
    assert found["auc"] == pytest.approx(total / weight, abs=1e-12)
    assert (found["num_inputs"], found["one_class_groups"]) == (weight, left_out)
    assert left_out > 10
    assert found["unknown_inputs"] == np.count_nonzero(groups == 7) > 0
    assert found["num_inputs"] + found["one_class_inputs"] + found["unknown_inputs"] == len(labels)


def test_group_auc_without_any_group():
    found = measure_group_auc(np.ones(3), np.zeros(3), np.array([0, 0, -1], np.int32), column="user", unknown_id=0)
    assert (found["auc"], found["num_groups"], found["unknown_inputs"]) == (None, 0, 3)


FEATURES = (
    FeatureSchema(name="user", num_embeddings=50, unknown_id=0),
    FeatureSchema(name="tags", num_embeddings=20, length=3, pooling="mean"),
)


def test_ids_are_collected_chunk_by_chunk():
    random = np.random.default_rng(2)
    ids = np.stack([random.integers(0, 5, 1000), *random.integers(-1, 20, (3, 1000))], 1).astype(np.int32)
    inputs = InputColumns(FEATURES, "user", most=100)
    for start in range(0, 1000, 77):
        inputs.add(ids[start : start + 77])
    assert np.array_equal(inputs.has_unknown, ids[:, 0] == 0)  # -1 in the list is an empty slot, no unknown id
    assert np.array_equal(inputs.groups, ids[:, 0])
    assert np.array_equal(inputs.sampled, np.arange(0, 1000, 16))
    assert np.array_equal(inputs.sample_of(1), ids[::16, 1:])
    with pytest.raises(RecipeError, match="group_by = 'tags' is a column of lists"):
        InputColumns(FEATURES, "tags")
    with pytest.raises(RecipeError, match="no categorical column of the log, which has user, tags"):
        InputColumns(FEATURES, "item")


def test_single_columns_predict_by_smoothed_rates(tmp_path, monkeypatch):
    log = zipf_log(tmp_path, num_inputs=900, num_validation=100, num_test=200, seed=3)
    start, stop = log.split("test")
    labels = log.labels[start:stop].astype(np.float32)
    inputs = InputColumns(log.features)
    inputs.add(log.ids[start:stop])
    found = SingleColumns(log).compare(labels, inputs)
    first, last = log.split("train")
    rate = log.labels[first:last].mean()
    slot = 0
    expected = {}
    for feature in log.features:
        if feature.length == 1:
            trained, clicked = log.ids[first:last, slot], log.labels[first:last]
            shown = []
            for value in log.ids[start:stop, slot]:
                of_value = clicked[trained == value]
                shown.append((of_value.sum() + SMOOTHING * rate) / (len(of_value) + SMOOTHING))
            logits = np.log(np.array(shown)) - np.log1p(-np.array(shown))
            expected[feature.name] = compute_metrics(labels, logits.astype(np.float32))
        slot += feature.length
    by_name = {each["column"]: each for each in found["columns"]}
    assert set(by_name) == {feature.name for feature in log.features}
    for name, metrics in expected.items():
        assert by_name[name]["auc"] == pytest.approx(metrics.auc, abs=1e-9)
        assert by_name[name]["log_loss"] == pytest.approx(metrics.log_loss, abs=1e-9)
    assert found["best_column"] == found["columns"][0]
    assert [each["auc"] for each in found["columns"]] == sorted(
        (each["auc"] for each in found["columns"]), reverse=True
    )
    assert (found["training_inputs"], found["num_inputs"], found["sampled"]) == (last - first, stop - start, False)
    assert SingleColumns(log, most=100).compare(labels, inputs)["sampled"]
    monkeypatch.setattr(single_columns, "_BLOCK", 7)  # all of the split, in many pieces
    assert SingleColumns(log).compare(labels, inputs) == found
    few = SingleColumns(log, most=100)
    assert few.num_inputs == 98  # 14 blocks of 7, no input twice
    columns = few.compare(labels, columns_of_log(log, np.arange(start, stop)))["columns"]
    assert {each["column"] for each in columns} == set(by_name)


def test_ids_of_a_log_are_those_of_its_chunks(tmp_path):
    log = zipf_log(tmp_path, num_inputs=900, num_validation=100, num_test=200, seed=3)
    rows = np.random.default_rng(1).permutation(900)
    found, expected = columns_of_log(log, rows, most=70), InputColumns(log.features, most=70)
    for first in range(0, 900, 50):
        expected.add(log.ids[rows[first : first + 50]])
    assert np.array_equal(found.has_unknown, expected.has_unknown)
    assert np.array_equal(found.sampled, expected.sampled)
    assert np.array_equal(found.sample_of(0), expected.sample_of(0))
    with pytest.raises(IndexError, match="inputs 3 to 900 of 900"):
        columns_of_log(log, np.array([3, 900]))


def test_lines_for_people():
    random = np.random.default_rng(5)
    labels = (random.random(500) < 0.3).astype(np.float32)
    logits = (2 * labels - 2 + random.normal(0, 1, 500)).astype(np.float32)
    inputs = InputColumns(FEATURES, "user")
    inputs.add(np.stack([random.integers(0, 9, 500), *random.integers(-1, 20, (3, 500))], 1).astype(np.int32))
    metrics = {**vars(compute_metrics(labels, logits)), **describe_quality(labels, logits, inputs=inputs)}
    metrics["context"]["best_column"] = {"column": "item", "auc": 0.71, "log_loss": 0.5}
    context, calibration, groups = quality_lines("test", metrics)
    assert f"AUC {metrics['auc']:.4f} is better than the best single column, item, 0.7100" in context
    assert "expected calibration error" in calibration
    assert "AUC within user" in groups
    assert "of inputs with unknown ids" in groups
    metrics["context"]["best_column"]["log_loss"] = metrics["log_loss"] - 0.1
    assert "but the log loss of that column is" in quality_lines("test", metrics)[0]
    metrics["auc"] = 0.70999
    assert "is no better than the best single column, item, 0.7100: try" in quality_lines("test", metrics)[0]
    assert quality_lines("test", {"auc": None, "log_loss": None}) == []


def test_nothing_is_said_of_no_inputs_and_of_no_numbers():
    empty = np.empty(0, np.float32)
    assert set(describe_quality(empty, empty).values()) == {None}
    assert set(describe_quality(np.ones(2, np.float32), np.array([1, np.nan], np.float32)).values()) == {None}


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_a_base_of_zero_without_a_sign(label):
    labels, logits = np.full(9, label, np.float32), np.zeros(9, np.float32)
    metrics = {**vars(compute_metrics(labels, logits)), **describe_quality(labels, logits)}
    assert "against 0.00000 of the bare click rate" in quality_lines("test", metrics)[0]


def epoch(number, loss, validation):
    return {"epoch": number, "loss": loss, "validation_log_loss": validation}


def test_validation_turns_where_it_rises_and_training_falls():
    turn = find_turn([epoch(1, 0.5, 0.48), epoch(2, 0.45, 0.46), epoch(3, 0.4, 0.47)])
    assert turn == {
        "epoch": 2, "validation_log_loss": 0.46, "training_loss": 0.45, "last_epoch": 3,
        "last_validation_log_loss": 0.47, "last_training_loss": 0.4,
    }  # fmt: skip
    assert "epochs = 2, or early_stopping = 1" in turn_line(turn, early_stopping=0)
    assert "returns to the best epoch" in turn_line(turn, early_stopping=2)
    assert find_turn([epoch(1, 0.5, 0.48), epoch(2, 0.45, 0.4801)]) is None  # noise
    assert find_turn([epoch(1, 0.5, 0.48), epoch(2, 0.6, 0.6)]) is None  # diverges
    assert find_turn([epoch(1, 0.5, 0.48)]) is None
    assert find_turn([epoch(1, 0.5, None), epoch(2, 0.4, None)]) is None
