"""What holds everywhere in the code and its pages: docstrings, forbidden calls, light imports, recipes, links."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fae.core.errors

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
MODULES = sorted(SOURCE.rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *SOURCE.rglob("*.md")])
FORBIDDEN_CALLS = ("torch.load", "torch.save", "eval", "exec", "select.select")
DATA_PACKAGES = ("core", "engine", "artifacts", "ingest", "profile", "calibrate", "pack", "synthetic", "report")
TRAINING_PACKAGES = ("core", "artifacts", "kernels", "streaming", "embedding", "models", "training")
VERBS = (
    "ingest", "profile", "calibrate", "pack", "train", "run", "predict", "evaluate", "report", "demo",
    "synthetic", "bench", "inspect", "init", "export", "import", "plan", "runs", "clean", "upgrade",
)  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def loaded_after(*statements: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter that ran `statements`."""
    code = "; ".join(
        ["import sys, json", *statements, "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def packages(*names: str) -> list[str]:
    """Import statements for every module of these packages."""
    paths = [path for name in names for path in sorted((SOURCE / "fae" / name).rglob("*.py"))]
    return [f"import {dotted(path)}" for path in paths if "triton" not in path.name]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_public_names_have_docstrings(path: Path) -> None:
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree), "no module docstring"
    missing = []
    for node in [child for child in tree.body if isinstance(child, (ast.ClassDef, ast.FunctionDef))]:
        # Methods of a subclass may be the base's, which says what they do.
        own = isinstance(node, ast.ClassDef) and not [base for base in node.bases if ast.unparse(base) != "Protocol"]
        inner = [child for child in node.body if own and isinstance(child, ast.FunctionDef)]
        for part in (node, *inner):
            if not node.name.startswith("_") and not part.name.startswith("_") and not ast.get_docstring(part):
                missing.append(part.name)
    assert not missing, f"public, without a docstring: {missing}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_forbidden_things_stay_out(path: Path) -> None:
    """No pickle in any form, no unseeded global randomness, no parallel numba, no stray prints (standalone: prints).

    And no ``select``, which knows the first 1,024 descriptors alone: `fae.core.waits` does.
    """
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] in ("pickle", "dill", "joblib", "shelve", "marshal")]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in FORBIDDEN_CALLS or arguments.get("allow_pickle") == "True":
                found.append(called)
            if re.fullmatch(r"(np|numpy)\.random\.(?!Generator|Philox)\w+|random\.(?!Random)[a-z]\w*", called):
                found += [called] if "random" not in local_names(path) else []
            if called.endswith("njit") and arguments.get("parallel") == "True":
                found.append("njit(parallel=True)")
            if called == "print" and path.parent.name not in ("cli", "standalone") and path.name != "progress.py":
                found.append("print: use fae.core.progress.say")
    assert not found, found


def local_names(path: Path) -> set[str]:
    """Names of function arguments and assigned variables; ``random`` is then a generator, not the module."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", sorted((SOURCE / "fae" / "cli").rglob("*.py")), ids=name_of)
def test_command_line_files_are_short_and_assert_nothing(path: Path) -> None:
    assert path.name == "main.py" or len(path.read_text().splitlines()) <= 80
    assert not [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Assert)]


def test_help_imports_nothing_heavy_and_names_every_verb() -> None:
    loaded = loaded_after("import fae.cli.main", "fae.cli.main.build_parser().format_help()")
    assert not loaded & {"numpy", "torch", "numba", "pyarrow", "matplotlib", "rich", "safetensors"}
    done = subprocess.run([sys.executable, "-m", "fae", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert not [verb for verb in VERBS if not re.search(rf"^ +{verb}\b", done.stdout, re.MULTILINE)]


def test_configuration_imports_no_library() -> None:
    loaded = loaded_after("import fae.run.recipe")
    assert not loaded & {"numpy", "torch", "numba", "pyarrow"}


def test_stages_before_training_import_no_torch() -> None:
    """Indirect imports count too; import-linter lets them pass."""
    loaded = loaded_after(*packages(*DATA_PACKAGES))
    assert not loaded & {"torch", "triton"}


def test_training_imports_no_table_library() -> None:
    loaded = loaded_after(*packages(*TRAINING_PACKAGES))
    assert not loaded & {"pyarrow", "polars", "pandas", "matplotlib", "sklearn"}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=name_of)
def test_recipes_parse(path: Path) -> None:
    from fae.run.recipe import load_recipe

    recipe = load_recipe(path)
    assert recipe.hot.budget_bytes > 0
    assert "_" in path.stem or path.stem.isalnum(), "recipes are named data_model"


def test_every_error_is_drawn_in_the_tree() -> None:
    classes = [name for name, value in vars(fae.core.errors).items() if isinstance(value, type)]
    assert len(classes) > 1
    assert not [name for name in classes if name not in (fae.core.errors.__doc__ or "")]
    assert all(issubclass(getattr(fae.core.errors, name), fae.core.errors.FaeError) for name in classes)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_link_to_what_is_there(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text())
    assert not [target for target in targets if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", [*PAGES, *MODULES], ids=name_of)
def test_no_machine_paths(path: Path) -> None:
    assert not re.findall(r"(?<![\w.])/(?:work|home|root|Users)/\w+", path.read_text())


def test_verbs_in_pages_exist() -> None:
    used = set()
    for path in PAGES:
        text = path.read_text()
        used |= set(re.findall(r"`fae ([a-z]+)", text))
        for block in re.findall(r"```[^\n]*\n(.*?)```", text, re.DOTALL):
            used |= set(re.findall(r"^\s*(?:\$ )?fae ([a-z]+)", block, re.MULTILINE))
    assert used <= set(VERBS)


def test_versions_agree() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {declared}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("path", [path for path in MODULES if ">>> " in path.read_text()], ids=name_of)
def test_docstring_examples(path: Path) -> None:
    results = doctest.testmod(importlib.import_module(dotted(path)))
    assert results.attempted > 0
    assert results.failed == 0
