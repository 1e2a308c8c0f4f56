"""A finished run scores raw files as training scored its own test split: every model, column kind and id."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fae
from fae.ingest.scored.encoded_inputs import EncodedInputs, regroup
from fae.models.registry import build_model
from fae.run.predictions import evaluate_files, predict
from fae.run.scoring import unknown_counts
from fae.training.quality.evaluate import predict_split
from fae.training.quality.metrics import probabilities

from commands import RECIPE, csv_text, succeed, write_recipe

HEADER = ("label", "user", "item", "tags", "old", "history", "price", "views")
COLUMNS = [
    "user",
    {"name": "item", "min_frequency": 2},
    {"name": "tags", "max_length": 4, "pooling": "mean"},
    {"name": "old", "encoded": True},
    {"name": "history", "max_length": 5, "separator": " "},
]
SMALL = {
    "dlrm": {"bottom_mlp": [8], "top_mlp": [8]},
    "deepfm": {"deep_mlp": [8]},
    "dcnv2": {"deep_mlp": [8]},
    "wide_deep": {"deep_mlp": [8]},
    "tbsm": {},
}


def rows(count: int, seed: int, *, widest: int = 60) -> list[list[object]]:
    """Inputs with skewed ids, empty fields, lists of 0 to 7 items, and numbers of an encoded column."""
    random = np.random.default_rng(seed)

    def value(prefix: str) -> str:
        drawn = int(random.zipf(1.4)) % widest
        return "" if drawn == 7 else f"{prefix}{drawn}"

    return [
        [
            int(random.random() < 0.4), value("u"), value("i"),
            "|".join(f"t{tag}" for tag in random.integers(0, 9, random.integers(0, 8))),
            "" if random.random() < 0.1 else int(random.integers(0, widest)),
            " ".join(f"i{item}" for item in random.integers(0, widest, random.integers(1, 8))),
            "" if random.random() < 0.1 else round(float(random.normal(2, 3)), 2), int(random.integers(0, 9)),
        ]
        for _ in range(count)
    ]  # fmt: skip


def make_run(
    folder: Path, *, log: Mapping[str, Any] | None = None, model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None, name: str = "run",
) -> Path:  # fmt: skip
    """A finished run over ``train.csv``, tested on ``test.csv``, which holds values that training never saw."""
    (folder / "train.csv").write_text(csv_text(rows(300, 1), HEADER))
    (folder / "test.csv").write_text(csv_text(rows(150, 2, widest=90), HEADER))
    settings = {
        "train": "train.csv", "test": "test.csv", "test_fraction": None, "categorical": COLUMNS, **(log or {})
    }  # fmt: skip
    recipe = write_recipe(folder, f"{name}.toml", log=settings, model=model or {}, train=train or {},
                          hot={"budget": "16KiB"})  # fmt: skip
    succeed("run", recipe, "--out", folder / name)
    recipe.unlink()  # the run alone must do
    return folder / name


def run_metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())["test"]
    return found


def same_metrics(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert found["num_inputs"] == expected["num_inputs"] > 0
    for name in ("auc", "log_loss", "label_rate"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.parametrize("name", SMALL)
def test_every_model_scores_as_in_its_test(tmp_path: Path, name: str) -> None:
    model = {"name": name, **dict.fromkeys(RECIPE["model"]), "embedding_dim": 4, **SMALL[name]}
    columns = [*COLUMNS[:4], {**COLUMNS[4], "pooling": "none"}] if name == "tbsm" else COLUMNS
    run = make_run(tmp_path, log={"categorical": columns}, model=model)
    found = evaluate_files(run, [tmp_path / "test.csv"], device="cpu")
    same_metrics(found, run_metrics(run))
    assert found["unknown_share"]["user"] > 0
    assert found["unknown_share"]["old"] > 0

    assert same_scores(run, predict(run, [tmp_path / "test.csv"], device="cpu")["scores"])


def same_scores(run: Path, scores: npt.NDArray[np.float64]) -> bool:
    """Whether the scores of the test split are those of the evaluation that training does."""
    tables = json.loads((run / "run.json").read_text())["recipe"]
    tables["log"] = {"format": "columnar", "train": str(run / "log")}
    recipe = fae.parse_recipe(tables, base=run)
    folder = fae.RunFolder(recipe, run, device="cpu")
    embeddings, packed = folder.open_embeddings(), folder.open_packed()
    model = build_model(recipe.model, embeddings.layout.features, packed.num_dense, seed=0)
    fae.load_tables(run / "checkpoint", embeddings)
    fae.load_dense(run / "checkpoint", model)
    _, logits = predict_split(model, embeddings, packed.test)
    return np.allclose(np.sort(scores), np.sort(probabilities(logits)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"log": {"dense_transform": "none"}},
        {"log": {"min_frequency": 3}},
        {"log": {"dense": [], "categorical": COLUMNS[:2]}},
        {"train": {"placement": "cpu", "optimizer": "adam", "epochs": 3, "early_stopping": 1, "learning_rate": 0.5}},
        {"model": {"embedding_dims": {"user": 8, "old": 1}}},
    ],
    ids=lambda changes: "-".join(f"{key}.{name}" for key, table in changes.items() for name in table),
)
def test_every_setting_scores_as_in_the_test(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = make_run(tmp_path, **changes)
    same_metrics(evaluate_files(run, [tmp_path / "test.csv"]), run_metrics(run))


def test_a_continued_run_scores_with_all_ids_of_its_line(tmp_path: Path) -> None:
    make_run(tmp_path, name="first")
    second = tmp_path / "second"
    second.mkdir()
    run = make_run(second, train={"from": "../first"})
    (second / "train.csv").write_text(csv_text(rows(300, 5, widest=200), HEADER))
    run = make_run(second, train={"from": "../first"})
    same_metrics(evaluate_files(run, [second / "test.csv"]), run_metrics(run))


def parquet_table(seed: int, id_type: pa.DataType) -> pa.Table:
    """`rows` with typed columns: whole numbers, real lists, nulls."""
    columns = dict(zip(HEADER, zip(*rows(200, seed), strict=True), strict=True))
    return pa.table({
        "label": pa.array([bool(value) for value in columns["label"]]),
        "user": pa.array([int(value[1:]) if value else None for value in columns["user"]], id_type),
        "item": columns["item"],
        "tags": pa.array([value.split("|") if value else None for value in columns["tags"]]),
        "old": pa.array([None if value == "" else value for value in columns["old"]], pa.float64()),
        "history": [[int(item[1:]) for item in value.split()] for value in columns["history"]],
        "price": pa.array([None if value == "" else value for value in columns["price"]], pa.float32()),
        "views": columns["views"],
    })  # fmt: skip


def test_parquet_of_other_types_is_the_same_values(tmp_path: Path) -> None:
    pq.write_table(parquet_table(1, pa.int32()), tmp_path / "train.parquet")
    pq.write_table(parquet_table(2, pa.int32()), tmp_path / "test.parquet")
    log = {"format": "parquet", "train": "train.parquet", "test": "test.parquet", "test_fraction": None}
    recipe = write_recipe(tmp_path, log={**log, "categorical": COLUMNS}, hot={"budget": "16KiB"})
    succeed("run", recipe, "--out", tmp_path / "run")
    same_metrics(evaluate_files(tmp_path / "run", [tmp_path / "test.parquet"]), run_metrics(tmp_path / "run"))

    unlabelled = parquet_table(2, pa.int64()).drop_columns(["label"])
    pq.write_table(unlabelled.select(unlabelled.column_names[::-1]), tmp_path / "later.parquet")
    found = predict(tmp_path / "run", [tmp_path / "later.parquet"], tmp_path / "s.parquet", keep=["user", "tags"])
    scores = pq.read_table(tmp_path / "s.parquet")
    assert scores.column("user").equals(unlabelled.column("user"))
    assert scores.column("tags").equals(unlabelled.column("tags"))
    expected = predict(tmp_path / "run", [tmp_path / "test.parquet"])["scores"]
    assert scores.column("score").to_numpy().tobytes() == expected.tobytes()
    assert found["mean_score"] == pytest.approx(expected.mean())


def test_any_cut_of_the_files_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = (tmp_path / "test.csv").read_text().splitlines(keepends=True)
    for part, (first, last) in enumerate([(1, 3), (3, 90), (90, 151)]):
        (tmp_path / f"part_{part}.csv").write_text(lines[0] + "".join(lines[first:last]))
    whole = predict(run, [tmp_path / "test.csv"])["scores"]
    parts = predict(run, [tmp_path / "part_*.csv"])["scores"]
    assert len(whole) == 150
    assert whole.tobytes() == parts.tobytes()


def test_regroup_keeps_order_and_sizes() -> None:
    def inputs(first: int, last: int) -> EncodedInputs:
        ids = np.arange(first, last, dtype=np.int32)[:, None]
        return EncodedInputs(ids=ids, dense=ids.astype(np.float32), labels=ids[:, 0].astype(np.uint8),
                             kept=pa.table({"a": ids[:, 0]}))  # fmt: skip

    bounds = [0, 1, 1, 8, 30, 31, 33]
    batches = list(regroup([inputs(*pair) for pair in itertools.pairwise(bounds)], 5))
    assert [len(batch.ids) for batch in batches] == [5, 5, 5, 5, 5, 5, 3]
    for column in ("ids", "dense", "labels"):
        assert np.concatenate([getattr(batch, column) for batch in batches]).ravel().tolist() == list(range(33))
    assert pa.concat_tables([batch.kept for batch in batches]).column("a").to_pylist() == list(range(33))
    assert list(regroup([], 5)) == []


def test_probabilities_keep_the_order_of_logits() -> None:
    logits = np.array([-90.0, -20.0, 0.0, 17.0, 17.5, 30.0], np.float32)
    found = probabilities(logits)
    assert found.dtype == np.float64
    assert (np.diff(found) > 0).all()
    assert found == pytest.approx(1 / (1 + np.exp(-logits.astype(np.float64))), rel=1e-12)


def test_unknown_counts_leave_unused_slots_out() -> None:
    from fae.artifacts.columnar_log import FeatureSchema

    features = [FeatureSchema(name="a", num_embeddings=3, unknown_id=2),
                FeatureSchema(name="b", num_embeddings=5, length=2, unknown_id=0)]  # fmt: skip
    ids = np.array([[2, 0, -1], [1, -1, -1], [2, 0, 3]], np.int32)
    used, unknown = unknown_counts(ids, features)
    assert used.tolist() == [3, 3]
    assert unknown.tolist() == [2, 2]
