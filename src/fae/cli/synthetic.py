"""``fae synthetic``: make a click log whose best possible AUC is known."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options

_DESCRIPTION = """\
Make a click log with a planted click model. Columns of one input agree, because they come from a user and an item, so
hot-input share and skew are those of a real log; --scale 1 has the published log's number of rows.

  criteo   26 ids, 13 counts; skew and hot-input share fitted to Criteo Kaggle        33.8 M rows at scale 1
  terabyte the same with the published tables of Criteo Terabyte (ids capped at 40 M)  187.8 M
  avazu    22 ids, no counts                                                           9.4 M
  taobao   a user, up to 20 items of history and a candidate, their categories         5.2 M
  zipf     Criteo's tables, columns that know nothing of one another: almost no input is hot

Text (a file, for `fae ingest`) or, with --columnar, straight what ingest would make of it (a run folder):

  fae synthetic --shape criteo --inputs 200000 --out log.tsv
  fae synthetic --inputs 10000000 --scale 1 --columnar --out runs/big
  fae run runs/big/recipe.toml --out runs/big

The best AUC it prints is that of the probabilities from which the labels were drawn: no model can beat it.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "synthetic", help="make a click log, of any size, whose best AUC is known", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", metavar="PATH", required=True, help="the file; with --columnar the run folder")
    parser.add_argument("--shape", choices=("criteo", "terabyte", "avazu", "taobao", "zipf"), default="criteo",
                        help="which log it looks like (default: criteo)")  # fmt: skip
    parser.add_argument("--inputs", metavar="N", type=int, default=200_000, help="inputs (default: 200000)")
    parser.add_argument("--scale", metavar="S", type=float, default=0.01,
                        help="rows of the large tables, 1 for the published numbers (default: 0.01)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of everything (default: 1)")
    parser.add_argument("--days", metavar="N", type=int, default=7, help="days the log covers (default: 7)")
    parser.add_argument("--drift", metavar="SHARE", type=float, default=0.005,
                        help="share of the large tables' values replaced every day (default: 0.005)")  # fmt: skip
    parser.add_argument("--click-rate", metavar="SHARE", type=float, default=0.25, help="clicked (default: 0.25)")
    parser.add_argument("--label-gap", metavar="X", type=float, default=0.0,
                        help="log-odds of a click by popularity, standard deviation (default: 0)")  # fmt: skip
    parser.add_argument("--columnar", action="store_true", help="write PATH/log and PATH/recipe.toml, no text")
    parser.add_argument("--encoded", action="store_true",
                        help="with --columnar: ids as drawn, not by popularity; unseen values keep rows")  # fmt: skip
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Make it."""
    from fae.synthetic.config import SyntheticConfig
    from fae.synthetic.make import make_synthetic

    config = SyntheticConfig(
        shape=options.shape, num_inputs=options.inputs, scale=options.scale, seed=options.seed,
        num_days=options.days, drift=options.drift, click_rate=options.click_rate,
        label_gap=options.label_gap,
    )  # fmt: skip
    return make_synthetic(config, options.out, columnar=options.columnar, encoded=options.encoded)
