"""Threads and processes of one machine."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path

import pytest

from fae.core.errors import EngineError
from fae.engine import local
from fae.engine.local import LocalEngine, ProcessesEngine, ThreadsEngine

import engine_tasks as tasks
from engine_cases import ENVIRONMENT, SUPPORT, Case, is_running, start, wait_until

PROGRAM = """\
import functools, sys
from pathlib import Path
from engine_tasks import traced
from fae.engine.local import ProcessesEngine
print("begins")
with ProcessesEngine(2) as engine:
    print(sum(engine.map("traced", functools.partial(traced, Path(sys.argv[1]), 0.0), range(6))))
"""


@pytest.mark.parametrize("way", ["file", "input"])
def test_a_script_needs_no_guard(tmp_path: Path, way: str) -> None:
    """The processes do not run the script once more, and it need not be a file."""
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    process = start(script if way == "file" else "-", tmp_path, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(PROGRAM if way == "input" else "")
    assert stdout.split() == ["begins", "15"], stderr
    assert stderr == ""
    assert process.pid not in tasks.processes(tmp_path)


def test_no_thread_is_left() -> None:
    before = threading.enumerate()
    with ThreadsEngine(3) as engine:
        assert next(engine.map("square", tasks.square, range(50))) == 0
    assert threading.enumerate() == before


def test_no_process_is_left(tmp_path: Path) -> None:
    with ProcessesEngine(2) as engine:
        results = engine.map("traced", functools.partial(tasks.traced, tmp_path, 0.0), range(20))
        assert next(results) == 0
        pids = tasks.processes(tmp_path)
        assert pids
        # The same processes, also after a loop that was left.
        assert list(engine.map("settings", tasks.settings_of_libraries, [1])) == [
            dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS"), "1")
        ]
    assert not [pid for pid in pids | tasks.processes(tmp_path) if is_running(pid)]


def test_two_maps_at_once() -> None:
    with ThreadsEngine(2) as engine:
        one, two = (engine.map("square", tasks.square, range(30)) for _ in range(2))
        assert list(zip(one, two, strict=True)) == [(number**2, number**2) for number in range(30)]


def test_no_shards_no_tasks() -> None:
    with ThreadsEngine(2) as engine:
        assert list(engine.map("square", tasks.square, [])) == []


def test_long_tasks_end_when_nobody_waits_for_them(tmp_path: Path) -> None:
    """Threads cannot be ended from outside: the tasks look, in one process and in workers of a shared folder."""
    for name, case in {"threads": Case("threads:2"), "shared": Case("threads:1", ("1/2", "2/2"))}.items():
        folder = tmp_path / name
        folder.mkdir()
        programs = case.begin("polite", folder)
        wait_until(lambda folder=folder: len(tasks.events(folder, "begun")) == 2, "two tasks")  # type: ignore[misc]
        for program in programs:
            program.send_signal(signal.SIGINT)
        assert [program.wait(timeout=60) for program in programs] == [-signal.SIGINT] * len(programs)
        assert tasks.events(folder, "begun") == tasks.events(folder, "ended")
        for program in programs:
            program.communicate()


def test_an_interrupt_from_a_terminal_reaches_the_program_alone(tmp_path: Path) -> None:
    """It goes to all processes of the group, also to those that are just beginning."""
    program = start(SUPPORT / "engine_drivers.py", "slow", tmp_path, "processes:4", start_new_session=True)
    wait_until(lambda: bool(tasks.events(tmp_path, "begun")), "a task")
    os.killpg(program.pid, signal.SIGINT)
    _, stderr = program.communicate()
    assert program.returncode == -signal.SIGINT
    assert "Process _Process" not in stderr
    assert stderr.count("\nKeyboardInterrupt") == 1, stderr
    assert not [pid for pid in tasks.processes(tmp_path) if is_running(pid)]


def test_a_task_that_always_kills_its_process_is_one_line() -> None:
    with ProcessesEngine(2) as engine, pytest.raises(EngineError) as error:
        list(engine.map("die", tasks.die_always, range(8)))
    assert "die: the worker that ran task 4 was lost 4 times" in str(error.value)
    assert "run it with --engine processes:1, or on a machine with more memory" in str(error.value)


def test_the_command_line_does_not_load_what_engines_need() -> None:
    code = (
        "import sys, fae, fae.cli.main, fae.engine.dask_cluster, fae.engine.shared_folder; fae.cli.main.build_parser();"
        "print(sorted({'distributed', 'dask', 'numpy', 'tornado'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == "[]\n"
    assert SUPPORT.is_dir()


@pytest.mark.parametrize(
    ("cores", "num_bytes", "expected"),
    [("16", 4 << 30, ProcessesEngine), ("16", 1 << 20, ThreadsEngine), ("2", 4 << 30, ThreadsEngine)],
)
def test_the_default_takes_processes_where_there_is_much_to_do(
    monkeypatch: pytest.MonkeyPatch, cores: str, num_bytes: int, expected: type
) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", cores)
    with LocalEngine() as engine:
        engine.prepare(num_bytes, "engine_tasks")
        engine.prepare(1, "engine_tasks")  # what was chosen stays
        assert type(engine.chosen) is expected
        assert engine.num_workers == engine.chosen.num_workers == int(cores)
        if expected is ThreadsEngine:
            assert list(engine.map("square", tasks.square, range(5))) == [0, 1, 4, 9, 16]
    with LocalEngine() as engine:
        assert type(engine.chosen) is ThreadsEngine


def test_the_server_of_processes_ends_with_the_last_engine(tmp_path: Path) -> None:
    """It has imported the module of the tasks when they are forked, and has no threads then."""
    from multiprocessing import forkserver

    with ProcessesEngine(2) as first:
        first.prepare(1, "engine_tasks")
        with ProcessesEngine(1) as second:
            assert list(second.map("square", tasks.square, range(3))) == [0, 1, 4]
        pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        assert is_running(pid)
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
        assert list(first.map("square", tasks.square, range(3))) == [0, 1, 4]
    assert not is_running(pid)


def test_what_waits_for_tasks_is_called_at_the_end_of_the_first_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "4")
    calls: list[str] = []
    with LocalEngine() as engine:
        engine.when_tasks_have_run(lambda: calls.append("nothing is expected"))
        assert calls.pop() == "nothing is expected"
        engine.prepare(4 << 30, "engine_tasks")
        engine.when_tasks_have_run(lambda: calls.append("tasks"))
        results = engine.map("square", tasks.square, range(9))
        assert calls == []
        assert next(results) == 0
        assert calls == []
        assert list(results) == [number**2 for number in range(1, 9)]
        assert calls == ["tasks"]
        assert list(engine.map("square", tasks.square, range(3))) == [0, 1, 4]
        assert calls == ["tasks"]
        engine.prepare(4 << 30, "engine_tasks")
        engine.when_tasks_have_run(lambda: calls.append("no tasks after all"))
        engine.release_workers()
        assert calls.pop() == "no tasks after all"
    with ThreadsEngine(2) as threads:
        threads.prepare(4 << 30, "engine_tasks")
        threads.when_tasks_have_run(lambda: calls.append("threads hold the interpreter anyway"))
        assert len(calls) == 2


INTERRUPTED = """\
import signal, time
from multiprocessing import forkserver
from pathlib import Path
from fae.engine.local import ProcessesEngine
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with ProcessesEngine(2) as engine:
        engine.prepare(1, "fae.ingest.shards.ready_for_text")
        server = Path(f"/proc/{forkserver._forkserver._forkserver_pid}")
        while "numpy" not in (server / "maps").read_text():
            time.sleep(0.001)
        print("begun", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_while_the_server_imports_says_nothing() -> None:
    """Ctrl-C reaches all processes of the terminal."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=120) == ("interrupted\n", "")
    wait_until(lambda: not _group_is_there(process.pid), "the end of the server")


def _group_is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_that_is_never_told_what_to_do_keeps_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may come between the start of a process and the first word to it; the server waits for its processes."""
    monkeypatch.setattr(local, "_SERVER_SECONDS", 0.2)
    engine = ProcessesEngine(1)
    engine.prepare(0, "fae.engine.worker_limits")
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    reader, writer = forkserver.connect_to_new_process([])
    process = forkserver.read_signed(reader)
    assert is_running(process)
    engine.close()
    assert not is_running(server)
    os.close(writer)
    wait_until(lambda: not is_running(process), "the end of the process")
    os.close(reader)
