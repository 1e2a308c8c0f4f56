"""The command line as a process: names with escapes, streams, memory, open files, a folder for compiled loops."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import fae as package
from case_folders import fae_process
from fae.cli.main import main
from fae.cli.process.streams import write_stdout
from fae.core.printable import brief, printable, tell
from fae.core.progress import task

from commands import artifacts, fae, fault, strict_json, succeed

LOG = '[log]\ntrain = "f.csv"\nlabel = "y"\ncategorical = ["a", "b"]\n'
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u200b"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small log f.csv and its recipe r.toml, which is the current one."""
    (tmp_path / "f.csv").write_text("y,a,b\n" + "".join(f"{i % 2},{i % 5},{i % 7}\n" for i in range(400)))
    (tmp_path / "r.toml").write_text(LOG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with \xe9, \u4e2d and \U0001f600", "plain, with \xe9, \u4e2d and \U0001f600"),
        ("a\nb\r\nc\u2028d\n", "a b c d"),
        ("\x1b[31m\x07\x9b1m\x7f\t\0", r"\x1b[31m\x07\x9b1m\x7f\x09\x00"),
        ("\u202eevil\u2066\u200b\ufeff\u00ad", r"\u202eevil\u2066\u200b\ufeff\xad"),
        ("\ud800 \udcff \U000e0041", r"\ud800 \udcff \U000e0041"),
        ("no\xa0break", r"no\xa0break"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_escapes_in_names_are_shown_and_not_sent(folder: Path) -> None:
    """In the header, in a file's name, in a column's name, in the folder's, on the command line, in a report."""
    (folder / "header.csv").write_text(f"y,b{EVIL}\n1,2\n")
    (folder / f"x{EVIL}.csv").write_text("y,a,b\n1,2,3,4\n")
    (folder / f"run{EVIL}").mkdir()
    lines = [
        fault(fae("ingest", "r.toml", "--out", "o", "--set", "log.train=header.csv")),
        fault(fae("ingest", "r.toml", "--out", "o", "--set", f"log.train=x{EVIL}.csv")),
        fault(fae("ingest", "r.toml", "--out", f"run{EVIL}", "--set", "log.train=none.csv")),
        fault(fae("report", f"run{EVIL}")),
        fault(fae(f"verb{EVIL}")),
        succeed("ingest", "r.toml", "--out", f"run{EVIL}").stderr,
        succeed("ingest", "r.toml", "--out", f"run{EVIL}").stderr,  # already there, with its path
        fae("ingest", "none.toml", "--out", f"run{EVIL}", "--debug", "--set", f"a.b={EVIL}").stderr,
    ]
    assert not set("".join(lines)) & set(EVIL) - set("]0;owned[2J31m")
    assert sum(r"\x1b]0;owned\x07\x1b[2J\x9b31m" in line for line in lines) >= 5


def test_brief() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert brief(deep) == "a value that is nested too deeply to show"
    assert brief(10**5000) == "a number of thousands of digits"
    assert len(brief("x" * 5000)) == 120


# -------------------------------------------------------------------------------------------------------- streams


class Broken(io.StringIO):
    """A stream that takes nothing, as a full disk or a terminal that is gone."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [None, "full", Broken()], ids=["closed", "full", "gone"])
def test_lines_for_people_are_no_reason_to_fail(stream: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", open("/dev/full", "w") if stream == "full" else stream)  # noqa: SIM115
    assert main(["ingest", "r.toml", "--out", "run", "--json"]) == 0
    assert strict_json(out.getvalue())["summary"]["num_inputs"] == 400
    assert main(["ingest", "none.toml"]) == 2
    with task("work", 10) as progress:
        progress.advance(1, "a [note] with [/markup] and \x1b")
    monkeypatch.undo()


def test_a_result_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    for stream, why in ((open("/dev/full", "w"), "No space left on device"), (None, "it is closed")):  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", stream)
        said.truncate(0)
        assert main(["ingest", "r.toml", "--out", "run", "--json"]) == 2
        line = said.getvalue().splitlines()[-1]
        assert f"fae: cannot write the result to standard output: {why}; " in line
        assert artifacts(folder / "run") == ["ingest"]
        if stream is not None:
            stream.close()  # what is left in it goes nowhere, and the interpreter does not complain at its end
    monkeypatch.undo()


def test_a_reader_that_has_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["ingest", "r.toml", "--out", "run", "--json"]) == 0
    monkeypatch.undo()
    assert "fae:" not in said.getvalue()


def test_a_stream_that_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe of 64 KiB takes 1 MB in pieces; a line for people waits a second at most."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text, read = "x" * 1_000_000, bytearray()

    def take() -> None:
        while block := os.read(reader, 1000):
            read.extend(block)

    thread = threading.Thread(target=take)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        tell(text)  # no reader yet
        thread.start()
        monkeypatch.setattr(sys, "stdout", stream)
        assert write_stdout(text, "the result") == 0
        monkeypatch.undo()
    thread.join()
    os.close(reader)
    assert read.endswith(text.encode())


def test_streams_of_a_process(folder: Path) -> None:
    """Closed ones do not become files of the run, and Python has nothing to complain about at its end."""
    command = f"{sys.executable} -m fae.cli.main ingest r.toml"
    script = (
        f"{command} --out a --json 2>&- <&- > result; echo $?; {command} --out a --json >&- 2>&- <&-; echo $?; "
        f"{command} --out a --json 2> said > /dev/full; echo $?; {command} --out a --json 2>> said | true; "
        "echo ${PIPESTATUS[0]}"
    )
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "2", "2", "0"]
    assert strict_json((folder / "result").read_text())["stage"] == "ingest"
    said = (folder / "said").read_text().splitlines()
    assert [line.partition(":")[0] for line in said if not line.startswith("ingest: ")] == ["fae"]


# ------------------------------------------------------------------------------------------ memory and open files


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError("Unable to allocate 7 TiB"), "there is not enough memory (Unable to allocate 7 TiB)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RuntimeError("can't start new thread"), "cannot start a thread"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (OSError(errno.EMFILE, "Too many open files", "a.npy"), "a.npy: Too many open files; raise the limit on open"),
        (ImportError("lib.so: cannot open: Too many open files"), "(ulimit -n, now "),
    ],
)
def test_faults_of_the_machine_are_a_line(
    error: Exception, line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fae.run.folder.RunFolder.stage", fail)
    fault(fae("ingest", "r.toml", "--out", "run"), line)


def test_a_defect_is_a_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError(EVIL)

    monkeypatch.setattr("fae.run.folder.RunFolder.stage", fail)
    done = fae("ingest", "r.toml", "--out", "run")
    assert done.status == 1
    assert done.stderr.startswith("Traceback")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("most", [64, 12])
def test_few_open_files(most: int, folder: Path) -> None:
    done = fae_process(
        "run", "r.toml", "--out", "run", "--device", "cpu", folder=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert done.returncode in (0, 2)
    if done.returncode:
        assert f"Too many open files; raise the limit on open files (ulimit -n, now {most})" in lines[-1]
    assert "Traceback" not in done.stderr
    succeed("run", "r.toml", "--out", "run", "--device", "cpu")


# ------------------------------------------------------------------------------------------------- compiled loops


def test_no_folder_for_compiled_loops_can_be_written(folder: Path) -> None:
    """A file is where the package's cache would be, and HOME is none; with TMPDIR first, then without."""
    source = Path(package.__file__).parent
    for path in source.rglob("*"):
        if path.suffix in (".py", ".j2", ".css"):
            target = folder / "package" / "fae" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for place in [path for path in (folder / "package").rglob("*") if path.is_dir()]:
        (place / "__pycache__").touch()
    (folder / "tmp").mkdir()
    environment = {
        "PYTHONPATH": str(folder / "package"), "HOME": "/dev/null/none", "TMPDIR": str(folder / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "/dev/null/none",
    }  # fmt: skip
    first = fae_process("ingest", "r.toml", "--out", "a", folder=folder, environment=environment)
    assert first.returncode == 0, first.stderr
    own = folder / "tmp" / f"fae-{os.geteuid()}"
    assert first.stderr.count(f"compiled loops are kept in {own}: ") == 1
    assert list(own.rglob("*.nbc"))
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)  # anybody might have put code there
    other = fae_process("ingest", "r.toml", "--out", "other/b", folder=folder, environment=environment)
    assert other.returncode == 0, other.stderr
    assert "there is no folder in which compiled loops can be kept" in other.stderr
    assert other.stderr.count("\n") == 2
