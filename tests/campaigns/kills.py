"""kill -9 in every stage, then the same command again: is the final model the same, byte for byte?

    python benchmarks/end_to_end/kills.py [--kills 30] [--chains 2] [--inputs 100000] [--seed 1]

Makes a Criteo-shaped log, runs its recipe once undisturbed, and then again and again in new folders. Each of those runs
is killed at one place (a *chain*: at all places, one behind the other in the same folder), gone on with by the same
command, and compared with the undisturbed one: every file of every artifact, and the figures of ``run.json``.

Places are found by looking, not by timing: the victim prints its main thread's stack to a pipe whenever it gets SIGUSR1
(`faulthandler`, from C, whatever the thread is at), and is stopped while that is read. Once the stack is at the place
asked for, the run goes on for a time drawn from the seed (whole looks and a part of one), one more stack is taken, and
SIGKILL follows at once. That last stack, and what was left on the disk, say where the kill fell; a kill that fell
elsewhere counts for where it fell, and the place is tried again. Now and then CPython dies of being looked at (SIGSEGV
in the walk over a frame that is just being made); such a death is recorded as one, is no kill of ours, and must cost no
byte either. JSON.
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

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from fae.artifacts.checksums import file_checksum

from common import record, save_record  # noqa: E402

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
"""What `place_of` calls them, and at which look there, at the latest, the kill comes."""

STAGES = {"ingest": "log", "profile": "profile", "calibrate": "hot_set", "pack": "packed", "train": "checkpoint"}
_NOT_BYTES = ("run.json", "timings.json", ".lock", "log.sources.json", "progress.json")
_LOOK_EVERY_SECONDS = 0.003
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
    """The one command that starts a run and goes on with it."""
    return ["run", str(folder / "recipe.toml"), "--out", str(run), "--device", "cpu"]


class Victim:
    """A run in a process of its own whose stack can be looked at."""

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
        """``file:function``, innermost first; None when the process has ended. It then stands still until `go`."""
        if self.process.poll() is not None:
            return None
        # To the main thread: the system may hand a signal of the process to any of them.
        _LIBC.tgkill(self.process.pid, self.process.pid, signal.SIGUSR1)
        text = self._read_until(_END_OF_STACK, 30)
        self.process.send_signal(signal.SIGSTOP)
        frames = re.findall(r'File "([^"]+)", line \d+ in (\S+)', text)
        return [f"{name.split('/fae/')[-1]}:{function}" for name, function in frames]

    def go(self, seconds: float) -> None:
        """Let it run for so long."""
        self.process.send_signal(signal.SIGCONT)
        time.sleep(seconds)

    def kill(self) -> Stack | None:
        """One last look, and SIGKILL; None where the process had ended before that."""
        stack = self.stack()
        self.process.kill()
        self.process.communicate()
        os.close(self._pipe)
        return (stack or []) if self.process.returncode == -signal.SIGKILL else None


def stands_in(stack: Stack, wanted: tuple[str, ...]) -> bool:
    """Whether each of `wanted`, a file or ``file:function``, stands in some frame."""
    return all(any(name in (frame, frame.split(":")[0]) for frame in stack) for name in wanted)


def place_of(stack: Stack) -> str:
    """Where a stack is: the stage, by the frames above the run folder's; inside training the innermost known part."""
    if not stands_in(stack, ("stages.py:run",)):
        return "start or end of the process" if stack else "unknown"
    if not stands_in(stack, ("stages.py:_stage",)):
        writes = stands_in(stack, ("core/artifact.py:write_json",))
        return "run.json" if writes else "between stages" if not stands_in(stack, ("training/record.py",)) else "record"
    inside = stack[: next(i for i, frame in enumerate(stack) if frame == "stages.py:_stage")]
    files = {frame.split(":")[0] for frame in inside}
    if "training/trainer.py" in files:
        for part, frame in (
            ("writing a checkpoint", "training/checkpoint.py:save_checkpoint"),
            ("results", "training/trainer.py:_result"),
            ("end of an epoch", "training/trainer.py:_end_epoch"),
            ("evaluation", "training/evaluate.py:evaluate"),
            ("going on", "training/trainer.py:_resume"),
        ):
            if frame in inside:
                return f"train: {part}"
        return "train: steps" if "training/trainer.py:_train_segment" in inside else "train: start"
    for stage, name in (("pack", "packing/pack.py"), ("calibrate", "popularity/calibrate.py"),
                        ("profile", "popularity/profile.py")):  # fmt: skip
        if name in files:
            return stage
    if "data/finish.py" in files:
        return "ingest: second pass"
    return "ingest: first pass" if "data/ingest.py" in files else "between stages"


def kill_at(place: str, arguments: list[str], moments: random.Random, *, soon: bool) -> dict[str, Any]:
    """Start the command, look at it every few milliseconds, and kill it at a drawn look of those that find it there.

    Parameters
    ----------
    soon
        Kill it at the first look there: a place that was missed is over sooner than was thought.
    """
    look = 1 if soon else moments.randint(1, PLACES[place])
    part = moments.uniform(0, _LOOK_EVERY_SECONDS)
    looks = 0
    victim = Victim(arguments)
    while (stack := victim.stack()) is not None:
        looks += place_of(stack) == place
        if looks >= look:
            victim.go(part)
            break
        victim.go(_LOOK_EVERY_SECONDS)
    seconds = time.monotonic() - victim.started
    last = victim.kill()
    return {
        "asked_for": place, "fell_in": _ENDED if last is None else place_of(last),
        "exit_status": victim.process.returncode, "look": look, "part_seconds": part,
        "after_seconds": seconds, "stack": (last or [])[:6],
    }  # fmt: skip


def contents(run: Path) -> dict[str, str]:
    """Checksums of all that a run makes, but for what holds times."""
    return {
        str(path.relative_to(run)): file_checksum(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in _NOT_BYTES and str(path.relative_to(run)) not in _TIMED_MANIFESTS
    }


_TIMED_MANIFESTS = ("checkpoint/manifest.json", "best/manifest.json")  # they hold the checksum of progress.json


def figures(run: Path) -> dict[str, Any]:
    """What came of a training, without times."""
    found = json.loads((run / "run.json").read_text())
    keys = ("loss_curve", "validation_curve", "num_inputs", "epochs", "stopped_early", "schedule")
    return {
        "train": {key: found["train"][key] for key in keys},
        "test": found["test"],
        "validation": found["validation"],
    }


def state_of(run: Path) -> dict[str, Any]:
    """What a kill left: unfinished names, and the stages whose artifact is there; each of those must be whole."""
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


def go_on(arguments: list[str]) -> str:
    """The same command, left alone; returns what it said."""
    done = subprocess.run([sys.executable, "-m", "fae.cli.main", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the command failed after a kill: {done.stderr}")
    return done.stderr


def undisturbed(folder: Path, num_inputs: int) -> dict[str, Any]:
    """Make the log and its recipe, run it, and say what came of that."""
    (folder / "recipe.toml").write_text(RECIPE)
    arguments = ["--shape", "criteo", "--inputs", str(num_inputs), "--out", str(folder / "log.tsv")]
    subprocess.run([sys.executable, "-m", "fae.cli.main", "synthetic", *arguments], check=True, capture_output=True)
    run = folder / "undisturbed"
    go_on(run_command(folder, run))
    seconds = json.loads((run / "run.json").read_text())["stage_seconds"]
    return {"contents": contents(run), "figures": figures(run), "stage_seconds": seconds}


def one_life(
    places: list[str], folder: Path, expected: dict[str, Any], moments: random.Random, missed: set[str]
) -> list[dict[str, Any]]:
    """Kill one run at each of the places in turn, finish it, compare it; keep account of the places last missed."""
    run = folder / "killed"
    shutil.rmtree(run, ignore_errors=True)
    arguments, kills = run_command(folder, run), []
    for place in places:
        kills.append({**kill_at(place, arguments, moments, soon=place in missed), "left": state_of(run)})
        (missed.discard if kills[-1]["fell_in"] == place else missed.add)(place)
        if kills[-1]["fell_in"] == _ENDED:  # too late
            break
    said = go_on(arguments)
    ours, theirs = contents(run), expected["contents"]
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    outcome = {
        "went_on": re.findall(r"train: going on behind batch \d+", said),
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
    parser.add_argument("--out", type=Path, help="where the record goes (default: benchmarks/results/kills.json)")
    return parser.parse_args()


def main() -> int:
    """Run it; the exit status says whether every run ended with the same bytes."""
    options = parse()
    # Another number of threads may sum in another order; and five processes that start make way for one another.
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
                where, when = f"{kill['fell_in']} (asked for {kill['asked_for']})", f"{kill['after_seconds']:.1f} s"
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
    result = record(
        inputs=options.inputs,
        seed=options.seed,
        undisturbed={"stage_seconds": expected["stage_seconds"], "digest": digest, "files": len(expected["contents"])},
        num_kills=fell.total(),
        num_deaths_of_looking=sum(kill["exit_status"] == -signal.SIGSEGV for kill in kills),
        fell_in=dict(sorted(fell.items())),
        never_hit=sorted(set(options.places) - set(fell)),
        all_same_bytes=all(kill["outcome"]["same_bytes"] and kill["outcome"]["same_figures"] for kill in kills),
        all_whole=all(kill["left"]["whole"] and not kill["outcome"]["unfinished"] for kill in kills),
        kills=kills,
    )
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    else:
        save_record("kills", result)
    print(
        {
            key: result[key]
            for key in ("num_kills", "num_deaths_of_looking", "fell_in", "never_hit", "all_same_bytes", "all_whole")
        }
    )
    return 0 if result["all_same_bytes"] and result["all_whole"] else 1


if __name__ == "__main__":
    sys.exit(main())
