"""Compile the loops of a run ahead of its stages, in processes of their own and on a thread.

numba keeps a compiled loop on the disk. Where one is not there, compiling those of a run takes some twenty seconds of
one core, nearly all of them within the interpreter's lock: a thread would only slow down the others. So
helper processes compile them, in the order in which they are needed, while this process imports torch and reads the
log; each says which loop is kept, and a thread here loads it. A caller who comes before waits for the helper that is at
his loop (`fae.core.compiling.loop_locks`), and compiles one that nobody has begun.

On a single core, or where nothing can be kept, the thread compiles them itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from typing import Any

from fae.core.threads import num_threads
from fae.core.waits import await_ready
from fae.run.ahead.loops_ahead import LoopsAhead
from fae.streaming.training_loops import LoopShapes

THREAD_NAME = "compile ahead"
MOST_HELPERS = 4
"""More would wait: half of the time of the longest loop is left when four have compiled the others."""
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from fae.run.ahead.compile_helpers import help_compiling
help_compiling(sys.argv[2], int(sys.argv[3]))
"""
_LOOK_AGAIN = 0.1  # seconds: whether the main thread has ended
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def compile_ahead(wanted: LoopsAhead, *, loads_from: threading.Event | None = None) -> threading.Thread:
    """Start the thread, and helpers where a loop is missing. At the end of the process it stops behind its loop.

    Parameters
    ----------
    loads_from
        No loop that is kept is loaded before it is set, and none behind it is looked at. Where the first one is
        missing, helpers start now.
    """
    thread = threading.Thread(target=_compile_all, args=(wanted, loads_from), name=THREAD_NAME)
    thread.start()
    return thread


def _compile_all(wanted: LoopsAhead, loads_from: threading.Event | None = None) -> None:
    from fae.core.compiled import is_kept
    from fae.core.compiling.hidden_packages import owns_this_process
    from fae.ingest.shards.reading_loops import look_for_pandas

    with contextlib.suppress(Exception):  # the caller of the loop meets the same error
        for loop, types in wanted.loops():
            if loads_from is not None and (not hasattr(loop, "_cache") or is_kept(loop, types)):
                while threading.main_thread().is_alive() and not loads_from.wait(_LOOK_AGAIN):
                    pass
                loads_from = None
                look_for_pandas(find=not owns_this_process())
            if not threading.main_thread().is_alive():
                return
            if not hasattr(loop, "compile"):  # NUMBA_DISABLE_JIT is set
                return
            if not is_kept(loop, types) and (helpers := _start_helpers(wanted)):
                _load_from(helpers, wanted)
                return
            loop.compile(types)


def _start_helpers(wanted: LoopsAhead) -> subprocess.Popen[bytes] | None:
    """The first of the helper processes, which starts the others; None where there is to be none."""
    number = min(MOST_HELPERS, num_threads() - 1)
    if number < 1 or not sys.executable:
        return None
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps([*map(str, sys.path)]), json.dumps(dataclasses.asdict(wanted)),
             str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            start_new_session=True,  # Ctrl-C reaches this process alone
            env={**os.environ, **_ONE_THREAD},
        )  # fmt: skip
    return None


def _load_from(helpers: subprocess.Popen[bytes], wanted: LoopsAhead) -> None:
    """Load each loop when a helper says that it is kept, until all helpers have ended."""
    assert helpers.stdout is not None
    with helpers:  # closes the pipes, so that all of them end, and waits for the first
        try:
            loops, said = list(wanted.loops()), b""
            while threading.main_thread().is_alive():
                if not await_ready(helpers.stdout.fileno(), _LOOK_AGAIN):
                    continue
                more = helpers.stdout.read(4096)
                if not more:
                    break
                *lines, said = (said + more).split(b"\n")
                for line in lines:
                    loop, types = loops[int(line)]
                    loop.compile(types)
        finally:
            helpers.kill()  # one that is still importing would not see that its input is closed


def help_compiling(wanted: str, number: int) -> None:
    """What a helper process does, as long as its standard input is open.

    Parameters
    ----------
    wanted
        `LoopsAhead` as JSON.
    number
        How many helpers there are to be; this one starts the others.
    """
    from fae.core.compiled import compile_alone

    loops = _parse(wanted).loops()
    first = next(loops)
    with contextlib.suppress(Exception):
        compile_alone(*first)  # what any loop needs of numba is loaded before there are several processes
    children: list[int] = []
    for _ in range(number - 1):
        child = os.fork()
        if child == 0:
            children = []
            break
        children.append(child)
    threading.Thread(target=_end_with_input, daemon=True).start()
    _say(0)
    for index, (loop, types) in enumerate(loops, 1):
        with contextlib.suppress(Exception):
            if compile_alone(loop, types):
                _say(index)
    for child in children:
        with contextlib.suppress(OSError):
            os.waitpid(child, 0)


def _parse(wanted: str) -> LoopsAhead:
    values: dict[str, Any] = json.loads(wanted)
    shapes = values["shapes"] and LoopShapes(
        **{**values["shapes"], "widths": tuple(map(tuple, values["shapes"]["widths"]))}
    )
    return LoopsAhead(**{**values, "stages": tuple(values["stages"]), "shapes": shapes})


def _say(index: int) -> None:
    os.write(1, b"%d\n" % index)


def _end_with_input() -> None:
    """End this process when the one that started it has ended, or needs it no more."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(0)
