"""The report: one HTML page from run records, complete in itself.

Place in the flow: the last stage; reads ``run.json`` of one run or several and nothing else. Invariants: the page
loads nothing and runs no script, and says so to the browser; equal records give equal bytes, so it holds no date; it
replaces no file that is not a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError
from fae.core.files import cannot_write, write_whole
from fae.report import amounts, charts, paper_table, settings, side_by_side
from fae.report.markup import NOT_RECORDED
from fae.report.per_table import per_table
from fae.report.records import Run, load_runs
from fae.report.style import CSS

_START = '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="generator" content="fae report">\n'
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def report(paths: Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Write the page.

    Parameters
    ----------
    paths
        Run folders or run records.
    out
        Where to; None takes ``report.html``, beside the record of a single run, else in the current folder.

    Returns
    -------
    dict
        ``path``, ``bytes``, ``runs`` (their labels) and ``differences`` (names of recipe values that are not the same
        in all runs).

    Raises
    ------
    ArtifactError
        If a run is not there or is none, or the page cannot be written.
    """
    runs = load_runs(paths)
    if out is None:
        first = Path(paths[0])
        out = (first if first.is_dir() else first.parent) / "report.html" if len(runs) == 1 else "report.html"
    text = build_page(runs)
    _write(Path(out), text)
    return {
        "path": str(out),
        "bytes": len(text.encode()),
        "runs": [run.label for run in runs],
        "differences": settings.differences(runs, "recipe")[0],
    }


def build_page(runs: Sequence[Run]) -> str:
    """The page's text."""
    names = ", ".join(run.label for run in runs)
    title = f"FAE: {names}" if len(runs) <= 3 else f"FAE: {len(runs)} runs"
    benches = [run for run in runs if paper_table.is_paper_table(run)]
    everything, runs = runs, [run for run in runs if run not in benches]
    parts = [f"<header><h1>{escape(title)}</h1>{_lead(runs)}</header>"]
    for bench in benches:
        parts += paper_table.sections(bench)
    if runs:
        parts += _runs(runs)
    versions = ("machine", "versions", "commit", "seed", "fingerprints")
    facts = [_last_session(run) for run in everything]
    made = settings.values(facts, *versions, same="facts")
    parts.append(f'<h2>Machine and versions</h2>{_machines(facts)}<section class="card long">{made}</section>')
    parts.append(
        "<footer>Drawn by <code>fae report</code> from run records alone; what a record lacks is said.</footer>"
    )
    return (
        f'{_START}<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}</style>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n"
    )


def _last_session(run: Run) -> Run:
    """A record whose machine stands in its sessions, as one whose machine stands on top: the last one's."""
    sessions = run.items("sessions")
    return Run(label=run.label, record={**run.record, **sessions[-1]}) if sessions else run


def _runs(runs: Sequence[Run]) -> list[str]:
    """What there is to say of runs, one or several."""
    parts = []
    if len(runs) == 1:
        parts.append(side_by_side.tiles(runs[0]))
        parts += _details(runs[0])
        parts.append(f"<h2>How training went</h2>{_training(runs)}")
        parts.append(f'<h2>All figures</h2><section class="card long">{side_by_side.side_by_side(runs)}</section>')
    else:
        parts.append(f'<h2>Side by side</h2><section class="card long">{side_by_side.side_by_side(runs)}</section>')
    recipe = settings.values(runs, "recipe", same="values of the recipe")
    heading = "What differs in the recipes" if len(runs) > 1 else "The recipe"
    parts.append(f'<h2>{heading}</h2><section class="card long">{recipe}</section>')
    if len(runs) > 1:
        parts.append(f"<h2>How training went</h2>{_training(runs)}")
        for run in runs:
            parts += [f"<h2>{escape(run.label)}</h2>", side_by_side.tiles(run), *_details(run)]
    return parts


def _lead(runs: Sequence[Run]) -> str:
    """One line a run: what was trained on what."""
    lines = []
    for run in runs:
        inputs, features = run.number("log", "num_inputs"), run.items("log", "features")
        model, placement = run.text("recipe", "model", "name"), run.text("recipe", "train", "placement")
        order, optimizer = run.text("recipe", "train", "order"), run.text("recipe", "train", "optimizer")
        facts = [
            f"{inputs:,.0f} inputs" if inputs is not None else "",
            f"{len(features)} categorical features" if features else "",
            f"model {model}" if model else "",
            f"{placement} placement" if placement else "",
            f"{order} order" if order else "",
            optimizer or "",
        ]
        text = escape(", ".join(fact for fact in facts if fact)) or NOT_RECORDED
        lines.append(
            f'<p class="lead">{escape(run.label)}: {text}</p>' if len(runs) > 1 else f'<p class="lead">{text}</p>'
        )
    return "".join(lines)


def _training(runs: Sequence[Run]) -> str:
    curves = charts.losses(runs, validation=False) + charts.losses(runs, validation=True)
    return f'<div class="pair">{curves}</div>{amounts.time(runs)}'


def _details(run: Run) -> list[str]:
    parts = [f'<div class="pair">{charts.skew(run)}{charts.budgets(run)}</div>']
    lower = amounts.tiers(run) + _notes(run)
    parts.append(f'<div class="pair">{lower}</div>')
    parts.append(f'<section class="card long"><h3>Table by table</h3>{per_table(run)}</section>')
    if run.text("recipe", "train", "order") in ("adaptive", "fixed_rate") or run.items("train", "schedule"):
        parts.append(charts.trace(run))
    return parts


def _notes(run: Run) -> str:
    """What calibrate had to say, and what it weighed."""
    notes = run.get("hot", "notes")
    lines = [str(note) for note in notes] if isinstance(notes, list) else []
    for name, figures in sorted(run.table("hot", "candidates").items()):
        share, coverage = (
            Run(label="", record={"of": figures}).number("of", key) for key in ("input_share", "coverage")
        )
        if share is not None and coverage is not None:
            lines.append(f"{name} would serve {100 * share:.2f} % hot inputs at {100 * coverage:.2f} % coverage")
    bound = run.number("hot", "bound")
    if bound is not None:
        lines.append(
            f"no hot set of this size serves more than {100 * bound:.2f} % of the inputs that it was fitted to"
        )
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    body = f"<ul>{items}</ul>" if items else f"<p>{NOT_RECORDED}</p>"
    return f'<section class="card"><h3>What calibrate says</h3>{body}</section>'


def _machines(runs: Sequence[Run]) -> str:
    """A line a machine, for people; every value stands in the table below."""
    lines = []
    for run in runs:
        cores, memory = run.number("machine", "cores"), run.number("machine", "memory_bytes")
        gpu = run.text("machine", "gpu") or ("no GPU" if run.has("machine", "gpu") else None)
        python, torch = run.text("versions", "python"), run.text("versions", "torch")
        facts = [
            run.text("machine", "processor"),
            f"{cores:g} cores" if cores else None,
            f"{memory / 2**30:.0f} GiB of memory" if memory else None,
            gpu,
            f"fae {run.text('versions', 'fae')}" if run.text("versions", "fae") else None,
            f"Python {python}" if python else None,
            f"torch {torch}" if torch else None,
        ]
        text = escape(", ".join(fact for fact in facts if fact)) or NOT_RECORDED
        lines.append(text if len(runs) == 1 else f"{escape(run.label)}: {text}")
    return "".join(f"<p>{line}</p>" for line in lines)


def _write(out: Path, text: str) -> None:
    """Write the page whole, under a temporary name first."""
    try:
        if out.is_dir():
            raise ArtifactError(f"{out} is a folder; name the file of the report, such as --out {out / 'report.html'}")
        if out.exists() and out.stat().st_size and not out.read_bytes().startswith(_START.encode()):
            raise ArtifactError(f"{out} is there and is no report of fae; choose another name with --out")
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    write_whole(out, text)
