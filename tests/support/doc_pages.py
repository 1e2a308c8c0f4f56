"""Pages of docs as they are typed: fenced blocks, their commands and outputs, and a terminal that runs them.

A mark is a comment on the line before a block: ``<!-- needs a GPU -->`` or ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fae.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
COMMANDS = ("sh", "console")
"""Languages of blocks that hold commands. In a console block they begin with ``$``, and their output follows."""
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
MARK = re.compile(r"needs a GPU|not run: \w.*")


@dataclass(frozen=True)
class Step:
    """A command line of a page, and its output; None where the page shows none."""

    line: str
    output: str | None


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    mark: str

    @property
    def steps(self) -> list[Step]:
        """The command lines, in order; comments are left out."""
        if self.language == "sh":
            lines = self.text.replace("\\\n", " ").splitlines()
            return [Step(line.strip(), None) for line in lines if shlex.split(line, comments=True)]
        found = []
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            line, _, output = part.replace("\\\n", " ").partition("\n")
            found.append(Step(line.strip(), output))
        return found

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; of a console block only the lines that a person types."""
        parts = [part for step in self.steps for part in step.line.split("&&")]
        return [words for part in parts if (words := shlex.split(part, comments=True))]


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in these languages (all, if none is named), but for generated ones."""
    found = [
        Block(language=match["language"], text=match["text"], mark=match["mark"] or "")
        for match in BLOCK.finditer(page.read_text())
    ]
    return [
        block for block in found if (not languages or block.language in languages) and "generated" not in block.mark
    ]


def difference(expected: str, printed: str) -> str:
    """What differs between a page's output and the real one, or nothing; ``...`` is any text, spaces are one."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    checker = doctest.OutputChecker()
    if checker.check_output(expected, printed, flags):
        return ""
    return checker.output_difference(doctest.Example("", expected), printed, flags)


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Terminal:
    """One folder in which the blocks of a page are run, one after the other.

    Attributes
    ----------
    folder
        The current folder of every command. Python blocks see it only where it is that of this process.
    in_process
        Whether ``fae`` is called in this process, which saves seconds a command. A line that is more than words (a
        pipe, another program) is always a process of the shell.
    words
        What is typed in place of words of the page, such as a file of one's own. The port 8080 is always a free one.
    hidden
        A folder in which ``fae`` is hidden from commands that begin with ``python``: they must not need it.
    names
        The namespace of the Python blocks.
    """

    folder: Path
    in_process: bool = True
    words: Mapping[str, str] = field(default_factory=dict)
    hidden: Path | None = None
    names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.words = {**self.words, "8080": str(free_port())}
        self._server: subprocess.Popen[str] | None = None
        if self.hidden is not None:
            self.hidden.mkdir(exist_ok=True)
            (self.hidden / "fae.py").write_text('raise ImportError("this must work without FAE")\n')

    def typed(self, text: str) -> str:
        """The text of a page with this terminal's words."""
        return re.sub("|".join(map(re.escape, self.words)), lambda found: self.words[found[0]], text)

    def run(self, line: str) -> str:
        """Run one command line, which must succeed; what it printed on both streams."""
        line = self.typed(line)
        program, *arguments = shlex.split(line, comments=True)
        if arguments[-1:] == ["&"]:
            return self._start(line)
        if program == "kill":
            return self._end()
        if program == "fae" and self.in_process and not set(arguments) & {">", "|", "&&"}:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                try:
                    status = main(arguments)
                except SystemExit as stop:  # --help
                    status = int(stop.code or 0)
            text = printed.getvalue()
        else:
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.folder, env=self._environment(line), text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            status, text = done.returncode, done.stdout
        assert status == 0, f"{line}: status {status}\n{text}"
        return text

    def python(self, block: str, name: str) -> str:
        """Run a Python block, in the namespace of those before it; what it printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            exec(compile(self.typed(block), name, "exec"), self.names)
        return printed.getvalue()

    def close(self) -> None:
        """End what a page has left in the background."""
        if self._server is not None:
            self._end()

    def _environment(self, line: str) -> dict[str, str]:
        """This environment, with the programs of this Python's folder first."""
        found = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        if self.hidden is not None and line.startswith("python "):
            found["PYTHONPATH"] = str(self.hidden)
        return found

    def _start(self, line: str) -> str:
        """Start a server, and wait for the line that says where it is."""
        assert self._server is None
        self._server = subprocess.Popen(
            shlex.split(line)[:-1], cwd=self.folder, env=self._environment(line), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self._server.stdout is not None
        first = self._server.stdout.readline()
        assert self._server.poll() is None, first
        port = int(self.words["8080"])
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return first.replace(str(port), "8080")
            time.sleep(0.1)
        raise AssertionError(f"{line}: nothing listens at {port}: {first}")

    def _end(self) -> str:
        """End the server as a terminal does; it must end well."""
        assert self._server is not None
        self._server.send_signal(signal.SIGTERM)
        text, _ = self._server.communicate(timeout=30)
        assert self._server.returncode == 0, text
        self._server = None
        return ""
