"""Seven days, each continuing the last, scored every night: nothing is ingested twice, nothing finished is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

import fae.ingest.ingest as ingest_module

from commands import HEADER, contents, csv_text, strict_json, succeed, write_recipe, zipf_inputs

DAYS = 7
EACH = 200


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of the week, and the names of the logs that were ingested, in order."""
    folder = tmp_path_factory.mktemp("week")
    rows = zipf_inputs(DAYS * EACH)
    read_shards, ingested = ingest_module.read_shards, []

    def counting(config, *arguments, **options):  # type: ignore[no-untyped-def]
        ingested.append(config.train)
        return read_shards(config, *arguments, **options)

    ingest_module.read_shards = counting  # type: ignore[assignment]
    try:
        for day in range(1, DAYS + 1):
            (folder / f"day{day}.csv").write_text(csv_text(rows[(day - 1) * EACH : day * EACH]))
            recipe = write_recipe(
                folder, f"day{day}.toml", log={"train": f"day{day}.csv"}, hot={"budget": "64KiB"},
                train={"from": f"runs/day{day - 1}" if day > 1 else None},
            )  # fmt: skip
            run = folder / "runs" / f"day{day}"
            succeed("run", recipe, "--out", run)
            tomorrow = folder / "tomorrow.csv"
            tomorrow.write_text(
                csv_text([row[1:] for row in rows[day * EACH : day * EACH + 50] or rows[:50]], HEADER[1:])
            )
            succeed("predict", run, tomorrow, "--out", folder / f"scores{day}.parquet")
            succeed("export", run, folder / f"served{day}")
            again = succeed("run", recipe, "--out", run)
            assert again.stderr.count("already there") == 5
            succeed("clean", run)
    finally:
        ingest_module.read_shards = read_shards
    return folder, ingested


def test_every_day_is_ingested_once(week: tuple[Path, list[str]]) -> None:
    assert week[1] == [f"day{day}.csv" for day in range(1, DAYS + 1)]


def test_the_old_model_is_tested_on_the_new_day(week: tuple[Path, list[str]]) -> None:
    """The figures of `fae evaluate` of the same inputs, and those of the old run's own record."""
    folder, _ = week
    for day in (2, 5):
        old, new = folder / "runs" / f"day{day - 1}", folder / "runs" / f"day{day}"
        parent = strict_json((new / "run.json").read_text())["parent"]
        assert parent["test"]["auc"] == strict_json((old / "run.json").read_text())["test"]["auc"]
        lines = (folder / f"day{day}.csv").read_text().splitlines(keepends=True)
        test = folder / "test.csv"
        test.write_text("".join([lines[0], *lines[1 + round(0.8 * EACH) :]]))
        found = succeed("evaluate", old, test, "--json").result
        for figure in ("auc", "log_loss", "num_inputs", "label_rate"):
            assert parent["test_before"][figure] == found[figure]


def test_the_whole_week_again_from_nothing_has_the_same_bytes(week: tuple[Path, list[str]]) -> None:
    folder, _ = week
    for day in (1, 2):
        recipe = folder / f"day{day}.toml"
        text = recipe.read_text().replace('"runs/', '"again/')
        (folder / f"again{day}.toml").write_text(text)
        succeed("run", folder / f"again{day}.toml", "--out", folder / "again" / f"day{day}")
    ours, theirs = (folder / name / "day2" for name in ("runs", "again"))
    kept = {name: data for name, data in contents(ours).items() if name.endswith((".safetensors", ".npy"))}
    assert kept
    again = contents(theirs)
    assert all(again[name] == data for name, data in kept.items())


def test_a_log_that_continues_a_lost_one_is_not_cleaned(week: tuple[Path, list[str]]) -> None:
    """Its raw file alone does not give the same ids again."""
    runs = week[0] / "runs"
    clean = ("clean", runs / "day2", "--all", "--dry-run", "--json")
    assert "log/" in [each["name"] for each in succeed(*clean).result["removed"]]
    (runs / "day1").rename(week[0] / "away")
    try:
        (kept,) = succeed(*clean).result["kept"]
    finally:
        (week[0] / "away").rename(runs / "day1")
    assert kept["name"] == "log/"
    assert f"it continues the ids of {runs / 'day1' / 'log'}, which is not there any more" in kept["why"]
