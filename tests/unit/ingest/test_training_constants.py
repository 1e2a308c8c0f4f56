"""Standardised and clipped dense columns: constants of the training split, which hold in later files and logs too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.errors import ArtifactError, RecipeError
from fae.ingest.column_config import DenseConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.scored.known_columns import known_columns
from fae.ingest.scored.raw_inputs import RawInputs
from fae.ingest.scratch import Scratch

Numbers = npt.NDArray[np.float64]
COUNT = 400
DENSE = (
    DenseConfig(name="price", transform="standardize", clip_quantiles=(0.05, 0.95)),
    DenseConfig(name="views", transform="log1p", clip=(1.0, 50.0)),
    DenseConfig(name="at"),
    "plain",
)


def numbers(seed: int = 3) -> dict[str, Numbers]:
    random = np.random.default_rng(seed)
    price = random.lognormal(2, 1, COUNT)
    price[::7] = np.nan
    return {
        "price": price, "views": random.integers(-2, 90, COUNT).astype(float),
        "at": 1574553600.0 + random.permutation(COUNT), "plain": random.normal(0, 1, COUNT),
    }  # fmt: skip


def write(folder: Path, name: str = "log.csv", seed: int = 3) -> dict[str, Numbers]:
    columns = numbers(seed)
    lines = ["label,user," + ",".join(columns)]
    for row in range(COUNT):
        fields = ["" if np.isnan(values[row]) else repr(float(values[row])) for values in columns.values()]
        lines.append(f"{row % 2},u{row % 9}," + ",".join(fields))
    (folder / name).write_text("\n".join(lines) + "\n")
    return columns


def config(**settings: Any) -> LogConfig:
    return LogConfig(
        **{
            "train": "log.csv", "categorical": ("user",), "dense": DENSE, "dense_transform": "standardize",
            "test_fraction": 0.25, "validation_fraction": 0.1, **settings,
        }
    )  # fmt: skip


def wanted(columns: dict[str, Numbers], training: Any) -> npt.NDArray[np.float32]:
    """The dense features, computed anew from the raw numbers and the places of the training inputs."""
    price, there = columns["price"], ~np.isnan(columns["price"])
    known = price[training][there[training]]
    low, high = np.quantile(known, [0.05, 0.95])
    clipped = np.clip(known, low, high)
    result = np.zeros((COUNT, 4))
    result[:, 0] = np.where(there, (np.clip(price, low, high) - clipped.mean()) / clipped.std(), 0.0)
    result[:, 1] = np.log1p(np.clip(columns["views"], 1, 50))
    for place, name in ((2, "at"), (3, "plain")):
        values = columns[name]
        result[:, place] = (values - values[training].mean()) / values[training].std()
    return result.astype(np.float32)


def test_constants_are_those_of_the_training_split(tmp_path: Path) -> None:
    columns = write(tmp_path)
    log = ingest(config(), tmp_path / "log", base=tmp_path)
    stop = log.manifest.summary["splits"]["train"][1]
    assert stop == 270
    np.testing.assert_allclose(log.dense, wanted(columns, slice(0, stop)), rtol=1e-6, atol=1e-6)
    constants = log.manifest.summary["dense_constants"]
    assert constants["views"] == {"transform": "log1p", "low": 1.0, "high": 50.0}
    assert constants["plain"]["low"] is None
    assert constants["plain"]["mean"] == pytest.approx(columns["plain"][:stop].mean(), rel=1e-11)
    assert constants["plain"]["deviation"] == pytest.approx(columns["plain"][:stop].std(), rel=1e-11)
    # Seconds since 1970 keep their last digits, which float32 would not.
    assert len(np.unique(log.dense[:, 2])) == COUNT


def test_a_log_in_another_order_has_constants_of_its_training_split(tmp_path: Path) -> None:
    columns = write(tmp_path)
    log = ingest(config(split="random", time="at"), tmp_path / "log", base=tmp_path)
    stop = log.manifest.summary["splits"]["train"][1]
    # Rows are found again by their times, which are all different.
    order = np.argsort(columns["at"])
    ranks = np.empty(COUNT, int)
    ranks[np.argsort(log.dense[:, 2], kind="stable")] = np.arange(COUNT)
    places = order[ranks]
    np.testing.assert_allclose(log.dense, wanted(columns, places[:stop])[places], rtol=1e-6, atol=1e-6)


def test_files_that_are_scored_take_the_constants_of_the_log(tmp_path: Path) -> None:
    write(tmp_path)
    log = ingest(config(), tmp_path / "log", base=tmp_path)
    raw = RawInputs(log, [str(tmp_path / "log.csv")])
    columns = known_columns(log, raw.config, Scratch(tmp_path / "scratch", 2**30))
    scored = np.concatenate([part.dense for part in raw.stream(columns)])
    assert scored.tobytes() == np.asarray(log.dense).tobytes()


def test_a_later_log_keeps_the_constants_of_the_first(tmp_path: Path) -> None:
    write(tmp_path)
    first = ingest(config(), tmp_path / "log", base=tmp_path)
    later = write(tmp_path, "day2.csv", seed=9)
    second = ingest(config(train="day2.csv"), tmp_path / "log2", base=tmp_path, parent=first)
    assert second.manifest.summary["dense_constants"] == first.manifest.summary["dense_constants"]
    facts = first.manifest.summary["dense_constants"]["plain"]
    expected = ((later["plain"] - facts["mean"]) / facts["deviation"]).astype(np.float32)
    assert np.asarray(second.dense)[:, 3].tobytes() == expected.tobytes()
    with pytest.raises(ArtifactError, match="dense_clip"):
        ingest(config(train="day2.csv", dense_clip=(0.0, 1.0)), tmp_path / "log3", base=tmp_path, parent=first)
    with pytest.raises(ArtifactError, match=r"\[log\] dense = "):
        ingest(config(train="day2.csv", dense=("price", "views", "at", "plain")), tmp_path / "x", base=tmp_path,
               parent=first)  # fmt: skip


def test_an_ingest_that_was_interrupted_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.csv")
    write(tmp_path, "b.csv", seed=4)
    settings = config(train=("a.csv", "b.csv"), time="at")
    whole = ingest(settings, tmp_path / "whole", base=tmp_path)

    def interrupted(where: str) -> ColumnarLog:
        def stop(*arguments: object, **named: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(where, stop)
            with pytest.raises(KeyboardInterrupt):
                ingest(settings, tmp_path / "log", base=tmp_path)
        return ingest(settings, tmp_path / "log", base=tmp_path)

    for where in (
        "fae.ingest.ingest.order_inputs", "fae.ingest.ingest.complete_dense", "fae.ingest.ingest.second_pass",
        "fae.ingest.numbering.second_pass.Renumbering", "fae.ingest.dense.training_constants._write",
    ):  # fmt: skip
        log = interrupted(where)
        assert log.manifest.summary == whole.manifest.summary
        for name in ("ids.npy", "dense.npy", "labels.npy"):
            assert (log.path / name).read_bytes() == (whole.path / name).read_bytes(), (where, name)
        shutil.rmtree(log.path)


@pytest.mark.parametrize(
    "settings", [{"dense_transform": "standardize"}, {"dense_clip": (0.0, 3.0)}, {"dense_transform": "signed_log1p"}]
)
def test_counts_of_criteo(settings: dict[str, Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    counts = random.integers(-3, 200_000, (300, 13))
    missing = random.random((300, 13)) < 0.2
    lines = []
    for row in range(300):
        fields = ["" if missing[row, i] else str(counts[row, i]) for i in range(13)]
        lines.append("\t".join([str(row % 2), *fields, *[f"{row % 7:08x}"] * 26]))
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    made = LogConfig(train="train.txt", format="criteo", test_fraction=0.1, **settings)
    log = ingest(made, tmp_path / "log", base=tmp_path)
    stop = log.manifest.summary["splits"]["train"][1]
    values = counts.astype(float)
    if "dense_clip" in settings:
        expected = np.log1p(np.clip(values, 0, 3))
    elif settings["dense_transform"] == "signed_log1p":
        expected = np.sign(values) * np.log1p(np.abs(values))
    else:
        known = np.ma.masked_array(values[:stop], missing[:stop])
        expected = np.asarray((values - np.asarray(known.mean(axis=0))) / np.asarray(known.std(axis=0)))
    np.testing.assert_allclose(log.dense, np.where(missing, 0, expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["criteo", "criteo_kaggle", "criteo_terabyte"])
def test_transformed_counts_of_criteo_have_a_fingerprint_of_their_own(name: str) -> None:
    """Earlier code wrote them untransformed under parameters without this key; no other log has it."""
    signed = LogConfig(train="train.txt", format=name, dense_transform="signed_log1p")
    assert signed.to_parameters()["criteo_counts"] == "signed_log1p"
    for transform in ("log1p", "standardize", "none"):
        plain = LogConfig(train="train.txt", format=name, dense_transform=transform)
        assert "criteo_counts" not in plain.to_parameters()
    csv = LogConfig(
        train="log.csv", format="csv", categorical=("user",), dense=("price",), dense_transform="signed_log1p"
    )
    assert "criteo_counts" not in csv.to_parameters()


def test_equal_and_missing_values_become_0(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "label,user,same,none\n" + "".join(f"{row % 2},u{row % 3},7.25,\n" for row in range(50))
    )
    log = ingest(config(dense=("same", "none")), tmp_path / "log", base=tmp_path)
    assert not np.asarray(log.dense).any()
    constants = log.manifest.summary["dense_constants"]
    assert (constants["same"]["mean"], constants["same"]["deviation"]) == (7.25, 1.0)
    assert (constants["none"]["mean"], constants["none"]["deviation"]) == (0.0, 1.0)


def test_a_log_without_constants_has_none(tmp_path: Path) -> None:
    write(tmp_path)
    log = ingest(config(dense=("views", "plain"), dense_transform="log1p"), tmp_path / "log", base=tmp_path)
    assert "dense_constants" not in log.manifest.summary
    assert log.manifest.parameters["dense"] == ["views", "plain"]
    named = config(dense=(DenseConfig(name="views"), "plain"), dense_transform="log1p")
    again = ingest(named, tmp_path / "again", base=tmp_path)
    assert again.manifest.fingerprint == log.manifest.fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dense_clip": (1.0,)}, "two numbers"),
        ({"dense_clip": (3.0, 1.0)}, "the lower one first"),
        ({"dense_clip_quantiles": (1.0, 99.0)}, "shares from 0 to 1"),
        ({"dense_clip": (0.0, 1.0), "dense_clip_quantiles": (0.0, 1.0)}, "keep one of them"),
        ({"dense_transform": "standardise"}, "did you mean 'standardize'"),
        ({"dense": ({"name": "x", "clipp": [0, 1]},)}, "did you mean 'clip'"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        config(**settings)
