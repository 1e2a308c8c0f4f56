"""Public logs by one word: their columns, their published splits, and Taobao's inputs against a slow reference."""

from __future__ import annotations

import gzip
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fae.core.errors import LogError, RecipeError
from fae.ingest.config import LogConfig
from fae.ingest.formats import HISTORY
from fae.ingest.ingest import ingest
from fae.ingest.log_plan import plan_ingest
from fae.ingest.readers import taobao
from fae.run.recipe import load_recipe

from logs import write_behaviour

ROOT = Path(__file__).resolve().parents[3]
AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
)


def criteo_lines(num_inputs: int, start: int = 0) -> str:
    lines = (["01"[i % 2], *[str(i % 5)] * 13, *[f"{i % 7:08x}"] * 26] for i in range(start, start + num_inputs))
    return "".join("\t".join(line) + "\n" for line in lines)


def avazu_line(index: int, hour: str) -> str:
    ids = [f"{(index * k) % 9:08x}" for k in range(1, 10)]
    return ",".join([str(10**18 + index), "01"[index % 3 == 0], hour, "1005", "0", *ids, "1", "0", *"12345678"]) + "\n"


def splits(log: Any) -> dict[str, tuple[int, int]]:
    return {name: log.split(name) for name in ("train", "validation", "test")}


@pytest.mark.parametrize("num_inputs", [7, 8, 13, 14, 61])
def test_kaggle_takes_six_of_seven_parts(tmp_path: Path, num_inputs: int) -> None:
    (tmp_path / "train.txt").write_text(criteo_lines(num_inputs))
    log = ingest(LogConfig(train="train.txt", format="criteo_kaggle"), tmp_path / "log", base=tmp_path)
    # The public code: numpy's parts of the total, the first ones longer; then two halves of the last, the first longer.
    parts = np.array_split(np.arange(num_inputs), 7)
    test, validation = np.array_split(parts[-1], 2)
    assert splits(log) == {
        "train": (0, parts[-1][0]),
        "test": (test[0], test[-1] + 1),
        "validation": (test[-1] + 1, test[-1] + 1 + len(validation)),
    }
    assert log.counts.sum() == 26 * parts[-1][0]


def test_terabyte_halves_the_last_day(tmp_path: Path) -> None:
    for day, size in enumerate((3, 4, 5)):
        (tmp_path / f"day_{day + 9}").write_text(criteo_lines(size, 10 * day))
    config = LogConfig(train="day_*", format="criteo_terabyte")
    log = ingest(config, tmp_path / "log", base=tmp_path)
    assert splits(log) == {"train": (0, 7), "test": (7, 10), "validation": (10, 12)}
    own = LogConfig(train="day_*", format="criteo_terabyte", test_fraction=0.25, validation_fraction=0.0)
    log = ingest(own, tmp_path / "own", base=tmp_path)
    assert splits(log) == {"train": (0, 9), "validation": (9, 9), "test": (9, 12)}
    plain = LogConfig(train="day_*", format="criteo", test_fraction=0.25, validation_fraction=0.0)
    other = ingest(plain, tmp_path / "plain", base=tmp_path)
    assert (other.path / "ids.npy").read_bytes() == (log.path / "ids.npy").read_bytes()
    with pytest.raises(LogError, match="there is only day_9; name all days"):
        plan_ingest(LogConfig(train="day_9", format="criteo_terabyte"), base=tmp_path)


def test_avazu_keeps_the_last_day_for_the_test(tmp_path: Path) -> None:
    hours = ["14102100"] * 5 + ["14102123"] * 4 + ["14102207"] * 9 + ["14102300", "14102312", "14102312"]
    (tmp_path / "train.csv").write_text(AVAZU + "".join(avazu_line(i, hour) for i, hour in enumerate(hours)))
    log = ingest(LogConfig(train="train.csv", format="avazu"), tmp_path / "log", base=tmp_path)
    assert splits(log) == {"train": (0, 17), "validation": (17, 18), "test": (18, 21)}
    assert [feature.name for feature in log.features] == AVAZU.strip().split(",")[2:]
    assert log.labels.tolist() == [int(i % 3 == 0) for i in range(21)]
    vocabulary = pq.read_table(log.path / "vocabulary" / "0.parquet")["value"].to_pylist()
    assert sorted(value for value in vocabulary if value is not None) == ["00", "07", "23"]
    assert log.dense.shape == (21, 0)


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (["14102100", "1410210"], "line 3: hour is '1410210', expected eight digits YYMMDDHH"),
        (["14102100", "14102124"], "line 3: hour is '14102124', expected eight digits"),
        (["14102100", ""], "line 3: hour is '', expected eight digits"),
        (["14102200", "14102223", "14102100"], "line 4: day 141021 follows 141022"),
    ],
)
def test_bad_avazu(tmp_path: Path, hours: list[str], expected: str) -> None:
    (tmp_path / "train.csv").write_text(AVAZU + "".join(avazu_line(i, hour) for i, hour in enumerate(hours)))
    with pytest.raises(LogError, match=expected):
        ingest(LogConfig(train="train.csv", format="avazu"), tmp_path / "log", base=tmp_path)
    assert not list(tmp_path.glob(".log*"))


def test_avazu_of_one_day_has_nothing_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(AVAZU + avazu_line(0, "14102100") * 9)
    with pytest.raises(LogError, match="none is left for training by the published split of avazu"):
        ingest(LogConfig(train="train.csv", format="avazu"), tmp_path / "log", base=tmp_path)
    config = LogConfig(train="train.csv", format="avazu", test_fraction=0.1)
    assert splits(ingest(config, tmp_path / "log", base=tmp_path))["test"] == (8, 9)


def test_formats_have_their_own_columns() -> None:
    for name in ("criteo_kaggle", "avazu", "taobao"):
        with pytest.raises(RecipeError, match="has its own columns"):
            LogConfig(train="x", format=name, categorical=("a",))
    with pytest.raises(RecipeError, match="splits them by user; leave `test`"):
        LogConfig(train="x", format="taobao", test_fraction=0.1)


def values_of(log: Any) -> list[list[str | None]]:
    return [
        pq.read_table(log.path / "vocabulary" / f"{index}.parquet")["value"].to_pylist()
        for index in range(len(log.features))
    ]


@pytest.mark.parametrize("block_bytes", [200, 4096, 1 << 22])
def test_taobao_against_a_slow_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(taobao, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(taobao, "_MOST_VALIDATION_USERS", 25)
    lines = write_behaviour(tmp_path / "UserBehavior.csv", num_users=80)
    log = ingest(LogConfig(train="UserBehavior.csv", format="taobao"), tmp_path / "log", base=tmp_path)
    clicks: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    category: dict[int, int] = {}
    for user, item, of_item, _, time in lines:
        clicks[user].append((time, item, of_item))
        category.setdefault(item, of_item)
    ordered = {user: sorted(found, key=lambda click: click[0])[-200:] for user, found in clicks.items()}
    last = sorted(found[-1][0] for found in ordered.values())
    test_users = {user for user, found in ordered.items() if found[-1][0] > last[int(0.7 * len(last))]}
    points = {
        user: 0 if len(found) < 11 else 1 if len(found) < 21 else 3 if len(found) < 31 else 6 if len(found) < 41 else 10
        for user, found in ordered.items()
        if user not in test_users
    }
    assert len(test_users) > 10
    values = values_of(log)
    assert [feature.length for feature in log.features] == [1, HISTORY + 1, HISTORY + 1]
    validated = list(points)[:25]
    expected = {
        "train": sum(2 * count for count in points.values()),
        "validation": sum(2 for user in validated if points[user]),
        "test": sum(len(ordered[user]) > 1 for user in test_users),
    }
    assert {name: stop - start for name, (start, stop) in splits(log).items()} == expected
    assert log.split("validation")[0] == log.split("train")[1]
    for name in ("train", "validation"):
        start, stop = log.split(name)
        assert log.labels[start:stop].sum() * 2 == stop - start
    positives = []
    for row in range(*log.split("train")):
        ids = log.ids[row]
        user = int(values[0][ids[0]] or -1)
        items = [int(values[1][i] or -1) for i in ids[1 : 2 + HISTORY] if i >= 0]
        categories = [int(values[2][i] or -1) for i in ids[2 + HISTORY :] if i >= 0]
        assert categories == [category[item] for item in items]
        bought = [item for _, item, _ in ordered[user]]
        history, candidate = items[:-1], items[-1]
        places = [at for at in range(len(bought)) if bought[max(at - HISTORY, 0) : at] == history]
        assert places, "the history is a piece of the user's clicks"
        assert len(history) == min(HISTORY, places[-1])
        if log.labels[row]:
            positives.append(places)
            assert candidate in {bought[at] for at in places}
            assert min(places) <= len(bought) - 2
        else:
            assert candidate not in bought
    assert positives
    for row in range(*log.split("test")):
        assert log.ids[row, 0] == log.features[0].unknown_id, "a test user trains nothing"
    # Half of the test's candidates are drawn.
    assert 0.2 < log.labels[slice(*log.split("test"))].mean() < 0.8


BAD_BEHAVIOUR = {
    "fields": ("1,2,3,pv\n", "line 4: 4 fields, expected 5 (user, item, category, behaviour, time)"),
    "user": ("x,2,3,pv,5\n", "line 4: the user (field 1) is 'x', expected a whole number"),
    "item": ("1,-2,3,pv,5\n", "line 4: the item (field 2) is '-2', expected a whole number"),
    "category": ("1,2,,pv,5\n", "line 4: the category (field 3) is '', expected a whole number"),
    "behaviour": ("1,2,3,view,5\n", "line 4: the behaviour is 'view', expected one of pv, buy, cart, fav"),
    "behaviour begun": ("1,2,3,pvx,5\n", "line 4: the behaviour is 'pvx'"),
    "time": ("1,2,3,pv,5.5\n", "line 4: the time (field 5) is '5.5'"),
    "digits": ("1" * 19 + ",2,3,pv,5\n", "line 4: the user (field 1) is '1111111111111111111'"),
    "twice": ("7,2,3,pv,5\n3,2,3,pv,9\n", "line 5: user 3 is in two places; sort the file with `sort"),
}


@pytest.mark.parametrize("case", BAD_BEHAVIOUR)
def test_bad_behaviour(tmp_path: Path, case: str) -> None:
    text, expected = BAD_BEHAVIOUR[case]
    good = "3,2268318,2520377,pv,1511544070\n3,2333346,2520771,buy,-1511561733\r\n\n"
    (tmp_path / "log.csv").write_text(good + text, newline="")
    with pytest.raises(LogError) as caught:
        ingest(LogConfig(train="log.csv", format="taobao"), tmp_path / "log", base=tmp_path)
    assert expected in str(caught.value)
    assert not list(tmp_path.glob(".log*"))


def test_taobao_is_one_file(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_behaviour(tmp_path / name, num_users=3)
    with pytest.raises(LogError, match="reads one file, and there are 2"):
        plan_ingest(LogConfig(train="*.csv", format="taobao"), base=tmp_path)


@pytest.mark.parametrize("name", ["criteo_kaggle", "criteo_terabyte", "avazu", "taobao"])
def test_recipes_of_public_logs_run_on_the_real_names(tmp_path: Path, name: str) -> None:
    """The recipe's own `train`, with a few inputs instead of the public file."""
    recipe = load_recipe(ROOT / "recipes" / f"{name}.toml", [])
    folder = tmp_path / Path(str(recipe.log.train)).parent
    folder.mkdir(parents=True)
    if name == "criteo_kaggle":
        (folder / "train.txt").write_text(criteo_lines(40))
    elif name == "criteo_terabyte":
        for day in (9, 10, 23):
            (folder / f"day_{day}.gz").write_bytes(gzip.compress(criteo_lines(40, day).encode()))
    elif name == "avazu":
        text = AVAZU + "".join(avazu_line(i, f"1410{21 + i // 10}07") for i in range(40))
        (folder / "train.gz").write_bytes(gzip.compress(text.encode()))
    else:
        write_behaviour(folder / "UserBehavior.csv", num_users=40)
    log = ingest(recipe.log, tmp_path / "log", base=tmp_path)
    assert all(stop > start for start, stop in splits(log).values())
