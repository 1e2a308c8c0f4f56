"""The cards of the log and of the scores: everything that a record has, and no more."""

from __future__ import annotations

from typing import Any

from fae.report.log_card import read_log_card
from fae.report.page import build_page
from fae.report.pictures.scores import read_scores
from fae.report.records import RunRecord
from fae.report.run_facts import run_facts
from fae.report.shown_values import DASH, Absent
from run_records import Page, make_record

ODD: tuple[Any, ...] = (3, "x", None, ["x"], [{}], {"test": 3}, {"test": {"user": "x", "item": True}}, {"user": [1]})


def record_with(section: str, **changes: Any) -> RunRecord:
    record = make_record()
    record[section] = {**record[section], **changes}
    return RunRecord(label="run", record=record)


LOG: dict[str, Any] = {
    "features": [
        {"name": "user", "num_embeddings": 301, "unknown_id": 300, "length": 1},
        {"name": "tags", "num_embeddings": 40, "unknown_id": None, "length": 5},
        {"name": "item", "num_embeddings": 9, "length": 2, "parts": [{"name": "item"}, {"name": "last_item"}]},
    ],
    "value_facts": {
        "user": {"distinct": 300, "seen_once": 290, "most_frequent": "ann", "most_frequent_share": 0.01,
                 "looks_like": "key"},
        "tags": {"distinct": 40, "seen_once": 0, "most_frequent": "", "most_frequent_share": 0.5, "looks_like": None},
        "last_item": {"distinct": 8, "seen_once": 2, "most_frequent": "a" * 40, "most_frequent_share": 0.25,
                      "looks_like": "timestamp"},
    },
    "missing_share": {"user": 0.0, "tags": 0.25}, "dense": ["price"], "dense_missing_share": {"price": 0.125},
    "unknown_share": {"test": {"user": 0.5, "tags": None}}, "notes": ["'user' is <odd>"],
}  # fmt: skip


def test_the_card_of_a_log() -> None:
    log = read_log_card(record_with("log", **LOG))
    assert log is not None
    assert log.heads == ["distinct", "seen once", "most frequent", "missing", "unknown ids in test"]
    cells = {column.name: list(column.cells) for column in log.columns}
    assert cells["user"] == ["300", "290 (97 %)", "ann: 1.0 %", "0.0 %", "50.0 %"]
    assert cells["tags"] == ["40", "0 (0 %)", "50.0 %", "25.0 %", DASH]
    assert cells["last_item"][2] == f"{'a' * 17}…: 25.0 %"
    assert cells["price"] == [DASH, DASH, DASH, "12.5 %", DASH]
    assert [column.kind for column in log.columns] == ["ids", "list of ids", "ids", "ids", "number"]
    assert log.columns[0].note == "290 of 300 values occur once: a key says nothing of other inputs"
    assert "always new" in log.columns[3].note
    assert log.summary == (
        "4 columns of ids with 348 values, 292 of them (84 %) seen once; 1 of numbers; most unknown ids in test: user, "
        "50.0 %; most missing: tags, 25.0 %."
    )
    assert log.splits == [("training", "432", "40.0 %"), ("validation", "48", "41.0 %"), ("test", "120", "39.0 %")]
    page = build_page([record_with("log", **LOG)])
    assert "&#39;user&#39; is &lt;odd&gt;" in page
    assert "290 of 300 values occur once" in page


def test_an_older_log_shows_what_it_has() -> None:
    old = {**LOG, "value_facts": None, "dense": [], "missing_share": {}}
    log = read_log_card(record_with("log", **old))
    assert log is not None
    assert log.heads == ["distinct", "unknown ids in test"]
    assert list(log.columns[0].cells) == ["300", "50.0 %"]
    assert log.columns[2].cells[0] is Absent.NOT_RECORDED, "columns that share a table have no number of their own"
    assert read_log_card(RunRecord(label="a", record={"train": {}})) is None
    record = make_record()
    record["log"] = {**old, "splits": None}
    record["recipe"]["log"]["min_frequency"] = 5
    log = read_log_card(RunRecord(label="a", record=record))
    assert log is not None
    assert log.heads == ["unknown ids in test"], "rows are fewer than values where rare ones have none"
    assert log.splits == []


def test_many_columns_are_folded() -> None:
    features = [{"name": f"C{number}", "num_embeddings": 5, "unknown_id": 4} for number in range(30)]
    assert "<summary>30 columns</summary>" in build_page([record_with("log", features=features)])
    assert "columns</summary>" not in build_page([record_with("log", **LOG)])


TEST: dict[str, Any] = {
    "auc": 0.75, "log_loss": 0.48, "label_rate": 0.25, "num_inputs": 50_000,
    "calibration": {
        "ratio": 1.0312, "expected_error": 0.0123,
        "bins": [{"mean_prediction": 0.1, "label_rate": 0.08, "num_inputs": 500},
                 {"mean_prediction": 0.6, "label_rate": 0.61, "num_inputs": 500}],
    },
    "context": {"columns": [{"column": "item", "auc": 0.7}, {"column": "site", "auc": 0.49}], "sampled": True},
    "unknown_ids": {
        "without": {"num_inputs": 49_000, "share": 0.98, "auc": 0.76, "log_loss": 0.47, "label_rate": 0.25},
        "with": {"num_inputs": 1_000, "share": 0.02, "auc": None, "log_loss": 0.5, "label_rate": 0.2},
    },
    "group_auc": {"column": "user", "auc": 0.71, "num_groups": 900, "num_inputs": 40_000, "one_class_groups": 12},
}  # fmt: skip


def test_how_good_the_scores_are() -> None:
    scores = read_scores(record_with("test", **TEST))
    assert scores is not None
    picture = scores.calibration.pictures[0]
    assert "predicted 10.0 %, came true 8.0 % of 500 inputs" in picture
    assert picture.count("s0 raw") == 2, "a bar of two standard errors each"
    assert "1.031 times the labels" in scores.calibration.caption
    assert "1.23 points" in scores.calibration.caption
    assert [(bar.name, bar.text) for bar in scores.context.bars] == [
        ("this model", "0.7500"), ("item", "0.7000"), ("site", "0.4900"),
    ]  # fmt: skip
    assert scores.context.bars[2].parts[0].share == 0
    assert "within noise" not in scores.context.caption
    assert scores.parts[0][:3] == ("all ids known", "49,000", "98.0 %")
    assert str(scores.parts[0][3]).startswith("0.7600 ± 0.00")
    assert scores.group == (
        "AUC within each user: 0.7100, over 900 of them with 40,000 inputs; 12 have labels of one kind and are "
        "left out."
    )
    page = Page(build_page([record_with("test", **TEST)])).text
    for words in ("How good the scores are", "Do probabilities come true?", "all ids known", "AUC within each user"):
        assert words in page, words


def test_a_model_that_is_no_better_than_a_column() -> None:
    test = {**TEST, "context": {"columns": [{"column": "item", "auc": 0.7499}]}}
    scores = read_scores(record_with("test", **test))
    assert scores is not None
    assert "within noise of item alone" in scores.context.caption


def test_older_records_have_no_scores() -> None:
    assert read_scores(RunRecord(label="a", record=make_record())) is None
    assert "How good the scores are" not in build_page([RunRecord(label="a", record=make_record())])


def facts_of(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value, _ in run_facts(RunRecord(label="a", record={**make_record(), **changes}))}


def test_when_and_how_a_run_was_made() -> None:
    facts = facts_of(
        started="2026-11-28T23:59:50+00:00", ended="2026-11-29T00:01:05+00:00", command="fae run a.toml",
        log_path="/data/log",
        parent={"path": "runs/day1/checkpoint", "test": {"auc": 0.7, "log_loss": 0.5}, "test_before": {"auc": 0.69}},
    )  # fmt: skip
    assert facts == {
        "started": "2026-11-28 23:59:50 +00:00, ended 2026-11-29 00:01:05 +00:00, 75.0 s later",
        "command": "fae run a.toml", "log": "log.csv", "ingested in": "/data/log", "continues": "runs/day1",
        "its own test": "AUC 0.7000, log loss 0.5000", "on this test, before training": "AUC 0.6900",
        "after training": "AUC 0.7235, log loss 0.4800",
    }  # fmt: skip
    assert facts_of(started="2026-11-28T10:00:00", ended="2026-11-28T10:00:02")["started"].endswith(
        "ended 10:00:02, 2.00 s later"
    )
    for odd in ("soon", "", 3, None, "9999-99-99"):
        assert set(facts_of(started=odd, ended=odd)) == {"log"}
    assert (
        facts_of(started="2026-11-28T10:00:00", ended="2026-11-28T10:00:00+00:00")["started"] == "2026-11-28 10:00:00"
    )


def test_odd_values_raise_nothing() -> None:
    for section, keys in (("log", LOG), ("test", TEST)):
        for key in keys:
            for odd in ODD:
                Page(build_page([record_with(section, **{**keys, key: odd})]))
    for key in ("started", "ended", "command", "parent", "log_path"):
        for odd in ODD:
            facts_of(**{key: odd})
