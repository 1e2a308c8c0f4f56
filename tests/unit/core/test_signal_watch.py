"""A signal ends a command wherever the main thread is, and no lock of an import stays locked behind it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import signal, sys, time
from fae.cli.process.signals import handled_signals
from fae.core.interrupts import Interrupted

state = []
source = '''
def locked():
    state.append("locked")
    signal.raise_signal(signal.SIGTERM)
    for _ in range(int(sys.argv[1])):
        time.sleep(0.001)
    state.append("free")
'''
exec(compile(source, sys.argv[2], "exec"))
with handled_signals("a line", ends_process=True):
    try:
        locked()
        time.sleep(60)
    except Interrupted as interrupt:
        print(interrupt.number, state)
print(signal.getsignal(signal.SIGURG) == signal.SIG_DFL)
"""
_SECOND = """
import os, signal, sys, threading, time
from fae.cli.process.signals import handled_signals

source = '''
def locked():
    signal.raise_signal(signal.SIGTERM)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while True:
        time.sleep(0.001)
'''
exec(compile(source, "<frozen importlib._bootstrap>", "exec"))
with handled_signals("a line", ends_process=True):
    locked()
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("file_name", "state"),
    [("<frozen importlib._bootstrap>", ["locked", "free"]), ("anything_else.py", ["locked"])],
)
def test_a_signal_in_the_machinery_of_imports_is_raised_behind_it(file_name: str, state: list[str]) -> None:
    done = run(_PROGRAM, "100", file_name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"15 {state}\nTrue\n"


def test_one_that_stays_there_ends_with_the_line_when_patience_does() -> None:
    program = f"import fae.cli.process.signals as signals\nsignals._PATIENCE_SECONDS = 0.3\n{_PROGRAM}"
    done = run(program, "60000", "<frozen importlib._bootstrap>")
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "a line\n")


def test_a_second_signal_ends_it_at_once() -> None:
    assert run(_SECOND).returncode == -15
