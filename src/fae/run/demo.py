"""The demo: a made-up log through every stage, the same model by plain PyTorch, and both side by side.

Place in the flow: a user of the same functions as everyone else; nothing here is used by the stages. Invariant: every
figure it prints comes from the run it has just made.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.config import to_table
from fae.core.errors import RecipeError
from fae.core.files import locked_folder, write_record, write_whole
from fae.core.progress import say
from fae.core.units import format_bytes, format_count, parse_bytes
from fae.run.folder import RunFolder
from fae.run.recipe import Recipe, load_recipe, parse_recipe
from fae.synthetic.text_writer import SyntheticConfig, write_criteo_tsv

_BUDGET_SHARES = (0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
"""Budgets of the figure, as shares of all bytes of rows and state."""

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
    """Make the log, run every stage, run plain PyTorch, compare, draw.

    Parameters
    ----------
    num_inputs
        Of the log, training and test together; 5,000 or more.
    budget
        GPU memory budget; None takes 1 MiB, about a seventh of what all rows of the default log need.

    Returns
    -------
    dict
        ``run`` (the run record), ``plain`` and ``log``; also written to ``demo.json``.
    """
    if num_inputs < 5_000:
        raise RecipeError(f"--inputs {num_inputs} is too small to show anything; give 5000 or more")
    budget = "1MiB" if budget is None else budget
    parse_bytes(budget, what="--budget")
    with locked_folder(Path(out)):
        return _run_demo(Path(out), num_inputs, budget, device, seed)


def _run_demo(out: Path, num_inputs: int, budget: str, device: str | None, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    recipe_file = out / "demo.toml"
    write_whole(recipe_file, RECIPE.format(name=recipe_file, budget=budget, seed=seed))
    recipe = load_recipe(recipe_file)
    summary = write_criteo_tsv(SyntheticConfig(num_inputs=num_inputs, seed=seed), out / "log.tsv")
    say(
        f"demo: a Criteo-shaped log of {format_count(num_inputs)} inputs, {format_bytes(summary.num_bytes)}, "
        f"best possible AUC {summary.best_auc:.4f}"
    )
    folder = RunFolder(recipe, out / "run", device=device)
    record = folder.run()
    plain = _train_plain(recipe, ColumnarLog(folder.path("ingest")))
    result: dict[str, Any] = {"run": record, "plain": plain, "log": dataclasses.asdict(summary)}
    result["figures"] = [str(path) for path in _draw(folder, result, out)]
    result["seconds"] = time.perf_counter() - started
    write_record(out / "demo.json", result)
    _show(result)
    return result


def _train_plain(recipe: Recipe, log: ColumnarLog) -> dict[str, Any]:
    from fae.models.registry import build_model, embedding_dims
    from fae.streaming.row_store import RowOptimizer
    from fae.training.metrics import compute_metrics
    from fae.training.plain import PlainEmbeddings, PlainTrainer

    train = recipe.train
    embeddings = PlainEmbeddings(log.features, embedding_dims(recipe.model, log.features), seed=train.seed)
    model = build_model(recipe.model, log.features, len(log.dense_names), seed=train.seed)
    optimizer = RowOptimizer(name=train.optimizer, learning_rate=train.learning_rate)
    trainer = PlainTrainer(model, embeddings, optimizer, dense_learning_rate=train.dense_rate)
    say("demo: the same model, plain PyTorch (one nn.EmbeddingBag a table)")
    started = time.perf_counter()
    losses = trainer.fit(log, batch_size=train.batch_size, epochs=train.epochs, seed=train.seed)
    seconds = time.perf_counter() - started
    metrics = compute_metrics(*trainer.predict(log, "test", train.batch_size))
    num_inputs = train.epochs * (log.split("train")[1] - log.split("train")[0])
    curve = [[(index + 1) * train.batch_size, loss] for index, loss in enumerate(losses)]
    return {
        "test": dataclasses.asdict(metrics),
        "train": {"samples_per_second": num_inputs / seconds, "seconds": seconds, "loss_curve": curve},
    }


def _draw(folder: RunFolder, result: dict[str, Any], out: Path) -> list[Path]:
    from fae.report import figures

    hot_set, log = folder.open_hot_set(), ColumnarLog(folder.path("ingest"))
    hot = result["run"]["hot"]
    paths = [out / f"{name}.png" for name in ("skew", "budgets", "loss", "bytes")]
    figures.draw_skew(
        [
            figures.TableSkew(name=feature.name, counts=log.counts[start:stop], num_hot=num_hot)
            for feature, start, stop, num_hot in zip(
                log.features, log.table_offsets[:-1], log.table_offsets[1:], hot_set.layout.num_hot, strict=True
            )
        ],
        paths[0],
    )
    figures.draw_budgets(_budget_points(folder, log), paths[1], chosen_bytes=hot["budget_bytes"])
    curves = {"fae": result["run"]["train"]["loss_curve"], "plain PyTorch": result["plain"]["train"]["loss_curve"]}
    figures.draw_losses(
        [
            figures.LossCurve(label=name, inputs_seen=[p[0] for p in curve], values=[p[1] for p in curve])
            for name, curve in ((name, _smooth(curve)) for name, curve in curves.items())
        ],
        paths[2],
        what="training log loss",
    )
    cold = folder.total_row_bytes() - hot["bytes"]
    figures.draw_bytes(
        {"hot rows (device)": hot["bytes"], "staging (device)": hot["staging_bytes"], "cold rows (host)": cold},
        paths[3],
        budget_bytes=hot["budget_bytes"],
    )
    return paths


def _smooth(curve: list[list[float]], points: int = 30) -> list[list[float]]:
    """Means of neighbouring points: single hot and cold batches differ too much to be read one by one."""
    step = max(1, len(curve) // points)
    parts = [curve[first : first + step] for first in range(0, len(curve) - step + 1, step)]
    return [[part[-1][0], sum(loss for _, loss in part) / len(part)] for part in parts]


def _budget_points(folder: RunFolder, log: ColumnarLog) -> list[Any]:
    """What other budgets would buy; each is calibrated for real, in a folder that is thrown away."""
    from fae.core.errors import BudgetError
    from fae.report.figures import BudgetPoint

    points = []
    for share in _BUDGET_SHARES:
        budget = int(share * folder.total_row_bytes())
        tables = {name: to_table(getattr(folder.recipe, name)) for name in ("log", "model", "hot", "train")}
        tables["hot"]["budget"] = budget
        other = RunFolder(parse_recipe(tables, base=folder.recipe.base), folder.out)
        with tempfile.TemporaryDirectory() as temporary:
            try:
                summary = other.calibrate_into(Path(temporary) / "hot_set")
            except BudgetError:
                continue  # too small for the staging ring at this batch size
        points.append(
            BudgetPoint(budget_bytes=budget, input_share=summary["input_share"], coverage=summary["coverage"])
        )
    return points


def _show(result: dict[str, Any]) -> None:
    run, plain = result["run"], result["plain"]
    hot, train, test = run["hot"], run["train"], run["test"]
    total = sum(feature["num_embeddings"] for feature in run["log"]["features"])
    lines = [
        "",
        "What FAE did",
        f"  hot rows            {format_count(hot['num_rows'])} of {format_count(total)}, by {hot['selection']}",
        f"  device memory       {format_bytes(hot['bytes'])} of rows and state + {format_bytes(hot['staging_bytes'])} "
        f"of staging, budget {format_bytes(hot['budget_bytes'])}",
        f"  coverage            {100 * hot['coverage']:.1f} % of lookups served by hot rows",
        f"  hot-input share     {100 * hot['input_share']:.1f} % of inputs never leave the device",
        f"  batches             {run['pack']['num_batches']['hot']} hot, {run['pack']['num_batches']['cold']} cold",
        "  seconds             "
        + ", ".join(f"{name} {value:.1f}" for name, value in run["stage_seconds"].items() if value),
        "",
        f"{'How they compare':22}{'FAE, tiered':>16}{'plain PyTorch':>16}",
        f"  {'samples/s':20}{train['samples_per_second']:16,.0f}{plain['train']['samples_per_second']:16,.0f}",
        f"  {'test AUC':20}{test['auc']:16.4f}{plain['test']['auc']:16.4f}",
        f"  {'test log loss':20}{test['log_loss']:16.4f}{plain['test']['log_loss']:16.4f}",
        f"  best possible AUC of this log: {result['log']['best_auc']:.4f}",
        "",
        f"Figures: {', '.join(result['figures'])}",
        f"Done in {result['seconds']:.1f} s",
    ]
    if run["machine"]["gpu"] is None:
        lines.insert(-1, "There is no GPU here: both tiers stood in host memory, so only the mechanism is shown.")
    for line in lines:
        say(line)
