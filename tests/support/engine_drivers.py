"""Programs that use an engine, each in a process of its own: ``engine_drivers.py NAME FOLDER ENGINE [WORKER]``.

What a program returns is printed as one line of JSON; an error of FAE as ``{"error": ...}``.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fae.core.errors import FaeError
from fae.engine.choose import open_engine
from fae.engine.engine import Engine

import engine_tasks as tasks
from engine_tasks import Part

STALE_SECONDS = 1.0


def parts(folder: Path) -> list[Part]:
    return [Part(folder / f"file {number % 3}", number, number * 7 % 50) for number in range(40)]


def values(engine: Engine, folder: Path) -> Any:
    """Dataclasses with paths, tuples and an infinity, there and back."""
    found = list(engine.map("count", functools.partial(tasks.count, 3), parts(Path("log"))))
    return repr(found)


def tiny(engine: Engine, folder: Path) -> Any:
    return list(engine.map("square", tasks.square, range(200)))


def first_error(engine: Engine, folder: Path) -> Any:
    """Results before the first error in order, the error, and whether anything still runs."""
    taken = []
    try:
        for result in engine.map("fail", functools.partial(tasks.fail_early_and_late, folder), range(60)):
            taken.append(result)
    except FaeError as error:
        return [taken, type(error).__name__, str(error)]
    return "no error"


def each_error(engine: Engine, folder: Path) -> Any:
    told = []
    for number in (0, 2, 4, 6):
        try:
            list(engine.map("fail", tasks.fail_with, [1, number, 3]))
        except Exception as error:
            told.append([type(error).__name__, str(error), getattr(error, "errno", None)])
    return told


def one_thread(engine: Engine, folder: Path) -> Any:
    return list(engine.map("threads", tasks.threads_of_a_task, range(6)))


def one_result(engine: Engine, folder: Path) -> Any:
    """Take one result, and then none until no other task begins."""
    results = engine.map("ahead", functools.partial(tasks.traced, folder, 0.01), range(100))
    first = next(results)
    before = -1
    while before != (before := len(tasks.events(folder, "begun"))):
        time.sleep(0.5)
    results.close()  # type: ignore[attr-defined]
    return first


def whole_contract(engine: Engine, folder: Path) -> Any:
    """What these programs return, by name; each has a folder of its own name."""
    found = {}
    for program in (values, tiny, first_error, each_error, one_result, one_thread):
        (folder / program.__name__).mkdir(exist_ok=True)
        found[program.__name__] = program(engine, folder / program.__name__)
    return found


def dying(engine: Engine, folder: Path) -> Any:
    return list(engine.map("die", functools.partial(tasks.die_once, folder), range(20)))


def dying_always(engine: Engine, folder: Path) -> Any:
    return list(engine.map("die", tasks.die_always, range(8)))


def slow(engine: Engine, folder: Path) -> Any:
    return list(engine.map("slow", functools.partial(tasks.traced, folder, 0.2), range(300)))


def rather_slow(engine: Engine, folder: Path) -> Any:
    return list(engine.map("slow", functools.partial(tasks.traced, folder, 0.1), range(30)))


def polite(engine: Engine, folder: Path) -> Any:
    return list(engine.map("polite", functools.partial(tasks.long_but_polite, folder), range(30)))


def hanging(engine: Engine, folder: Path) -> Any:
    return list(engine.map("hang", functools.partial(tasks.hang_once, folder), range(12)))


def trying(engine: Engine, folder: Path) -> Any:
    return list(engine.map("try", functools.partial(tasks.fail_until, folder / "marker"), range(6)))


def publishing(engine: Engine, folder: Path) -> Any:
    """The leader publishes when all is mapped, and removes the folder of the tasks."""
    published = folder / "artifact"

    def work() -> None:
        total = sum(engine.map("square", tasks.square, range(30), folder=folder / "stage"))
        if engine.is_leader:
            published.with_name("artifact.writing").write_text(str(total))
            published.with_name("artifact.writing").rename(published)

    engine.work_until(published, "artifact", work)
    return published.read_text()


def main(name: str, folder: str, engine: str, worker: str | None = None) -> None:
    program: Callable[[Engine, Path], Any] = globals()[name]
    place = Path(folder)
    try:
        with open_engine(engine, worker, place / "run", stale_seconds=STALE_SECONDS) as opened:
            result = program(opened, place)
    except FaeError as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
