"""kill -9 in every stage, then the same command again: is the final model the same, byte for byte?

    python tests/campaigns/kills.py [--kills 30] [--chains 2] [--inputs 100000] [--seed 1]

Makes a Criteo-shaped log, runs its recipe once undisturbed, and then again and again in new folders. Each of those runs
is killed at one place (in a *chain* at all places, one after the other in the same folder), continued by the same
command, and compared with the undisturbed one: every file of every artifact, and the figures of ``run.json``. Writes
tests/campaigns/kills.json.

Places are found in the stack, not by timing: the victim prints its main thread's stack to a pipe whenever it gets
SIGUSR1 (`faulthandler`, from C, wherever the thread is), and is stopped while that is read. Once the stack is at the
wanted place, the run continues for a time drawn from the seed (whole intervals and a part of one), one more stack is
taken, and SIGKILL follows at once. That last stack, and the files on the disk, say where the kill fell; a kill that
fell elsewhere counts for where it fell, and the place is tried again. Now and then CPython dies of the signal (SIGSEGV
in the walk over a frame that is just being made); such a death is recorded as one, is no kill of ours, and must cost no
byte either.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from fae.artifacts.checksums import file_checksum
from fae.run.record import library_versions, machine, source_commit

ROOT = Path(__file__).resolve().parents[2]

RECIPE = """\
[log]
format = "criteo"
train = "log.tsv"
test_fraction = 0.2
validation_fraction = 0.15

[model]
embedding_dim = 8
bottom_mlp = [16]
top_mlp = [16]

[hot]
budget = "512KiB"
ring_depth = 2

[train]
batch_size = 128
order = "adaptive"
epochs = 2
early_stopping = 2
learning_rate = 0.05
seed = 7
checkpoint_batches = 20
checkpoint_minutes = 0
"""

PLACES = {
    "ingest: first pass": 60,
    "ingest: second pass": 10,
    "profile": 3,
    "calibrate": 30,
    "pack": 30,
    "train: steps": 100,
    "train: writing a checkpoint": 30,
    "train: evaluation": 30,
    "train: end of an epoch": 10,
    "train: results": 3,
    "run.json": 3,
}
"""Names of `place_of`, and after how many stacks there, at the latest, the kill comes."""

STAGES = {"ingest": "log", "profile": "profile", "calibrate": "hot_set", "pack": "packed", "train": "checkpoint"}
_NOT_BYTES = ("run.json", "timings.json", ".lock", "log.sources.json", "progress.json", "metrics.jsonl")
_STACK_EVERY_SECONDS = 0.003
_VICTIM = """\
import faulthandler, os, signal, sys
import numba, pyarrow.parquet, torch._dynamo, fae.cli.main, fae.run.folder, fae.training.trainer
faulthandler.register(signal.SIGUSR1, file={pipe}, all_threads=False)
os.write({pipe}, b"ready\\n")
from fae.cli.main import main
sys.exit(main(sys.argv[1:]))
"""

_END_OF_STACK = re.compile(r'File "<string>", line \d+ in <module>\n$|  \.\.\.\n$|<no Python frame>\n$')
_LIBC = ctypes.CDLL(None)
_ENDED = "the process had ended"

Stack = list[str]


def run_command(folder: Path, run: Path) -> list[str]:
    """The one command that starts a run and continues it."""
    return ["run", str(folder / "recipe.toml"), "--out", str(run), "--device", "cpu"]


class Victim:
    """A run in another process whose stack can be read."""

    def __init__(self, arguments: list[str]) -> None:
        self._pipe, theirs = os.pipe()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["nice", "-n", "5", sys.executable, "-c", _VICTIM.format(pipe=theirs), *arguments],
            pass_fds=[theirs], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)
        self._read_until(re.compile("ready\n$"), 60)

    def _read_until(self, end: re.Pattern[str], seconds: float) -> str:
        text, stop = "", time.monotonic() + seconds
        while not end.search(text) and time.monotonic() < stop:
            if select.select([self._pipe], [], [], 0.05)[0]:
                part = os.read(self._pipe, 1 << 16)
                if not part:
                    break
                text += part.decode()
        return text

    def stack(self) -> Stack | None:
        """``file:function``, innermost first; None when the process has ended. It is stopped until `resume`."""
        if self.process.poll() is not None:
            return None
        # To the main thread: the system may hand a signal of the process to any of them.
        _LIBC.tgkill(self.process.pid, self.process.pid, signal.SIGUSR1)
        text = self._read_until(_END_OF_STACK, 30)
        self.process.send_signal(signal.SIGSTOP)
        frames = re.findall(r'File "([^"]+)", line \d+ in (\S+)', text)
        return [f"{name.split('/fae/')[-1]}:{function}" for name, function in frames]

    def resume(self, seconds: float) -> None:
        """Let it run for that long."""
        self.process.send_signal(signal.SIGCONT)
        time.sleep(seconds)

    def kill(self) -> Stack | None:
        """Take one last stack and kill it; None where the process had ended before that."""
        stack = self.stack()
        self.process.kill()
        self.process.communicate()
        os.close(self._pipe)
        return (stack or []) if self.process.returncode == -signal.SIGKILL else None


STAGE_OF_PACKAGE = {"pack": "pack", "calibrate": "calibrate", "profile": "profile"}
TRAINING = (
    ("writing a checkpoint", "save_checkpoint"),
    ("results", "_measure"),
    ("end of an epoch", "_end_epoch"),
    ("evaluation", "evaluate"),
    ("resuming", "_resume"),
    ("steps", "_train_segment"),
)


def place_of(stack: Stack) -> str:
    """Where a stack is: the stage, by the frames above the run folder's; inside training the innermost known part."""
    frames = [frame.rsplit(":", 1) for frame in stack]
    run = next((i for i, (file, function) in enumerate(frames) if (file, function) == ("run/folder.py", "run")), None)
    if run is None:
        return "start or end of the process" if stack else "unknown"
    stage = next(
        (i for i, (file, function) in enumerate(frames) if file.startswith("run/") and function == "work"), None
    )
    if stage is None:
        if ("core/whole_files.py", "write_record") in map(tuple, frames) and "run/folder.py:_run_stage" not in stack:
            return "run.json"
        return "record" if any(file == "run/record.py" for file, _ in frames) else "between stages"
    inside = frames[:stage]
    packages = {file.split("/")[0] for file, _ in inside}
    if "training" in packages or "checkpoint" in packages:
        functions = {function for _, function in inside}
        return next((f"train: {part}" for part, function in TRAINING if function in functions), "train: start")
    for package, name in STAGE_OF_PACKAGE.items():
        if package in packages:
            return name
    if "ingest/numbering/second_pass.py" in {file for file, _ in inside}:
        return "ingest: second pass"
    return "ingest: first pass" if "ingest" in packages else "between stages"


def kill_at(place: str, arguments: list[str], moments: random.Random, *, soon: bool) -> dict[str, Any]:
    """Start the command, take its stack every few milliseconds, and kill it at a drawn one of those at the place.

    Parameters
    ----------
    soon
        Kill it at the first stack there: a place that was missed is over sooner than expected.
    """
    nth = 1 if soon else moments.randint(1, PLACES[place])
    part = moments.uniform(0, _STACK_EVERY_SECONDS)
    found = 0
    victim = Victim(arguments)
    while (stack := victim.stack()) is not None:
        found += place_of(stack) == place
        if found >= nth:
            victim.resume(part)
            break
        victim.resume(_STACK_EVERY_SECONDS)
    seconds = time.monotonic() - victim.started
    last = victim.kill()
    return {
        "wanted": place, "fell_in": _ENDED if last is None else place_of(last),
        "exit_status": victim.process.returncode, "nth_stack": nth, "part_seconds": part,
        "after_seconds": seconds, "stack": (last or [])[:6],
    }  # fmt: skip


def contents(run: Path) -> dict[str, str]:
    """Checksums of all files of a run, except those that hold times."""
    return {
        str(path.relative_to(run)): file_checksum(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in _NOT_BYTES and str(path.relative_to(run)) not in _TIMED_MANIFESTS
    }


_TIMED_MANIFESTS = tuple(f"{name}/manifest.json" for name in ("checkpoint", "best", "last"))
"""They hold the checksum of progress.json."""


def figures(run: Path) -> dict[str, Any]:
    """Figures of a training, without times."""
    found = json.loads((run / "run.json").read_text())
    keys = ("loss_curve", "validation_curve", "num_inputs", "epochs", "stopped_early", "schedule")
    return {
        "train": {key: found["train"][key] for key in keys},
        "test": found["test"],
        "validation": found["validation"],
    }


def state_of(run: Path) -> dict[str, Any]:
    """Unfinished names after a kill, and the stages whose artifact is there; each of those must be whole."""
    found: dict[str, Any] = {
        "unfinished": sorted(
            path.name
            for path in run.glob(".*")
            if path.name.endswith((".writing", ".old", ".partial", ".partial.json"))
        ),
        "stages": [stage for stage, name in STAGES.items() if (run / name / "manifest.json").is_file()],
        "whole": True,
    }
    for name in [*(STAGES[stage] for stage in found["stages"]), *(["best"] if (run / "best").is_dir() else [])]:
        files = json.loads((run / name / "manifest.json").read_text())["files"]
        found["whole"] &= all(file_checksum(run / name / file) == facts["crc32"] for file, facts in files.items())
    return found


def finish(arguments: list[str]) -> str:
    """Run the same command to its end; returns its stderr."""
    done = subprocess.run([sys.executable, "-m", "fae.cli.main", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the command failed after a kill: {done.stderr}")
    return done.stderr


def undisturbed(folder: Path, num_inputs: int) -> dict[str, Any]:
    """Make the log and its recipe, run it, and return its contents and figures."""
    (folder / "recipe.toml").write_text(RECIPE)
    arguments = ["--shape", "criteo", "--inputs", str(num_inputs), "--out", str(folder / "log.tsv")]
    subprocess.run([sys.executable, "-m", "fae.cli.main", "synthetic", *arguments], check=True, capture_output=True)
    run = folder / "undisturbed" / "run"  # not beside the killed ones, which would use its log
    finish(run_command(folder, run))
    seconds = json.loads((run / "run.json").read_text())["stage_seconds"]
    return {"contents": contents(run), "figures": figures(run), "stage_seconds": seconds}


def one_life(
    places: list[str], folder: Path, expected: dict[str, Any], moments: random.Random, missed: set[str]
) -> list[dict[str, Any]]:
    """Kill one run at each of the places in turn, finish it, compare it; and remember the places that were missed."""
    run = folder / "killed" / "run"
    shutil.rmtree(run, ignore_errors=True)
    arguments, kills = run_command(folder, run), []
    for place in places:
        kills.append({**kill_at(place, arguments, moments, soon=place in missed), "left": state_of(run)})
        (missed.discard if kills[-1]["fell_in"] == place else missed.add)(place)
        if kills[-1]["fell_in"] == _ENDED:  # too late
            break
    said = finish(arguments)
    ours, theirs = contents(run), expected["contents"]
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    outcome = {
        "went_on": re.findall(r"train: continues after batch \d+", said),
        "skipped": re.findall(r"(\w+): already there", said),
        "same_bytes": not different,
        "different": different,
        "same_figures": figures(run) == expected["figures"],
        "stage_seconds": json.loads((run / "run.json").read_text())["stage_seconds"],
        "unfinished": state_of(run)["unfinished"],
    }
    return [{**kill, "outcome": outcome} for kill in kills]


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="kills, each of a run of its own")
    parser.add_argument(
        "--chains", type=int, default=2, help="runs that are killed at every place, one after the other"
    )
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES), help="where (default: everywhere)")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the record goes (default: kills.json beside this script)")
    return parser.parse_args()


def main() -> int:
    """Run it; the exit status says whether every run ended with the same bytes."""
    options = parse()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONPATH=str(ROOT / "src"))
    moments = random.Random(options.seed)
    kills: list[dict[str, Any]] = []
    fell: Counter[str] = Counter()
    missed: set[str] = set()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        expected = undisturbed(folder, options.inputs)

        def live(places: list[str]) -> None:
            run = kills[-1]["run"] + 1 if kills else 0
            for kill in one_life(places, folder, expected, moments, missed):
                kills.append({"run": run, **kill})
                fell.update([kill["fell_in"]] if kill["fell_in"] != _ENDED else [])
                outcome = "same bytes" if kill["outcome"]["same_bytes"] else kill["outcome"]["different"]
                where, when = f"{kill['fell_in']} (wanted {kill['wanted']})", f"{kill['after_seconds']:.1f} s"
                print(f"{len(kills)}: {where} after {when}: {outcome}", file=sys.stderr)

        for _ in range(options.chains):
            live(options.places)
        in_chains, tries = fell.total(), 0
        while tries < 2 * options.kills + 10 and (
            fell.total() - in_chains < options.kills or any(not fell[place] for place in options.places)
        ):
            tries += 1
            live([min(options.places, key=lambda place: fell[place])])
    digest = f"{zlib.crc32(json.dumps(expected['contents'], sort_keys=True).encode()):08x}"
    result = {
        "command": " ".join(["python", "tests/campaigns/kills.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": library_versions(),
        "commit": source_commit(),
        "inputs": options.inputs,
        "seed": options.seed,
        "undisturbed": {
            "stage_seconds": expected["stage_seconds"],
            "digest": digest,
            "files": len(expected["contents"]),
        },
        "num_kills": fell.total(),
        "num_deaths_of_signals": sum(kill["exit_status"] == -signal.SIGSEGV for kill in kills),
        "fell_in": dict(sorted(fell.items())),
        "never_hit": sorted(set(options.places) - set(fell)),
        "all_same_bytes": all(kill["outcome"]["same_bytes"] and kill["outcome"]["same_figures"] for kill in kills),
        "all_whole": all(kill["left"]["whole"] and not kill["outcome"]["unfinished"] for kill in kills),
        "kills": kills,
    }
    out = options.out or Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        {
            key: result[key]
            for key in ("num_kills", "num_deaths_of_signals", "fell_in", "never_hit", "all_same_bytes", "all_whole")
        }
    )
    return 0 if result["all_same_bytes"] and result["all_whole"] else 1


if __name__ == "__main__":
    sys.exit(main())
