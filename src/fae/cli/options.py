"""Options that several verbs share."""

from __future__ import annotations

import argparse
import shlex


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``, ``--quiet``, ``--log-file`` and ``--debug``, which every verb has."""
    parser.add_argument("--json", action="store_true", help="print one result object on stdout")
    parser.add_argument("--quiet", action="store_true", help="print errors only, and the result with --json")
    parser.add_argument(
        "--log-file", metavar="FILE", help="add all lines for people to the end of FILE, each with its time"
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, the folder of its artifacts, replaced values and the device."""
    parser.add_argument("recipe", metavar="RECIPE.toml", help="the run, see recipes/")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<name of the recipe>)")
    parser.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], dest="overrides",
        help="replace one value of the recipe, e.g. hot.budget=64MiB; may be given again",
    )  # fmt: skip
    parser.add_argument("--budget", metavar="SIZE", help="short for --set hot.budget=SIZE")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to train (default: cuda where there is one)")
    add_output_options(parser)


def add_replace_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--replace``."""
    parser.add_argument(
        "--replace", action="store_true", help="replace a finished training of another recipe that is in DIR"
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--gpus``, ``--tensorboard`` and ``--wandb``, for what trains."""
    ranks = "train on N GPUs (1, 2, 4 or 8), or with --device cpu in N processes"
    parser.add_argument("--gpus", metavar="N", type=int, help=ranks)
    curves = "write the curves for TensorBoard, to DIR/<name of the run's folder>"
    parser.add_argument("--tensorboard", metavar="DIR", help=curves)
    parser.add_argument("--wandb", metavar="PROJECT", help="report to a project of Weights & Biases")


def command_line(options: argparse.Namespace) -> str:
    """The command that was given, as a shell would take it."""
    return shlex.join(["fae", *getattr(options, "arguments", ())])


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """Add the finished run, the raw files to score and the device."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("files", metavar="FILE", nargs="+", help="raw files, or globs in quotes, in log order")
    which = "where the model runs (default: cuda where there is one)"
    parser.add_argument("--device", choices=("cpu", "cuda"), help=which)
