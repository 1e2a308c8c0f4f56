"""``fae plan``: what a recipe will take and how fast it will train, before anything is made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fae.cli.options import add_output_options

_DIALS = ("gpu", "gpu_memory", "budgets", "device", "read", "inputs", "cores", "machines")
_DESCRIPTION = """\
Look at a recipe's log, or at a sample of it, and say before anything is made: rows and bytes of every table, the
smallest budget that trains, what each of six and more budgets buys (hot rows, lookups that they serve, inputs that need
no other row), what lies on the GPU, in host memory and on the disk, the predicted rate of training, time, memory and
disk of every stage, and a verdict in plain words: which budget to give it and why, or that FAE is not needed.

Nothing is written in the folder of the run. A log that a run has ingested already is not read again.

  fae plan my.toml                                 for the GPU that is here
  fae plan my.toml --gpu rtx4090                   for a card, by its published ceilings
  fae plan my.toml --gpu a10 --gpu-memory 12GiB    where others take a part of it
  fae plan my.toml --gpu h100 --gpus 8             what eight of them do, in the verdict too
  fae plan my.toml --budget 64MiB --budget 1GiB    these budgets
  fae plan my.toml --cores 64                      hours, memory and disk of every stage on a machine of 64 cores
  fae plan my.toml --inputs 4000000000             what is here is a part of the log
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "plan", help="before a run: memory, budgets, rates, and which budget to give it", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("recipe", metavar="RECIPE.toml", help="the run, see recipes/")
    folder = "folder of the run, whose log is taken if it is there (default: runs/<name of the recipe>)"
    parser.add_argument("--out", metavar="DIR", help=folder)
    parser.add_argument("--gpu", metavar="NAME", help="a card, e.g. a10 or rtx4090 (default: the GPU that is here)")
    parser.add_argument("--gpus", metavar="N", type=int, help="1, 2, 4 or 8 of one host, which the verdict speaks of")
    parser.add_argument("--gpu-memory", metavar="SIZE", help="memory of the GPU, e.g. 8GiB (default: the card's)")
    parser.add_argument(
        "--budget", metavar="SIZE", action="append", default=[], dest="budgets",
        help="a budget to look at beside the recipe's; may be given again (default: some, from the smallest on)",
    )  # fmt: skip
    parser.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], dest="overrides",
        help="replace one value of the recipe, e.g. train.batch_size=4096; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--read", metavar="SIZE", default="512MiB",
        help="most text to read; of a longer log a sample of that size, or `all` (default: 512MiB)",
    )  # fmt: skip
    inputs = "inputs of the whole log, where a part of it is here, or nothing of a public one (default: what is here)"
    parser.add_argument("--inputs", metavar="N", type=int, help=inputs)
    cores = "cores of the host: for the data stages (default: this machine's), and beside a named card (default: 8)"
    parser.add_argument("--cores", metavar="N", type=int, help=cores)
    parser.add_argument("--machines", metavar="N", type=int, default=1, help="machines that read the log (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="plan for this (default: cuda where there is one)")
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Plan."""
    from fae.core.progress import say
    from fae.distributed.places import check_gpus
    from fae.planning.gpus_table import with_gpus
    from fae.planning.plan import plan
    from fae.planning.plan_text import plan_lines
    from fae.run.recipe import load_recipe

    check_gpus(options.gpus)
    recipe = load_recipe(options.recipe, options.overrides)
    out = Path(options.out or Path("runs") / Path(options.recipe).stem)
    found = plan(recipe, out=out, **{name: getattr(options, name) for name in _DIALS})
    found = with_gpus(found, options.gpus)
    for line in plan_lines(found):
        say(line)
    return found
