"""``fae report``: one HTML page from run records."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options

_DESCRIPTION = """\
Draw one self-contained HTML page from the records of one or more runs. Its first line, which is printed too, is a
verdict: what was trained, how good against the base rate, how fast, in how much memory, and whether FAE helped. Then:
what to try next with the command, the log, results side by side (a best one only where noise does not explain it),
skew and hot rows of every table, what other budgets would buy, loss curves, where the time went, machine and versions,
and what the words mean. Reads run.json alone; needs no GPU, no log and no checkpoint.

  fae report runs/my                              write runs/my/report.html
  fae report runs/a runs/b --out both.html        several runs side by side
  fae report runs/bench_rmc2                      the record of `fae bench paper`
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
    say(result["verdict"])
    say(f"report: {runs}, {format_bytes(result['bytes'])}: {result['path']}")
    return result
