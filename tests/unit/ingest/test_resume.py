"""An ingest that dies continues where it was, and the log has the same bytes as one without interruption.

The process dies in every step that matters (``os._exit`` instead of a function's n-th call, which no handler sees), at
random moments (SIGKILL), or ends with an error; then the same call is made again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import FORMAT_VERSION
from fae.artifacts.manifest import read_manifest
from fae.core.errors import LogError
from fae.core.npy import NpyRows, NpyWriter
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.numbering import renumbering
from fae.ingest.numbering.renumbering import Renumbering, SlotMaps
from fae.ingest.shards import shard_reading
from fae.ingest.shards.unfinished_paths import discard_progress

NUM_FILES = 4
CRITEO = LogConfig(train="day_*.tsv", format="criteo", min_frequency=2)
CSV = LogConfig(
    train="day_*.csv",
    dense=("price",),
    categorical=(
        "user",
        ColumnConfig(name="items", max_length=3, pooling="mean"),
        ColumnConfig(name="code", encoded=True),
    ),
)


def write_days(folder: Path, num_inputs: int = 300) -> None:
    """Four days of both formats; every day shows new values, and old ones."""
    rng = np.random.default_rng(8)
    for day in range(NUM_FILES):
        tsv, csv = [], ["label,user,items,code,price\n"]
        for _ in range(num_inputs):
            ids = [f"{int(v) % 400 + 60 * day:08x}" if v % 5 else "" for v in rng.zipf(1.3, 26)]
            tsv.append("\t".join([str(rng.integers(2)), *map(str, rng.integers(-1, 90000, 13)), *ids]) + "\n")
            items = "|".join(f"i{int(v) % 90 + 20 * day}" for v in rng.zipf(1.3, int(rng.integers(4))))
            code = rng.integers(50) if rng.random() < 0.9 else ""
            csv.append(f"{rng.integers(2)},ü{int(rng.zipf(1.3)) % 200 + 50 * day},{items},{code},{rng.random():.3f}\n")
        (folder / f"day_{day}.tsv").write_text("".join(tsv))
        (folder / f"day_{day}.csv").write_text("".join(csv))


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("days")
    write_days(folder)
    for name, config in (("tsv", CRITEO), ("csv", CSV)):
        ingest(config, folder / f"whole_{name}", base=folder)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "partial" in path.name or "writing" in path.name]


def names_of_read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the name of each file that is read from now on."""
    read: list[str] = []
    real = shard_reading.read_span
    monkeypatch.setattr(
        shard_reading, "read_span", lambda c, path, *more: read.append(path.name) or real(c, path, *more)
    )
    return read


DYING = """
import os, sys
from pathlib import Path
from test_resume import CRITEO, CSV, small_steps
from fae.ingest.ingest import ingest
owner, name, calls, base, out, kind = sys.argv[1:]
small_steps()
module, _, cls = owner.partition(":")
target = __import__(module, fromlist=["x"])
target = getattr(target, cls) if cls else target
real, left = getattr(target, name), [int(calls)]
def dying(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os._exit(9)
    return real(*arguments, **options)
setattr(target, name, dying)
ingest(CRITEO if kind == "tsv" else CSV, Path(out), base=Path(base))
"""


def small_steps() -> None:
    """Make blocks and steps so small that these logs have many of them."""
    from fae.ingest.numbering import id_blocks
    from fae.ingest.readers import criteo
    from fae.ingest.readers import csv as csv_reader

    criteo._BLOCK_BYTES = 1 << 15
    csv_reader._BLOCK_BYTES = 1 << 12
    id_blocks._BYTES_PER_THREAD = renumbering.STEP_BYTES = 1 << 12


DEATHS = [
    # where, in which call, files that are not read again
    ("fae.ingest.resume", "write_durably", 1, 0),
    ("fae.core.npy:NpyWriter", "append", 5, 0),
    ("fae.core.npy:NpyWriter", "append", 27, 2),
    ("fae.ingest.shards.shard_files:PartWriter", "publish", 1, 0),
    ("fae.ingest.shards.shard_files:PartWriter", "publish", 2, 1),
    ("os", "rename", 4, 3),
    ("fae.ingest.shards.shard_values:JoinedIds", "finish", 1, 4),
    ("fae.ingest.numbering.renumbering:SlotMaps", "exchange", 3, 4),
    ("fae.ingest.resume:IngestProgress", "mark_read", 1, 4),
    ("fae.ingest.resume", "write_durably", 2, 4),
    ("fae.ingest.shards.kept_parts:KeptParts", "remove", 1, 4),
    ("fae.ingest.numbering.vocabulary_writer", "write_vocabulary", 1, 4),
    ("fae.ingest.numbering.vocabulary_writer", "write_vocabulary", 3, 4),
    ("fae.ingest.notes.split_lookups", "count_lookups", 3, 4),
    ("fae.ingest.resume:IngestProgress", "save", 3, 4),
    ("fae.ingest.numbering.renumbering:Renumbering", "_begin", 1, 4),
    ("fae.ingest.numbering.renumbering:SlotMaps", "exchange", 9, 4),
    ("fae.core.npy:NpyRows", "write", 1, 4),
    ("fae.core.npy:NpyRows", "write", 20, 4),
    ("fae.ingest.resume:IngestProgress", "finish", 1, 4),
    ("fae.ingest.resume:IngestProgress", "_take_final_ids", 1, 4),
    ("fae.ingest.resume", "remember_written", 1, 4),
    ("fae.artifacts.manifest", "replace_folder", 1, 4),
    ("fae.ingest.resume:IngestProgress", "discard", 1, -1),
]


CASES = [("tsv", *death) for death in DEATHS] + [
    ("csv", "fae.core.npy:NpyWriter", "append", 5, 0),
    # Few lists were looked at for brackets, so later files are read twice, at moments that are not fixed.
    ("csv", "os", "rename", 4, -1),
    ("csv", "fae.ingest.shards.shard_files:PartWriter", "publish", 6, -1),
    ("csv", "fae.ingest.numbering.vocabulary_writer", "write_vocabulary", 3, 4),
    ("csv", "fae.ingest.numbering.renumbering:SlotMaps", "exchange", 9, -1),
]


@pytest.mark.parametrize(("kind", "owner", "name", "calls", "kept"), CASES)
def test_dies_and_continues(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, owner: str, name: str, calls: int, kept: int
) -> None:
    out, config = tmp_path / "log", CRITEO if kind == "tsv" else CSV
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    environment["FAE_NUM_THREADS"] = "1"  # shards are then read one after the other
    command = [sys.executable, "-c", DYING, owner, name, str(calls), str(days), str(out), kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 9, done.stderr
    read = names_of_read_files(monkeypatch)
    ingest(config, out, base=days)
    assert contents(out) == contents(days / f"whole_{kind}")
    assert not leftovers(tmp_path)
    if kept >= 0:
        assert sorted({*read}) == [f"day_{day}.{kind}" for day in range(kept, NUM_FILES)]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL again and again, a little later each time, at a moment that is not chosen."""
    write_days(tmp_path, 6000)
    ingest(CRITEO, tmp_path / "whole", base=tmp_path)
    program = (
        "import sys; from pathlib import Path; from test_resume import CRITEO;"
        "from fae.ingest.ingest import ingest;"
        "print('go', flush=True); ingest(CRITEO, Path(sys.argv[1]) / 'log', base=Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    num_killed = 0
    for attempt in range(14):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.15 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        num_killed += 1
    assert num_killed > 2
    ingest(CRITEO, tmp_path / "log", base=tmp_path)
    assert contents(tmp_path / "log") == contents(tmp_path / "whole")
    assert not leftovers(tmp_path)


def test_a_bad_line_in_a_late_file_costs_that_file_alone(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in range(NUM_FILES):
        (tmp_path / f"day_{day}.tsv").write_bytes((days / f"day_{day}.tsv").read_bytes())
    good = (tmp_path / "day_2.tsv").read_text()
    (tmp_path / "day_2.tsv").write_text(good + good[:100] + "\n")
    with pytest.raises(LogError, match=r"day_2.tsv, line 301"):
        ingest(CRITEO, tmp_path / "log", base=tmp_path)
    assert re.search("ingest: [23] parts of the log are read and kept in", capsys.readouterr().err)
    assert leftovers(tmp_path)
    (tmp_path / "day_2.tsv").write_text(good)
    read = names_of_read_files(monkeypatch)
    ingest(CRITEO, tmp_path / "log", base=tmp_path)
    assert re.search("ingest: continuing; [23] parts of the log are read", capsys.readouterr().err)
    assert "day_2.tsv" in read
    assert not {"day_0.tsv", "day_1.tsv"} & {*read}
    assert contents(tmp_path / "log") == contents(days / "whole_tsv")
    assert not leftovers(tmp_path)


def interrupted(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, config: LogConfig = CRITEO) -> None:
    """Leave an ingest that has read two files."""
    with monkeypatch.context() as patch:
        real = shard_reading.read_span

        def stop(c: LogConfig, path: Path, *more: Any) -> Any:
            if path.name.startswith("day_2"):
                raise KeyboardInterrupt
            return real(c, path, *more)

        patch.setattr(shard_reading, "read_span", stop)
        patch.setenv("FAE_NUM_THREADS", "1")
        with pytest.raises(KeyboardInterrupt):
            ingest(config, out, base=folder)
    assert len(leftovers(out.parent)) == 2


CHANGES: dict[str, Any] = {
    "another threshold": lambda folder: {"min_frequency": 1},
    "another transform": lambda folder: {"dense_transform": "none"},
    "another split": lambda folder: {"test_fraction": 0.5},
    "an early file changed": lambda folder: (
        (folder / "day_1.tsv").write_text((folder / "day_0.tsv").read_text()) and {}
    ),
    "a file in front": lambda folder: {"train": ("day_3.tsv", "day_0.tsv", "day_1.tsv", "day_2.tsv")},
    "files of the test": lambda folder: {"train": "day_0.tsv", "test": ("day_1.tsv", "day_2.tsv")},
    "one file": lambda folder: {"train": "day_0.tsv"},
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_is_left_of_another_log_is_not_used(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    for day in range(NUM_FILES):
        (tmp_path / f"day_{day}.tsv").write_bytes((days / f"day_{day}.tsv").read_bytes())
    interrupted(tmp_path, tmp_path / "log", monkeypatch)
    config = LogConfig(**{**vars(CRITEO), **CHANGES[case](tmp_path)})
    ingest(config, tmp_path / "log", base=tmp_path)
    ingest(config, tmp_path / "fresh", base=tmp_path)
    assert contents(tmp_path / "log") == contents(tmp_path / "fresh")
    assert not leftovers(tmp_path)


def test_more_files_behind_the_ones_that_are_read_are_fine(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(days, tmp_path / "log", monkeypatch)
    config = LogConfig(**{**vars(CRITEO), "train": ("day_0.tsv", "day_1.tsv", "day_3.tsv")})
    ingest(config, tmp_path / "log", base=days)
    # Two at least: another thread may have read the last file too.
    assert re.search("continuing; [23] parts of the log are read", capsys.readouterr().err)
    ingest(config, tmp_path / "fresh", base=days)
    assert contents(tmp_path / "log") == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    "damage",
    [
        "no progress",
        "not JSON",
        "a list",
        "no rows",
        "short rows",
        "other rows",
        "short values",
        "no facts",
        "a link",
        "no folder",
        "other version",
    ],
)
def test_damaged_leftovers_cost_time_alone(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    interrupted(days, tmp_path / "log", monkeypatch)
    progress, folder = tmp_path / ".log.partial.json", tmp_path / ".log.partial"
    part = sorted((folder / "work" / "parts").iterdir())[0]
    if damage == "no progress":
        progress.unlink()
    elif damage == "not JSON":
        progress.write_text("{")
    elif damage == "a list":
        progress.write_text("[]")
    elif damage == "no rows":
        (part / "ids.npy").unlink()
    elif damage == "short rows":
        os.truncate(part / "ids.npy", 1000)
    elif damage == "other rows":
        data = bytearray((part / "dense.npy").read_bytes())
        data[-1] ^= 1
        (part / "dense.npy").write_bytes(data)
    elif damage == "short values":
        os.truncate(part / "values", 100)
    elif damage == "no facts":
        (part / "part.json").unlink()
    elif damage == "a link":
        part.rename(tmp_path / "elsewhere")
        part.symlink_to(tmp_path / "elsewhere")
    elif damage == "no folder":
        folder.rename(tmp_path / "elsewhere")
    else:
        progress.write_text(json.dumps({**json.loads(progress.read_text()), "version": 0}))
    ingest(CRITEO, tmp_path / "log", base=days)
    assert contents(tmp_path / "log") == contents(days / "whole_tsv")


def test_a_current_log_clears_what_is_left(days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(days, tmp_path / "log", monkeypatch)
    discard_progress(tmp_path / "log")
    assert not leftovers(tmp_path)
    discard_progress(tmp_path / "log")
    ingest(CRITEO, tmp_path / "log", base=days)
    assert read_manifest(tmp_path / "log", "log", FORMAT_VERSION, command="x").files.keys() == {
        *(name for name in contents(days / "whole_tsv") if name != "manifest.json")
    }


@pytest.mark.parametrize("stop_after", range(1, 9))
@pytest.mark.parametrize("damage", [False, True])
def test_renumbering_stopped_at_any_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int, damage: bool
) -> None:
    """Every write of rows, and of what is said of them, is torn in two: the first half is done, then it ends."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 5, (10, 3)).astype(np.int32)
    final = np.array([4, 3, 2, 1, 0, 7, -1], np.int32)
    maps, names = SlotMaps.of_slots(final, [(0, 5, False)] * 3), ["a"] * 3
    finals, numbered = tmp_path / "final.npy", tmp_path / "numbered"
    monkeypatch.setattr(renumbering, "STEP_BYTES", 36)
    monkeypatch.setenv("FAE_NUM_THREADS", "1")
    with NpyWriter(tmp_path / "ids.npy", np.int32, (3,)) as writer:
        writer.append(rows)

    class Gone(BaseException):
        pass

    left, real, write = [stop_after], NpyRows.write, os.pwrite

    def torn(self: NpyRows, start: int, part: Any) -> None:
        left[0] -= 1
        real(self, start, part[: len(part) // 2] if left[0] == 0 else part)
        if left[0] == 0:
            raise Gone

    def torn_fact(descriptor: int, data: Any, position: int) -> int:
        if len(data) == 8:
            left[0] -= 1
            if left[0] == 0:
                write(descriptor, data[:4], position)
                raise Gone
        return write(descriptor, data, position)

    with NpyRows(tmp_path / "ids.npy") as ids:
        with monkeypatch.context() as patch:
            patch.setattr(NpyRows, "write", torn)
            patch.setattr(os, "pwrite", torn_fact)
            with pytest.raises(Gone):
                Renumbering(ids, finals, numbered).run(maps, names)
        if damage:
            with NpyRows(finals, writable=True) as other:
                other.write(0, np.full((1, 3), 9, np.int32))
        changed = []
        monkeypatch.setattr(
            NpyRows, "write", lambda self, start, part: (changed.append(start), real(self, start, part))
        )
        found = Renumbering(ids, finals, numbered).run(maps, names)
    assert (np.load(finals) == final[rows]).all()
    assert found == zlib.crc32(final[rows].tobytes())
    done = (stop_after - 1) // 2
    assert changed == [start for start in (0, 3, 6, 9) if start >= 3 * done or (damage and start == 0)]


def test_final_ids_of_another_log_are_not_continued(tmp_path: Path) -> None:
    rows = np.zeros((10, 3), np.int32)
    with NpyWriter(tmp_path / "ids.npy", np.int32, (3,)) as writer:
        writer.append(rows)
    np.save(tmp_path / "final.npy", rows[:, :2])
    (tmp_path / "numbered").write_bytes(np.array([1, 0], np.uint32).tobytes())
    maps = SlotMaps.of_slots(np.array([5, 6, -1], np.int32), [(0, 1, False)] * 3)
    with NpyRows(tmp_path / "ids.npy") as ids:
        Renumbering(ids, tmp_path / "final.npy", tmp_path / "numbered").run(maps, ["a"] * 3)
    assert (np.load(tmp_path / "final.npy") == 5).all()
