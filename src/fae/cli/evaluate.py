"""``fae evaluate``: metrics of a finished run on labelled raw files."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options, add_scoring_options

_DESCRIPTION = """\
Evaluate a finished run on labelled raw files in the format of its log: AUC and log loss beside the bare click rate and
the best single column, calibration, AUC within each value of a column, AUC of inputs with unknown ids and of the
others, and for each column the share of values that the run does not know. On the run's own test files the metrics are
those of run.json.

  fae evaluate runs/my day8.csv
  fae evaluate runs/my day8.csv --group-by user --json
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "evaluate", help="metrics of a finished run on labelled raw files", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_scoring_options(parser)
    parser.add_argument(
        "--group-by", metavar="COLUMN",
        help="AUC within each value of this categorical column (default: the run's [train] group_by)",
    )  # fmt: skip
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate."""
    from fae.run.predictions import evaluate_files

    return evaluate_files(options.run, options.files, device=options.device, group_by=options.group_by)
