"""Reports: a page says what the records say, whatever they lack or hold, and loads nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError

from fae.core.errors import ArtifactError
from fae.profile.skew import skew_curve
from fae.report.page import build_page, report
from fae.report.pictures import amounts, charts, losses
from fae.report.pictures.svg import Axis, Plot, percent, series_class
from fae.report.records import RunRecord, load_runs
from fae.report.settings import differing_names
from fae.report.templates import render_template
from run_records import Page, make_record, make_run, without, write_run


def test_one_run_whole(tmp_path: Path) -> None:
    result = report([write_run(tmp_path / "mine", make_record())])
    path = tmp_path / "mine" / "report.html"
    verdict = result.pop("verdict")
    assert result == {"path": str(path), "bytes": path.stat().st_size, "runs": ["mine"], "differences": []}
    assert verdict in " ".join("".join(Page(path.read_text()).words).split())
    page = Page(path.read_text())
    for words in (
        "0.7235 test AUC", "not defined", "103 hot rows of 603", "71.0 % coverage", "34.5 % hot-input share",
        "2.5 KiB of a budget of 4.0 KiB", "auto took peeling", "threshold would serve 20.00 % hot inputs",
        "no hot set of this size serves more than 50.00 %", "A processor, 2 cores, 8 GiB of memory, no GPU",
        "hot rows and staging on the device", "train: steps 3.00 s", "train: the rest 2.00 s", "3 phases",
        "swaps.moved_bytes 2.0 KiB", "swaps.copy_seconds 0.50 s", "swaps.count 2",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.text.count("not recorded") == 0
    assert page.count("svg") - page.count("svg", "key") == 5, "skew, budgets, a loss, rate and loss of the scheduler"
    assert "0.4700 after 432 inputs" in page.text, "a single validation is a number and no picture"


def test_the_page_is_complete_in_itself() -> None:
    page = Page(build_page([make_run("a"), make_run("b")]))
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "img", "object", "embed", "base", "form"}
    links = [value for _, at in page.tags for name, value in at.items() if name in ("src", "href", "srcset", "data")]
    assert links == ["data:,"]
    assert not [name for _, at in page.tags for name in at if name.startswith("on")]
    text = build_page([make_run()])
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", make_record()), write_run(tmp_path / "b", make_record())]
    report(folders, tmp_path / "1.html")
    report(folders, tmp_path / "2.html")
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_runs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_record()
    other["recipe"]["train"] |= {"order": "interleaved", "momentum": 0.9}
    other["test"] = {**other["test"], "auc": 0.75}
    other["train"]["schedule"] = []
    monkeypatch.chdir(tmp_path)
    folders = [write_run(tmp_path / "a" / "run", make_record()), write_run(tmp_path / "b" / "run", other)]
    result = report(folders)
    assert (result["path"], result["runs"]) == ("report.html", ["a/run", "b/run"])
    assert sorted(result["differences"]) == ["train.momentum", "train.order"]
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.count("tr", "differs") == 2
    assert 'class="best"' not in text, "120 test inputs do not tell 0.75 from 0.72, nor equal log losses"
    assert text.count("<h3>The <button") == 1, "the shuffle scheduler, only of the run that has one"


def test_every_part_of_an_old_record_may_be_missing() -> None:
    """Down to single keys: the page is still a page, and says what is not there."""
    whole = make_record()
    paths = [(key,) for key in whole] + [
        (key, inner) for key in whole if isinstance(whole[key], dict) for inner in whole[key]
    ]
    for path in paths:
        Page(build_page([RunRecord(label="a", record=without(whole, *path)), make_run("b")]))
    page = Page(build_page([RunRecord(label="a", record={"train": {}})]))
    assert page.text.count("not recorded") > 30
    assert page.count("svg") == 0


@pytest.mark.parametrize(
    "value", [None, "text", -1.5, [1, "x", None], {"name": 3}, 10**400], ids=lambda one: repr(one)[:9]
)
def test_values_of_any_kind_raise_nothing(value: Any) -> None:
    """Records are read by people's scripts, and written by them too; tests/cases draws more odd values."""

    def replaced(inner: Any) -> Any:
        """Every way to put the value in the place of one thing of the record."""
        if isinstance(inner, dict):
            for key in inner:
                for other in replaced(inner[key]):
                    yield {**inner, key: other}
        elif isinstance(inner, list) and inner:
            for other in replaced(inner[0]):
                yield [other, *inner[1:]]
        yield value

    for record in replaced({key: item for key, item in make_record().items() if key not in ("fingerprints", "commit")}):
        if isinstance(record, dict):
            Page(build_page([RunRecord(label="a", record=record)]))


def test_a_line_for_each_rank() -> None:
    each = [
        {"rank": 0, "host": "one", "num_inputs": 4096, "received_bytes": 2**20, "received_bytes_per_input": 256.0,
         "waited_seconds": 1.5},
        {"rank": 1, "host": "two", "num_inputs": 4000, "received_bytes": 2**20, "received_bytes_per_input": 262.1,
         "network_bytes": 2**19, "waited_seconds": None},
    ]  # fmt: skip
    text = Page(build_page([make_run(train={"ranks": 2, "each_rank": each})])).text
    assert (
        "rank 0 on one, 4,096 inputs, received 1.0 MiB, 256 bytes an input, 1.50 s in exchanges with other ranks"
        in text
    )
    assert "rank 1 on two, 4,000 inputs, received 1.0 MiB, 262 bytes an input, 512.0 KiB of it from other hosts" in text
    assert text.count("in exchanges with") == 1
    for odd in (None, 3, ["x"], [{}], [{"rank": "first", "num_inputs": [], "waited_seconds": float("nan")}]):
        build_page([make_run(train={"each_rank": odd})])
    assert "rank 0 on one" not in Page(build_page([make_run(train={"each_rank": []})])).text


def test_text_of_a_record_stays_text() -> None:
    """In words, in attributes, in pictures, and with quotes of both kinds."""
    evil = "</td></title></style><script>alert('\"&')</script>"
    record = json.loads(json.dumps(make_record()).replace('"user"', json.dumps(evil)).replace("tiered", "<b>x</b>"))
    record["hot"]["notes"] = [evil]
    page = Page(build_page([RunRecord(label=evil, record=record), make_run()]))
    assert not page.count("script")
    assert "placement <b>x</b>," in page.text
    assert evil in " ".join(page.words)


def test_terminal_escapes_and_halves_of_characters_do_not_reach_the_page(tmp_path: Path) -> None:
    record = json.dumps(make_record()).replace('"user"', r'"\u001b[31mred\u0007\u0000\ud800"')
    report([write_run(tmp_path / "run", record)])
    text = (tmp_path / "run" / "report.html").read_text()
    assert "\ufffd[31mred\ufffd\ufffd\ufffd" in text
    assert not {char for char in text if ord(char) < 32} - {"\n"}


def test_a_name_that_a_template_does_not_know_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_template("page.html.j2", verdict="x", title="no more than that")


def test_a_plain_trainer_beside_a_run() -> None:
    """Its record has no hot set; the page says so once, and not on every card of its part."""
    plain = {key: make_record()[key] for key in ("recipe", "log", "test", "validation", "train")}
    del plain["train"]["schedule"]
    page = Page(build_page([make_run("fae"), RunRecord(label="plain", record=plain)]))
    assert page.text.count("The record of this run has no hot set") == 1
    assert page.text.count("Table by table") == 1


def test_skew_dots_are_where_the_record_says() -> None:
    svg = charts.skew_card(make_run()).pictures[0]
    assert svg.count("<circle") == 2, "site is wholly hot and has none"
    assert "40 hot rows (10 %) serve 60.0 %" in svg
    many = [{"name": f"t{i}", "num_embeddings": 50 + i, **skew_curve(np.arange(50 + i))} for i in range(9)]
    card = charts.skew_card(make_run(tables=many))
    assert card.pictures[0].count("line others") == 3
    assert ("line others", "3 smaller tables") in card.legend
    assert not charts.skew_card(make_run(tables=[{"name": "x", "num_embeddings": 5, "rows": [], "share": []}])).pictures
    assert charts.skew_card(make_run(tables=[{"name": "x", "num_embeddings": 1, "rows": [1], "share": [1.0]}])).pictures


def test_pictures_tell_values_under_the_pointer() -> None:
    picture = charts.skew_card(make_run()).pictures[0]
    assert "hottest 1.1 % of the rows: user 2 %, item 26 %" in picture, "exact points of the record"
    far = make_record()
    far["hot"]["budget_bytes"] = 2**40
    picture = charts.budgets_card(RunRecord(label="a", record=far)).pictures[0]
    assert "this run: 1.0 TiB" in picture
    assert "16 KiB" in picture
    assert "32 KiB" not in picture


def test_losses_compare_whole_validation_splits_only() -> None:
    card = losses.losses_card([make_run()], validation=True)
    assert card.numbers == [("0.4700", "after 432 inputs")]
    assert not card.pictures
    names = [name for _, name in losses.losses_card([make_run(), make_run("b", train={})], validation=False).legend]
    assert names == ["a", "b (not recorded)"]


def test_long_losses_are_smoothed_over_what_was_recorded() -> None:
    curve = [[seen, 0.5 + 0.02 * (seen % 2)] for seen in range(1, 121)]
    curve[0][1] = 9.0
    card = losses.losses_card([make_run(train={"loss_curve": curve})], validation=False)
    assert "1 value is above the picture" in card.caption
    raw, smooth = (card.pictures[0].split(f'class="line {css}" d="')[1].split('"')[0] for css in ("s0 raw", "s0"))
    assert (raw.count("L"), smooth.count("L")) == (119, 59)
    heights = [float(point.split()[1]) for point in smooth[1:].split("L")]
    assert len(set(heights[1:])) == 1, "each but the first is the mean of two neighbours"
    assert heights[0] == 12.0, "the first runs along the upper edge"
    assert card.pictures[0].count('class="hit"') == 30
    assert "<title>4 inputs: 0.5100</title>" in card.pictures[0]
    few = losses.losses_card([make_run()], validation=False)
    assert "raw" not in few.pictures[0]
    assert few.caption == "Of the batches as they train."


def test_the_base_rate_is_a_level_of_a_loss() -> None:
    record = make_record()
    record["log"]["label_rate"] = {"train": 0.25}
    (picture,) = losses.losses_card([RunRecord(label="a", record=record)], validation=False).pictures
    assert "base rate 0.5623" in picture


def test_bytes_of_older_records_come_from_tables_of_the_same_width() -> None:
    run = make_run(tables=[])
    assert amounts.total_bytes(run) == 16 * 603
    record = make_record()
    record["hot"]["tables"][0]["embedding_dim"] = 8
    record["hot"]["tables"][0]["num_hot"] = 0
    old = RunRecord(label="a", record=without(record, "tables"))
    assert amounts.total_bytes(old) is None
    assert "cold rows" not in [bar.name for bar in amounts.tiers_card(old).bars]
    assert "cold rows" in [bar.name for bar in amounts.tiers_card(run).bars]


def test_time_of_a_resumed_training_is_not_split() -> None:
    record = make_record()
    record["train"]["seconds"] = 50.0
    assert amounts.seconds_by_part(RunRecord(label="a", record=record))[-1] == ("train", 5.0)
    record["stage_seconds"] = {"train": None, "fetch": 2}
    assert amounts.seconds_by_part(RunRecord(label="a", record=record)) == [("fetch", 2)]
    assert amounts.stage_times_card([make_run(stage_seconds={}), make_run("b")]).bars[0].text == "not recorded"


def test_skew_in_words() -> None:
    page = Page(build_page([make_run()])).text
    assert "site 3 4 3 100.0 % 60.0 % 48 B 0 B 20 \N{EN DASH}" in page, "three rows have no hottest hundredth"
    curve = make_record()["tables"][1]
    exact = (1000 // np.arange(1, 201))[:2].sum() / curve["accesses"]
    assert f" {100 * exact:.1f} %" in page
    idle = [{"name": "item", "num_embeddings": 200, "rows": [], "share": [], "accesses": 0}]
    assert "no access" in Page(build_page([make_run(tables=idle)])).text


def test_null_and_missing_are_told_apart() -> None:
    page = Page(build_page([make_run(test={"auc": None})])).text
    assert "not defined test AUC" in page
    assert "not recorded test log loss" in page


def test_differences_see_missing_and_null() -> None:
    runs = [make_run(recipe={"a": {"x": 1, "y": None}}), make_run(recipe={"a": {"x": 1, "z": {}}})]
    assert differing_names(runs, "recipe") == (["a.y", "a.z"], ["a.x"])
    page = Page(build_page(runs)).text
    assert "a.y none not recorded a.z not recorded {}" in page
    assert "The same in all runs." in Page(build_page([make_run(), make_run("b")])).text


def test_axes() -> None:
    axis = Axis(low=1e-4, high=1.0, label="", form=percent, base=10)
    assert axis.ticks() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert axis.place(1e-2) == pytest.approx(0.5)
    assert Axis(low=0.0, high=1.0, label="", form=percent).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    budgets = Axis(low=2**10, high=2**30, label="", form=percent, base=2).ticks()
    assert budgets[-1] == 2**30
    assert len(budgets) <= 8
    point = Axis(low=3.0, high=3.0, label="", form=percent, base=2)
    assert (point.ticks(), point.place(3.0)) == ([3.0], 0.5)
    assert Axis(low=2.0, high=2.0, label="", form=percent).ticks() == [2.0]
    plot = Plot(label="x", x=axis, y=Axis(low=0.0, high=1.0, label="", form=percent))
    plot.line([], "s0")
    assert "line" not in plot.render()
    assert [series_class(index) for index in (0, 6, 12)] == ["s0", "s0 again", "s0 again"]


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, make_record()) for name in ("x/run", "y/run", "z")]
    (tmp_path / "z" / "kept.json").write_text(json.dumps(make_record()))
    labels = [run.label for run in load_runs([*folders, tmp_path / "z" / "kept.json", folders[0]])]
    assert len(set(labels)) == 5
    assert labels[0].endswith("x/run")
    assert labels[4].endswith("x/run (2)")
    assert load_runs([folders[2] / "run.json"])[0].label == "z"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[]", "is JSON but no run record"),
        ('{"train": 3}', "is JSON but no run record"),
    ],
)
def test_what_is_no_record(tmp_path: Path, content: str | bytes, expected: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtifactError, match=expected) as caught:
        load_runs([tmp_path])
    assert f"fae run RECIPE.toml --out {tmp_path}" in str(caught.value)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no run"):
        load_runs([tmp_path / "none"])
    with pytest.raises(ArtifactError, match="nothing was run there, or not to the end"):
        load_runs([tmp_path])
    write_run(tmp_path / "run", make_record())
    with pytest.raises(ArtifactError, match=f"type `fae report {tmp_path / 'run'}`"):
        load_runs([tmp_path])


def test_what_cannot_be_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_record())
    (tmp_path / "notes.html").write_text("<p>mine</p>")
    with pytest.raises(ArtifactError, match="is no report of fae"):
        report([run], tmp_path / "notes.html")
    assert (tmp_path / "notes.html").read_text() == "<p>mine</p>"
    with pytest.raises(ArtifactError, match="is a folder"):
        report([run], tmp_path)
    with pytest.raises(ArtifactError, match="cannot write"):
        report([run], tmp_path / "notes.html" / "page.html")
    report([run], tmp_path / "new" / "page.html")
    report([run], tmp_path / "new" / "page.html")  # a report may be replaced
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_reports_load_no_library() -> None:
    code = "import sys, fae.report.page; sys.exit(bool({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_skew_curves_are_exact_and_short() -> None:
    counts = np.random.default_rng(1).permutation(10**6 // np.arange(1, 5001))
    curve = skew_curve(counts)
    ordered = np.sort(counts)[::-1]
    assert curve["share"] == [round(float(ordered[:rows].sum() / ordered.sum()), 6) for rows in curve["rows"]]
    assert 40 < len(curve["rows"]) <= 60
    assert (curve["rows"][0], curve["rows"][-1], curve["share"][-1]) == (1, 5000, 1.0)
    assert skew_curve(ordered) == curve
    assert (curve["accesses"], curve["num_accessed_rows"]) == (int(counts.sum()), 5000)
    assert skew_curve(np.zeros(3, np.int64))["rows"] == []
    assert skew_curve(np.array([4]))["share"] == [1.0]


def test_a_record_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    run = write_run(tmp_path / "run", make_record())
    monkeypatch.setattr("fae.report.records.read_text", refuse)
    with pytest.raises(ArtifactError, match=r"cannot read .*run\.json: Permission denied"):
        load_runs([run])


def test_a_device_or_a_pipe_is_no_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_record())
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(ArtifactError, match="no plain file"):
            report([run], out)
    assert Path(os.devnull).is_char_device()


def test_advice_names_a_run_and_never_a_folder_in_it(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "manifest.json").write_text("{}")
    (tmp_path / "recipe.toml").write_text("[log]\n")
    with pytest.raises(ArtifactError, match=rf"one of the folders of a run.*name the run, {tmp_path}$"):
        load_runs([tmp_path / "log"])
    with pytest.raises(ArtifactError, match=r"is not JSON.*name the folder of a run$"):
        load_runs([tmp_path / "recipe.toml"])
