"""``fae predict``: a probability for each input of raw files, from a finished run."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options, add_scoring_options

_DESCRIPTION = """\
Score raw files with a finished run: one probability of label 1 for each input, in the order of the files and lines.
The files are in the format of the run's own log; labels are not needed, and the recipe neither. Ids are those of the
run's vocabulary; values that it does not know get each table's reserved row.

  fae predict runs/my test.csv --out scores.parquet
  fae predict runs/my 'day8/*.csv.gz' --keep user,item --out scores.csv
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "predict", help="a probability for each input of raw files, from a finished run", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_scoring_options(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="the scores: .parquet or .csv")
    parser.add_argument(
        "--keep", metavar="NAME,NAME", action="append", default=[],
        help="columns of the files to copy beside the score, e.g. user,item; may be given again",
    )  # fmt: skip
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Score the files."""
    from fae.run.predictions import predict

    keep = [name.strip() for names in options.keep for name in names.split(",") if name.strip()]
    return predict(options.run, options.files, options.out, keep=keep, device=options.device)
