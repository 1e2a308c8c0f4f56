"""`fae profile --against RUN`: what the hot rows of an earlier run serve of a new log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.hot_set import HotSet

from commands import contents, csv_text, fae, fault, succeed, write_recipe, zipf_inputs

HOT = {"budget": "3KiB"}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one day, the same day again, and a day whose users and items are others."""
    folder = tmp_path_factory.mktemp("drift")
    rows = zipf_inputs(900)
    for row in rows[500:]:
        row[1] = str(row[1]).replace("u", "new") if int(str(row[1])[1:]) % 2 else row[1]
        row[2] = f"i{(int(str(row[2])[1:]) + 90) % 200}"
    (folder / "day1.csv").write_text(csv_text(rows[:500]))
    (folder / "day2.csv").write_text(csv_text(rows[500:]))
    succeed("run", write_recipe(folder, log={"train": "day1.csv"}, hot=HOT), "--out", folder / "day1")
    return folder


def compare(folder: Path, day: str, parent: str | None = None) -> tuple[dict[str, Any], str]:
    recipe = write_recipe(folder, f"{day}.toml", log={"train": f"{day}.csv"}, hot=HOT, train={"from": parent})
    out = folder / f"out-{day}-{parent}"
    done = succeed("profile", recipe, "--out", out, "--against", folder / "day1", "--json")
    return done.result, done.stderr


def test_the_same_day_loses_nothing(days: Path) -> None:
    before = contents(days / "day1")
    found, said = compare(days, "day1")
    assert found["lost_input_share"] == 0.0
    assert found["now"]["coverage"] == found["before"]["coverage"]
    assert found["calibrate_again"] is False
    assert found["held_all_rows"] is False
    assert all(each["coverage"] == each["coverage_before"] and each["new_share"] == 0 for each in found["tables"])
    assert "keep the hot rows" in said
    assert contents(days / "day1") == before


@pytest.mark.parametrize("parent", [None, "day1"], ids=["by value", "by id"])
def test_another_day(days: Path, parent: str | None) -> None:
    """Counted again in plain Python, from the texts of both logs."""
    found, said = compare(days, "day2", parent)
    old, new = ColumnarLog(days / "day1" / "log"), ColumnarLog(days / f"out-day2-{parent}" / "log")
    hot_set = HotSet(days / "day1" / "hot_set")
    hot = []
    for table in range(3):
        rank = hot_set.layout.ranks[table]
        order = np.arange(old.features[table].num_embeddings) if rank is None else np.asarray(rank)
        texts = values(old, table)
        hot.append({texts[i] for i in np.flatnonzero(order < hot_set.layout.num_hot[table])})
    start, stop = new.split("train")
    rows = np.asarray(new.ids[start:stop])
    texts = [values(new, table) for table in range(3)]
    is_hot = np.array([[texts[t][row[t]] in hot[t] for t in range(3)] for row in rows])
    assert found["now"]["coverage"] == pytest.approx(is_hot.mean())
    assert found["now"]["input_share"] == pytest.approx(is_hot.all(axis=1).mean())
    for table, each in enumerate(found["tables"]):
        assert each["coverage"] == pytest.approx(is_hot[:, table].mean())
    assert found["tables"][0]["new_share"] > 0.1
    assert found["lost_input_share"] > 0.1
    assert found["calibrate_again"] is True
    assert found["regained_input_share"] == pytest.approx(
        found["calibrated_again"]["input_share"] - found["now"]["input_share"]
    )
    assert "calibrate again:" in said


def test_a_run_whose_rows_were_all_hot_loses_new_values_only(days: Path, tmp_path: Path) -> None:
    hot = {"budget": "1MiB"}
    first = write_recipe(tmp_path, "first.toml", log={"train": str(days / "day1.csv")}, hot=hot)
    succeed("run", first, "--out", tmp_path / "first")
    recipe = write_recipe(tmp_path, log={"train": str(days / "day2.csv")}, hot=hot)
    done = succeed("profile", recipe, "--out", tmp_path / "run", "--against", tmp_path / "first", "--json")
    assert done.result["held_all_rows"] is True
    assert all(each["coverage"] + each["new_share"] == pytest.approx(1.0) for each in done.result["tables"])
    assert "take up the new values: every row of the run was hot" in done.stderr
    assert "calibrate again:" not in done.stderr


def values(log: ColumnarLog, table: int) -> list[str]:
    """Text of each id; the reserved id is one value."""
    import pyarrow.parquet as pq

    found = pq.read_table(log.path / "vocabulary" / f"{table}.parquet")["value"].to_pylist()
    return ["(reserved)" if i == log.features[table].unknown_id else text for i, text in enumerate(found)]


def test_what_cannot_be_compared(days: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, log={"train": str(days / "day2.csv"), "categorical": ["user", "item"]}, hot=HOT)
    command = ("profile", recipe, "--out", tmp_path / "run", "--against")
    fault(fae(*command, tmp_path / "none"), "--against", "is no folder")
    fault(fae(*command, tmp_path), "there is no log in", "run `fae run RECIPE.toml --out ")
    fault(fae(*command, days / "day1"), "has the tables ['user', 'item']", "compare runs of the same columns")
