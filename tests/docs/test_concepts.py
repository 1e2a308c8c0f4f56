"""The worked example of docs/concepts.md: the real stages on its three lines give every number that the page prints."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import fae
from fae.artifacts.access_profile import AccessProfile

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "concepts.md").read_text()


def table(name: str) -> list[list[str]]:
    """Cells of the table behind ``<!-- table: name -->``, without its head."""
    (text,) = re.findall(rf"<!-- table: {name} -->\n((?:\|.*\n)+)", PAGE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return rows[2:] if not rows[0][1].isdigit() else [rows[0], *rows[2:]]


def numbers(cells: list[str]) -> list[int]:
    """The whole numbers of some cells; empty ones are left out."""
    return [int(word) for cell in cells for word in cell.split()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fae.RunFolder:
    """The page's log and recipe, packed."""
    folder = tmp_path_factory.mktemp("concepts")
    for language, name in (("csv", "log.csv"), ("toml", "three.toml")):
        (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        (folder / name).write_text(text)
    run = fae.RunFolder(fae.load_recipe(folder / "three.toml"), folder / "run", device="cpu")
    for stage in ("ingest", "profile", "calibrate", "pack"):
        run.stage(stage)
    return run


def test_ingest(run: fae.RunFolder) -> None:
    log = run.open_log()
    expected = [numbers(row) for row in table("ids")]
    assert [[i, int(log.labels[i]), *map(int, log.ids[i])] for i in range(log.num_inputs)] == expected
    tables = [[feature.name, str(feature.num_embeddings), str(feature.unknown_id)] for feature in log.features]
    assert tables == table("tables")


def test_profile(run: fae.RunFolder) -> None:
    counts = AccessProfile(run.path("profile")).counts.tolist()
    user, item = (numbers(row[1:]) for row in table("counts")[-2:])
    assert counts == user + item


def test_calibrate(run: fae.RunFolder) -> None:
    hot_set, log = run.open_hot_set(), run.open_log()
    summary = hot_set.summary
    said = {row[0]: int(row[1]) for row in table("hot")}
    num_lookups = log.num_inputs * len(log.features)
    assert said == {
        "hot rows of user": hot_set.layout.num_hot[0],
        "hot rows of item": hot_set.layout.num_hot[1],
        "rows of a staging slot": hot_set.staging_rows[0],
        "bytes of hot rows": summary["bytes"],
        "bytes of the ring": summary["staging_bytes"],
        "budget in bytes": summary["budget_bytes"],
        "lookups": num_lookups,
        "hot lookups": round(summary["coverage"] * num_lookups),
        "hot inputs": round(summary["input_share"] * log.num_inputs),
    }
    ids, ranks = (numbers(row[1:]) for row in table("ranks"))
    assert hot_set.layout.ranks[0] is None
    assert hot_set.layout.ranks[1] is not None
    assert hot_set.layout.ranks[1][ids].tolist() == ranks
    _, user, item = (numbers(row[1:]) for row in table("rows"))
    assert hot_set.layout.row_numbers(0).tolist() == user
    assert hot_set.layout.row_numbers(1).tolist() == item


def test_pack(run: fae.RunFolder) -> None:
    train = run.open_packed().train
    inputs = np.load(run.path("pack") / "train" / "inputs.npy")
    found = []
    for index in range(train.num_batches):
        batch = train.batch(index)
        assert batch.order is not None
        kind = "hot" if index < train.num_hot_batches else "cold"
        cold, order = (" ".join(map(str, array.tolist())) for array in (batch.cold_rows[0], batch.order))
        found.append([str(index), kind, str(inputs[index, 0]), *map(str, batch.addresses[0].tolist()), cold, order])
    assert found == table("batches")


def test_bank_of_the_page(run: fae.RunFolder) -> None:
    hot_set = run.open_hot_set()
    (group,) = hot_set.layout.groups
    assert f"The bank of a GPU has {group.num_hot_rows + hot_set.ring_depth * hot_set.staging_rows[0]} rows" in PAGE
