"""The first hour as a script: the commands of docs/tutorials/first_hour.md on a log, with every output checked.

python docs/first_hour.py                                  # the page's own log; outputs as printed there
python docs/first_hour.py --file clicks.csv.gz             # a file of one's own in its place
python docs/first_hour.py --synthetic-criteo 2000000       # the page's log at another size
python docs/first_hour.py ... --out DIR --json FILE --auc 0.94

Commands are taken from the page and run as processes of this Python's environment. The test split must be the last
inputs of the file, as in a recipe of `fae init` for a log without times. Exits 1 at the first thing that is wrong.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import os
import re
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]

from chromium import BROWSER, browser  # noqa: E402
from common import record, save_record  # noqa: E402
from doc_pages import COMMANDS, TUTORIALS, Terminal, blocks, difference  # noqa: E402

PAGE = TUTORIALS / "first_hour.md"
SAME = 1e-6
"""Largest difference of two float32 models' scores."""
MOST_REQUESTED = 1_000


class Hour:
    """One first hour in a folder: its log, what was checked, and how long each step took."""

    def __init__(self, folder: Path, source: Path | None, num_inputs: int | None, floor: float | None) -> None:
        self.folder, self.source, self.num_inputs, self.floor = folder, source, num_inputs, floor
        self.is_pages = source is None and num_inputs is None
        suffix = "".join(source.suffixes) if source else ".tsv"
        self.log, self.test = folder / f"clicks{suffix}", folder / f"test{suffix.removesuffix('.gz')}"
        self.terminal = Terminal(
            folder,
            in_process=False,
            words={"clicks.tsv": self.log.name, "test.tsv": self.test.name},
            hidden=folder / ".hidden",
        )
        self.steps: list[dict[str, Any]] = []
        self.checks: dict[str, Callable[[str], str]] = {
            "fae synthetic": lambda printed: f"{self.log.stat().st_size:,} bytes",
            "fae inspect": self.check_inspect,
            "fae init": self.check_init,
            "fae plan": self.check_plan,
            "fae run": self.check_run,
            "fae report": self.check_report,
            "fae runs": self.check_runs,
            "tail": lambda printed: f"{count_lines(self.test):,} lines",
            "fae predict": self.check_predict,
            "fae evaluate": self.check_evaluate,
            "fae export": self.check_export,
            "python served/check.py": self.check_checked,
            "python served/serve.py": self.check_server,
            "curl": self.check_health,
            "kill": lambda printed: "the server ended with status 0",
            "fae clean": self.check_clean,
        }

    def follow(self) -> None:
        """Run every block of the page."""
        for block in blocks(PAGE):
            if block.language in COMMANDS:
                for step in block.steps:
                    self.step(step.line, step.output)
            elif block.language == "python":
                with self.timed("python: golden inputs to the server") as row, inside(self.folder):
                    printed = self.terminal.python(block.text, PAGE.name)
                    row["found"] = printed.strip()
                    assert printed.endswith("True\n"), printed

    def step(self, line: str, output: str | None) -> None:
        """Run one line of the page and what is checked behind it."""
        name = next(name for name in sorted(self.checks, key=len, reverse=True) if line.startswith(name))
        if name == "fae clean":
            self.size = size_of(self.folder / "runs" / "my")
        with self.timed(self.terminal.typed(line)) as row:
            if name == "fae synthetic" and self.source is not None:
                row["command"] = f"(the file {self.source.name} in its place)"
                self.log.symlink_to(self.source.resolve())
                printed = ""
            elif name == "tail":
                printed = self.cut()
                row["command"] = f"(the last {self.num_test():,} inputs, as tail takes them)"
            else:
                line = line.replace("--inputs 20000", f"--inputs {self.num_inputs}") if self.num_inputs else line
                row["command"] = self.terminal.typed(line)
                printed = self.terminal.run(line)
        wrong = difference(output, printed) if self.is_pages and output is not None else ""
        assert not wrong, f"{line}\n{wrong}"
        row["found"] = self.checks[name](printed)
        say(row)
        if name == "fae run":
            self.run_again()
        if name == "fae clean":
            self.predict_again()

    @contextmanager
    def timed(self, command: str) -> Iterator[dict[str, Any]]:
        """A row of the table, with the seconds that the block takes."""
        row: dict[str, Any] = {"command": command, "seconds": 0.0, "found": ""}
        self.steps.append(row)
        begin = time.perf_counter()
        yield row
        row["seconds"] = round(time.perf_counter() - begin, 2)

    def record(self) -> dict[str, Any]:
        """The run's record."""
        return dict(json.loads((self.folder / "runs" / "my" / "run.json").read_text()))

    def num_test(self) -> int:
        """Inputs of the test split, which must be the last ones."""
        log = self.record()["log"]
        begin, end = log["splits"]["test"]
        assert end == log["num_inputs"]
        return int(end - begin)

    def cut(self) -> str:
        """The test lines as a file, as `tail` would; behind the header line where the log has one."""
        count, lines = self.num_test(), read_lines(self.log)
        header = lines[:1] if self.log.suffix != ".tsv" else []
        self.test.write_bytes(b"".join([*header, *lines[-count:]]))
        return ""

    def check_inspect(self, printed: str) -> str:
        """The label, and a line for each column."""
        label = re.search(r"^label (\S+): yes or no", printed, re.MULTILINE)
        assert label, printed
        table = printed[printed.index("\ncolumn ") + 1 :].split("\n\n")[0].splitlines()[1:]
        kinds = {row.split()[0]: row.split()[1] for row in table}
        header = first_line(self.log)
        if self.log.suffix == ".tsv":  # Criteo's text has no header line
            assert len(kinds) == len(header.split("\t")) == 40
        else:
            assert list(kinds) == next(csv.reader([header])), printed
        assert kinds[label[1]] == "label"
        found = sorted(set(kinds.values()))
        return f"label {label[1]}, {len(kinds)} columns: {', '.join(found)}"

    def check_init(self, printed: str) -> str:
        """A recipe with a comment at what was chosen; that it runs, `fae run` shows."""
        text = (self.folder / "my.toml").read_text()
        tables = tomllib.loads(text)
        assert tables["log"]["train"] == self.log.name
        return f"{len(text.splitlines())} lines; sections {', '.join(tables)}"

    def check_plan(self, printed: str) -> str:
        """Tables, budgets, memory, and a verdict at the end."""
        for part in ("rowwise", "hot rows", "memory to the byte", "smallest budget that trains"):
            assert part in printed, (part, printed)
        verdict = " ".join(printed[printed.index("smallest budget that trains") :].split())
        assert re.search(r"budget buys nothing|Give it a budget|do not need FAE|Set \[train\]", verdict), verdict
        return verdict.split("; ", 1)[1][:150]

    def check_run(self, printed: str) -> str:
        """Better than the base rate, the best single column and the floor; the log's parts are all of it."""
        test, context = self.record()["test"], self.record()["test"]["context"]
        assert test["log_loss"] < context["base_rate_log_loss"], test
        assert test["auc"] > max(self.floor or 0, context["best_column"]["auc"]), test
        return (
            f"AUC {test['auc']:.4f} (best column {context['best_column']['auc']:.4f}), "
            f"log loss {test['log_loss']:.4f} (base rate {context['base_rate_log_loss']:.4f})"
        )

    def run_again(self) -> None:
        """The same command again does nothing."""
        checkpoint = self.folder / "runs" / "my" / "checkpoint" / "manifest.json"
        before = checkpoint.stat().st_mtime_ns
        with self.timed("fae run my.toml  (again)") as row:
            printed = self.terminal.run("fae run my.toml")
        assert printed.count(": already there, ") == 5, printed
        assert checkpoint.stat().st_mtime_ns == before
        row["found"] = "nothing made again"
        say(row)

    def check_report(self, printed: str) -> str:
        """A page without an error in the browser's console, where there is a browser."""
        page = self.folder / "runs" / "my" / "report.html"
        verdict = printed.splitlines()[0]
        assert verdict.split(" ")[0].rstrip(",") in page.read_text(), verdict
        if BROWSER is None:
            return "written; no Chromium here"
        with browser() as window:
            window.open(page)
            assert not window.console, window.console
        return "no console errors in Chromium"

    def check_runs(self, printed: str) -> str:
        """The run is listed as finished, with its AUC."""
        (line,) = [line for line in printed.splitlines() if line.startswith("my ")]
        assert line.endswith("finished"), printed
        assert f"{self.record()['test']['auc']:.5f}" in line, printed
        return "finished, with its AUC"

    def check_predict(self, printed: str) -> str:
        """A probability a line."""
        self.scores = read_scores(self.folder / "scores.csv")
        expected = count_lines(self.test) - (self.log.suffix != ".tsv")
        assert len(self.scores) == expected == self.num_test()
        assert all(0 <= score <= 1 for score in self.scores)
        return f"{len(self.scores):,} scores"

    def check_evaluate(self, printed: str) -> str:
        """AUC and log loss are those of the record."""
        told = self.terminal.run(f"fae evaluate runs/my {self.test.name} --quiet --json")
        found, test = json.loads(told), self.record()["test"]
        differences = {name: abs(found[name] - test[name]) for name in ("auc", "log_loss")}
        assert max(differences.values()) < SAME, differences
        assert f"AUC {test['auc']:.5f}" in printed, printed
        return ", ".join(f"{name} off by {value:.1e}" for name, value in differences.items())

    def check_export(self, printed: str) -> str:
        """The exported folder's metrics are the run's."""
        manifest = json.loads((self.folder / "served" / "manifest.json").read_text())
        assert (self.folder / "served" / "model.pt2").is_file()
        return f"{len(manifest['files'])} files, {size_of(self.folder / 'served'):,} bytes"

    def check_checked(self, printed: str) -> str:
        """Scores of a process without FAE."""
        found = largest(self.scores, read_scores(self.folder / "checked.csv"))
        assert found < SAME, found
        return f"without FAE, {len(self.scores):,} scores off by {found:.1e}"

    def check_health(self, printed: str) -> str:
        """The server knows what it serves."""
        assert json.loads(printed)["run"] == "my", printed
        return "the run my"

    def check_server(self, printed: str) -> str:
        """Raw test lines, as objects, get the scores of predict."""
        address = f"http://127.0.0.1:{self.terminal.words['8080']}"
        with urllib.request.urlopen(f"{address}/schema") as answer:
            schema = json.load(answer)
        lines = [line.decode().rstrip("\r\n") for line in read_lines(self.test)]
        if self.log.suffix == ".tsv":
            names = [f"I{i}" for i in range(1, 14)] + [f"C{i}" for i in range(1, 27)]
            rows = [dict(zip(names, line.split("\t")[1:], strict=True)) for line in lines[:MOST_REQUESTED]]
        else:
            rows = list(csv.DictReader(lines[: MOST_REQUESTED + 1]))
        body = json.dumps({"inputs": [{name: value or None for name, value in row.items()} for row in rows]})
        with urllib.request.urlopen(f"{address}/score", body.encode()) as answer:
            scores = json.load(answer)["scores"]
        found = largest(self.scores[: len(rows)], scores)
        assert found < SAME, found
        assert schema
        return f"{len(rows):,} raw test lines off by {found:.1e}"

    def check_clean(self, printed: str) -> str:
        """Bytes are free."""
        freed = self.size - size_of(self.folder / "runs" / "my")
        assert freed > 0
        return f"{freed:,} bytes are free"

    def predict_again(self) -> None:
        """After `fae clean` the run scores as before."""
        with self.timed("fae predict ...  (after clean)") as row:
            self.terminal.run(f"fae predict runs/my {self.test.name} --out later.csv")
        assert (self.folder / "later.csv").read_bytes() == (self.folder / "scores.csv").read_bytes()
        row["found"] = "the same bytes"
        say(row)


def say(row: dict[str, Any]) -> None:
    """Print one row of the table."""
    print(f"{row['seconds']:8.1f} s  {row['command'][:52]:52}  {row['found']}", flush=True)


def read_lines(path: Path) -> list[bytes]:
    """The lines of a text file, plain or packed."""
    if path.suffix == ".gz":
        with gzip.open(path) as packed:
            return packed.readlines()
    with path.open("rb") as plain:
        return plain.readlines()


def first_line(path: Path) -> str:
    """The first line of a text file, plain or packed."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return str(file.readline()).rstrip("\n")


def count_lines(path: Path) -> int:
    """The lines of a file."""
    return len(read_lines(path))


def read_scores(path: Path) -> list[float]:
    """The column of scores of a CSV file."""
    with path.open() as file:
        return [float(row["score"]) for row in csv.DictReader(file)]


def largest(some: list[float], others: list[float]) -> float:
    """The largest difference of two lists of one length."""
    return max((abs(one - other) for one, other in zip(some, others, strict=True)), default=math.nan)


def size_of(folder: Path) -> int:
    """Bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder for the time of a block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> int:
    """Run the hour, print its table, write its JSON; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, help="a log in place of the page's: Criteo's text, or CSV with a header")
    source.add_argument("--synthetic-criteo", type=int, metavar="N", help="inputs of the page's log")
    parser.add_argument("--auc", type=float, help="least test AUC (default: that of the best single column)")
    parser.add_argument("--out", type=Path, help="an empty folder to work in (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write what was found there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.out or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        assert not any(folder.iterdir()), f"{folder} is not empty"
        hour, begin, wrong = Hour(folder, options.file, options.synthetic_criteo, options.auc), time.perf_counter(), ""
        try:
            hour.follow()
        except AssertionError as error:
            wrong = str(error) or "a check failed"
            if not str(error):
                raise
        finally:
            hour.terminal.close()
        seconds = time.perf_counter() - begin
        print(f"wrong: {hour.steps[-1]['command']}\n{wrong}" if wrong else f"{seconds:8.1f} s  in all")
        if options.json is not None and not wrong:
            test = hour.record()["test"]
            context = {name: test["context"][name] for name in ("base_rate_log_loss", "best_column")}
            found = record(
                log=options.file.name if options.file else f"criteo, {options.synthetic_criteo or 20_000} inputs",
                num_inputs=hour.record()["log"]["num_inputs"],
                test={"auc": test["auc"], "log_loss": test["log_loss"], **context},
                seconds=round(seconds, 1),
                steps=hour.steps,
            )
            found["command"] = (
                "python docs/first_hour.py"
                + (  # without folders of the machine
                    f" --file {options.file.name}"
                    if options.file
                    else f" --synthetic-criteo {hour.num_inputs or 20_000}"
                )
                + (f" --auc {options.auc}" if options.auc else "")
            )
            save_record(options.json, found)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
