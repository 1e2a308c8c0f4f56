"""Reports as a reader sees them, in headless Chromium: light, dark, on a phone; nothing cut off, all of it readable."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from page_audit import faults
from run_records import paper_record

from chromium import BROWSER, Browser, browser
from commands import succeed

DOCS = Path(__file__).resolve().parents[2] / "docs"
WINDOWS = ((1200, False), (1200, True), (768, False), (390, False), (390, True))
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: NOT checked how reports look")


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """One browser for all pages."""
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of every kind: a run, one of the adaptive order that continues it, both, an old one, a bench."""
    folder = tmp_path_factory.mktemp("pages")
    run, recipe = finished_run / "run", finished_run / "recipe.toml"
    succeed("run", recipe, "--out", folder / "next", "--set", f"train.from={run}", "--set", "train.order=adaptive",
            "--set", "train.epochs=3")  # fmt: skip
    record = json.loads((run / "run.json").read_text())
    plain = {key: record[key] for key in ("recipe", "log", "test", "validation", "train")}
    old = {key: record[key] for key in ("recipe", "hot", "test")}
    for name, content in (("plain", plain), ("old", old), ("paper", paper_record())):
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(json.dumps(content))
    # A name that no window of a phone holds.
    long = folder / ("a_long_name_that_somebody_gave_to_a_run_" * 3)
    long.mkdir()
    (long / "run.json").write_text(json.dumps(record))
    shown = {
        "one": [run], "parent": [folder / "next"], "old": [folder / "old"], "paper": [folder / "paper"],
        "plain": [run, folder / "plain"], "several": [run, folder / "next", long, folder / "old", folder / "paper"],
    }  # fmt: skip
    for name, runs in shown.items():
        succeed("report", *runs, "--out", folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in shown}


@needs_browser
@pytest.mark.parametrize("name", ["one", "parent", "old", "paper", "plain", "several"])
def test_nothing_is_cut_off_and_all_can_be_read(name: str, pages: dict[str, Path], window: Browser) -> None:
    for width, dark in WINDOWS:
        assert faults(window, pages[name], width=width, dark=dark) == [], (width, dark)


@needs_browser
def test_light_and_dark_are_the_readers_choice(pages: dict[str, Path], window: Browser) -> None:
    grounds = []
    for dark in (False, True):
        window.open(pages["one"], dark=dark)
        grounds.append(window.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(245, 246, 248)", "rgb(19, 22, 27)"]


@needs_browser
def test_a_word_says_what_it_means_without_a_mouse(pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["one"], width=390)
    opened = "document.querySelector('.meaning:popover-open')?.textContent ?? ''"
    window.press("Tab", code=9)
    assert window.evaluate("document.activeElement.className") == "term"
    assert window.evaluate(opened) == ""
    window.press("Enter", code=13)
    word = window.evaluate("document.activeElement.textContent")
    assert window.evaluate(opened).startswith(word[:5])
    window.press("Escape", code=27)
    assert window.evaluate(opened) == ""
    assert window.evaluate("document.activeElement.title"), "and the pointer finds it too"


@needs_browser
def test_values_are_under_the_pointer(pages: dict[str, Path], window: Browser) -> None:
    window.open(pages["one"])
    told = window.evaluate(
        "[...document.querySelectorAll('.hit')].map((strip) => {"
        "  strip.scrollIntoView({ block: 'center' });"
        "  const box = strip.getBoundingClientRect();"
        "  const top = document.elementFromPoint(box.x + box.width / 2, box.y + 3);"
        "  return top.querySelector('title')?.textContent ?? '';"
        "})"
    )
    assert len(told) > 5
    assert all("inputs: 0." in text or "%" in text for text in told), told


@needs_browser
def test_the_audit_finds_what_is_wrong(pages: dict[str, Path], window: Browser, tmp_path: Path) -> None:
    """A check that cannot fail says nothing: each fault that is put into a page is found."""
    page = pages["one"].read_text()
    for change, expected in (
        (("<main>", '<main><p style="color:#999">pale grey words</p>'), "contrast 2.6"),
        (("<main>", '<main><p style="white-space:nowrap">' + "wide " * 99 + "</p>"), "the page is"),
        (("<main>", '<main><p style="width:9px;white-space:nowrap">words and words</p>'), "overflows <p"),
        (("<main>", '<main><p style="font-size:8px">small words</p>'), "only 8.0 px high"),
        (("<main>", '<main><img src="http://127.0.0.1:9/x.png">'), "http://127.0.0.1:9/x.png"),
        (("--hot: #cf4a0c", "--hot: #ffe0d0"), "of a mark"),
        ((' class="odd"', ' transform="translate(-100 0)"'), 'lies over "'),
        (('id="word-auc"', 'id="word-x"'), "a word without a meaning"),
    ):
        assert change[0] in page, change
        (tmp_path / "bad.html").write_text(page.replace(*change))
        found = faults(window, tmp_path / "bad.html")
        assert any(expected in fault for fault in found), (change, found)


@needs_browser
def test_the_pictures_of_the_docs_are_made_by_a_script(finished_run: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("screenshots", DOCS / "screenshots.py")
    assert spec is not None
    assert spec.loader is not None
    screenshots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(screenshots)
    made = screenshots.take_pictures(finished_run / "run", tmp_path)
    assert [picture.name for picture in made] == ["report_light.png", "report_dark.png", "report_phone.png"]
    for picture in made:
        kept = DOCS / "images" / picture.name
        assert f"images/{picture.name}" in (DOCS / "guide" / "report.md").read_text()
        assert kept.stat().st_size < screenshots.MOST_BYTES
        width, _, _ = screenshots.PICTURES[picture.stem.removeprefix("report_")]
        for each in (picture, kept):
            data = each.read_bytes()
            assert data.startswith(b"\x89PNG")
            assert int.from_bytes(data[16:20], "big") == width


def test_warn_where_there_is_no_browser() -> None:
    if BROWSER is None:
        warnings.warn("no Chromium here: reports were not opened in a browser", stacklevel=1)
