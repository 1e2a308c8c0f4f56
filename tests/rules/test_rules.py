"""The fourteen rules of the house hold, and each one sees a checkout in which it is broken."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import house as rules
import pytest
from house import RULES, House

ROOT = Path(__file__).resolve().parents[2]


HOUSE = House(ROOT)


@functools.cache
def faults_of(rule: Callable[[House], list[str]]) -> list[str]:
    """The faults of this checkout."""
    return rule(HOUSE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_holds(rule: Callable[[House], list[str]]) -> None:
    faults = faults_of(rule)
    assert not faults, "\n".join(faults[:40])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text of the checkout, as the rules read it."""
    root = tmp_path_factory.mktemp("house")
    for name in ("src", "docs", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.npy", "golden"))
    for path in ROOT.glob("*.md"):
        shutil.copy(path, root)
    return root


def append(path: str, text: str) -> Callable[[Path], None]:
    """A mutation: put text behind a file, which may be new."""

    def mutate(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("a") as file:
            file.write(text)

    return mutate


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    """A mutation: replace the first place of a text in a file."""

    def mutate(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return mutate


def twenty_more(root: Path) -> None:
    """A mutation: a folder with many files."""
    for number in range(20):
        (root / f"src/fae/pack/part_{number}.py").write_text('"""A part."""\n')


MUTATIONS: dict[Callable[[House], list[str]], Callable[[Path], None]] = {
    rules.sizes: append("src/fae/core/units.py", "# more\n" * 400),
    rules.circles: append("src/fae/core/errors.py", "\nimport fae.core.units\n"),
    rules.floors: append("src/fae/kernels/geometry.py", "\nimport fae.artifacts.packed\n"),
    rules.unique_names: append("src/fae/pack/geometry.py", '"""Again."""\n'),
    rules.folder_sizes: twenty_more,
    rules.format_versions: replace("src/fae/artifacts/packed.py", "FORMAT_VERSION = ", "FORMAT_VERSION = 9"),
    rules.results_index: append("benchmarks/results/a_new_one.json", "{}\n"),
    rules.private_names: append("benchmarks/pack.py", "\nfrom fae.pack.pack import _share\n"),
    rules.public_names: replace("src/fae/__init__.py", '    "Recipe",\n', ""),
    rules.command_line: replace(
        "src/fae/cli/run.py", "    add_recipe_options(parser)", '    parser.add_argument("--new")'
    ),
    rules.page_sizes: append("README.md", "more\n" * 150),
    rules.words: append("src/fae/core/units.py", '\n"""Of a thing that whoever asks for."""\n'),
    rules.function_sizes: append("src/fae/core/units.py", "\ndef f(a, b, c, d, e, g, h, i, j, k, m): ...\n"),
    rules.captions: append("src/fae/core/a_new_file.py", '"""What nobody wrote on the page."""\n'),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_sees_a_fault(rule: Callable[[House], list[str]], original: Path, tmp_path: Path) -> None:
    root = tmp_path / "mutated"
    shutil.copytree(original, root)
    MUTATIONS[rule](root)
    assert set(rule(House(root))) - set(faults_of(rule))
