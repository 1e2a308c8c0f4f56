"""`[log] validation`: files of the validation split, with every way to split what remains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.errors import LogError, RecipeError
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest

TRAIN, VALIDATION, TEST = range(100), range(100, 130), range(130, 180)


def write(folder: Path, name: str, numbers: range) -> None:
    # Times run backwards, so that sorting by them turns each file around.
    lines = [f"{number % 2},u{number % 7},{number},{1000 - number}" for number in numbers]
    (folder / name).write_text("label,user,number,at\n" + "\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, numbers in (("train.csv", TRAIN), ("val.csv", VALIDATION), ("test.csv", TEST)):
        write(tmp_path, name, numbers)
    return tmp_path


def config(**settings: Any) -> LogConfig:
    return LogConfig(
        **{
            "train": "train.csv", "validation": "val.csv", "categorical": ("user",), "dense": ("number",),
            "dense_transform": "none", **settings,
        }
    )  # fmt: skip


def splits(log: ColumnarLog) -> dict[str, list[int]]:
    found = {}
    for name, (start, stop) in log.manifest.summary["splits"].items():
        found[name] = np.asarray(log.dense)[start:stop, 0].astype(int).tolist()
    assert sorted(number for part in found.values() for number in part) == list(range(log.num_inputs))
    return found


def made(folder: Path, **settings: Any) -> dict[str, list[int]]:
    return splits(ingest(config(**settings), folder / "log", base=folder))


def test_beside_test_files(folder: Path) -> None:
    assert made(folder, test="test.csv") == {"train": [*TRAIN], "validation": [*VALIDATION], "test": [*TEST]}


def test_the_test_split_is_the_last_of_the_train_files(folder: Path) -> None:
    assert made(folder, test_fraction=0.2) == {
        "train": [*range(80)], "validation": [*VALIDATION], "test": [*range(80, 100)],
    }  # fmt: skip
    assert made(folder)["test"] == [*range(90, 100)]
    assert made(folder, test_fraction=0.0)["train"] == [*TRAIN]


def test_by_time(folder: Path) -> None:
    found = made(folder, time="at", test_fraction=0.2)
    assert found["train"] == [*range(99, 19, -1)]
    assert found["test"] == [*range(19, -1, -1)]
    assert found["validation"] == [*range(129, 99, -1)]
    found = made(folder, time="at", test="test.csv")
    assert found == {
        "train": [*reversed(TRAIN)], "validation": [*reversed(VALIDATION)], "test": [*reversed(TEST)],
    }  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"time": "at"}, {"split_by": "user"}])
def test_at_random(more: dict[str, Any], folder: Path) -> None:
    found = made(folder, split="random", test_fraction=0.3, **more)
    assert sorted(found["validation"]) == [*VALIDATION]
    assert sorted(found["train"] + found["test"]) == [*TRAIN]
    assert 10 < len(found["test"]) < 60


def test_of_a_format_with_a_published_split(tmp_path: Path) -> None:
    line = "\t".join(["1", *["2"] * 13, *["0a"] * 26]) + "\n"
    for name, count in (("train.txt", 70), ("val.txt", 20)):
        (tmp_path / name).write_text(line * count)
    made_of = LogConfig(train="train.txt", validation="val.txt", format="criteo_kaggle")
    log = ingest(made_of, tmp_path / "log", base=tmp_path)
    assert log.manifest.summary["splits"] == {"train": [0, 63], "validation": [70, 90], "test": [63, 70]}


def test_it_names_another_log(folder: Path) -> None:
    first = ingest(config(), folder / "log", base=folder)
    assert first.manifest.parameters["validation"] == ["val.csv"]
    write(folder, "val.csv", range(100, 131))
    second = ingest(config(), folder / "log2", base=folder)
    assert second.manifest.fingerprint != first.manifest.fingerprint
    plain = ingest(config(validation=()), folder / "log3", base=folder)
    assert "validation" not in plain.manifest.parameters


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 0.1}, "both `validation` files and `validation_fraction`"),
        ({"split": "random", "test": "test.csv"}, "nothing to draw"),
        ({"split": "random", "test_fraction": 0.0}, "nothing to draw"),
    ],
)
def test_rules_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        config(**settings)


def test_formats_that_split_themselves() -> None:
    with pytest.raises(RecipeError, match="validation"):
        LogConfig(train="UserBehavior.csv", validation="val.csv", format="taobao")
    with pytest.raises(RecipeError, match="validation"):
        LogConfig(train="log", validation="val.csv", format="columnar")


def test_files_that_are_not_there_or_there_twice(folder: Path) -> None:
    with pytest.raises(LogError, match=r"\[log\] validation"):
        made(folder, validation="valid.csv")
    with pytest.raises(LogError, match=r"by \[log\] train and by \[log\] validation"):
        made(folder, validation="train.csv")
