"""`fae inspect` and `fae init`: what raw files hold, and a first recipe that runs as it is."""

from __future__ import annotations

import gzip
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.commands import Done, fae, fault, succeed

from fae.run.recipe import load_recipe

SEED = 5


def rows(count: int = 1500) -> list[dict[str, Any]]:
    """A log with a column of every kind."""
    random = np.random.default_rng(SEED)
    users = random.zipf(1.3, count) % 200
    found = []
    for row in range(count):
        second = 1574553600 + 61 * row
        found.append(
            {
                "row": row,
                "request_id": f"r{random.integers(10**12):012d}",
                "at": str(np.datetime64(second, "s")).replace("T", " "),
                "user": f"u{users[row]}",
                "item": int(random.zipf(1.5) % 500),
                "tags": "|".join(f"t{tag}" for tag in random.zipf(1.5, random.integers(0, 5)) % 30),
                "views": int(random.poisson(3) ** 3) if row % 9 else None,
                "price": round(float(random.normal(20, 5)), 2),
                "site": "main",
                "comment": " ".join("".join(random.choice([*"aeionrst"], 5)) for _ in range(8)),
                "clicked": int(random.random() < 0.1 + 0.5 * (users[row] < 5)),
            }
        )
    return found


def write(folder: Path, name: str, lines: list[dict[str, Any]]) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        table = pa.Table.from_pylist(
            [
                {**row, "tags": [tag for tag in row["tags"].split("|") if tag], "at": np.datetime64(row["at"])}
                for row in lines
            ]
        )
        pq.write_table(table, path)
        return path
    if "jsonl" in name:
        text = "".join(json.dumps({**row, "tags": row["tags"].split("|")}) + "\n" for row in lines)
    else:
        separator = "\t" if "tsv" in name else ";" if "semicolon" in name else ","
        head = "" if "headless" in name else separator.join(lines[0]) + "\n"
        body = [separator.join("" if value is None else str(value) for value in row.values()) for row in lines]
        text = head + "\n".join(body) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


KINDS = {
    "row": "row number", "request_id": "key", "at": "timestamp", "user": "categorical", "item": "categorical",
    "tags": "list", "views": "count", "price": "number", "site": "constant", "comment": "free text", "clicked": "label",
}  # fmt: skip
NAMES = ["log.csv", "log.tsv", "log.semicolon.csv", "log.csv.gz", "log.parquet", "log.jsonl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("inspect")
    for name in [*NAMES, "headless.csv"]:
        write(found, name, rows())
    return found


def look(*arguments: object) -> Any:
    return succeed("inspect", *arguments, "--json").result


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_in_every_format(name: str, folder: Path) -> None:
    found = look(folder / name)
    assert {column["name"]: column["kind"] for column in found["columns"]} == KINDS
    assert found["inputs"] == found["inputs_read"] == 1500
    assert found["whole"]
    assert found["label"]["name"] == "clicked"


def test_numbers_are_those_of_the_log(folder: Path) -> None:
    found = look(folder / "log.csv")
    columns = {column["name"]: column for column in found["columns"]}
    lines = rows()
    for name in ("user", "item", "request_id"):
        values = [str(row[name]) for row in lines]
        counts = {value: values.count(value) for value in set(values)}
        assert columns[name]["distinct"] == len(counts)
        assert columns[name]["seen_once"] == sum(count == 1 for count in counts.values())
        seen = set(values[:1350])
        assert columns[name]["new_share"] == pytest.approx(sum(value not in seen for value in values[1350:]) / 150)
    assert columns["views"]["missing"] == sum(row["views"] is None for row in lines)
    prices = [row["price"] for row in lines]
    assert columns["price"]["numbers"]["min"] == min(prices)
    assert columns["price"]["numbers"]["max"] == max(prices)
    assert columns["price"]["numbers"]["quantiles"]["0.5"] == pytest.approx(np.median(prices), abs=0.02)
    assert found["label"]["rate"] == pytest.approx(np.mean([row["clicked"] for row in lines]))
    tags = [tag for row in lines for tag in row["tags"].split("|") if tag]
    assert columns["tags"]["distinct"] == len(set(tags))
    assert columns["tags"]["list"]["separator"] == "|"
    assert columns["tags"]["list"]["longest"] == 4
    warnings = "\n".join(found["warnings"])
    assert "'request_id' is a key: 1,500 of 1,500 values occur once" in warnings
    assert "'at' is a timestamp" in warnings
    assert "'site' has one value, 'main'" in warnings


def test_a_table_within_100_columns(folder: Path) -> None:
    done = succeed("inspect", folder / "log.csv")
    lines = done.stdout.splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("!"))]
    assert max(map(len, table)) <= 100
    assert any(line.startswith("user ") and "categorical" in line for line in table)
    assert any(line.startswith("! 'request_id' is a key") for line in lines)


def test_a_large_file_is_sampled_at_three_places(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write("label,part,number\n")
        for row in range(60_000):
            file.write(f"{row % 2},{'abc'[row // 20_000]},{row}\n")
    found = look(path, "--lines", 3000)
    assert found["pieces"] == ["begin, middle and end"]
    assert not found["whole"]
    assert 2900 <= found["inputs_read"] <= 3000
    assert found["inputs"] == pytest.approx(60_000, rel=0.1)
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["part"]["distinct"] == 3  # from the begin, the middle and the end
    assert look(path, "--lines", "all")["inputs_read"] == 60_000


def test_a_packed_file_is_read_at_its_begin(folder: Path) -> None:
    found = look(folder / "log.csv.gz", "--lines", 500)
    assert found["inputs_read"] == 500
    assert found["pieces"] == ["begin"]
    assert any("--lines all" in line for line in found["warnings"])


def test_without_a_header_line(folder: Path) -> None:
    found = look(folder / "headless.csv")
    assert not found["format"]["has_header"]
    assert [column["name"] for column in found["columns"]] == [f"c{number}" for number in range(1, 12)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\n\n", "no lines"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        ("label,a\n1,é\n".encode("latin-1"), "UTF-8"),
        ("label,a\n1,b\n".encode("utf-16"), "UTF-16"),
        (b"label,a\n", "no inputs"),
    ],
)
def test_bad_files_are_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    for verb in ("inspect", "init"):
        fault(fae(verb, tmp_path / "log.csv"), expected)


def test_bad_arguments_are_one_line(folder: Path, tmp_path: Path) -> None:
    fault(fae("inspect", tmp_path / "nothing.csv"), "nothing.csv", "does not exist")
    fault(fae("inspect", tmp_path), "folder")
    fault(fae("inspect", folder / "log.csv", "--lines", "many"), "--lines 'many'")
    fault(fae("inspect", folder / "log.csv", "--lines", "0"), "--lines 0")
    fault(fae("inspect", folder / "log.csv", "--label", "clickd"), "did you mean 'clicked'")
    fault(fae("inspect", folder / "log.csv", "--label", "user"), "--label 'user'", "values")
    fault(fae("inspect", folder / "log.csv", folder / "log.tsv"), "one by one")


def started(folder: Path, name: str, out: Path) -> Done:
    return succeed("init", folder / name, "--out", out)


@pytest.mark.parametrize("name", [*NAMES, "headless.csv"])
def test_a_first_recipe_of_every_format_can_be_ingested(name: str, folder: Path, tmp_path: Path) -> None:
    arguments = ["--label", "c11"] if "headless" in name else []
    succeed("init", folder / name, "--out", tmp_path / "my.toml", *arguments)
    done = succeed("ingest", tmp_path / "my.toml", "--out", tmp_path / "run", "--json")
    assert done.status == 0
    if "headless" not in name:
        recipe = load_recipe(tmp_path / "my.toml")
        columns = [column.name for column in recipe.log.categorical_columns()]
        assert columns == ["user", "item", "tags", "hour", "weekday"][: len(columns)]
        assert recipe.log.time == "at"
        assert not {"row", "request_id", "site", "comment"} & {*columns, *recipe.log.dense_columns()}


def test_a_first_recipe_runs(folder: Path, tmp_path: Path) -> None:
    started(folder, "log.csv", tmp_path / "my.toml")
    done = succeed("run", tmp_path / "my.toml", "--out", tmp_path / "run", "--device", "cpu", "--json")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert done.status == 0
    assert record["test"]["auc"] > 0.6


def test_a_recipe_on_stdout_and_never_over_another(folder: Path, tmp_path: Path) -> None:
    done = succeed("init", folder / "log.csv")
    assert tomllib.loads(done.stdout)["log"]["label"] == "clicked"
    assert "# Left out:" in done.stdout
    path = tmp_path / "mine.toml"
    path.write_text("# mine\n")
    fault(fae("init", folder / "log.csv", "--out", path), "--force")
    assert path.read_text() == "# mine\n"
    succeed("init", folder / "log.csv", "--out", path, "--force")
    assert path.read_text() == done.stdout.replace(f'train = "{folder}', f'train = "{folder}')
    path.unlink()
    os.mkfifo(path)  # as a device would be, /dev/null even
    fault(fae("init", folder / "log.csv", "--out", path, "--force"), "is no plain file; choose another --out")
    assert path.is_fifo()


def test_no_label_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n" + "".join(f"u{row % 9},i{row % 7}\n" for row in range(100)))
    assert any("--label" in line for line in look(tmp_path / "log.csv")["warnings"])
    fault(fae("init", tmp_path / "log.csv"), "no column looks like a label", "--label")
