"""Logs that earlier code named by other digests of their files: they keep their names, and none is made again."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from fae.artifacts import manifest as manifests
from fae.artifacts.manifest import is_current
from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.log_plan import plan_ingest
from fae.ingest.raw_files import former_logs, source_digests
from fae.ingest.raw_files.digest_kinds import BLOCKS, FORMER_BLOCKS, WHOLE, digest_by_kind, is_same_content
from fae.ingest.raw_files.former_logs import log_parameters
from fae.ingest.raw_files.source_digests import (
    are_digests_known,
    describe_sources,
    digest_sources,
    has_content,
    sidecar,
)
from fae.ingest.sources import find_sources
from fae.run.shared_logs import learn_digests

from commands import succeed, write_log, write_recipe

TEXT = "label,item\n1,a\n0,b\n1,a\n0,b\n"


def forget() -> None:
    """As in another process."""
    source_digests._known_digests.clear()
    former_logs._former.clear()


FORMER = {"kind": WHOLE}
"""The kind of digests by which the logs of earlier code in these tests name their files."""


@pytest.fixture(autouse=True, params=[WHOLE, FORMER_BLOCKS])
def _forget(request: pytest.FixtureRequest) -> Any:
    FORMER["kind"] = request.param
    forget()
    yield
    forget()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kind and name of every file that is read for its digest."""
    found: list[str] = []
    blocks, whole = source_digests.digest_files, source_digests.digest_by_kind

    def digest_files(opens: Any, sizes: Any, *, kind: str, **options: Any) -> Any:
        name = BLOCKS if kind == "sha256" else FORMER_BLOCKS
        found.extend(f"{name} {each.args[0].name}" for each in opens)
        return blocks(opens, sizes, kind=kind, **options)

    def digest_by_kind(path: Path, kind: str) -> str:
        found.append(f"{kind} {path.name}")
        return whole(path, kind)

    monkeypatch.setattr(source_digests, "digest_files", digest_files)
    monkeypatch.setattr(source_digests, "digest_by_kind", digest_by_kind)
    return found


def write(path: Path, text: str = TEXT, age_seconds: float = 60) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    moment = time.time() - age_seconds
    os.utime(path, (moment, moment))


def config(**changes: Any) -> LogConfig:
    return LogConfig(**({"train": "a.csv", "categorical": ("item",)} | changes))


def rename_as_former(log: Path, raw: Path) -> str:
    """Make a log, and what was made from it beside it, what earlier code wrote; returns the log's fingerprint."""
    file = log / "manifest.json"
    found, kind = json.loads(file.read_text()), FORMER["kind"]
    for facts in found["parameters"]["sources"]:
        del facts[BLOCKS]
        facts[kind] = digest_by_kind(raw / facts["name"], kind)
    former = found["fingerprint"]
    _write_manifest(file, found)
    renamed = {former: found["fingerprint"]}
    for other in (log.parent / name / "manifest.json" for name in ("profile", "hot_set", "packed", "checkpoint")):
        if other.exists():
            child = json.loads(other.read_text())
            before = child["fingerprint"]
            child["parents"] = {kind: renamed.get(name, name) for kind, name in child["parents"].items()}
            _write_manifest(other, child)
            renamed[before] = child["fingerprint"]
    known = {str(raw / facts["name"]): facts for facts in found["parameters"]["sources"]}
    cached = {
        path: {"bytes": facts["bytes"], "mtime_ns": Path(path).stat().st_mtime_ns, kind: facts[kind]}
        for path, facts in known.items()
    }
    sidecar(log).write_text(json.dumps(cached))
    return str(found["fingerprint"])


def _write_manifest(file: Path, found: dict[str, Any]) -> None:
    found["fingerprint"] = manifests.fingerprint(
        found["kind"], found["format_version"], found["parameters"], found["parents"]
    )
    found["digest"] = manifests._digest({key: value for key, value in found.items() if key != "digest"})
    file.write_text(json.dumps(found))


def older(folder: Path, **changes: Any) -> str:
    """A log of earlier code in `folder`/run/log."""
    write(folder / "a.csv")
    ingest(config(**changes), folder / "run" / "log", base=folder)
    name = rename_as_former(folder / "run" / "log", folder)
    forget()
    return name


def test_a_new_log_is_named_by_blocks(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    (facts,) = plan_ingest(config(), base=tmp_path).parameters["sources"]
    assert set(facts) == {"name", "bytes", BLOCKS}


def test_an_older_log_is_current_and_its_files_are_not_read(tmp_path: Path, reads: list[str]) -> None:
    name = older(tmp_path)
    reads.clear()
    path = tmp_path / "run" / "log"
    plan = plan_ingest(config(), base=tmp_path, previous=path)
    assert plan.fingerprint == name
    assert is_current(path, plan)
    assert reads == []


def test_without_its_sidecar_the_older_kind_is_computed_once(tmp_path: Path, reads: list[str]) -> None:
    name = older(tmp_path)
    reads.clear()
    path = tmp_path / "run" / "log"
    sidecar(path).unlink()
    for _ in range(2):
        assert plan_ingest(config(), base=tmp_path, previous=path).fingerprint == name
        forget()
    assert reads == [f"{FORMER['kind']} a.csv"]


def test_a_sidecar_keeps_both_kinds(tmp_path: Path, reads: list[str]) -> None:
    older(tmp_path)
    path = tmp_path / "run" / "log"
    reads.clear()
    plan_ingest(config(min_frequency=2), base=tmp_path, previous=path)
    assert reads == [f"{BLOCKS} a.csv"]
    (facts,) = json.loads(sidecar(path).read_text()).values()
    assert set(facts) == {"bytes", "mtime_ns", BLOCKS, FORMER["kind"]}
    forget()
    assert is_current(path, plan_ingest(config(), base=tmp_path, previous=path))
    plan_ingest(config(min_frequency=2), base=tmp_path, previous=path)
    assert reads == [f"{BLOCKS} a.csv"]


def test_other_settings_or_other_content_make_a_log_of_the_newer_kind(tmp_path: Path) -> None:
    name = older(tmp_path)
    path = tmp_path / "run" / "log"
    plan = plan_ingest(config(min_frequency=2), base=tmp_path, previous=path)
    assert BLOCKS in plan.parameters["sources"][0]
    write(tmp_path / "a.csv", TEXT.replace("0,b", "1,b", 1), age_seconds=30)
    plan = plan_ingest(config(), base=tmp_path, previous=path)
    assert plan.fingerprint != name
    assert BLOCKS in plan.parameters["sources"][0]
    assert plan.fingerprint == ingest(config(), path, base=tmp_path).manifest.fingerprint


def test_a_log_that_continues_another_is_its_former_one(tmp_path: Path) -> None:
    """The parent keeps its name, and so does the child; a child of another parent is another log."""
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv", TEXT + "1,c\n")
    first = ingest(config(), tmp_path / "first" / "log", base=tmp_path)
    child = config(train="b.csv")
    ingest(child, tmp_path / "run" / "log", base=tmp_path, parent=first)
    name = rename_as_former(tmp_path / "run" / "log", tmp_path)
    forget()
    path = tmp_path / "run" / "log"
    assert plan_ingest(child, base=tmp_path, previous=path, parent=first).fingerprint == name
    assert plan_ingest(child, base=tmp_path, previous=path).fingerprint != name


def test_two_runs_side_by_side(tmp_path: Path, reads: list[str]) -> None:
    """The log of the other run is found by its name, from the digests in its sidecar."""
    name = older(tmp_path / "runs" / "one")
    base = tmp_path / "runs" / "one"
    reads.clear()
    (base / "run").rename(tmp_path / "runs" / "first")
    learn_digests(tmp_path / "runs" / "second")
    sources = find_sources(config(), base)
    assert are_digests_known(config(), sources)
    assert not are_digests_known(config(min_frequency=2), sources)
    assert plan_ingest(config(), base=base, previous=tmp_path / "runs" / "second" / "log").fingerprint == name
    assert reads == []


def test_a_damaged_manifest_is_no_log(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    path = tmp_path / "log"
    expected = plan_ingest(config(), base=tmp_path).fingerprint
    path.mkdir()
    for content in (
        "",
        "[]",
        "{}",
        '{"kind": "log", "parameters": {"sources": 3}}',
        '{"parameters": {"sources": [3]}}',
    ):
        (path / "manifest.json").write_text(content)
        forget()
        assert plan_ingest(config(), base=tmp_path, previous=path).fingerprint == expected


def test_raw_files_that_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = older(tmp_path)
    (tmp_path / "a.csv").unlink()
    assert plan_ingest(config(), base=tmp_path, previous=tmp_path / "run" / "log").fingerprint == name
    assert "the raw files are not looked at" in capsys.readouterr().err
    with pytest.raises(LogError, match="does not exist"):
        plan_ingest(config(min_frequency=2), base=tmp_path, previous=tmp_path / "run" / "log")


def test_what_names_a_log_is_what_ingest_says(tmp_path: Path) -> None:
    """`log_parameters` and the plan of ingest agree, or no former log would be recognised."""
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv", TEXT + "1,c\n")
    for changes in ({}, {"test": "b.csv"}, {"validation": "b.csv"}, {"min_frequency": 3}, {"dense": ("item",)}):
        this = config(**changes)
        sources = find_sources(this, tmp_path)
        files = describe_sources(this, sources, digest_sources(sources, None))
        assert log_parameters(this, files) == plan_ingest(this, base=tmp_path).parameters


@pytest.mark.parametrize("kind", [BLOCKS, FORMER_BLOCKS, WHOLE])
def test_a_file_is_compared_with_a_manifest_by_its_kind(tmp_path: Path, kind: str, reads: list[str]) -> None:
    path = tmp_path / "a.csv"
    write(path)
    facts = {"name": "a.csv", "bytes": len(TEXT), kind: digest_by_kind(path, kind)}
    reads.clear()
    cached = {"mtime_ns": path.stat().st_mtime_ns, kind: facts[kind]}
    assert has_content(path, facts, cached)
    assert reads == []
    other = WHOLE if kind == BLOCKS else BLOCKS
    assert has_content(path, facts, {**cached, kind: None, other: "0" * 32}), "the cache has the other kind alone"
    assert reads == [f"{kind} a.csv"]
    write(path, TEXT.replace("0,b", "1,b", 1), age_seconds=30)
    assert not has_content(path, facts, cached)
    assert not has_content(tmp_path / "gone.csv", facts, cached)


def test_content_is_compared_by_a_kind_that_both_have() -> None:
    one, two = "0" * 32, "1" * 32
    assert is_same_content({BLOCKS: one, WHOLE: two}, {BLOCKS: one}) is True
    assert is_same_content({BLOCKS: one}, {BLOCKS: two}) is False
    assert is_same_content({BLOCKS: one}, {WHOLE: one}) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of earlier code, ``runs/old``, and its recipe."""
    folder = tmp_path_factory.mktemp("former")
    write_log(folder)
    moment = time.time() - 60
    os.utime(folder / "log.csv", (moment, moment))
    write_recipe(folder)
    succeed("run", folder / "recipe.toml", "--out", folder / "runs" / "old", "--device", "cpu")
    rename_as_former(folder / "runs" / "old" / "log", folder)
    return folder


@pytest.fixture
def former(trained: Path, tmp_path: Path) -> Path:
    for name in ("log.csv", "recipe.toml"):
        shutil.copy2(trained / name, tmp_path)
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return tmp_path


def run(folder: Path, name: str, *more: str) -> str:
    forget()
    return succeed("run", folder / "recipe.toml", "--out", folder / "runs" / name, "--device", "cpu", *more).stderr


def test_a_finished_run_has_nothing_to_do(former: Path) -> None:
    said = run(former, "old")
    assert "ingest: already there" in said
    assert "train: already there" in said


def test_another_run_beside_it_links_to_its_log(former: Path) -> None:
    assert f"ingest: found {former / 'runs' / 'old' / 'log'}" in run(former, "new", "--set", "train.seed=8")


def test_a_log_that_was_cleaned_away_gets_its_name_back(former: Path) -> None:
    """Profile and training of the run name their log: it is made again under that name, and they stay."""
    old = former / "runs" / "old"
    name = json.loads((old / "log" / "manifest.json").read_text())["fingerprint"]
    shutil.rmtree(old / "log")
    sidecar(old / "log").unlink()
    assert "train: already there" in run(former, "old")
    assert json.loads((old / "log" / "manifest.json").read_text())["fingerprint"] == name
    assert "ingest: already there" in run(former, "old")


def test_clean_knows_its_raw_file(former: Path) -> None:
    forget()
    old = former / "runs" / "old"
    assert "`fae ingest` makes it again from its raw files" in succeed("clean", old, "--all", "--dry-run").stderr


def test_moved_raw_files_are_not_gone(former: Path) -> None:
    """An older log whose raw file was moved is replaced for other settings, as nothing is lost by it."""
    old = former / "runs" / "old"
    shutil.rmtree(old / "checkpoint")
    (former / "moved").mkdir()
    (former / "log.csv").rename(former / "moved" / "log.csv")
    forget()
    more = ("--set", 'log.train="moved/log.csv"', "--set", "log.min_frequency=2")
    succeed("ingest", former / "recipe.toml", "--out", old, *more)
