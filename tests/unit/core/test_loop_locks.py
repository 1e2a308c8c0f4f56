"""The lock of a compiled loop: one holder, waited for, given back with its process; and no lock stops nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fae.core.compiling import loop_locks
from fae.core.compiling.loop_locks import LoopLock

_HOLD = """
import sys
from pathlib import Path
from fae.core.compiling.loop_locks import LoopLock
lock = LoopLock(Path(sys.argv[1]))
print(lock.acquire(0), flush=True)
sys.stdin.read()
"""

_COMPILE = """
import sys
sys.path.insert(0, sys.argv[1])
import loops_of_a_test
assert loops_of_a_test.total(4) == 6
stats = loops_of_a_test.total.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""

_LOOPS = """
from fae.core.compiled import njit

@njit(nogil=True)
def total(count):
    found = 0
    for number in range(count):
        found += number
    return found
"""


def test_one_holds_it_and_others_do_not(tmp_path: Path) -> None:
    first, second = LoopLock(tmp_path / "loop.lock"), LoopLock(tmp_path / "loop.lock")
    assert first.acquire(0)
    assert first.acquire(0), "it is kept"
    assert not second.acquire(0)
    first.release()
    first.release()
    assert second.acquire(0)
    assert not first.acquire(0)


def test_it_is_waited_for(tmp_path: Path) -> None:
    first, second = LoopLock(tmp_path / "loop.lock"), LoopLock(tmp_path / "loop.lock")
    first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    first.release()
    waiting.join(60)
    assert not waiting.is_alive()
    assert not first.acquire(0)


def test_it_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    path, lock = tmp_path / "loop.lock", LoopLock(tmp_path / "loop.lock")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not lock.acquire(0)
        holder.kill()
    assert lock.acquire(0)


def test_a_process_that_was_forked_meanwhile_does_not_keep_it(tmp_path: Path) -> None:
    lock, (read, write) = LoopLock(tmp_path / "loop.lock"), os.pipe()
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    lock.release()
    assert LoopLock(tmp_path / "loop.lock").acquire(0)
    os.close(write)
    os.close(read)
    os.waitpid(child, 0)


@pytest.mark.parametrize("name", ["missing/loop.lock", "."])
def test_where_there_can_be_no_file_everybody_goes_on(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        assert LoopLock(tmp_path / name).acquire(0)


def test_where_files_cannot_be_locked_everybody_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("Function not implemented")

    monkeypatch.setattr(loop_locks.fcntl, "flock", fail)
    for _ in range(2):
        assert LoopLock(tmp_path / "loop.lock").acquire(0)


def test_of_processes_that_start_together_one_compiles(tmp_path: Path) -> None:
    (tmp_path / "loops_of_a_test.py").write_text(_LOOPS)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "loops")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _COMPILE, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = sorted(process.communicate(timeout=300)[0] for process in started)
    assert said == ["0 1\n", "1 0\n", "1 0\n"]
