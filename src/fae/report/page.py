"""``fae report``: one HTML page from run records, complete in itself.

The page loads nothing and runs no script, and its own policy forbids both. Equal records give equal bytes, so it holds
no date but those of the records. Python prepares plain values (`fae.report.run_details`, ...); the templates lay them
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError
from fae.core.files import cannot_write
from fae.core.whole_files import write_whole
from fae.report.paper_table import is_paper_table, read_paper_table
from fae.report.pictures.amounts import stage_times_card
from fae.report.pictures.losses import losses_card
from fae.report.records import RunRecord, load_runs
from fae.report.run_details import lead_text, machine_text, read_details
from fae.report.sentences.run_verdict import verdict_of
from fae.report.settings import compare_settings, differing_names
from fae.report.side_by_side import compare_runs
from fae.report.templates import render_template

_MARK = b'<meta name="generator" content="fae report">'
"""What the head of every report holds; a file without it is never replaced."""
_MARK_WITHIN = 200  # bytes from the start of the file
_FACTS = ("machine", "versions", "commit", "seed", "fingerprints")


def report(paths: Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Write the page.

    Parameters
    ----------
    paths
        Run folders or run records.
    out
        File to write; None takes ``report.html``, beside the record of a single run, else in the current folder.

    Returns
    -------
    dict
        ``path``, ``bytes``, ``runs`` (their labels), ``differences`` (names of recipe values that are not the same
        in all runs) and ``verdict``, the first line of the page.

    Raises
    ------
    ArtifactError
        If a run is missing or is no run, or the page cannot be written.
    """
    runs = load_runs(paths)
    if out is None:
        first = Path(paths[0])
        out = (first if first.is_dir() else first.parent) / "report.html" if len(runs) == 1 else "report.html"
    try:
        text = build_page(runs)
    except RecursionError:
        raise ArtifactError(
            f"{', '.join(map(str, paths))}: a value of a record is nested too deeply to be shown; correct the record"
        ) from None
    _write_page(Path(out), text)
    return {
        "path": str(out),
        "bytes": len(text.encode()),
        "runs": [run.label for run in runs],
        "differences": differing_names(runs, "recipe")[0],
        "verdict": verdict_of(runs),
    }


def build_page(records: Sequence[RunRecord]) -> str:
    """The text of the page."""
    labels = ", ".join(record.label for record in records)
    runs = [record for record in records if not is_paper_table(record)]
    facts = [_last_session(record) for record in records]
    return render_template(
        "page.html.j2",
        title=f"FAE: {labels}" if len(records) <= 3 else f"FAE: {len(records)} runs",
        verdict=verdict_of(records),
        leads=[(run.label, lead_text(run)) for run in runs],
        paper_tables=[read_paper_table(record) for record in records if is_paper_table(record)],
        details=[read_details(run) for run in runs],
        comparison=compare_runs(runs),
        recipes=compare_settings(runs, "recipe", what="values of the recipe"),
        training_cards=[losses_card(runs, validation=False), losses_card(runs, validation=True)],
        stage_times=stage_times_card(runs),
        machines=[(record.label, machine_text(record)) for record in facts],
        facts=compare_settings(facts, *_FACTS, what="facts"),
    )


def _last_session(record: RunRecord) -> RunRecord:
    """A record that keeps its machine by session, with the machine of the last session at the top."""
    sessions = record.items("sessions")
    return RunRecord(label=record.label, record={**record.record, **sessions[-1]}) if sessions else record


def _write_page(out: Path, text: str) -> None:
    try:
        if out.is_dir():
            raise ArtifactError(f"{out} is a folder; name the file of the report, such as --out {out / 'report.html'}")
        if out.exists() and not out.is_file():  # a device, /dev/null even, would be replaced
            raise ArtifactError(f"{out} is no plain file; choose another name with --out")
        if out.exists() and out.stat().st_size and _MARK not in out.read_bytes()[:_MARK_WITHIN]:
            raise ArtifactError(f"{out} is there and is no report of fae; choose another name with --out")
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    write_whole(out, text)
