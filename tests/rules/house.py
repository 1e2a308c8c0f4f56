"""The rules of the house as functions: each takes a checkout and returns its faults, one line each."""

from __future__ import annotations

import ast
import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FLOORS = (
    {"core"},
    {"artifacts", "engine"},
    {"ingest", "profile", "report"},
    {"synthetic", "calibrate", "pack", "inspect"},
    {"kernels"},
    {"distributed"},
    {"streaming"},
    {"embedding"},
    {"models"},
    {"checkpoint"},
    {"training"},
    {"run"},
    {"planning", "exporting"},
    {"bench"},
    {"cli"},
)
"""Packages from the ground up. A module imports its own package and floors below; stages do not import each other."""

STAGE_PACKAGES = {"ingest", "profile", "report", "synthetic", "calibrate", "pack"}
STAGE_EXCEPTIONS = {("calibrate", "profile"), ("synthetic", "ingest")}
SHARED_STEMS = {"__init__", "__main__", "config"}
COMPILERS = re.compile(r"(njit|jit|compiled|intrinsic|overload|cfunc|vectorize)\b")

WORDS = re.compile(
    r"\blanes?\b|(?<!\.)\bfeeds?\b|\bmovers?\b|dawdle|poison|\bwhoever\b|\bmend(s|ed|ing)?\b|\bmade[- ]up\b|\bso many\b"
    r"|\bgo(es|ing)? on\b|\bwent on\b|\bstands?\b|\bstood\b|\bstanding\b|\bask(s|ed)? for\b"
    r"|\b(bring|brings|brought) up\b|\bas published\b|\bteach(es|ing)\b|\bsamples/s\b|\bsamples a second\b",
    re.IGNORECASE,
)
NAMES = re.compile(
    r"^(Lane\w*|\w+Lanes?|Feed\w*|Mover|Fitter|Fit|Choice|Chain|\w+Chain|bring|depart|leave|look|rest|cell|dawdle"
    r"|teaching|given|appending|finish_log)$"
)
"""Names of functions, classes and modules of older code, which plainer ones have replaced."""


@dataclass(frozen=True)
class House:
    """A checkout."""

    root: Path

    @cached_property
    def modules(self) -> list[Path]:
        """Every Python file of the package."""
        return sorted((self.root / "src" / "fae").rglob("*.py"))

    @cached_property
    def trees(self) -> dict[Path, ast.Module]:
        """Their syntax trees."""
        return {path: ast.parse(path.read_text()) for path in self.modules}

    @cached_property
    def pages(self) -> list[Path]:
        """README, docs and the formats beside the code."""
        return sorted([*self.root.glob("*.md"), *self.root.glob("docs/**/*.md"), *self.root.glob("src/**/*.md")])

    def name(self, path: Path) -> str:
        """A path from the checkout's root."""
        return str(path.relative_to(self.root))

    def dotted(self, path: Path) -> str:
        """A module's dotted name."""
        return ".".join(path.relative_to(self.root / "src").with_suffix("").parts).removesuffix(".__init__")

    def package(self, path: Path) -> str:
        """The package of a module; "" for `fae` itself."""
        parts = path.relative_to(self.root / "src" / "fae").parts
        return parts[0] if len(parts) > 1 else ""

    def imports(self, path: Path) -> Iterator[str]:
        """Dotted names of the modules of `fae` that a module imports, lazy and type-checking imports counted."""
        known = self._known
        for node in ast.walk(self.trees[path]):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in known)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fae":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in known else str(node.module)

    @cached_property
    def _known(self) -> set[str]:
        return {self.dotted(path) for path in self.modules}


def sizes(house: House) -> list[str]:
    """Rule 1: median of src at most 180 lines, 90th percentile at most 300, no file above 400."""
    lines = {path: len(path.read_text().splitlines()) for path in house.modules if path.stem != "__init__"}
    faults = [f"{house.name(path)} has {count} lines, 400 at most" for path, count in lines.items() if count > 400]
    median, high = statistics.median(lines.values()), statistics.quantiles(lines.values(), n=10)[-1]
    if median > 180:
        faults.append(f"the median file has {median} lines, 180 at most")
    if high > 300:
        faults.append(f"the 90th percentile is {high} lines, 300 at most")
    return faults


def circles(house: House) -> list[str]:
    """Rule 2: no import circle, lazy and type-checking imports counted."""
    graph = {house.dotted(path): set(house.imports(path)) - {house.dotted(path)} for path in house.modules}
    alive = dict(graph)
    while free := [name for name, targets in alive.items() if not targets & alive.keys()]:
        for name in free:
            del alive[name]
    # Modules that only import a circle are not in it.
    while free := [name for name in alive if not any(name in targets for targets in alive.values())]:
        for name in free:
            del alive[name]
    return [f"an import circle: {', '.join(sorted(alive))}"] if alive else []


def floors(house: House) -> list[str]:
    """Rule 3: imports go downward; stages do not know each other; kernels import core alone."""
    floor = {package: number for number, packages in enumerate(FLOORS) for package in packages}
    faults = []
    for path in house.modules:
        here = house.package(path)
        if here and here not in floor:
            faults.append(f"{house.name(path)}: the package has no floor")
            continue
        for target in house.imports(path):
            there = target.split(".")[1] if target.count(".") else ""
            if not here or not there or there == here:
                continue
            exception = (here, there) in STAGE_EXCEPTIONS and (
                there != "ingest" or target in ("fae.ingest.config", "fae.ingest.column_config")
            )
            sibling = {here, there} <= STAGE_PACKAGES and not exception
            if floor[there] >= floor[here] or sibling or (here == "kernels" and there != "core"):
                faults.append(f"{house.name(path)} imports {target}")
    return faults


def unique_names(house: House) -> list[str]:
    """Rule 4: file stems and public names are unique over packages, and the names of files over tests."""
    stems, names = defaultdict(set), defaultdict(set)
    for path in house.root.glob("tests/**/*.py"):
        if path.stem != "conftest":
            stems[f"tests/{path.stem}"].add(house.name(path))
    for path in house.modules:
        if house.package(path) != "cli" and path.stem not in SHARED_STEMS:
            stems[path.stem].add(house.name(path))
        if house.package(path) == "cli":
            continue
        for node in house.trees[path].body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                names[node.name].add(house.name(path))
    doubled = [(stem, paths) for stem, paths in stems.items() if len(paths) > 1]
    doubled += [(name, paths) for name, paths in names.items() if len(paths) > 1]
    return [f"{name} is the name of two things: {', '.join(sorted(paths))}" for name, paths in doubled]


def folder_sizes(house: House) -> list[str]:
    """Rule 5: at most 20 files a folder."""
    counts = Counter(path.parent for path in house.modules)
    return [f"{house.name(folder)} has {count} files, 20 at most" for folder, count in counts.items() if count > 20]


def format_versions(house: House) -> list[str]:
    """Rule 6: the version on every page of formats/ is the code's, and every artifact has its page."""
    folder, faults = house.root / "src" / "fae" / "artifacts", []
    for module in sorted(folder.glob("*.py")):
        found = re.search(r"^FORMAT_VERSION = (\d+)$", module.read_text(), re.MULTILINE)
        page = folder / "formats" / f"{module.stem}.md"
        if not found:
            continue
        text = page.read_text() if page.exists() else ""
        if re.findall(r"^Format version: (\d+)$", text, re.MULTILINE) != [found[1]]:
            faults.append(f"{house.name(page)} does not say `Format version: {found[1]}`")
    return faults


def results_index(house: House) -> list[str]:
    """Rule 7: every file of results/ is in its index with command, commit, machine and claim, and the reverse."""
    folder = house.root / "benchmarks" / "results"
    index = (folder / "README.md").read_text() if (folder / "README.md").exists() else ""
    rows = re.findall(r"^\| `?([\w.-]+\.json)`? +\|(.*)\|$", index, re.MULTILINE)
    there, listed = {path.name for path in folder.glob("*.json")}, {name for name, _ in rows}
    faults = [f"{name} is not in results/README.md" for name in sorted(there - listed)]
    faults += [f"results/README.md lists {name}, which is not there" for name in sorted(listed - there)]
    for name, row in rows:
        columns = [column.strip() for column in row.split("|")]
        if len(columns) != 4 or not all(columns):
            faults.append(f"{name}: its row needs command, commit, machine and claim")
    return faults


def private_names(house: House) -> list[str]:
    """Rule 8: benchmarks and the command line touch no private name."""
    files = [*(house.root / "benchmarks").rglob("*.py"), *(house.root / "src" / "fae" / "cli").rglob("*.py")]
    faults = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            private: list[str] = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fae"):
                private = [alias.name for alias in node.names if re.match(r"_[a-z]", alias.name, re.IGNORECASE)]
            elif isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr, re.IGNORECASE):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                fine = owner in ("self", "cls") or "torch" in ast.unparse(node) or node.attr in ("_asdict", "_replace")
                private = [] if fine else [node.attr]
            faults += [f"{house.name(path)}:{node.lineno} touches {name}" for name in private]
    return faults


def public_names(house: House) -> list[str]:
    """Rule 9: `fae.__all__` is what is exported, sorted, and each name is on docs/reference/python.md."""
    path = house.root / "src" / "fae" / "__init__.py"
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in house.trees[path].body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    exported, public = values["_EXPORTS"], values["__all__"]
    page = house.root / "docs" / "reference" / "python.md"
    text = page.read_text() if page.exists() else ""
    faults = [f"fae.{name} is in one of _EXPORTS and __all__ alone" for name in set(exported) ^ set(public)]
    faults += [f"fae.{name} is not on {house.name(page)}" for name in public if f"`fae.{name}`" not in text]
    for name, module in exported.items():
        source = house.root / "src" / Path(*module.split(".")).with_suffix(".py")
        if not source.exists() or not re.search(
            rf"^(class|def) {name}\b|^{name}\b.*=", source.read_text(), re.MULTILINE
        ):
            faults.append(f"fae.{name} is not defined in {module}")
    return faults


def command_line(house: House) -> list[str]:
    """Rule 10: the options of the command line equal the frozen list, command_line.json."""
    found: dict[str, list[str]] = {}
    for path in sorted((house.root / "src" / "fae" / "cli").glob("*.py")):
        options = [
            argument.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument")
            for argument in node.args
            if isinstance(argument, ast.Constant)
        ]
        if options:
            found[path.stem] = sorted(options)
    frozen = json.loads((Path(__file__).parent / "command_line.json").read_text())
    return [
        f"cli/{stem}.py has the options {found.get(stem)}, frozen are {frozen.get(stem)}"
        for stem in sorted(found.keys() | frozen.keys())
        if found.get(stem) != frozen.get(stem)
    ]


def page_sizes(house: House) -> list[str]:
    """Rule 11: README at most 150 lines; lines of docs at most 120 characters, but for table rows and links."""
    faults = []
    if (count := len((house.root / "README.md").read_text().splitlines())) > 150:
        faults.append(f"README.md has {count} lines, 150 at most")
    for page in house.pages:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            if len(line) > 120 and not line.lstrip().startswith("|") and len(re.sub(r"\(.*?\)", "", line)) > 120:
                faults.append(f"{house.name(page)}:{number} has {len(line)} characters, 120 at most")
    return faults


def words(house: House) -> list[str]:
    """Rule 12: no docstring begins with "Of"; words that plainer ones have replaced do not occur."""
    here = Path(__file__).parent.relative_to(Path(__file__).parents[2])
    files = [
        *house.modules,
        *house.pages,
        *(house.root / "tests").rglob("*.py"),
        *(house.root / "benchmarks").rglob("*.py"),
    ]
    faults = []
    for path in files:
        if path.is_relative_to(house.root / here):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if found := WORDS.search(line):
                faults.append(f"{house.name(path)}:{number} says {found[0]!r}")
            if re.search(r'"""Of\b', line) or re.match(r"\s+Of (a|an|the|all|each|every|its|those|these|this)\b", line):
                faults.append(f'{house.name(path)}:{number} begins with "Of"')
    for path in house.modules:
        for node in ast.walk(house.trees[path]):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and NAMES.match(node.name):
                faults.append(f"{house.name(path)}:{node.lineno} is named {node.name}")
    return faults


def function_sizes(house: House) -> list[str]:
    """Rule 13: at most 10 parameters and 80 lines a function, outside compiled code."""
    faults = []
    for path in house.modules:
        for node in ast.walk(house.trees[path]):
            if not isinstance(node, ast.FunctionDef) or is_compiled(node):
                continue
            every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            count = len([argument for argument in every if argument.arg not in ("self", "cls")])
            inner = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef) and is_compiled(part)]
            lines = length(node) - sum(length(part) for part in inner)
            if count > 10 or lines > 80:
                faults.append(f"{house.name(path)}:{node.lineno} {node.name} has {count} parameters and {lines} lines")
    return faults


def is_compiled(node: ast.FunctionDef) -> bool:
    """Whether numba or Triton compiles a function."""
    return any(COMPILERS.search(ast.unparse(decorator)) for decorator in node.decorator_list)


def length(node: ast.FunctionDef) -> int:
    """Lines of a function."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def captions(house: House) -> list[str]:
    """Rule 14: every file has its caption, the first line of its docstring, on the architecture page."""
    page = house.root / "docs" / "internals" / "architecture.md"
    text = page.read_text() if page.exists() else ""
    faults = []
    for path in house.modules:
        caption = (ast.get_docstring(house.trees[path]) or "").splitlines()[:1]
        if path.stem == "__init__":
            continue
        if not caption or caption[0].replace("``", "`") not in text:
            faults.append(f"{house.name(page)} lacks the caption of {house.name(path)}")
    return faults


RULES = (
    sizes, circles, floors, unique_names, folder_sizes, format_versions, results_index, private_names, public_names,
    command_line, page_sizes, words, function_sizes, captions,
)  # fmt: skip
