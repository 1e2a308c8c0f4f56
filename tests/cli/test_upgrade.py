"""`fae upgrade`: nothing to do for today's formats; logs of format 1, and what was made from them, are converted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import Plan, fingerprint, read_manifest, rename_parents, write_artifact
from fae.artifacts.packed import FORMAT_VERSION as PACKED_VERSION

from commands import HEADER, contents, csv_text, fae, fault, succeed, write_recipe, zipf_inputs

GOLDEN = Path(__file__).parents[1] / "equivalence" / "golden"
LOG = {"categorical": ["user", "item", {"name": "views", "encoded": True}], "dense": ["price"]}


def test_the_oldest_run_of_the_repository_needs_nothing(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    done = succeed("upgrade", tmp_path / "run", "--json")
    assert done.result["changed"] == 0
    assert {each["action"] for each in done.result["artifacts"]} == {"current"}
    assert "nothing to do: 5 artifacts" in done.stderr
    assert contents(tmp_path / "run") == before


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days, the second continues the first."""
    folder = tmp_path_factory.mktemp("chain")
    rows = zipf_inputs(600)
    views = HEADER.index("views")
    for row in rows:
        row[views] = int(str(row[views])) * 2  # every other number is of no input
    for day, part in (("day1", rows[:300]), ("day2", rows[300:])):
        (folder / f"{day}.csv").write_text(csv_text(part))
    for day, parent in (("day1", None), ("day2", "day1")):
        recipe = write_recipe(
            folder, f"{day}.toml", log={**LOG, "train": f"{day}.csv"}, hot={"budget": "64KiB"}, train={"from": parent}
        )
        succeed("run", recipe, "--out", folder / day)
    return folder


def downgrade(chain: Path) -> None:
    """Make day1's log one of format 1: every number of an encoded column has its value; rename it in all manifests."""
    log = ColumnarLog(chain / "day1" / "log")
    old = log.manifest
    plan = Plan(kind="log", format_version=1, parameters=old.parameters, parents={}, command="fae ingest")
    with write_artifact(chain / "new", plan, dict(old.summary)) as folder:
        shutil.copytree(log.path, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        for index, feature in enumerate(log.features):
            if feature.encoded:
                table = pq.read_table(log.path / "vocabulary" / f"{index}.parquet")
                assert table["value"].null_count > 5
                values = [str(number) for number in range(feature.num_embeddings - 1)] + [None]
                pq.write_table(
                    pa.table([pa.array(values), table["count"]], names=["value", "count"]),
                    folder / "vocabulary" / f"{index}.parquet",
                )
    shutil.rmtree(log.path)
    (chain / "new").rename(log.path)
    renamed = {old.fingerprint: fingerprint("log", 1, old.parameters, {})}
    for day in ("day1", "day2"):
        for kind, version in (
            ("log", 2),
            ("profile", 1),
            ("hot_set", 1),
            ("packed", PACKED_VERSION),
            ("checkpoint", 1),
        ):
            if (day, kind) == ("day1", "log"):
                continue
            manifest = read_manifest(chain / day / kind, kind, version, command="")
            parents = {name: renamed.get(value, value) for name, value in manifest.parents.items()}
            renamed[manifest.fingerprint] = fingerprint(kind, version, manifest.parameters, parents)
            rename_parents(chain / day / kind, manifest, parents)


def facts(run: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["fingerprint"] for path in run.glob("*/manifest.json")}


def test_a_chain_of_format_1(chain: Path, tmp_path: Path) -> None:
    """Back to the bytes and names that ingest gives today, so that `fae run` finds everything done."""
    copy = tmp_path / "chain"
    shutil.copytree(chain, copy)
    downgrade(copy)
    assert facts(copy / "day2") != facts(chain / "day2")
    fault(fae("predict", copy / "day1", copy / "day2.csv", "--out", tmp_path / "s.csv"), "log format 1, expected")
    before = contents(copy)
    dry = succeed("upgrade", copy / "day1", copy / "day2", "--dry-run", "--json").result
    assert contents(copy) == before
    assert [each["action"] for each in dry["artifacts"]] == ["converted", *["renamed parents"] * 9]
    done = succeed("upgrade", copy / "day1", copy / "day2", "--json")
    assert {**done.result, "dry_run": True} == dry
    for day in ("day1", "day2"):
        assert facts(copy / day) == facts(chain / day)
    mine, theirs = (pq.read_table(each / "day1" / "log" / "vocabulary" / "2.parquet") for each in (copy, chain))
    assert mine.equals(theirs)
    assert np.array_equal(ColumnarLog(copy / "day1" / "log").ids, ColumnarLog(chain / "day1" / "log").ids)
    for day in ("day1", "day2"):
        said = succeed("run", copy / f"{day}.toml", "--out", copy / day).stderr
        assert said.count("already there") == 5
    assert succeed("upgrade", copy / "day1", copy / "day2", "--json").result["changed"] == 0


def test_an_upgrade_of_the_second_day_alone_later(chain: Path, tmp_path: Path) -> None:
    """What the first day's names became is kept in its folder."""
    copy = tmp_path / "chain"
    shutil.copytree(chain, copy)
    downgrade(copy)
    succeed("upgrade", copy / "day1")
    assert succeed("upgrade", copy / "day2", "--json").result["changed"] == 5
    assert facts(copy / "day2") == facts(chain / "day2")


def test_a_run_whose_log_is_a_link(chain: Path, tmp_path: Path) -> None:
    """Its log was upgraded with the run that has it; also where that is in another folder."""
    copy = tmp_path / "chain"
    shutil.copytree(chain, copy)
    downgrade(copy)
    other = tmp_path / "other" / "again"
    shutil.copytree(copy / "day1", other)
    shutil.rmtree(other / "log")
    (other / "log").symlink_to(copy / "day1" / "log")
    succeed("upgrade", copy / "day1")
    assert succeed("upgrade", other, "--json").result["changed"] == 4
    assert facts(other) == facts(chain / "day1")


def test_figures_of_the_record_stay(chain: Path, tmp_path: Path) -> None:
    """What the old model reached on the new day is known by the names of both, which are other ones now."""
    copy = tmp_path / "chain"
    shutil.copytree(chain, copy)
    downgrade(copy)
    path = copy / "day2" / "parent_test.json"
    known = json.loads(path.read_text())
    parents = {kind: read_manifest(copy / "day2" / "checkpoint", "checkpoint", 1, command="").parents[kind]
               for kind in ("checkpoint", "log")}  # fmt: skip
    path.write_text(json.dumps({**known, "fingerprints": {"parent": parents["checkpoint"], "log": parents["log"]}}))
    succeed("upgrade", copy / "day1", copy / "day2")
    succeed("run", copy / "day2.toml", "--out", copy / "day2")
    records = [json.loads((each / "day2" / "run.json").read_text()) for each in (copy, chain)]
    assert records[0]["parent"]["test_before"] == records[1]["parent"]["test_before"]
    assert records[0]["parent"]["test_before"] is not None
    assert records[0]["test"] == records[1]["test"]


def test_what_is_refused(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    fault(fae("upgrade", tmp_path / "none"), "does not exist")
    fault(fae("upgrade", tmp_path), "is no run folder")
    path = tmp_path / "run" / "log" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 9}))
    fault(fae("upgrade", tmp_path / "run"), "log format 9, which is later than this version of fae knows; update fae")
