"""Commands and Python blocks of README and docs: run here at small sizes, or marked with the reason why not.

Marks: tests/support/doc_pages.py. The verbs and options of marked commands are still checked.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fae.cli.main import build_parser

from commands import csv_text, succeed, write_log, write_recipe
from doc_pages import BLOCK, COMMANDS, MARK, ROOT, TUTORIALS, blocks

SCRIPTS = ROOT / "src" / "fae" / "exporting" / "standalone"  # those of an exported folder
OLD = ("results", "decisions", "journal")  # pages of how things were
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if page.parent.name not in OLD and page.name != "CHANGELOG.md"
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, *languages)]


def pages_to_run(*languages: str) -> list[Path]:
    """Pages with something to run; each tutorial has a folder of its own, in test_tutorials."""
    return [
        page
        for page in pages_with(*languages)
        if page.parent != TUTORIALS and any(not block.mark for block in blocks(page, *languages))
    ]


def complaint(arguments: list[str]) -> str:
    """What the command line's parser has against these arguments."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            build_parser().parse_args(arguments)
        except SystemExit as stop:
            return said.getvalue() if stop.code else ""
    return ""


def clicks(seed: int) -> bytes:
    """A day of the log that README's recipe describes."""
    random = np.random.default_rng(seed)
    rows = [
        [
            int(random.random() < 0.4), f"u{random.zipf(1.3)}", f"i{random.zipf(1.3)}", int(random.integers(24)),
            "|".join(f"t{tag}" for tag in random.integers(0, 9, random.integers(0, 7))), round(random.random() * 9, 2),
        ]
        for _ in range(400)
    ]  # fmt: skip
    return gzip.compress(csv_text(rows, ("clicked", "user", "item", "hour", "tags", "price")).encode())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where the pages' commands find what they name: recipes, logs, finished runs."""
    folder, before, threads = tmp_path_factory.mktemp("pages"), Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    (folder / "clicks").mkdir()
    for day in (1, 2):
        (folder / "clicks" / f"day{day}.csv.gz").write_bytes(clicks(day))
    (folder / "clicks_1.csv.gz").write_bytes(gzip.compress(b"click,user,item\n" + b"1,a,x\n0,b,y\n" * 20))
    (recipe,) = blocks(ROOT / "README.md", "toml")
    (folder / "my.toml").write_text(recipe.text)
    write_log(folder)
    (folder / "recipes").mkdir()
    small = write_recipe(folder, "RECIPE.toml").read_text()
    (folder / "recipes" / "frappe.toml").write_text(small.replace('"log.csv"', '"../log.csv"'))
    for arguments in (
        ("RECIPE.toml",), ("RECIPE.toml", "--out", "run"), ("RECIPE.toml", "--out", "DIR"), ("recipes/frappe.toml",),
        ("my.toml",),
        ("my.toml", "--budget", "64MiB", "--out", "runs/small"),
    ):  # fmt: skip
        succeed("run", *arguments)
    yield folder
    os.chdir(before)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_marks_and_languages(page: Path) -> None:
    """Every block says its language; a mark has one of two forms and comes before something that could be run."""
    text = page.read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(BLOCK.findall(text)), "a fence without its end"
    for match in BLOCK.finditer(text):
        assert match["language"], match["text"]
        marked = match["mark"] and not match["mark"].startswith("demo output")
        if match["language"] in (*COMMANDS, "python") and marked:
            assert MARK.fullmatch(match["mark"]), match["mark"]


@pytest.mark.parametrize("page", pages_with(*COMMANDS), ids=name_of)
def test_verbs_and_options_exist(page: Path) -> None:
    for block in blocks(page, *COMMANDS):
        for program, *arguments in block.commands:
            if program.endswith("fae") or arguments[:2] == ["-m", "fae"]:
                rest = arguments[2:] if arguments[:2] == ["-m", "fae"] else arguments
                assert complaint(rest) == ""
            elif program == "make":
                targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
                assert set(arguments) <= set(targets)
            elif "python" in program and arguments[0].endswith(".py"):
                script = Path(arguments[0])
                exported = block.mark or page.parent == TUTORIALS
                assert (ROOT / script).is_file() or (exported and (SCRIPTS / script.name).is_file()), script
            else:
                assert block.mark or page.parent == TUTORIALS, (
                    program,
                    "is not known here; run it by a test, or mark its block",
                )


@pytest.mark.parametrize("page", pages_to_run(*COMMANDS), ids=name_of)
def test_commands_run(workspace: Path, page: Path) -> None:
    for block in blocks(page, *COMMANDS):
        if MARK.fullmatch(block.mark):
            continue
        for program, *arguments in block.commands:
            assert program == "fae", f"{program} cannot be run here; mark its block"
            succeed(*arguments)


@pytest.mark.parametrize("page", pages_to_run("python"), ids=name_of)
def test_python_runs(workspace: Path, page: Path) -> None:
    """Blocks of a page one after the other, in one namespace; `path`, `folder`, `log` are as the pages use them."""
    from fae.artifacts.access_profile import AccessProfile
    from fae.artifacts.columnar_log import ColumnarLog
    from fae.profile.config import HotConfig

    names = {
        "folder": workspace,
        "log": ColumnarLog(workspace / "run" / "log"),
        "access_profile": AccessProfile(workspace / "run" / "profile"),
        "HotConfig": HotConfig,
    }
    for number, block in enumerate(blocks(page, "python")):
        if not MARK.fullmatch(block.mark):
            names["path"] = workspace / f"{page.stem}_{number}"
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, f"{name_of(page)}, Python block {number + 1}", "exec"), names)


@pytest.mark.parametrize("page", pages_with("toml"), ids=name_of)
def test_toml_parses(page: Path) -> None:
    """Whole recipes are recipes; parts are TOML."""
    import tomllib

    from fae.run.recipe import parse_recipe

    for block in blocks(page, "toml"):
        tables = tomllib.loads(block.text)
        if "categorical" in tables.get("log", {}) or tables.get("log", {}).get("format") == "columnar":
            parse_recipe(tables, base=ROOT)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page: Path) -> None:
    """Files of the repository that a page names in passing, ``file.py:name`` and ``fae.module.name``."""
    text = page.read_text()
    paths = re.findall(r"`(?:python )?((?:src/fae|tests|benchmarks|recipes)/[\w/.*-]*)[`: ]", text)
    assert not [path for path in paths if "NAME" not in path and not list(ROOT.glob(path.rstrip("/")))]
    missing = []
    for file, name in re.findall(r"`([\w/]+\.py):([\w.]+)`", text):
        path = ROOT / "src" / "fae" / file
        if not path.is_file() or not defines(path, name):
            missing.append(f"{file}:{name}")
    for dotted in re.findall(r"`fae((?:\.\w+)+)`", text):
        if not resolves(dotted.split(".")[1:]):
            missing.append(f"fae{dotted}")
    assert not missing


def defines(path: Path, name: str) -> bool:
    """Whether a file defines a name, dotted for a method."""
    body = ast.parse(path.read_text()).body
    for part in name.split("."):
        for node in body:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            if part in (getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)):
                body = getattr(node, "body", [])
                break
        else:
            return False
    return True


def resolves(parts: list[str]) -> bool:
    """Whether ``fae.a.b.c`` is a module, a package, or a name in one."""
    place = ROOT / "src" / "fae"
    for index, part in enumerate(parts):
        if (place / part).is_dir():
            place = place / part
        elif (place / f"{part}.py").is_file():
            rest = parts[index + 1 :]
            return not rest or defines(place / f"{part}.py", ".".join(rest))
        else:
            return index == 0 and f'"{part}"' in (place / "__init__.py").read_text()
    return True
