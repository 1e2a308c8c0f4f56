"""Loops are compiled ahead for the types that stages call them with, by processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fae.synthetic.config import SyntheticConfig
from fae.synthetic.text_writer import write_criteo_tsv

from commands import RECIPE, write_log, write_recipe

_RUN = """
import sys, threading
import fae
from fae.run.ahead.compile_helpers import THREAD_NAME
from fae.run.ahead.loops_ahead import loops_ahead

recipe = fae.load_recipe(sys.argv[1])
wanted = {}
for loop, types in loops_ahead(recipe, None, "cpu", ("ingest", "calibrate", "pack", "train")).loops():
    assert not loop.signatures, loop
    wanted.setdefault(loop, set()).add(types)
assert wanted
fae.RunFolder(recipe, sys.argv[2], device="cpu").run()
for thread in threading.enumerate():
    if thread.name == THREAD_NAME:
        thread.join()
for loop, types in wanted.items():
    assert set(loop.signatures) == types, (loop.py_func.__qualname__, types, loop.signatures)
"""

TWO_WIDTHS = {"name": "wide_deep", "bottom_mlp": None, "top_mlp": None, "embedding_dims": {"site": 8}}

_PROFILE = """
import sys
from fae.run.ahead.compile_helpers import compile_ahead
from fae.run.ahead.loops_ahead import LoopsAhead

wanted = LoopsAhead(stages=("profile",), log_format="csv", mixed=True, shapes=None)
compile_ahead(wanted).join()
for loop, types in wanted.loops():
    print(sum(loop.stats.cache_hits.values()), sum(loop.stats.cache_misses.values()))
"""

_HANG = """
import sys, time
from fae.run.ahead import compile_helpers
from fae.run.ahead.loops_ahead import LoopsAhead

helpers = compile_helpers._start_helpers(LoopsAhead(stages=("pack",), log_format="csv", mixed=True, shapes=None))
print(helpers.pid, flush=True)
time.sleep(600)
"""


def check_types(recipe: Path, run: Path) -> None:
    """Run the recipe in a fresh interpreter: no loop that was listed is called with other types."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(recipe), str(run)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hot-input share 100.0 %" not in done.stderr, "no row would be cold"


@pytest.mark.parametrize(
    ("train", "model", "budget"),
    [
        ({"optimizer": "adam"}, {}, "11KiB"),
        ({"order": "interleaved"}, TWO_WIDTHS, "4600B"),
        ({"placement": "cpu"}, TWO_WIDTHS, "3KiB"),
        ({"placement": "paper"}, {}, "3KiB"),
    ],
    ids=["streamed", "streamed, two widths", "on the CPU, two widths", "paper"],
)
def test_stages_call_loops_with_these_types_alone(
    tmp_path: Path, train: dict[str, str], model: dict[str, Any], budget: str
) -> None:
    write_log(tmp_path)
    check_types(write_recipe(tmp_path, train=train, model=model, hot={"budget": budget}), tmp_path / "run")


def test_so_do_stages_on_criteos_format(tmp_path: Path) -> None:
    write_criteo_tsv(SyntheticConfig(num_inputs=6000, seed=1), tmp_path / "log.tsv")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[log]\nformat = "criteo"\ntrain = "log.tsv"\ntest_fraction = 0.2\n'
        '[hot]\nbudget = "400KiB"\nring_depth = 2\n[train]\nbatch_size = 256\n'
    )
    check_types(recipe, tmp_path / "run")


def test_so_do_stages_on_parquet(tmp_path: Path) -> None:
    table = pa.csv.read_csv(write_log(tmp_path, 20_000))
    ids = [name for name in RECIPE["log"]["categorical"] if isinstance(name, str)]
    for name in ids:
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=10_000)
    recipe = write_recipe(tmp_path, log={"format": "parquet", "train": "log.parquet"}, hot={"budget": "7KiB"})
    check_types(recipe, tmp_path / "run")


def environment(tmp_path: Path, num_threads: int) -> dict[str, str]:
    """Variables of a process that finds no compiled loop."""
    return {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "loops"), "FAE_NUM_THREADS": str(num_threads)}


@pytest.mark.parametrize("num_threads", [1, 3])
def test_loops_are_compiled_by_helpers_where_there_are_cores(tmp_path: Path, num_threads: int) -> None:
    for is_there in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", _PROFILE], env=environment(tmp_path, num_threads), capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        counts = [line.split() for line in done.stdout.splitlines()]
        loaded = is_there or num_threads > 1
        assert len(counts) >= 6
        assert counts == [["1", "0"] if loaded else ["0", "1"]] * len(counts)


def test_helpers_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HANG], env=environment(tmp_path, 3), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        session = int(process.stdout.readline())
        while len(processes_of(session)) < 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while processes_of(session) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not processes_of(session)


def processes_of(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found
