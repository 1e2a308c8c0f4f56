"""Write the golden losses and the older run: ``python make.py FOLDER``, in a checkout of the reference commit.

Uses the command line alone, so it runs on any commit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("dlrm", "deepfm", "tbsm")


def command(*arguments: object) -> list[str]:
    """One command line, on one thread of torch so that sums have one order."""
    code = "import sys, torch; torch.set_num_threads(1); from fae.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *map(str, arguments)]


def fae(*arguments: object) -> None:
    """Run it."""
    subprocess.run(command(*arguments), check=True)


def read(path: Path) -> str:
    """The text of a file, or none where it is not there."""
    return path.read_text() if path.exists() else ""


def losses(record: dict) -> dict:
    """What must not change."""
    return {
        "loss_curve": record["train"]["loss_curve"],
        "test": {name: record["test"][name] for name in ("auc", "log_loss")},
        "num_inputs": record["train"]["num_inputs"],
    }


def main(folder: Path) -> None:
    """Run the three recipes, and an older run that was killed in its first epoch."""
    found = {}
    for name in NAMES:
        out = folder / name
        fae("run", HERE / f"{name}.toml", "--out", out, "--device", "cpu")
        found[name] = losses(json.loads((out / "run.json").read_text()))
    older = (
        "run",
        HERE / "dlrm.toml",
        "--device",
        "cpu",
        "--set",
        "train.epochs=16",
        "--set",
        "train.checkpoint_batches=5",
    )
    fae(*older, "--out", folder / "undisturbed")
    found["older"] = losses(json.loads((folder / "undisturbed" / "run.json").read_text()))
    out = folder / "older"
    process = subprocess.Popen(command(*older, "--out", out))
    while '"complete": false' not in read(out / "checkpoint" / "progress.json"):
        time.sleep(0.001)
    process.kill()
    process.wait()
    fae("pack", HERE / "dlrm.toml", "--out", out)  # clears what the kill left
    assert '"complete": false' in read(out / "checkpoint" / "progress.json"), "it was over before the kill"
    for name in ("timings.json", ".lock", "log.sources.json", "metrics.jsonl"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(HERE / "run", ignore_errors=True)
    shutil.copytree(out, HERE / "run")
    (HERE / "losses.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
