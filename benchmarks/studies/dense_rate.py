"""The learning rate of the dense weights under Adagrad, as a share of the rows': validation splits alone.

    python benchmarks/studies/dense_rate.py [--shares 1 0.5 0.2 0.1 0.05] [--seeds 3] [--cases NAME ...]
    python benchmarks/studies/dense_rate.py --table

Cases: Frappe's recipe, the small recipes and those of public logs whose optimizer is an Adagrad, and the default recipe
on a made-up Criteo log (400 k inputs, scale 0.01); made-up logs have 100 to 200 k. A cell is a case, a share, a seed:
AUC and log loss of the validation split behind the last epoch, and the share of dead units, those of a ReLU that
are 0 on every validation input looked at (docs/journal.md). Nothing of the test split is kept. Resumable: the result
file is written behind each cell and what it holds is skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import fae
from fae.models.registry import build_model
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.text_writer import log_config, write_text
from fae.training.evaluate import evaluate, validation_sample
from fae.training.trainer import Trainer
from studies.accuracy_tables import interval

from common import RESULTS, record

ROOT = Path(__file__).resolve().parents[2]
CRITEO = SyntheticConfig(num_inputs=200_000)
TAOBAO = SyntheticConfig(shape="taobao", num_inputs=100_000)
AVAZU = SyntheticConfig(shape="avazu", num_inputs=200_000)
CASES: dict[str, tuple[str | None, SyntheticConfig | None]] = {
    "default": (None, SyntheticConfig(num_inputs=400_000)),
    "frappe": ("frappe.toml", None),
    "small_tbsm": ("small_tbsm.toml", TAOBAO),
    "small_deepfm": ("small_deepfm.toml", CRITEO),
    "small_dcnv2": ("small_dcnv2.toml", CRITEO),
    "small_wide_deep": ("small_wide_deep.toml", CRITEO),
    "avazu": ("avazu.toml", AVAZU),
}
"""Recipe and made-up log; no recipe: the default one, no log: the recipe's."""


def make_recipe(case: str, folder: Path, share: float, seed: int) -> Any:
    """The case's recipe over its log, which is made where it is not there."""
    name, config = CASES[case]
    overrides = [f"train.seed={seed}"]
    if config is not None:
        log = folder / f"{config.shape}_{config.num_inputs}.text"
        if not log.exists():
            write_text(config, log)
        reading = log_config(config, str(log))
        overrides += [f"log.train={json.dumps(str(log))}", f"log.format={reading.format}"]
        if reading.format == "csv":
            overrides += ["log.dense=[]", 'log.label="label"', f"log.categorical={_as_toml(reading.categorical)}"]
        overrides.append("hot.budget=4MiB")
    if name is None:
        (folder / "default.toml").write_text("[log]\ntrain = 'x'\n")
    path = folder / "default.toml" if name is None else ROOT / "recipes" / name
    recipe = fae.load_recipe(path, overrides)
    return fae.load_recipe(path, [*overrides, f"train.dense_learning_rate={share * recipe.train.learning_rate!r}"])


def _as_toml(columns: Any) -> str:
    parts = [
        json.dumps(c)
        if isinstance(c, str)
        else f'{{name="{c.name}", max_length={c.max_length}, pooling="{c.pooling}"}}'
        for c in columns
    ]
    return "[" + ", ".join(parts) + "]"


def dead_share(model: nn.Module, look: Any) -> float | None:
    """Of all units behind a ReLU, those that never fired while `look` ran; None where the model has no such module."""
    fired: dict[nn.Module, torch.Tensor] = {}

    def watch(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        alive = (output.detach() > 0).reshape(-1, output.shape[-1]).any(0)
        fired[module] = fired[module] | alive if module in fired else alive

    hooks = [m.register_forward_hook(watch) for m in model.modules() if isinstance(m, nn.ReLU)]
    look()
    for hook in hooks:
        hook.remove()
    alive = torch.cat(list(fired.values())) if fired else None
    return None if alive is None else float((~alive).double().mean())


def one_cell(case: str, share: float, seed: int, folder: Path) -> dict[str, Any]:
    """Train, and look at the validation split."""
    recipe = make_recipe(case, folder, share, seed)
    run = fae.RunFolder(recipe, folder / case, device="cpu")
    for stage in ("ingest", "profile", "calibrate", "pack"):
        run.stage(stage)
    packed, embeddings = run.open_packed(), run.open_embeddings()
    model = build_model(recipe.model, embeddings.layout.features, packed.num_dense, seed=seed)
    started = time.perf_counter()
    result: dict[str, Any] = {"validation": {"auc": None, "log_loss": None}}
    diverged = False
    trainer = Trainer(model, embeddings, packed, recipe.train)
    try:
        trainer.fit()  # what it returns of the test split is not kept
    except fae.FaeError as error:
        diverged = "diverged" in str(error)
        if not diverged:
            raise
    if not diverged:
        metrics = evaluate(model, embeddings, packed.validation)
        result["validation"] = {"auc": metrics.auc, "log_loss": metrics.log_loss}
    sample = validation_sample(packed.validation)
    dead = dead_share(model, lambda: evaluate(model, embeddings, packed.validation, sample))
    train = recipe.train
    return {
        "case": case, "share": share, "seed": seed, **result, "diverged": diverged, "dead_share": dead,
        "optimizer": train.optimizer, "learning_rate": train.learning_rate, "dense_learning_rate": train.dense_rate,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def print_table(cells: list[dict[str, Any]]) -> None:
    """As Markdown; differences are paired by seed, to a tenth."""
    print(
        "| case | optimizer, rows' rate | dense / rows | validation AUC | log loss | minus that of a tenth "
        "| dead units |"
    )
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        of_case = [cell for cell in cells if cell["case"] == case]
        tenth = {cell["seed"]: cell for cell in of_case if cell["share"] == 0.1 and not cell["diverged"]}
        for share in sorted({cell["share"] for cell in of_case}, reverse=True):
            group = [c for c in of_case if c["share"] == share and not c["diverged"]]
            if not group:
                print(f"| {case} | | {share} | diverged | | | |")
                continue
            texts = []
            for values, digits, sign in (
                ([c["validation"]["auc"] for c in group], 4, ""),
                ([c["validation"]["log_loss"] for c in group], 4, ""),
                ([c["validation"]["log_loss"] - tenth[c["seed"]]["validation"]["log_loss"]
                  for c in group if c["seed"] in tenth], 4, "+"),
            ):  # fmt: skip
                value = interval(values) if (values and share != 0.1) or (digits and sign == "") else None
                half = "" if value is None or value["half_width"] is None else f" ± {value['half_width']:.{digits}f}"
                texts.append("" if value is None else f"{value['mean']:{sign}.{digits}f}{half}")
            dead = [c["dead_share"] for c in group if c["dead_share"] is not None]
            first = f"{group[0]['optimizer']}, {group[0]['learning_rate']}"
            shown = f"{sum(dead) / len(dead):.0%}" if dead else ""
            print(f"| {case} | {first} | {share} | " + " | ".join(texts) + f" | {shown} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.5, 0.1, 0.05])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--until", type=float, default=math.inf, metavar="SECONDS", help="start no cell after")
    parser.add_argument("--folder", type=Path, help="for logs and batches (default: one in the temporary folder)")
    parser.add_argument("--name", default="dense_rate", help="of the result file")
    parser.add_argument("--table", action="store_true", help="print the table of a result and do nothing else")
    options = parser.parse_args()
    out = RESULTS / f"{options.name}.json"
    cells: list[dict[str, Any]] = json.loads(out.read_text())["cells"] if out.exists() else []
    if options.table:
        print_table(cells)
        return
    folder = options.folder or Path(tempfile.gettempdir()) / f"fae_{options.name}"
    folder.mkdir(parents=True, exist_ok=True)
    header, started = record(), time.perf_counter()
    for seed in range(1, options.seeds + 1):
        for case in options.cases:
            for share in options.shares:
                if any((c["case"], c["share"], c["seed"]) == (case, share, seed) for c in cells):
                    continue
                if time.perf_counter() - started > options.until:
                    return
                cells.append({**one_cell(case, share, seed, folder), "commit": header["commit"]})
                part = out.with_suffix(".part")
                part.write_text(json.dumps({**header, "cells": cells}, indent=1) + "\n")
                os.replace(part, out)
                print(f"{time.perf_counter() - started:6.0f} s  {cells[-1]}", file=sys.stderr, flush=True)
    print_table(cells)


if __name__ == "__main__":
    main()
