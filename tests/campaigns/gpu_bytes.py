"""On a GPU, what the campaigns accept trains to the same bytes whether rows are streamed or all on the device.

    python tests/campaigns/gpu_bytes.py [--recipes 40] [--artifacts 40] [--seed 1] [--out FILE]

Recipes are those of recipes.py and artifacts those of artifacts.py that a command took (with checksums made right).
Each is trained with ``placement = "tiered"`` and with ``placement = "device"``; tables and dense weights must be equal
byte by byte. A recipe whose budget is refused, and an artifact that is refused in a line, count as refused.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

import artifacts  # noqa: E402
import recipes  # noqa: E402
from campaign import where  # noqa: E402


def weights(run: Path) -> dict[str, bytes]:
    """Bytes of all tables and of the dense weights of a finished training."""
    folder = run / "checkpoint"
    files = [*sorted((folder / "tables").iterdir()), folder / "dense.safetensors"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def train(recipe: Any, run: Path) -> dict[str, bytes] | None:
    """Weights of a run on the GPU; None where it is refused in a line."""
    from fae.core.errors import FaeError
    from fae.run.folder import RunFolder

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            RunFolder(recipe, run, device="cuda").run()
    except FaeError:
        return None
    return weights(run)


def compare(make: Any, folder: Path) -> str:
    """Train one recipe twice; `make` gives it for a placement."""
    found = [train(make(placement), folder / placement) for placement in ("device", "tiered")]
    if found[1] is None:
        return "refused"
    if found[0] is None:
        return "device is refused and tiered is not"
    different = sorted(name for name in found[0] if found[0][name] != found[1][name])
    return f"different bytes: {', '.join(different)}" if different else "same bytes"


def one_recipe(draw: random.Random, folder: Path) -> str:
    """A drawn recipe of recipes.py over its drawn log."""
    from fae.run.recipe import parse_recipe

    tables = recipes.draw_recipe(draw)
    recipes.write_rows(folder / "train.csv", recipes.draw_rows(draw, draw.randint(300, 700), 0))

    def make(placement: str) -> Any:
        return parse_recipe({**tables, "train": {**tables["train"], "placement": placement}}, base=folder)

    return compare(make, folder)


def make_world(folder: Path) -> None:
    """Make the run that artifacts.py mutates in another process: one that has used a GPU cannot fork."""
    child = os.fork()
    if child == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        artifacts.copy_world(artifacts.world(), folder / "world")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def one_artifact(draw: random.Random, folder: Path, base: Path) -> str:
    """A columnar log whose values were changed and whose checksums are right."""
    from fae.run.recipe import load_recipe

    copy = folder / "copy"
    artifacts.copy_world(base / "world", copy)
    (copy / "columnar.toml").write_text((copy / "columnar.toml").read_text().replace('from = "run"\n', ""))
    names = ("ids.npy", "dense.npy", "labels.npy", "counts.npy")
    if draw.random() < 0.25:
        artifacts.mutate(draw, copy / "run" / "log" / draw.choice(names), copy)
    else:
        exchange_rows(draw, copy / "run" / "log" / draw.choice(names[:3]))
    artifacts.make_right(copy)
    return compare(lambda placement: load_recipe(copy / "columnar.toml", [f"train.placement={placement}"]), copy)


def exchange_rows(draw: random.Random, path: Path) -> None:
    """Copy some rows of an array over others: other values, and each within its table."""
    import numpy as np

    array = np.load(path).copy()
    for _ in range(draw.choice([1, 5, 100])):
        array[draw.randrange(len(array))] = array[draw.randrange(len(array))]
    path.write_bytes(path.read_bytes()[:128] + array.tobytes())


def main() -> int:
    """Run both; the exit status says whether all bytes are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=40)
    parser.add_argument("--artifacts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    record: dict[str, Any] = {"command": " ".join(["python", "tests/campaigns/gpu_bytes.py", *sys.argv[1:]])}
    findings = []
    base = Path(tempfile.mkdtemp())
    make_world(base)
    for name, case, count in (
        ("recipes", one_recipe, options.recipes),
        ("artifacts", partial(one_artifact, base=base), options.artifacts),
    ):
        outcomes: Counter[str] = Counter()
        for number in range(count):
            folder = Path(tempfile.mkdtemp())
            try:
                outcome = case(random.Random(f"{options.seed}/gpu {name}/{number}"), folder)
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            shutil.rmtree(folder)
            outcomes[outcome] += 1
            if outcome not in ("same bytes", "refused"):
                findings.append({"case": f"{name} {number}", "finding": outcome})
            print(f"{name} {number}: {outcome}", file=sys.stderr, flush=True)
        record[name] = dict(sorted(outcomes.items()))
    record.update(findings=findings, seed=options.seed, **where())
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
