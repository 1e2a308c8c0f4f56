"""The markdown of docs/results.md's paper table, from the committed records of ``fae bench paper``.

    python benchmarks/studies/paper_table.py                         print it
    python benchmarks/studies/paper_table.py --fill docs/results.md  put it between the page's markers
    python benchmarks/studies/paper_table.py a/paper.json b/paper.json       of other records

Without names it reads benchmarks/results/paper_rmc1*.json, paper_rmc2*.json and paper_rmc3*.json; copy a record there
under such a name (runs/bench_rmc2/paper.json as paper_rmc2_h200.json). It works out nothing but ratios of figures that
stand in the records.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fae.report.markup import seconds_text

from fae.core.units import format_bytes, format_count

ROOT = Path(__file__).resolve().parents[2]

MARKERS = {
    "table": ("<!-- paper table: begin -->", "<!-- paper table: end -->"),
    "limits": ("<!-- where it does not help: begin -->", "<!-- where it does not help: end -->"),
    "orders": ("<!-- accuracy of orders: begin -->", "<!-- accuracy of orders: end -->"),
}
HEAD = (
    "| | samples/s (range) | an epoch | over plain CPU | over plain CPU-GPU | test AUC | log loss | hot inputs "
    "| to the GPU | back | swaps | on the GPU | batches |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def table_lines(table: dict[str, Any]) -> list[str]:
    lines = [HEAD]
    for row in table["rows"]:
        low, high = (format_count(value) for value in row["spread"])
        metrics = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("auc", "log_loss")]
        cells = [
            row["label"], f"{format_count(row['samples_per_second'])} ({low} to {high})",
            seconds_text(row["epoch_seconds"]), times(row.get("over plain cpu")), times(row.get("over plain hybrid")),
            *metrics, share(row["input_share"]), format_bytes(row["bytes_to_device"]),
            format_bytes(row["bytes_to_host"]), str(row["swaps"]), format_bytes(row["device_bytes"]),
            str(row["batches_measured"]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, *(f"\nLeft out: {one['label']}: {one['why']}." for one in table["left_out"])]


def published_lines(table: dict[str, Any]) -> list[str]:
    published = table.get("published")
    if not published:
        return []
    parts = ", ".join(
        f"{name.replace('_', ' ')} {seconds_text(value)}" for name, value in published["epoch_seconds"].items()
    )
    lines = [f"\nThe published system's epoch: {parts}."]
    whole = published.get("whole_epoch")
    if whole and whole.get("traffic"):
        traffic, trace = whole["traffic"], whole["schedule"]
        down = traffic["swap_bytes_to_device"] + traffic["pooled_bytes_to_device"]
        up = traffic["swap_bytes_to_host"] + traffic["gradient_bytes_to_host"]
        phases = ", ".join(f"{one['phase']} R({one['rate']})" for one in trace[:8]) + (
            ", ..." if len(trace) > 8 else ""
        )
        spent = ", ".join(
            f"{name.replace('_', ' ')} {seconds_text(each)}" for name, each in whole["phase_seconds"].items()
        )
        lines.append(
            f"Counted over one that was trained to its end, validation and test included: {traffic['swaps']} swaps, "
            f"{format_bytes(down)} to the GPU, {format_bytes(up)} back; {spent} (swaps are part of the phase that they "
            f"open). Its phases: {phases}."
        )
    return lines


def claim_lines(table: dict[str, Any]) -> list[str]:
    lines = ["\n| the paper's claim | | as published, ours | tiered |", "|---|---|---|---|"]
    for claim in table["claims"]:
        ours = claim["ours"]
        lines.append(
            f"| over {claim['their']} (here plain PyTorch) | {claim['speedup']}x | {times(ours.get('paper'))} "
            f"| {times(ours.get('tiered'))} |"
        )
    return lines


def record_lines(record: dict[str, Any]) -> list[str]:
    log, session = record["log"], record["sessions"][-1]
    budgets = ", ".join(
        f"{format_bytes(table['facts']['own']['budget_bytes'])} at {table['batch_size']:,}"
        for table in record["tables"]
        if table["facts"].get("own")
    )
    best = f"best possible AUC {log['best_auc']:.4f}; " if log.get("best_auc") else ""
    lines = [
        f"### {record['workload']['title']}\n",
        f"{format_count(log['train_inputs'])} training inputs of a {'made-up ' if log['made_up'] else ''}log, "
        f"{format_count(log['num_rows'])} rows ({format_bytes(log['table_bytes'])} with state), of which it touches "
        f"{format_count(log['touched_rows'])}; budget with staging {budgets}; {best}an input takes "
        f"{log['input_bytes']} bytes beside what is counted. {session['machine']['gpu'] or 'No GPU'}, "
        f"{session['threads']} cores of the host; commit {str(session['commit'])[:7]}; `{session['command']}`.",
    ]
    for table in record["tables"]:
        warning = table.get("host", {}).get("warning", "")
        lines.append(f"\nBatches of {table['batch_size']:,}{f' ({warning})' if warning else ''}:\n")
        lines += table_lines(table)
        lines += [*published_lines(table), *claim_lines(table)]
    return [*lines, ""]


def limit_lines(records: list[dict[str, Any]]) -> list[str]:
    """FAE tiered beside what needs no hot set."""
    lines = [
        "| workload | batch | hot inputs | tiered, samples/s | over every row on the GPU | over our CPU-GPU | over FAE "
        "as published | mixed batches over this | staged bytes an input |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        for table in record["tables"]:
            rows = {row["contender"]: row for row in table["rows"]}
            if "tiered" not in rows:
                continue
            tiered = rows["tiered"]
            over = [
                times(tiered["samples_per_second"] / rows[name]["samples_per_second"]) if name in rows else "left out"
                for name in ("device", "hybrid", "paper")
            ]
            mixed = rows.get("tiered shuffled")
            over.append(
                f"{mixed['samples_per_second'] / tiered['samples_per_second']:.2f}x" if mixed else "not measured"
            )
            staged = tiered["bytes_to_device"] / record["log"]["train_inputs"]
            lines.append(
                f"| {record['workload']['name']} | {table['batch_size']:,} | {share(tiered['input_share'])} "
                f"| {format_count(tiered['samples_per_second'])} | " + " | ".join(over) + f" | {staged:.0f} |"
            )
    return lines


def order_lines(records: list[dict[str, Any]]) -> list[str]:
    """Accuracy by the order of batches, of records that have all three."""
    lines = [
        "| workload | rows | training inputs | batch | order | test AUC | log loss | trained on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        log, session = record["log"], record["sessions"][-1]
        for table in record["tables"]:
            found = table["accuracy"] if len(table["accuracy"]) == 3 else {}
            for order in ("shuffled", "adaptive", "interleaved") if found else ():
                test = found[order]["test"]
                lines.append(
                    f"| {record['workload']['name']} | {format_count(log['num_rows'])} "
                    f"| {format_count(log['train_inputs'])} | {table['batch_size']:,} | {order} | {test['auc']:.4f} "
                    f"| {test['log_loss']:.4f} | {session['machine']['gpu'] or session['machine']['processor']} |"
                )
    return lines


def fill(page: Path, parts: dict[str, str], markers: dict[str, tuple[str, str]]) -> None:
    """Put texts between their markers."""
    text = page.read_text()
    for name, (begin, end) in markers.items():
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise SystemExit(f"{page} has no {begin} ... {end}")
        text = f"{before}{begin}\n{parts[name]}\n{end}{after}"
    page.write_text(text)
    print(f"filled {page}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="*", type=Path, help="records of fae bench paper")
    parser.add_argument("--fill", metavar="PAGE", type=Path, help="put the tables between the markers of this page")
    options = parser.parse_args()
    results = ROOT / "benchmarks" / "results"
    paths = options.records or sorted(results.glob("paper_rmc[123]*.json"))
    if not paths:
        raise SystemExit(
            "no record: run `fae bench paper rmc2` and copy its paper.json to benchmarks/results/paper_rmc2.json"
        )
    records = [json.loads(path.read_text()) for path in paths]
    # What a GPU's time did not reach was trained on a CPU: an order's accuracy is that of every placement.
    orders = [] if options.records else [json.loads(path.read_text()) for path in results.glob("paper_orders_*.json")]
    by_name = sorted([*records, *orders], key=lambda record: str(record["workload"]["name"]))
    parts = {
        "table": "\n".join(line for record in records for line in record_lines(record)),
        "limits": "\n".join(limit_lines(records)),
        "orders": "\n".join(order_lines(by_name)),
    }
    if options.fill:
        fill(options.fill, parts, MARKERS)
    else:
        print("\n".join(parts.values()))


if __name__ == "__main__":
    main()
