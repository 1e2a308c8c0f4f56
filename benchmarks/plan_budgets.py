"""What `fae plan` says of budgets beside what the stages find: hot inputs, bytes of memory, rows of tables.

    python benchmarks/plan_budgets.py [--frappe FILE] [--obd FILE ...] [--inputs N] [--sample SHARE] [--out FILE]
    python benchmarks/plan_budgets.py --table FILE

For each log two plans are made: one that reads every line, one that reads a sample of it (an eighth of the text). Then
ingest, profile, calibrate and pack run at every budget of the plan, and what they find is put beside: the share of hot
inputs over the whole training split, the bytes that training counts for every placement (on a GPU and on a CPU), the
rows of every table. Logs: text like Criteo's, Avazu's and Taobao's, made here, and Frappe and the Open Bandit Dataset
where their files are given. Nothing is trained and no machine is measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.embedding.placements import plan_memory
from fae.planning.budgets.planned_memory import dense_part_bytes
from fae.planning.plan import plan
from fae.run.folder import RunFolder
from fae.run.recipe import Recipe, load_recipe
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.text_writer import log_config, write_text

from common import RESULTS, ROOT, record, save_record, working_folder

BATCH_SIZE = 2048
SHAPES = {"criteo": 0.05, "avazu": 0.1, "taobao": 0.05}
"""Synthetic logs, with the scale of their large tables; Taobao's inputs are a quarter as many, for they are longer."""
CARD = "rtx4090"
PACKED = 6
"""About how many bytes of text a byte of the packed files is."""


def made_logs(folder: Path, num_inputs: int) -> Iterator[tuple[str, Recipe]]:
    """Text logs, each with its recipe."""
    for shape, scale in SHAPES.items():
        config = SyntheticConfig(
            shape=shape, num_inputs=num_inputs // 4 if shape == "taobao" else num_inputs, scale=scale
        )  # fmt: skip
        path = folder / f"{shape}.txt"
        write_text(config, path)
        model = {"name": "tbsm", "embedding_dim": 16} if shape == "taobao" else {"embedding_dim": 16}
        yield shape, Recipe(
            log=log_config(config, path.name), model=model, hot={"budget": "4MiB"}, base=folder,
            train={"batch_size": min(BATCH_SIZE, max(8, num_inputs // 100))},
        )  # fmt: skip


def compare(name: str, recipe: Recipe, folder: Path, share: float) -> dict[str, Any]:
    """Plan a log, whole and from a sample, and run its stages at every budget."""
    whole = plan(recipe, gpu=CARD, read="all")
    sizes = [each["budget_bytes"] for each in whole["budgets"]]
    packed = str(recipe.log.train[0]).endswith(".gz") if isinstance(recipe.log.train, tuple) else False
    text = whole["read"]["raw_bytes"] * (PACKED if packed else 1)
    sampled = plan(recipe, gpu=CARD, read=max(2**15, int(text * share)), budgets=sizes)
    of_sample = {each["budget_bytes"]: each for each in sampled["budgets"]}
    budgets = []
    for planned in whole["budgets"]:
        found = _measured(recipe, planned["budget_bytes"], folder / name)
        seen = of_sample.get(planned["budget_bytes"])
        budgets.append(
            {
                "budget_bytes": planned["budget_bytes"],
                "measured": {key: found[key] for key in ("input_share", "coverage", "hot_bytes", "staging_bytes")},
                "planned": planned["input_share"],
                "sampled": seen and seen["input_share"],
                "memory_equal": all(
                    found[kind][placement] == {key: needs[key] for key in found[kind][placement]}
                    for kind in ("on_gpu", "on_cpu")
                    for placement, needs in planned["memory"][kind].items()
                ),
                "sampled_gpu_bytes": seen and seen["memory"]["on_gpu"]["tiered"]["gpu_bytes"],
                "gpu_bytes": planned["memory"]["on_gpu"]["tiered"]["gpu_bytes"],
            }
        )  # fmt: skip
    true_rows = [table["num_rows"]["value"] for table in whole["tables"]]
    return {
        "log": name, "num_inputs": whole["log"]["num_inputs"]["value"], "raw_bytes": text,
        "sampled_inputs": sampled["read"]["num_inputs_read"], "how": sampled["read"]["how"],
        "seconds": whole["seconds"], "sampled_seconds": sampled["seconds"], "budgets": budgets,
        "tables": [
            {"rows": true, **table["num_rows"]} for true, table in zip(true_rows, sampled["tables"], strict=True)
        ],
    }  # fmt: skip


def _measured(recipe: Recipe, budget: int, folder: Path) -> dict[str, Any]:
    """What the stages find at a budget."""
    run = RunFolder(replace(recipe, hot=replace(recipe.hot, budget=budget)), folder, device="cpu")
    for stage in ("ingest", "profile", "calibrate", "pack"):
        run.stage(stage)
    hot_set, packed = HotSet(run.path("calibrate")), PackedDataset(run.path("pack"))
    splits = (packed.train, packed.validation, packed.test)
    found: dict[str, Any] = {
        "input_share": packed.summary["input_share"], "coverage": packed.summary["coverage"],
        "hot_bytes": hot_set.summary["bytes"], "staging_bytes": hot_set.summary["staging_bytes"],
    }  # fmt: skip
    for kind, placements in (("on_gpu", ("tiered", "hybrid", "device")), ("on_cpu", ("tiered", "cpu"))):
        on_gpu = kind == "on_gpu"
        dense = dense_part_bytes(recipe, hot_set.layout.features, packed.num_dense, on_gpu=on_gpu)
        found[kind] = {
            name: asdict(plan_memory(name, hot_set, hot_set.optimizer, splits, on_gpu=on_gpu, dense_bytes=dense))
            for name in placements
        }
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown of the results."""
    lines = [
        "| log | inputs | budgets | read whole: shares equal, bytes equal | sample | shares in the interval | widest "
        "interval | tables in the interval | GPU bytes off by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        budgets = each["budgets"]
        equal = sum(one["planned"]["value"] == one["measured"]["input_share"] for one in budgets)
        same = sum(one["memory_equal"] for one in budgets)
        seen = [one for one in budgets if one["sampled"]]
        inside = sum(one["sampled"]["low"] <= one["measured"]["input_share"] <= one["sampled"]["high"] for one in seen)
        widest = max((one["sampled"]["high"] - one["sampled"]["low"] for one in seen), default=0.0)
        rows = sum(one["low"] <= one["rows"] <= one["high"] for one in each["tables"])
        off = max((abs(one["sampled_gpu_bytes"] / one["gpu_bytes"] - 1) for one in seen), default=0.0)
        lines.append(
            f"| {each['log']} | {each['num_inputs']:,} | {len(budgets)} | {equal} of {len(budgets)}, {same} of "
            f"{len(budgets)} | {each['sampled_inputs']:,} inputs | {inside} of {len(seen)} "
            f"| {100 * widest:.0f} points | {rows} of {len(each['tables'])} | {100 * off:.1f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare plans with stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frappe", metavar="FILE", help="Frappe's log, for recipes/frappe.toml")
    parser.add_argument(
        "--obd", metavar="FILE", nargs="+", help="logs of the Open Bandit Dataset, for recipes/obd.toml"
    )
    parser.add_argument("--inputs", metavar="N", type=int, default=2_000_000, help="of synthetic logs")
    parser.add_argument("--sample", metavar="SHARE", type=float, default=0.125, help="of the text, for samples")
    parser.add_argument("--only", metavar="LOG", nargs="+", help="these logs alone")
    parser.add_argument("--out", metavar="FILE", type=Path, default=RESULTS / "plan_budgets.json")
    parser.add_argument("--table", metavar="FILE", type=Path, help="print this file as Markdown")
    parser.add_argument("--quick", action="store_true", help="toy size, nothing is written")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())["results"]))
        return
    results = []
    with working_folder(None) as folder:
        subjects: list[tuple[str, Recipe]] = []
        for name, files in (("frappe", options.frappe and [options.frappe]), ("obd", options.obd)):
            if files:
                names = json.dumps([str(Path(file).absolute()) for file in files])
                subjects.append((name, load_recipe(ROOT / "recipes" / f"{name}.toml", [f"log.train={names}"])))
        num_inputs = 4000 if options.quick else options.inputs
        for name, recipe in [*subjects, *made_logs(folder, num_inputs)]:
            if options.only is None or name in options.only:
                results.append(compare(name, recipe, folder, options.sample))
    if not options.quick:
        save_record(options.out, record(results=results))
    print(table(results))


if __name__ == "__main__":
    main()
