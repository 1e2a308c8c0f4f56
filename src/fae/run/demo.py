"""The demo: a synthetic log through every stage, the same model in plain PyTorch, and a report of both."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.config import to_table
from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import locked_folder
from fae.core.progress import say
from fae.core.units import format_bytes, format_count, parse_bytes
from fae.core.whole_files import write_record, write_whole
from fae.run.folder import STAGES, RunFolder
from fae.run.recipe import Recipe, load_recipe
from fae.run.stale_files import RUN_RECORD
from fae.synthetic.text_writer import SyntheticConfig, write_criteo_tsv

RECIPE_FILE = "demo.toml"
RECIPE = """\
# The demo's recipe: run it again with `fae run {name} --out DIR`, change a value, see what happens.

[log]
format = "criteo"
train = "log.tsv"
test_fraction = 0.2

[model]
name = "dlrm"
embedding_dim = 16
bottom_mlp = [64]
top_mlp = [64, 32]

[hot]
budget = "{budget}"
ring_depth = 2                     # batches this small need a short ring only

[train]
batch_size = 512
epochs = 1
optimizer = "rowwise_adagrad"
learning_rate = 0.1
dense_learning_rate = 0.02
placement = "tiered"
seed = {seed}
"""


def run_demo(
    out: str | Path, *, num_inputs: int = 150_000, budget: str | None = None, device: str | None = None, seed: int = 1
) -> dict[str, Any]:
    """Make the log, run every stage, train plain PyTorch, compare, write ``report.html``.

    Parameters
    ----------
    num_inputs
        Inputs of the log, training and test together; 5,000 or more.
    budget
        GPU memory budget; None takes 1 MiB, about a seventh of what all rows of the default log need.

    Returns
    -------
    dict
        ``run`` (the run record), ``plain`` (the record of plain PyTorch), ``log``, ``report`` (path of the page),
        ``verdict`` (its first line) and ``seconds``; also written to ``demo.json``.
    """
    if num_inputs < 5_000:
        raise RecipeError(f"--inputs {num_inputs} is too small to show anything; give 5000 or more")
    budget = "1MiB" if budget is None else budget
    parse_bytes(budget, what="--budget")
    with locked_folder(Path(out)):
        return _run_demo(Path(out), num_inputs, budget, device, seed)


def _run_demo(out: Path, num_inputs: int, budget: str, device: str | None, seed: int) -> dict[str, Any]:
    started, began = time.perf_counter(), datetime.now().astimezone().replace(microsecond=0)
    recipe_file = out / RECIPE_FILE
    _check_own(recipe_file, out / "log.tsv")
    write_whole(recipe_file, RECIPE.format(name=recipe_file, budget=budget, seed=seed))
    recipe = load_recipe(recipe_file)
    folder = RunFolder(recipe, out / "run", device=device)
    if device == "cuda":
        folder.device()  # a missing GPU is found before any work
    folder.compile_ahead()
    summary = write_criteo_tsv(SyntheticConfig(num_inputs=num_inputs, seed=seed), out / "log.tsv")
    size = format_bytes(summary.num_bytes)
    _show(
        "log", time.perf_counter() - started, f"{format_count(num_inputs)} synthetic inputs in Criteo's format, {size}"
    )
    record = _run_stages(folder, out / "stages.log")
    if datetime.fromisoformat(record["ended"]) >= began:  # not an earlier demo's
        record["started"] = began.isoformat()  # its stages ran one by one, before the run found them done
        write_record(folder.out / RUN_RECORD, record)
    plain = _train_plain(recipe, ColumnarLog(folder.path("ingest")), record)
    facts = f"the best possible test AUC of this log is {summary.best_auc:.4f}"
    if folder.device() == "cpu":
        facts += "; no GPU: hot and cold rows are both in host memory"
    _show("", None, facts)
    page, verdict = _write_report(folder.out, plain, out)
    result: dict[str, Any] = {
        "run": record, "plain": plain, "log": dataclasses.asdict(summary), "report": page, "verdict": verdict,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    write_record(out / "demo.json", result)
    _show("all", result["seconds"], verdict)
    _show("report", None, page)
    return result


def _check_own(recipe: Path, log: Path) -> None:
    """Refuse to replace a recipe that was changed since an earlier demo, or a log that no demo made."""
    if not recipe.exists():
        if log.exists():
            raise ArtifactError(f"{log} is there, and no earlier demo beside it; choose another --out")
        return
    made = re.escape(RECIPE).replace(re.escape("{name}"), ".*").replace(re.escape("{budget}"), '[^"\n]*')
    text = recipe.read_bytes().decode("utf-8", "replace")
    if not re.fullmatch(made.replace(re.escape("{seed}"), r"\d+"), text):
        raise ArtifactError(
            f"{recipe} was changed since the demo wrote it, or is another recipe; choose another --out, or move it away"
        )


def _show(name: str, seconds: float | None, text: str) -> None:
    took = "" if seconds is None else f"{seconds:.1f} s"
    say(f"{name:10}{took:>7}  {text}")


def _run_stages(folder: RunFolder, details: Path) -> dict[str, Any]:
    """Run the stages, show one line for each, keep what they say themselves in the file `details`."""
    said = io.StringIO()
    try:
        for name in (stage.name for stage in STAGES):
            with contextlib.redirect_stderr(said):
                done = folder.stage(name, replace=True)  # the folder is the demo's own: other settings replace it
            note = " (made by an earlier demo)" if done["skipped"] else ""
            _show(name, done["seconds"], _stage_text(folder, name, done["summary"]) + note)
        with contextlib.redirect_stderr(io.StringIO()):  # every stage is there already
            # The page tells what to try next as changes of this command.
            command = shlex.join(["fae", "run", str(details.parent / RECIPE_FILE), "--out", str(folder.out)])
            return folder.run(replace=True, command=command)
    finally:
        write_whole(details, said.getvalue())


def _stage_text(folder: RunFolder, name: str, found: dict[str, Any]) -> str:
    """What a stage found, for readers who have not seen FAE before."""
    if name == "ingest":
        num_rows = sum(feature["num_embeddings"] for feature in found["features"])
        return f"{len(found['features'])} embedding tables with {format_count(num_rows)} rows"
    if name == "profile":
        return f"counted the lookups of {format_count(found['num_inputs'])} training inputs"
    if name == "calibrate":
        budget, total = format_bytes(found["budget_bytes"]), format_bytes(folder.total_row_bytes())
        return (
            f"{format_count(found['num_rows'])} hot rows fit the budget of {budget} (all rows: {total}) and serve "
            f"{100 * found['coverage']:.1f} % of the lookups"
        )
    if name == "pack":
        hot, others = found["num_batches"]["hot"], found["num_batches"]["cold"]
        return (
            f"{f'{others} mixed' if found['mixed'] else f'{hot} hot and {others} cold'} batches of "
            f"{found['batch_size']}; {100 * found['input_share']:.1f} % of the inputs need hot rows only"
        )
    return _training_text("FAE", found)


def _training_text(name: str, found: dict[str, Any]) -> str:
    speed = f"{found['train']['samples_per_second']:,.0f} inputs/s"
    return f"{name}: {speed}, test AUC {found['test']['auc']:.4f}, log loss {found['test']['log_loss']:.4f}"


def _train_plain(recipe: Recipe, log: ColumnarLog, run: dict[str, Any]) -> dict[str, Any]:
    """Train the same model on the same log in plain PyTorch; returns a record with the keys of a run record."""
    from fae.models.registry import build_model, embedding_dims
    from fae.streaming.row_store import RowOptimizer
    from fae.training.plain import PlainEmbeddings, PlainTrainer, read_inputs
    from fae.training.quality.metrics import compute_metrics

    train = recipe.train

    def make_trainer() -> PlainTrainer:
        embeddings = PlainEmbeddings(log.features, embedding_dims(recipe.model, log.features), seed=train.seed)
        model = build_model(recipe.model, log.features, len(log.dense_names), seed=train.seed)
        optimizer = RowOptimizer(name=train.optimizer, learning_rate=train.learning_rate)
        return PlainTrainer(model, embeddings, optimizer, dense_learning_rate=train.dense_rate)

    # FAE's rate leaves out its set-up and first batches, so plain PyTorch warms up before the clock starts, too.
    warm_up, trainer = make_trainer(), make_trainer()
    first = log.split("train")[0]
    for batch in range(4):
        warm_up.step(*read_inputs(log, np.arange(first, first + train.batch_size) + batch * train.batch_size))
    started = time.perf_counter()
    losses = trainer.fit(log, batch_size=train.batch_size, epochs=train.epochs, seed=train.seed)
    seconds = time.perf_counter() - started
    test, validation = (
        dataclasses.asdict(compute_metrics(*trainer.predict(log, split, train.batch_size)))
        for split in ("test", "validation")
    )
    num_inputs = train.epochs * (log.split("train")[1] - log.split("train")[0])
    seen = [min((index + 1) * train.batch_size, num_inputs) for index in range(len(losses))]
    record = {
        # Plain PyTorch has no hot set, no placement and another order of inputs.
        "recipe": {
            name: to_table(getattr(recipe, name)) for name in ("log", "model", "train")
        },
        **{key: run[key] for key in ("seed", "versions", "machine", "commit", "log")},
        "train": {
            "samples_per_second": num_inputs / seconds, "seconds": seconds, "num_inputs": num_inputs,
            "epochs": train.epochs, "num_batches": len(losses),
            "loss_curve": [list(point) for point in zip(seen, losses, strict=True)],
            "validation_curve": [{"inputs": num_inputs, "whole": True, **validation}],
        },
        "validation": validation,
        "test": test,
    }  # fmt: skip
    record["recipe"]["train"] |= {"placement": "plain PyTorch on the CPU", "order": "shuffled"}
    _show("plain", time.perf_counter() - started, _training_text("plain PyTorch", record))
    return record


def _write_report(run: Path, plain: dict[str, Any], out: Path) -> tuple[str, str]:
    """Write the record of plain PyTorch and the page of both; returns the path of the page and its first line."""
    from fae.report.page import report

    write_record(out / "plain_pytorch.json", plain)
    made = report([run, out / "plain_pytorch.json"], out / "report.html")
    return made["path"], made["verdict"]
