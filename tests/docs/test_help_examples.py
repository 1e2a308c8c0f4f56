"""Examples in the help of the command line: each parses, names what is there or a placeholder, and cheap ones run."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fae.cli.main import build_parser

from commands import csv_text, succeed, write_log, write_recipe, zipf_inputs
from doc_pages import ROOT

SCRIPTS = {path.name for path in (ROOT / "src" / "fae" / "exporting" / "standalone").glob("*.py")}
PLACEHOLDER = re.compile(
    r"[A-Z]+(\.\w+)?|(my|day\d?|R)\.toml|runs/\w+(/recipe\.toml)?|(served|both|small|new|rows|changes)(/[\w.]+)?"
    r"|(clicks|test|huge|day\d|log)\.(csv|csv\.gz|tsv)|day(=\*|\d)/\*\.(parquet|csv\.gz)|(s|scores)\.csv|\w+\.(html|parquet|log)"
)
"""Names that say what a person puts there: a recipe, a run, files of a log, an exported folder, an output."""
RUNNABLE = ("inspect", "init", "runs", "report", "predict", "calibrate", "clean", "export", "synthetic", "plan")


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The whole command line and every verb, with the parser that prints its help."""
    whole = build_parser()
    yield "fae", whole
    (verbs,) = [action for action in whole._actions if isinstance(action, argparse._SubParsersAction)]
    yield from verbs.choices.items()


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """The commands among the indented lines of a help text; what is behind two spaces explains."""
    found = []
    for text in (parser.description or "", parser.epilog or ""):
        for line in re.findall(r"^  ((?:fae|python) \S.*)$", text, re.MULTILINE):
            for part in re.split(r" && |; ", re.split(r"\s{2,}", line)[0]):
                found.append(shlex.split(part))
    return found


EXAMPLES = [(verb, words) for verb, parser in parsers() for words in examples(parser)]


def test_there_are_examples() -> None:
    """The commands a newcomer needs first, and enough of them that nothing was lost on the way from the texts."""
    assert len(EXAMPLES) > 30
    assert {"inspect", "init", "plan", "run", "report", "predict", "export", "runs", "demo"} <= {
        words[1] for verb, words in EXAMPLES if verb == "fae"
    }


@pytest.mark.parametrize(("verb", "words"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else value[-1])
def test_examples_parse(verb: str, words: list[str]) -> None:
    """Verbs and options exist; what names a file of the repository names one; the rest is a placeholder."""
    program, *arguments = words
    if program == "python":
        assert Path(arguments[0]).name in SCRIPTS
        return
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    build_parser().parse_args(arguments)
    for name in arguments[1:]:
        if name.startswith("recipes/"):
            assert (ROOT / name).is_file(), name
        elif re.search(r"[./*]", name) and not name.startswith("--") and "=" not in name.split("/")[0]:
            assert PLACEHOLDER.fullmatch(name), name


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where the placeholders are: a log under its names, a recipe, finished runs."""
    folder, threads = tmp_path_factory.mktemp("help"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_log(folder)
        write_recipe(folder, "my.toml")
        write_recipe(folder, "R.toml")
        for name in ("test.csv", "huge.csv", "day8.csv", "day8/a.csv", "clicks.csv"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(csv_text(zipf_inputs(80, seed=5)))
        (folder / "recipes").mkdir()
        write_recipe(folder, "recipes/frappe.toml", log={"train": "../log.csv"})
        for name in ("my", "a", "b", "day2"):
            succeed("run", "my.toml", "--out", f"runs/{name}", "--set", "train.epochs=1")
        yield folder
    torch.set_num_threads(threads)


def is_cheap(words: list[str]) -> bool:
    """Whether an example runs in a moment on the small files of `workspace`."""
    text = " ".join(words)
    if words[:1] != ["fae"] or words[1] not in RUNNABLE:
        return False
    needs_more = (
        "parquet' ",
        "*.parquet",
        ".csv.gz",
        "10000000",
        "bench_",
        "--onnx",
        "--since",
        "DIR",
        "RUN",
        "R.toml",
    )
    return not any(each in text for each in needs_more) and text != "fae plan my.toml"  # that one measures the machine


CHEAP = [
    (verb, words)
    for number, (verb, words) in enumerate(EXAMPLES)
    if is_cheap(words) and words not in [earlier for _, earlier in EXAMPLES[:number]]
]


@pytest.mark.parametrize(("verb", "words"), CHEAP, ids=lambda value: value if isinstance(value, str) else value[-1])
def test_cheap_examples_run(workspace: Path, verb: str, words: list[str]) -> None:
    """As typed; a card is named where a plan would measure this machine."""
    arguments = words[1 : words.index(">")] if ">" in words else words[1:]
    if "--gpu" not in arguments and arguments[0] == "plan":
        arguments += ["--gpu", "a10"]
    shutil.rmtree(workspace / "served", ignore_errors=True)  # two examples write it, and an export replaces nothing
    succeed(*arguments)


def test_enough_run() -> None:
    assert len(CHEAP) >= 12
