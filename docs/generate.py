"""Write the generated pages and sections of these docs from the code: ``python docs/generate.py``.

Whole pages: reference/recipe.md (from the configuration classes) and reference/command_line.md (from the parser).
Sections between ``<!-- generated: NAME -->`` and ``<!-- end -->``: the captions on internals/architecture.md, the
public names on reference/python.md. `tests/docs/test_reference.py` compares what is there with what this makes.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src"
sys.path.insert(0, str(SOURCE))

from fae.cli.main import build_parser  # noqa: E402
from fae.ingest.column_config import ColumnConfig  # noqa: E402
from fae.ingest.config import LogConfig  # noqa: E402
from fae.models.config import MODEL_CONFIGS, ModelConfig  # noqa: E402
from fae.profile.config import HotConfig  # noqa: E402
from fae.training.config import TrainConfig  # noqa: E402

WIDTH = 120

PACKAGES = (
    "core", "core/compiling", "engine", "artifacts", "artifacts/stored", "ingest", "ingest/dense",
    "ingest/input_order", "ingest/notes", "ingest/numbering", "ingest/raw_files", "ingest/readers", "ingest/scored",
    "ingest/shards", "ingest/value_types",
    "profile", "report", "report/pictures", "report/sentences", "calibrate", "synthetic", "pack", "inspect",
    "kernels", "distributed", "distributed/peers", "streaming", "embedding", "embedding/ranks", "models", "checkpoint",
    "training", "training/quality", "training/ranks", "training/watching", "run", "run/ahead", "run/housekeeping",
    "planning", "planning/budgets",
    "planning/sample", "planning/stages", "exporting", "exporting/standalone", "exporting/standalone/scoring", "bench",
    "cli", "cli/process",
)  # fmt: skip
"""Packages from the ground up; the docstring of each says what it is for."""

UNITS = {
    "hot.budget": "a size such as 512MiB, or bytes",
    "hot.small_table": "a size such as 1MB, or bytes",
    "hot.sample": "share of the training inputs",
    "hot.sample_min_inputs": "inputs",
    "hot.ring_depth": "slots",
    "hot.max_threshold": "share of a table's accesses",
    "hot.min_threshold": "share of a table's accesses",
    "hot.confidence": "probability",
    "log.test_fraction": "share of the inputs",
    "log.validation_fraction": "share of the training split",
    "log.min_frequency": "accesses",
    "column.max_length": "ids",
    "column.min_frequency": "accesses",
    "train.batch_size": "inputs",
    "train.adaptive_rate": "per cent",
    "train.adaptive_tail": "share of an epoch",
    "train.early_stopping": "epochs",
    "train.checkpoint_minutes": "minutes",
    "train.checkpoint_batches": "batches",
    "model.embedding_dim": "floats",
}

WHEN = {
    "log.test": "the test inputs are in files of their own.",
    "log.format": "the log is not CSV.",
    "log.test_fraction": "the log is short, or results must be compared with those of another split.",
    "log.min_frequency": "many values are seen once or twice; they share one row then.",
    "log.dense_transform": "dense features are no counts (`none`), or are counts of both signs (`signed_log1p`).",
    "log.columns": "the files begin with an input instead of a header.",
    "log.label_map": "labels are words, or -1 and 1.",
    "log.label_threshold": "labels are ratings or counts.",
    "log.weight": "negatives were thinned out, or inputs count differently.",
    "log.missing": "missing values are written as words.",
    "log.quote": "values hold quote characters that quote nothing (empty).",
    "log.escape": "the log escapes quotes with a backslash instead of doubling them.",
    "log.decimal": "numbers are written `3,5`.",
    "log.time": "the log is not sorted by time.",
    "log.split": "the last inputs are not what is to be predicted.",
    "log.split_by": "all inputs of a user must be in one split.",
    "log.split_seed": "the result must be shown not to hang on one draw.",
    "column.brackets": "a dataframe library wrote the lists as text.",
    "column.padding": "short lists were filled up to a fixed length.",
    "column.weight_separator": "items are written with weights.",
    "column.table": "two columns hold ids of one kind.",
    "column.encoded": "the values are row numbers of a table that you have already.",
    "column.max_length": "the column holds lists.",
    "column.pooling": "the model needs the sequence itself, as `tbsm` does (`none`).",
    "hot.budget": "always; `fae report` shows what other budgets would give.",
    "hot.sample": "the interval of the hot-input share is too wide (raise it), or profiling takes too long (lower it).",
    "hot.selection": "you compare with the paper (`threshold`), or calibration must be fast (`threshold`).",
    "hot.ring_depth": "the budget is small and the ring takes much of it (2 to 4).",
    "hot.small_table": "small tables take bytes that hotter rows of others should have (lower it).",
    "hot.peeling_passes": "calibration takes too long (1).",
    "train.from": "a new day's log continues an earlier run.",
    "train.batch_size": "for accuracy or speed; large batches are faster, and each needs more cold rows.",
    "train.optimizer": "memory is short (`sgd` has no state); `adam` takes three times the bytes a row.",
    "train.learning_rate": "always worth a search; Adam wants less, 0.001 is usual.",
    "train.placement": "every row fits on the GPU (`device`), or you compare with baselines.",
    "train.order": "hot and cold inputs are clicked at different rates and steps are few (`shuffled`).",
    "train.precision": "you train on a GPU; `bf16` is faster there.",
    "train.capture": "you look for a fault in a kernel or in a model (`false`).",
    "train.compile": "the model has no fused kernels and batches are small (`true`).",
    "train.early_stopping": "you train for several epochs.",
    "train.checkpoint_minutes": "a kill may cost more or less than ten minutes of training.",
    "model.embedding_dim": "for accuracy; memory and traffic grow with it.",
    "model.embedding_dims": "tables of few rows can do with less.",
}
"""When to change a key, for keys where there is something to say."""

UNDOCUMENTED = {"epochs": "Passes over the training split.", "seed": "Seed of everything random."}
"""Keys whose name says nearly all."""

INTRO = """\
# Recipe: every key

<!-- Generated by `python docs/generate.py` from the configuration classes; do not edit. -->

A recipe is one TOML file with the sections `[log]`, `[model]`, `[hot]` and `[train]`; all but `[log]` have defaults. On
the command line `--set SECTION.KEY=VALUE` replaces one value, and `--budget SIZE` is short for `--set hot.budget=SIZE`.
An unknown key is refused, with its nearest neighbour. Relative file names start from the recipe's folder.
"""


def pages() -> dict[Path, str]:
    """What every page with generated text should hold, by its path."""
    python, architecture = DOCS / "reference" / "python.md", DOCS / "internals" / "architecture.md"
    return {
        DOCS / "reference" / "recipe.md": recipe_page(),
        DOCS / "reference" / "command_line.md": command_line_page(),
        python: with_section(python, "public names", public_names()),
        architecture: with_section(architecture, "captions", captions()),
    }


def with_section(page: Path, name: str, text: str) -> str:
    """The page with its generated section replaced."""
    begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->\n"
    before, _, rest = page.read_text().partition(begin)
    return before + begin + text + end + rest.partition(end)[2]


def recipe_page() -> str:
    """reference/recipe.md."""
    parts = [INTRO, "## [log]\n", section(LogConfig, "log")]
    parts += ["### A column that needs more than its name\n", section(ColumnConfig, "column")]
    parts += ["## [model]\n", "Every model takes these:\n", section(ModelConfig, "model")]
    shared = {field.name for field in dataclasses.fields(ModelConfig)}
    for name, cls in MODEL_CONFIGS.items():
        parts += [f'### `name = "{name}"`\n', paragraph(first_line(cls)), section(cls, name, without=shared)]
    parts += ["## [hot]\n", section(HotConfig, "hot"), "## [train]\n", section(TrainConfig, "train")]
    return "\n".join(parts)


def section(cls: Any, name: str, *, without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """The keys of one configuration class."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in without}
    described = {key: (names, text) for names, text in attributes(cls) for key in names}
    parts, done = [], set()
    for key in fields:
        if key in done:
            continue
        names, text = described[key]
        names = [each for each in names if each in fields]
        done.update(names)
        for each in names:
            shown = each.removesuffix("_")
            unit = UNITS.get(f"{name}.{shown}")
            facts = ", ".join(
                filter(None, [type_words(hints[each]), default_words(fields[each], model=name == "model"), unit])
            )
            head = paragraph(f"**`{shown}`** ({facts})").rstrip("\n")
            parts.append(head + ("" if each == names[-1] else "  "))
        parts.append(paragraph(text))
        for each in names:
            advice = WHEN.get(f"{name}.{each.removesuffix('_')}")
            if advice:
                of = "it" if len(names) == 1 else f"`{each}`"
                parts[-1] += paragraph(f"*When to change {of}*: {advice}")
    return "\n".join(parts)


def attributes(cls: Any) -> Iterator[tuple[list[str], str]]:
    """Names and text of each entry of a class docstring's Attributes section, the base classes' last."""
    for each in cls.__mro__:
        doc = inspect.cleandoc(each.__doc__ or "")
        _, _, text = doc.partition("Attributes\n----------\n")
        text = re.split(r"\n\n\w[^\n]*\n-+\n", text)[0]
        for names, entry in re.findall(r"^(\w[\w, ]*)\n((?:(?: {4}[^\n]*)?\n?)*)", text, re.MULTILINE):
            yield [name.strip() for name in names.split(",")], markdown(" ".join(entry.split()))
    yield from (([name], text) for name, text in UNDOCUMENTED.items())


def first_line(cls: Any) -> str:
    """The first paragraph of a docstring."""
    return markdown(" ".join(inspect.cleandoc(cls.__doc__).split("\n\n")[0].split()))


def type_words(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        words = [type_words(each) for each in typing.get_args(hint) if each is not type(None)]
        return " or ".join(words)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return "list of " + {int: "whole numbers", str: "texts"}.get(item, "texts or tables")
    if typing.get_origin(hint) is dict:
        return f"table of {type_words(typing.get_args(hint)[1])}s by name"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", ColumnConfig: "table"}
    return names[hint]


def default_words(field: Any, *, model: bool = False) -> str:
    """A default, as TOML."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return 'default `"dlrm"`' if field.name == "name" and model else "needed"
    if value is None or value == () or value == {}:
        return "may be left out"
    return f"default `{toml(value)}`"


def toml(value: Any) -> str:
    """A scalar or a list as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def markdown(text: str) -> str:
    """A docstring's text as Markdown."""
    return text.replace("``", "`")


def paragraph(text: str) -> str:
    """One wrapped paragraph and a line end."""
    lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(line + "\n" for line in lines)


def command_line_page() -> str:
    """reference/command_line.md."""
    parser = build_parser()
    head = paragraph(
        "`fae VERB ...`, or `python -m fae VERB ...`. Words for people go to stderr; with `--json` one result object "
        "goes to stdout. Exit status: 0 done, 2 something in the recipe, the log, the folder or the machine (one line "
        "says what), 130 interrupted, 1 a defect of FAE."
    )
    parts = [
        "# Command line\n",
        "<!-- Generated by `python docs/generate.py` from the parser; do not edit. -->\n",
        head,
    ]
    every = [(words, verb, options(verb)) for words, verb in verbs(parser)]
    shared = next(rows for words, _, rows in every if words[-1] == "run")
    parts += ["## The verbs of a recipe\n", "| verb | what it does |\n|---|---|"]
    parts += [
        f"| [`{' '.join(words)}`](../guide/{words[-1]}.md) | {html(first_sentence(verb).partition('. ')[0])} |"
        for words, verb, rows in every
        if rows == shared
    ]
    parts.append("\nAll of them take the same options:\n\n" + "\n".join(shared) + "\n")
    for words, verb, rows in every:
        if rows != shared:
            page = "bench" if words[-1] == "paper" else words[-1]
            parts += [f"## {' '.join(words)}\n", paragraph(first_sentence(verb)), *rows]
            parts.append(f"\nMore: [guide/{page}](../guide/{page}.md).\n")
    return "\n".join(parts).rstrip("\n") + "\n"


def options(parser: argparse.ArgumentParser) -> list[str]:
    """The table of a verb's options, in lines."""
    rows = ["| option | what it does |", "|---|---|"]
    for action in parser._actions:
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            shown = " ".join(filter(None, [", ".join(action.option_strings), metavar(action)]))
            rows.append(f"| `{shown}` | {html(action.help or '')} |")
    return rows


def html(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def verbs(parser: argparse.ArgumentParser, words: tuple[str, ...] = ("fae",)) -> Iterator[tuple[Any, Any]]:
    """Every verb with its parser, leaves only."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield words, parser
    for group in groups:
        for name, each in group.choices.items():
            yield from verbs(each, (*words, name))


def first_sentence(parser: argparse.ArgumentParser) -> str:
    """How a verb's help begins."""
    text = " ".join((parser.description or "").split("\n\n")[0].split())
    return text if text.endswith((".", ":")) else text + "."


def metavar(action: argparse.Action) -> str:
    """How an option's value is shown."""
    if action.nargs == 0:
        return ""
    shown = str(action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper()))
    return f"{shown} [{shown} ...]" if action.nargs == "+" else shown.replace("|", " or ")


def captions() -> str:
    """Packages from the ground up, with the first line of every module's docstring."""
    parts = []
    for package in PACKAGES:
        purpose = caption(SOURCE / "fae" / package / "__init__.py")
        parts.append(f"\n**`{package}/`**: {purpose}\n\n| file | what it does |\n|---|---|\n")
        for path in sorted((SOURCE / "fae" / package).glob("*.py")):
            if path.stem != "__init__":
                parts.append(f"| [{path.name}](../../src/fae/{package}/{path.name}) | {caption(path)} |\n")
    parts.append("\n**At the top**\n\n| file | what it does |\n|---|---|\n")
    for path in sorted((SOURCE / "fae").glob("*.py")):
        parts.append(f"| [{path.name}](../../src/fae/{path.name}) | {caption(path)} |\n")
    return "".join(parts) + "\n"


def caption(path: Path) -> str:
    """First line of a module's docstring."""
    return markdown((ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0])


def public_names() -> str:
    """`fae.*`, each with the first line of its docstring."""
    import fae

    parts = ["\n| name | defined in | what it is |\n|---|---|---|\n"]
    tree = ast.parse((SOURCE / "fae" / "__init__.py").read_text())
    (exports,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EXPORTS"
    ]
    for name in fae.__all__:
        path = SOURCE.joinpath(*exports[name].split(".")).with_suffix(".py")
        (found,) = [
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name
        ]
        said = markdown((ast.get_docstring(found) or "").splitlines()[0])
        link = f"../../{path.relative_to(DOCS.parent)}"
        parts.append(f"| `fae.{name}` | [{exports[name].removeprefix('fae.')}]({link}) | {said} |\n")
    return "".join(parts) + "\n"


if __name__ == "__main__":
    for page, text in pages().items():
        if page.read_text() != text if page.exists() else True:
            page.write_text(text)
            print(f"wrote {page.relative_to(DOCS.parent)}")
