"""Print the Markdown tables of docs/results from the committed JSON, and draw its figures.

    python benchmarks/studies/tables.py placements|paper [--fill PAGE]
    python benchmarks/studies/tables.py accuracy|drift|selections|sampled_counts|rand_em_box [NAME]
    python benchmarks/studies/tables.py paper a/paper.json b/paper.json            other records of `fae bench paper`
    python benchmarks/studies/tables.py accuracy NAME --base ORDER --against FILE  differences, paired by seed

How do the pages under docs/results follow from benchmarks/results? Nothing is worked out here but medians, means, 95 %
intervals (Student's t over seeds) and ratios of figures that are in one file. ``placements`` reads
placements_<gpu>_<date>.json, of each GPU the latest, and limits_*.json; ``paper`` reads paper_rmc*.json and
paper_orders_*.json; the others read <NAME>.json. ``--fill`` puts the text between the markers that the page has.
Figures are drawn by figures.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from fae.core.units import format_bytes, format_count
from fae.report.shown_values import seconds_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CACHES = ("fbgemm lru", "fbgemm lfu", "fbgemm lru prefetch")
LOGS = {"zipf": "independent Zipf 1.05 columns", "criteo": "Criteo-shaped, columns that agree"}
BASE = "shuffled"
Record = Mapping[str, Any]


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)]


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and half width of the 95 % interval; one value has none.

    >>> interval([1.0])
    {'mean': 1.0, 'half_width': None, 'seeds': 1}
    """
    half = None
    if len(values) > 1:
        half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values))
    return {"mean": float(np.mean(values)), "half_width": half, "seeds": len(values)}


def text_of(value: Record | None, digits: int, sign: str = "", unit: float = 1.0) -> str:
    """``mean ± half width``; empty for None."""
    if value is None:
        return ""
    half = "" if value["half_width"] is None else f" ± {unit * value['half_width']:.{digits}f}"
    return f"{unit * value['mean']:{sign}.{digits}f}{half}"


def mean_text(values: Sequence[float], form: str) -> str:
    """Mean, and the range in brackets where there is one.

    >>> mean_text([1.0, 2.0], "{:.1f}"), mean_text([1.0], "{:.0f}")
    ('1.5 (1.0-2.0)', '1')
    """
    low, high, mean = (form.format(value) for value in (min(values), max(values), float(np.mean(values))))
    return mean if low == high else f"{mean} ({low}-{high})"


def percent(share: float, digits: int = 3) -> str:
    """A share in per cent, with that many significant digits, never as a power of ten.

    >>> percent(0.12345), percent(0.000012345), percent(0.0), percent(1.0)
    ('12.3', '0.00123', '0', '100')
    """
    if share == 0:
        return "0"
    places = max(0, digits - 1 - int(np.floor(np.log10(abs(100 * share)))))
    return f"{100 * share:.{places}f}"


def times(value: float | None) -> str:
    """A ratio, such as ``2.31x``; empty for None."""
    return "" if value is None else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def ratio(rates: Mapping[str, float], name: str, base: str) -> str:
    """One rate over another; empty where one is missing or both are the same contender."""
    value = rates[name] / rates[base] if base in rates and name != base else None
    return "" if value is None else times(value) if value >= 2 else f"{value:.3f}x"


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def group_lines(rows: list[Record]) -> list[str]:
    """One group of contenders."""
    first = rows[0]
    rates = {row["placement"]: statistics.median(row["samples"]) for row in rows}
    cache = max((name for name in CACHES if name in rates), key=lambda name: rates[name], default="")
    bases = ("device", cache, "plain PyTorch hybrid", "plain PyTorch cpu")
    head = ["", "rows on the GPU, MB", "of it ring", "M inputs/s (range)", "over device", "over FBGEMM's best cache"]
    what = f"batch {first['batch_size']:,}, dim {first['dim']}, {first['optimizer']}"
    cells = []
    for row in rows:
        values = [value / 1e6 for value in row["samples"]]
        memory = (f"{row[key] / 1e6:.0f}" for key in ("gpu_row_bytes", "staging_bytes"))
        over = (ratio(rates, row["placement"], base) for base in bases)
        cells.append([row["placement"], *memory, spread(values, 3 if max(values) < 1 else 1), *over])
    table = markdown([*head, "over plain CPU-GPU", "over plain CPU"], cells)
    return [f"\n*{LOGS[first['log']]}; {what}*\n", *table]


def placement_lines(path: Path, without: set[str]) -> Iterator[str]:
    """All groups of one file, `without` some contenders."""
    found = json.loads(path.read_text())
    machine, note = found["machine"], f" {found['note']}" if "note" in found else ""
    where = f"`{path.name}`, commit `{found['commit'][:7]}`"
    yield f"\n**{machine['gpu']}, {machine['threads']} cores of the host** ({where}):{note}"
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for row in found["rows"]:
        if row["placement"] not in without:
            groups.setdefault((row["log"], row["batch_size"], row["dim"], row["optimizer"]), []).append(row)
    for rows in groups.values():
        yield from group_lines(rows)


def limit_lines(path: Path) -> list[str]:
    """A file of limits.py: every part's contenders, each beside the part's first."""
    found = json.loads(path.read_text())
    settings = found["settings"]
    cells = []
    for part in found["parts"]:
        what = ", ".join(f"{key} {value}" for key, value in part.items() if key not in ("rates", "rows"))
        first = next(iter(part["rates"].values()))["samples_per_second"]
        for name, rate in part["rates"].items():
            values = [value / 1e6 for value in rate["samples"]]
            cells.append([what, name, spread(values, 1), f"{rate['samples_per_second'] / first:.3f}"])
    return [
        f"\n**`limits.py {settings['what']}`, {found['machine']['gpu']}** (`{path.name}`, commit "
        f"`{found['commit'][:7]}`), batch {settings['batch_size']:,}:\n",
        *markdown(["", "contender", "M inputs/s (range)", "over the first"], cells),
    ]


def placements_text() -> str:
    """All GPUs and limits."""
    lines: list[str] = []
    by_gpu: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("placements_*_????????.json"), reverse=True):
        by_gpu.setdefault(path.stem.split("_")[1], []).append(path)
    for latest, *older in by_gpu.values():
        # `paper` of the first day left updates out, or swapped after every batch (docs/journal).
        lines += placement_lines(latest, {"paper"} if latest.stem.endswith("_20261124") else set())
        lines += [f"\nFrom an older engine: {', '.join(f'`{path.name}`' for path in older)}."] if older else []
    for path in sorted(RESULTS.glob("limits_*.json")):
        lines += limit_lines(path)
    return "\n".join(lines).strip() + "\n"


def share_text(value: float | None) -> str:
    """Per cent with one digit; empty for None."""
    return "" if value is None else f"{100 * value:.1f} %"


def paper_table(table: Record) -> list[str]:
    """Every contender of one batch size."""
    head = ["", "inputs/s (range)", "an epoch", "over plain CPU", "over plain CPU-GPU", "test AUC", "log loss"]
    head += ["hot inputs", "to the GPU", "back", "swaps", "on the GPU", "batches"]
    cells = []
    for row in table["rows"]:
        low, high = (format_count(value) for value in row["spread"])
        metrics = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("auc", "log_loss")]
        cells.append([
            row["label"], f"{format_count(row['samples_per_second'])} ({low} to {high})",
            seconds_text(row["epoch_seconds"]), times(row.get("over plain cpu")), times(row.get("over plain hybrid")),
            *metrics, share_text(row["input_share"]), format_bytes(row["bytes_to_device"]),
            format_bytes(row["bytes_to_host"]), row["swaps"], format_bytes(row["device_bytes"]),
            row["batches_measured"],
        ])  # fmt: skip
    return [*markdown(head, cells), *(f"\nLeft out: {one['label']}: {one['why']}." for one in table["left_out"])]


def paper_epoch(table: Record) -> list[str]:
    """Where the time of the `paper` placement goes."""
    found = table.get("published")
    if not found:
        return []
    parts = ", ".join(
        f"{name.replace('_', ' ')} {seconds_text(value)}" for name, value in found["epoch_seconds"].items()
    )
    lines = [f"\nAn epoch of placement `paper`: {parts}."]
    whole = found.get("whole_epoch")
    if whole and whole.get("traffic"):
        traffic, trace = whole["traffic"], whole["schedule"]
        down = traffic["swap_bytes_to_device"] + traffic["pooled_bytes_to_device"]
        up = traffic["swap_bytes_to_host"] + traffic["gradient_bytes_to_host"]
        phases = ", ".join(f"{one['phase']} R({one['rate']})" for one in trace[:8]) + ", ..." * (len(trace) > 8)
        spent = ", ".join(f"{name.replace('_', ' ')} {seconds_text(s)}" for name, s in whole["phase_seconds"].items())
        lines.append(
            f"Counted over one that was trained to its end, validation and test included: {traffic['swaps']} swaps, "
            f"{format_bytes(down)} to the GPU, {format_bytes(up)} back; {spent} (swaps are part of the phase that they "
            f"open). Its phases: {phases}."
        )
    return lines


def paper_claims(table: Record) -> list[str]:
    """The paper's claims beside ours."""
    rows = [
        [f"over {one['their']} (here plain PyTorch)", f"{one['speedup']}x", *(times(one["ours"].get(name)) for name in
         ("paper", "tiered"))] for one in table["claims"]
    ]  # fmt: skip
    return ["", *markdown(["the paper's claim", "", "`paper`, ours", "tiered"], rows)]


def paper_lines(record: Record) -> list[str]:
    """One workload."""
    log, session = record["log"], record["sessions"][-1]
    budgets = ", ".join(
        f"{format_bytes(table['facts']['own']['budget_bytes'])} at {table['batch_size']:,}"
        for table in record["tables"] if table["facts"].get("own")
    )  # fmt: skip
    best = f"best possible AUC {log['best_auc']:.4f}; " if log.get("best_auc") else ""
    lines = [
        f"### {record['workload']['title']}\n",
        f"{format_count(log['train_inputs'])} training inputs of a {'synthetic ' if log['made_up'] else ''}log, "
        f"{format_count(log['num_rows'])} rows ({format_bytes(log['table_bytes'])} with state), of which it touches "
        f"{format_count(log['touched_rows'])}; budget with staging {budgets}; {best}an input takes "
        f"{log['input_bytes']} bytes beside what is counted. {session['machine']['gpu'] or 'No GPU'}, "
        f"{session['threads']} cores of the host; commit {str(session['commit'])[:7]}; `{session['command']}`.",
    ]
    for table in record["tables"]:
        warning = table.get("host", {}).get("warning", "")
        lines.append(f"\nBatches of {table['batch_size']:,}{f' ({warning})' if warning else ''}:\n")
        lines += [*paper_table(table), *paper_epoch(table), *paper_claims(table)]
    return [*lines, ""]


def tiered_lines(records: Sequence[Record]) -> list[str]:
    """FAE tiered beside contenders that need no hot set."""
    head = ["workload", "batch", "hot inputs", "tiered, inputs/s", "over every row on the GPU", "over our CPU-GPU"]
    cells = []
    for record in records:
        for table in record["tables"]:
            rates = {row["contender"]: row["samples_per_second"] for row in table["rows"]}
            tiered = next((row for row in table["rows"] if row["contender"] == "tiered"), None)
            if tiered is None:
                continue
            over = [times(rates["tiered"] / rates[name]) if name in rates else "left out"
                    for name in ("device", "hybrid", "paper")]  # fmt: skip
            mixed = (
                f"{rates['tiered shuffled'] / rates['tiered']:.2f}x" if "tiered shuffled" in rates else "not measured"
            )
            cells.append([
                record["workload"]["name"], f"{table['batch_size']:,}", share_text(tiered["input_share"]),
                format_count(rates["tiered"]), *over, mixed,
                f"{tiered['bytes_to_device'] / record['log']['train_inputs']:.0f}",
            ])  # fmt: skip
    return markdown([*head, "over `paper`", "mixed batches over this", "staged bytes an input"], cells)


def order_lines(records: Sequence[Record]) -> list[str]:
    """Accuracy by the order of batches, of records that have all three."""
    cells = []
    for record in records:
        log, session = record["log"], record["sessions"][-1]
        for table in record["tables"]:
            found = table["accuracy"] if len(table["accuracy"]) == 3 else {}
            for order in ("shuffled", "adaptive", "interleaved") if found else ():
                test = found[order]["test"]
                cells.append([
                    record["workload"]["name"], format_count(log["num_rows"]), format_count(log["train_inputs"]),
                    f"{table['batch_size']:,}", order, f"{test['auc']:.4f}", f"{test['log_loss']:.4f}",
                    session["machine"]["gpu"] or session["machine"]["processor"],
                ])  # fmt: skip
    return markdown(
        ["workload", "rows", "training inputs", "batch", "order", "test AUC", "log loss", "trained on"], cells
    )


def paper_texts(names: Sequence[str]) -> dict[str, str]:
    """The three texts of the paper's pages, by marker."""
    paths = [Path(name) for name in names] or sorted(RESULTS.glob("paper_rmc[123]*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    # Orders that a GPU's time did not reach were trained on a CPU: an order's accuracy is that of every placement.
    orders = [] if names else [json.loads(path.read_text()) for path in RESULTS.glob("paper_orders_*.json")]
    by_name = sorted([*records, *orders], key=lambda record: str(record["workload"]["name"]))
    return {
        "paper table": "\n".join(line for record in records for line in paper_lines(record)),
        "where it does not help": "\n".join(tiered_lines(records)),
        "accuracy of orders": "\n".join(order_lines(by_name)),
    }


def fill(page: Path, texts: Mapping[str, str]) -> None:
    """Put texts between the markers that a page has."""
    text, filled = page.read_text(), []
    for name, part in texts.items():
        before, found, rest = text.partition(f"<!-- {name}: begin -->")
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        if found and end:
            text = f"{before}{found}\n{part}\n{end}{after}"
            filled.append(name)
    if not filled:
        raise SystemExit(f"{page} has none of the markers {', '.join(f'<!-- {name}: begin -->' for name in texts)}")
    page.write_text(text)
    print(f"filled {page}: {', '.join(filled)}", file=sys.stderr)


def summarise(cells: Iterable[Record], base: str = BASE) -> dict[str, Any]:
    """By order: AUC and log loss of both held-out splits, their paired differences to `base`, and the curve's."""
    cells = list(cells)
    by_seed: dict[str, dict[int, Record]] = {}
    for cell in cells:
        if not cell["diverged"]:
            by_seed.setdefault(cell["order"], {})[cell["seed"]] = cell
    first, summary = by_seed.get(base, {}), {}
    for order, of_order in by_seed.items():
        both = sorted(set(of_order) & set(first)) if order != base else []
        entry: dict[str, Any] = {"diverged": sum(c["diverged"] for c in cells if c["order"] == order)}
        for split in ("test", "validation"):
            for metric in ("auc", "log_loss"):
                values = {seed: cell[split][metric] for seed, cell in of_order.items()}
                if any(value is None for value in values.values()):
                    continue
                entry[f"{split}_{metric}"] = interval(list(values.values()))
                if both:
                    paired = [values[seed] - first[seed][split][metric] for seed in both]
                    entry[f"{split}_{metric}_difference"] = interval(paired)
        if both:
            points = min(len(cell["curve"]) for cell in (*of_order.values(), *first.values()))
            entry["curve_auc_difference"] = [
                {
                    "inputs": first[both[0]]["curve"][point]["inputs"],
                    **interval([of_order[s]["curve"][point]["auc"] - first[s]["curve"][point]["auc"] for s in both]),
                }
                for point in range(points)
            ]
        summary[order] = entry
    return summary


def print_accuracy(result: Record, base: str = BASE, against: Path | None = None) -> None:
    """Scores by order, and their difference to `base` and to another result."""
    cells = list(result["cells"].values())
    rates = next((cell["label_rate"] for cell in cells if cell["order"] != BASE and "label_rate" in cell), {})
    share = max((cell.get("input_share", 0.0) for cell in cells), default=0.0)
    print(f"{result['settings']['workload']}: {cells[0]['inputs']} inputs seen, hot-input share {share:.3f}, "
          f"label rates {rates}\n")  # fmt: skip
    keys = (("test_auc", 4, ""), ("test_auc_difference", 5, "+"), ("test_log_loss", 4, ""),
            ("test_log_loss_difference", 5, "+"), ("validation_auc_difference", 5, "+"))  # fmt: skip
    head = ["order", "seeds", "test AUC", f"minus {base}", "test log loss", f"minus {base}"]
    rows = [
        [order, entry.get("test_auc", {}).get("seeds", 0), *(text_of(entry.get(key), *form) for key, *form in keys)]
        for order, entry in summarise(cells, base).items()
    ]
    print("\n".join(markdown([*head, f"validation AUC minus {base}"], rows)))
    if against is None:
        return
    other = {key: cell for key, cell in json.loads(against.read_text())["cells"].items() if not cell["diverged"]}
    rows = []
    for order in result["summary"]:
        pairs = [(cell, other[key]) for key, cell in result["cells"].items()
                 if cell["order"] == order and not cell["diverged"] and key in other]  # fmt: skip
        differences = [interval([one["test"][name] - two["test"][name] for one, two in pairs]) for name in
                       ("auc", "log_loss")] if pairs else []  # fmt: skip
        rows += [[order, len(pairs), *(text_of(each, 6, "+") for each in differences)]] if pairs else []
    print("\n" + "\n".join(markdown(["order, minus the other file", "seeds", "test AUC", "test log loss"], rows)))


def drift_of(result: Record, drift: float, policy: str) -> list[list[Record]]:
    """The days of every seed of one drift and policy."""
    found = [cell for key, cell in result["cells"].items() if key != "cost"]
    found = [cell for cell in found if (cell["drift"], cell["policy"]) == (drift, policy)]
    return [cell["days"] for cell in sorted(found, key=lambda cell: cell["seed"])]


def drift_series(result: Record, drift: float, which: str, key: str) -> list[dict[str, Any] | None]:
    """Mean and interval of every day, of a policy or of ``yesterday``, which the first day does not have."""
    runs = drift_of(result, drift, "kept" if which == "kept" else "recalibrated")
    if which == "yesterday":
        runs = [[day["yesterday"] or {} for day in days] for days in runs]
    by_day = zip(*runs, strict=True)
    return [interval([day[key] for day in days]) if key in days[0] else None for days in by_day]


def print_drift(result: Record) -> None:
    """Shares by day, and what a night takes."""
    drifts = sorted({cell["drift"] for key, cell in result["cells"].items() if key != "cost"})
    whose = {"kept": "day 1's hot set", "recalibrated": "its own", "yesterday": "the day before's"}
    for drift in drifts:
        kept, own = (drift_of(result, drift, policy) for policy in ("kept", "recalibrated"))
        rows = []
        for key, words in (("input_share", "hot inputs, %"), ("coverage", "hot lookups, %")):
            for which, whose in (
                ("kept", "day 1's hot set"),
                ("recalibrated", "its own"),
                ("yesterday", "the day before's"),
            ):
                series = drift_series(result, drift, which, key)
                rows.append([f"{words}, {whose}", *(text_of(value, 1, unit=100) for value in series)])
        auc = [interval([b["test"]["auc"] - a["test"]["auc"] for a, b in zip(*days, strict=True)])
               for days in zip(zip(*kept, strict=True), zip(*own, strict=True), strict=True)]  # fmt: skip
        rows.append(["AUC, own minus day 1's", *(text_of(value, 4, "+") for value in auc)])
        for words, runs in (("day 1's", kept), ("its own", own)):
            cold = np.mean([[sum(day["cold_rows_per_batch"]) for day in days] for days in runs], axis=0)
            rows.append([f"cold rows a cold batch, {words}", *(f"{value:.0f}" for value in cold)])
        print(f"\nDrift {drift:.1%} a day, {len(kept)} logs\n")
        print("\n".join(markdown(["", *(f"day {day + 1}" for day in range(len(own[0])))], rows)))
    later = [day for drift in drifts for days in drift_of(result, drift, "recalibrated") for day in days[1:]]
    print("\nA re-calibration, median over nights (range):")
    for stage in ("profile", "calibrate", "allocate", "move"):
        print(f"  {stage}: {spread([day['seconds'][stage] for day in later], 2)} s")
    moved = [day["moved"] for day in later]
    ways = (
        f"{key.replace('_', ' ')} {np.median([one[key] for one in moved]):.0f}"
        for key in ("cold_to_hot", "hot_to_cold")
    )
    print(f"  rows: {', '.join(ways)}; exact {all(one['exact'] for one in moved)} in {len(moved)} nights")
    if cost := result["cells"].get("cost"):  # measured by an earlier form of the study
        print(
            f"  move_rows alone, {cost['rows']} rows ({cost['bytes'] / 2**20:.0f} MiB): {spread(cost['seconds'], 2)} s"
        )


def print_selections(result: Record) -> None:
    """Both selections over budgets, or their cost over inputs, or their shares over skews: by what the file has."""
    rows: list[list[str]] = []
    if result["settings"].get("modes"):
        for key, cell in result["cells"].items():
            seconds = (f"{cell[name]:.1f}" for name in ("profile_seconds", "calibrate_seconds", "cpu_seconds"))
            rows.append([key, *seconds, f"{cell['peak_bytes'] / 2**20:,.0f}", f"{cell['num_fitted_inputs']:,}",
                         cell["selection"], percent(cell["packed"]["input_share"], 4)])  # fmt: skip
        head = ["inputs/mode", "profile, s", "calibrate, s", "CPU, s", "peak, MiB", "fitted on", "took"]
        print("\n".join(markdown([*head, "hot inputs, packed"], rows)))
        return
    for key, cell in result["cells"].items():
        both = [cell[name] for name in ("threshold", "peeling") if name in cell]
        cells = [percent(one[on]["input_share"], 4) for on in ("packed", "later") for one in both if on in one]
        cells += [percent(one["packed"]["coverage"], 4) for one in both]
        rings = [f"{one['staging_bytes'] / 1024:,.0f} KiB" for one in both]
        rows.append([key, percent(cell["bound"], 4) if "bound" in cell else "", *cells, *rings])
    print("Hot inputs, packed and later, and hot lookups, %, each of threshold and peeling; then their rings.\n")
    print("\n".join(markdown(["", "bound", *[""] * (max(map(len, rows)) - 2)], rows)))


def print_sampled_counts(result: Record) -> None:
    """Mean and range over seeds, by sample."""
    for name in ("frappe", "criteo"):
        of_log = {key: cell for key, cell in result["cells"].items() if key.startswith(name)}
        exact = {
            key.split("/")[0]: cell["bytes_of_grid"]["1e-05"] for key, cell in of_log.items() if cell["sample"] == 1
        }
        rows = []
        for sample in sorted({cell["sample"] for cell in of_log.values()}):
            found = {key: cell for key, cell in of_log.items() if cell["sample"] == sample}
            some = list(found.values())
            over = [cell["bytes_of_grid"]["1e-05"] / exact[key.split("/")[0]] for key, cell in found.items()]
            kinds = (
                ("threshold", "packed"),
                ("threshold", "later"),
                ("by_sample_alone", "later"),
                ("peeling", "later"),
            )
            served = (mean_text([100 * cell[kind][on]["input_share"] for cell in some], "{:.2f}") for kind, on in kinds)
            rings = (np.mean([cell["peeling"][which] / 2**10 for cell in some])
                     for which in ("staging_bytes", "staging_bytes_if_probed_on_sample"))  # fmt: skip
            taken = [cell["auto"] for cell in some]
            rows.append([
                f"{100 * sample:g} %", mean_text([1e6 * c["threshold"]["threshold"] for c in some], "{:.2f}") + "e-6",
                mean_text([c["threshold"]["bytes"] / 2**20 for c in some], "{:.4g}") + " MiB",
                mean_text(over, "{:.2f}"), *served, " / ".join(f"{ring:,.0f} KiB" for ring in rings),
                ", ".join(f"{kind} {taken.count(kind)}" for kind in sorted(set(taken))),
            ])  # fmt: skip
        head = [
            "sample",
            "threshold",
            "hot bytes",
            "bytes at 1e-5, sample / exact",
            "packed: shipped",
            "later: shipped",
        ]
        head += ["later: sample alone", "later: peeling", "ring, peeling / probed on its sample", "auto took"]
        print(f"{name}\n" + "\n".join(markdown(head, rows)))


def print_rand_em_box(result: Record) -> None:
    """Draws covered by form, order and hot share (one figure a skew), widths, and milliseconds."""
    cells: dict[str, Any] = result["cells"]
    forms = {key: cell["by_hot_share"] for key, cell in cells.items() if not key.startswith("time/")}
    rows: dict[tuple[str, str], list[str]] = {}
    for key, entries in forms.items():
        form, _, order = key.split("/")
        texts = rows.setdefault((form, order), [""] * len(entries))
        for index, entry in enumerate(entries):
            texts[index] += (" / " if texts[index] else "") + f"{100 * entry['coverage']:.1f}"
    hot_shares = [f"{entry['hot_share']:.0e}" for entry in next(iter(forms.values()))]
    print("\n".join(markdown(["form", "order", *hot_shares], [[*key, *texts] for key, texts in rows.items()])))
    shipped = [entries for key, entries in forms.items() if key.startswith("shipped/")]
    shuffled = [entries for key, entries in forms.items() if key.startswith("shipped/") and key.endswith("/shuffled")]
    widths = [np.mean([entry["mean_width_over_truth"] for entry in each]) for each in zip(*shuffled, strict=True)]
    covered = [entry["coverage"] for entries in shipped for entry in entries]
    print(f"width / truth, shipped: {', '.join(f'{width:.2f}' for width in widths)}")
    print(f"lowest shipped: {100 * min(covered):.1f} %; all cells together: {100 * np.mean(covered):.2f} %\n")


STUDIES = {
    "accuracy": print_accuracy, "drift": print_drift, "selections": print_selections,
    "sampled_counts": print_sampled_counts, "rand_em_box": print_rand_em_box,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=("placements", "paper", *STUDIES))
    parser.add_argument("names", nargs="*", help="result files, by name; paper: paths of records")
    parser.add_argument("--fill", metavar="PAGE", type=Path, help="put the text between the markers of this page")
    parser.add_argument("--base", default=BASE, help="accuracy: the order that others are compared with")
    parser.add_argument("--against", type=Path, help="accuracy: another result, compared by seed")
    options = parser.parse_args()
    if options.subject in ("placements", "paper"):
        texts = paper_texts(options.names) if options.subject == "paper" else {"placements": placements_text()}
        fill(options.fill, texts) if options.fill else print("\n".join(texts.values()))
        return
    for name in options.names or [options.subject]:
        result = json.loads((RESULTS / f"{name}.json").read_text())
        if options.subject == "accuracy":
            print_accuracy(result, options.base, options.against)
        else:
            STUDIES[options.subject](result)


if __name__ == "__main__":
    main()
