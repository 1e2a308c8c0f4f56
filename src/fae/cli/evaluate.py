"""``fae evaluate``: metrics of a finished run on labelled raw files."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options, add_scoring_options

_DESCRIPTION = """\
Evaluate a finished run on labelled raw files in the format of its log: AUC, log loss, label rate, number of inputs, and
for each column the share of values that the run does not know. On the run's own test files the metrics are those of
run.json.

  fae evaluate runs/my day8.csv
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "evaluate", help="metrics of a finished run on labelled raw files", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_scoring_options(parser)
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate."""
    from fae.run.predictions import evaluate_files

    return evaluate_files(options.run, options.files, device=options.device)
