"""Cases whose files are links, pipes or many, and cases that only show on a larger or a busier machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from case_folders import Case, column_values, copy_case, list_values
from fae.artifacts import checksums

from commands import contents, fault, succeed


def make_links(case: Case, pattern: str) -> None:
    """Files that hold where a link leads become that link: an archive or a checkout need not keep links."""
    for file in sorted(case.folder.glob(pattern)):
        target = file.read_text().strip()
        file.unlink()
        file.symlink_to(target)


def test_files_that_are_links_are_in_the_order_of_their_own_names(tmp_path: Path) -> None:
    case = copy_case("linked-files-order", tmp_path)
    make_links(case, "clicks/*")
    log = case.ingest()
    assert log.dense[:, 0].tolist() == [i / 2 for i in range(40)]
    assert log.split("test") == (30, 40)


def test_a_link_has_the_suffix_of_its_own_name(tmp_path: Path) -> None:
    case = copy_case("linked-file-gz", tmp_path)
    make_links(case, "train.csv.gz")
    log = case.ingest()
    assert log.labels.tolist() == [i % 2 for i in range(40)]
    assert log.dense[:, 0].tolist() == [i / 2 for i in range(40)]


def test_a_hard_link_is_the_same_file_twice(tmp_path: Path) -> None:
    case = copy_case("same-file-twice", tmp_path)
    (case.folder / "a (1).csv").unlink()
    (case.folder / "a.csv").rename(case.folder / "b.csv")
    os.link(case.folder / "b.csv", case.folder / "c.csv")
    done = case.fae("ingest")
    assert done.status == 0
    assert "two files have the same bytes: " in done.stderr
    assert "c.csv and b.csv" in done.stderr


def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    case = copy_case("pipe-as-log", tmp_path)
    os.mkfifo(case.folder / "a.csv")
    fault(case.fae("ingest"), "a.csv is a pipe, and a log must be a plain file")


def test_many_files_of_five_lines(tmp_path: Path) -> None:
    """Their time is measured in test_disk.py."""
    case = copy_case("many-small-files", tmp_path)
    (case.folder / "p").mkdir()
    users, labels = [], []
    for k in range(120):
        labels += [(k + j) % 2 for j in range(5)]
        users += [f"u{(k * 5 + j) % 50}" for j in range(5)]
        part = zip(labels[-5:], users[-5:], strict=True)
        (case.folder / "p" / f"part-{k}.csv").write_text("y,user\n" + "".join(f"{y},{user}\n" for y, user in part))
    log = case.ingest()
    assert log.labels.tolist() == labels
    assert column_values(log, "user") == users


def test_from_that_names_a_folder_of_the_run(tmp_path: Path) -> None:
    case = copy_case("from-names-the-log", tmp_path)
    run, recipe = case.folder / "day1", case.folder / "recipe.toml"
    succeed("run", recipe, "--out", run, "--device", "cpu")
    before = contents(run)
    line = fault(
        case.fae("run", "--device", "cpu", "--set", f"train.from={run / 'log'}"),
        f"{run / 'log'} is not a trained run but one of its folders; name the run, {run} or its checkpoint",
    )
    assert "delete" not in line
    assert contents(run) == before


def test_rounding_noise_is_the_same_on_any_number_of_threads(tmp_path: Path) -> None:
    """Gradients that are 0 in exact arithmetic are rounding noise, and Adagrad makes a whole step of it."""
    case = copy_case("bytes-by-torch-threads", tmp_path)
    recipe = case.folder / "amplified.toml"
    fault(case.fae("run", "--device", "cpu", recipe="amplified.toml"), "early_stopping = 1 needs a validation loss")
    before, found = torch.get_num_threads(), []
    for number in (1, 2, 5):
        out = case.folder / f"threads{number}"
        torch.set_num_threads(number)
        try:
            succeed("run", recipe, "--out", out, "--device", "cpu", "--set", "train.early_stopping=0")
        finally:
            torch.set_num_threads(before)
        found.append({name: data for name, data in contents(out / "checkpoint").items() if "safetensors" in str(name)})
        assert json.loads((out / "run.json").read_text())["train"]["threads"] == 1
    assert len(found[0]) == 4
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize(
    ("verb", "name"),
    [("profile", "log/ids.npy"), ("pack", "log/dense.npy"), ("train", "packed/train/dense.npy"),
     ("train", "packed/test/addresses.npy")],
)  # fmt: skip
def test_a_large_file_that_rots_is_named_by_who_reads_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, name: str
) -> None:
    """One byte of a value changes and no time does; files above 64 bytes count as large."""
    case = copy_case("csv-open-quote", tmp_path)
    settings = ("--set", 'log.quote=""', "--device", "cpu")
    stages = ["ingest", "profile", "calibrate", "pack", "train"]
    for stage in stages[: stages.index(verb)]:
        assert case.fae(stage, *settings).status == 0
    path = case.folder / "out" / name
    times = path.stat()
    array = np.load(path, mmap_mode="r+")
    array.reshape(-1).view(np.uint8)[-4] ^= 1
    array.flush()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr(checksums, "_SMALL_FILE_BYTES", 64)
    fault(case.fae(verb, *settings), str(path), "damaged")


def test_words_for_missing_values_are_no_items_of_lists(tmp_path: Path) -> None:
    case = copy_case("null-words", tmp_path)
    lines = "".join(f"{i % 2},u,{('NULL', 'a|NULL|b', 'b|a', '')[i % 4]},1\n" for i in range(40))
    (case.folder / "a.csv").write_text("y,user,item,price\n" + lines)
    recipe = (case.folder / "recipe.toml").read_text()
    listed = recipe.replace('"item"]', '{ name = "item", max_length = 3 }]')
    assert listed != recipe
    (case.folder / "recipe.toml").write_text(listed)
    log = case.ingest('log.missing=["NULL"]')
    assert list_values(log, "item") == [[], ["a", "b"], ["b", "a"], []] * 10
