"""Small logs for a campaign of kills: their recipes, and what an undisturbed run makes of them in what time."""

from __future__ import annotations

import atexit
import gzip
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from artifacts import RECIPE
from campaign import Forked, results, warm_up

RUN = "run"
COMMAND = ("run", "recipe.toml", "--out", RUN, "--device", "cpu")
STAGES = {"ingest": "log", "profile": "profile", "calibrate": "hot_set", "pack": "packed", "train": "run.json"}
"""By the stage: what is in the run folder when it has ended."""

_NAMES = 'train = ["a.csv", "b.csv"]'


@dataclass(frozen=True)
class World:
    """A folder with a recipe and raw files, and an undisturbed run of it.

    Attributes
    ----------
    seconds
        How long each stage took.
    expected
        Digests of what was computed.
    names
        Names below the run folder.
    """

    folder: Path
    seconds: dict[str, float]
    expected: dict[str, str]
    names: list[str]


def names_below(folder: Path) -> list[str]:
    """Names of all files and folders below one, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _lines(draw: random.Random, count: int) -> list[dict[str, str]]:
    found = []
    for _ in range(count):
        item = min(int(draw.paretovariate(0.5)), 90)
        found.append({
            "y": str(int(draw.random() < 0.3 + 0.3 * (item % 2))), "user": f"u{draw.randrange(300)}",
            "item": f"i{item}", "tags": "|".join(f"t{draw.randrange(12)}" for _ in range(draw.randrange(5))),
            "code": str(item % 17), "x": f"{draw.random():.3f}",
        })  # fmt: skip
    return found


def _csv(lines: list[dict[str, str]], quote: str = "") -> str:
    rows = [list(lines[0]), *([f"{quote}{value}{quote}" for value in line.values()] for line in lines)]
    return "".join(",".join(row) + "\n" for row in rows)


def _write_csv(folder: Path, draw: random.Random) -> str:
    """Eight files, with quotes in every second one."""
    for number in range(8):
        (folder / f"part{number}.csv").write_text(_csv(_lines(draw, 110), '"' * (number % 2)))
    return 'train = "part*.csv"'


def _write_packed(folder: Path, draw: random.Random) -> str:
    """Six files, plain and gz."""
    for number in range(6):
        data = _csv(_lines(draw, 150)).encode()
        if number % 3:
            (folder / f"part{number}.csv.gz").write_bytes(gzip.compress(data))
        else:
            (folder / f"part{number}.csv").write_bytes(data)
    return 'train = "part*.csv*"'


def _write_one_file(folder: Path, draw: random.Random) -> str:
    """One file, which is cut into ranges."""
    (folder / "log.csv").write_text(_csv(_lines(draw, 900)))
    return 'train = "log.csv"'


def _write_parquet(folder: Path, draw: random.Random) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(6):
        lines = _lines(draw, 150)
        columns = {name: pa.array([line[name] for line in lines]) for name in ("user", "item", "tags")}
        columns |= {name: pa.array([int(line[name]) for line in lines]) for name in ("y", "code")}
        columns["x"] = pa.array([float(line["x"]) for line in lines])
        columns["tags"] = pa.array([line["tags"].split("|") if line["tags"] else [] for line in lines])
        pq.write_table(pa.table(columns), folder / f"part{number}.parquet", row_group_size=60)
    return 'train = "part*.parquet"\nformat = "parquet"'


def _write_criteo(folder: Path, draw: random.Random) -> str:
    for number in range(5):
        text = ""
        for line in _lines(draw, 140):
            numbers = [str(draw.randrange(40)) if draw.random() < 0.8 else "" for _ in range(13)]
            values = [f"{draw.randrange(40):08x}" if draw.random() < 0.9 else "" for _ in range(24)]
            words = [f"{int(line['user'][1:]):08x}", f"{int(line['item'][1:]):08x}", *values]
            text += "\t".join([line["y"], *numbers, *words]) + "\n"
        (folder / f"day_{number}.tsv").write_text(text)
    return 'train = "day_*.tsv"\nformat = "criteo"'


KINDS: dict[str, Callable[[Path, random.Random], str]] = {
    "csv": _write_csv, "gz among csv": _write_packed, "one csv": _write_one_file, "parquet": _write_parquet,
    "criteo": _write_criteo,
}  # fmt: skip
_worlds: dict[str, World] = {}


def world(kind: str) -> World:
    """The world of a kind of log, one of `KINDS`; made at the first call."""
    if kind not in _worlds:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        named = KINDS[kind](folder, random.Random(3))
        text = RECIPE.format(budget="38KiB" if kind == "criteo" else "9KiB", epochs=2).replace(_NAMES, named)
        text = text.replace("early_stopping", "checkpoint_batches = 9\nearly_stopping")
        text = text.replace("batch_size = 16", "batch_size = 32")
        if kind == "criteo":
            text = "\n".join(line for line in text.splitlines() if not line.startswith(("label", "categ", "dense")))
        (folder / "recipe.toml").write_text(text)
        if not _worlds:
            warm_up(COMMAND, folder)
            shutil.rmtree(folder / RUN)
        _worlds[kind] = _undisturbed(folder)
    return _worlds[kind]


def _undisturbed(folder: Path) -> World:
    child = Forked(COMMAND, folder)
    seconds, last = {}, child.started
    for stage, name in STAGES.items():
        while not (folder / RUN / name).exists() and time.monotonic() < child.started + 60:
            time.sleep(0.002)
        seconds[stage], last = time.monotonic() - last, time.monotonic()
    ended = child.end(time.monotonic() + 60)
    assert ended.status == 0, ended.stderr
    found = World(folder, seconds, results(folder, RUN), names_below(folder / RUN))
    shutil.rmtree(folder / RUN)
    return found
