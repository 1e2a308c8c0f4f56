"""``fae report``: one HTML page from run records."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options

_DESCRIPTION = """\
Draw one self-contained HTML page from the records of one or more runs: results side by side, what differs in the
recipes, skew and hot rows of every table, what other budgets would buy, bytes per tier, loss curves, the phases of the
scheduler, where the time went, machine and versions. Reads run.json alone; needs no GPU, no log and no checkpoint.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb ``report``."""
    parser = verbs.add_parser(
        "report", help="one HTML page from run records, runs side by side", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or a run.json")
    parser.add_argument(
        "--out", metavar="FILE.html", help="the page (default: RUN/report.html, for several runs ./report.html)"
    )
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Write the page."""
    from fae.core.progress import say
    from fae.core.units import format_bytes
    from fae.report.page import report

    result = report(options.runs, options.out)
    runs = f"{len(result['runs'])} runs" if len(result["runs"]) > 1 else result["runs"][0]
    say(f"report: {runs}, {format_bytes(result['bytes'])}: {result['path']}")
    return result
