"""``fae demo``: the whole system on a synthetic log, beside plain PyTorch."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options

_DESCRIPTION = """\
Make a synthetic log of Criteo's shape with a known click model, run every stage on it, train the same model with plain
PyTorch on the same split, and write DIR/report.html: what FAE did, and both side by side. What the stages say is in
DIR/stages.log, all numbers in DIR/demo.json. No data, no GPU, under a minute on two cores.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb ``demo``."""
    parser = verbs.add_parser(
        "demo", help="see it work: no data, no GPU, under a minute", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", default="runs/demo", help="where to put it (default: runs/demo)")
    parser.add_argument("--inputs", metavar="N", type=int, default=150_000, help="inputs of the log (default: 150000)")
    parser.add_argument("--budget", metavar="SIZE", help="GPU memory budget (default: fits the log)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to train (default: cuda where there is one)")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything (default: 1)")
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Run the demo."""
    from fae.run.demo import run_demo

    return run_demo(
        options.out, num_inputs=options.inputs, budget=options.budget, device=options.device, seed=options.seed
    )
