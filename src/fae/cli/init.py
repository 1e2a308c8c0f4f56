"""``fae init``: a first recipe for raw files, from a look at them."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.inspect import add_look_options, inspected
from fae.cli.options import add_output_options
from fae.cli.process.streams import write_stdout

_DESCRIPTION = """\
Write a first recipe for raw files: label, categorical columns and lists, dense columns with a fitting transform, time
and split, hour and weekday of a timestamp, batch size and budget for the log's size. Every choice has a comment, and
keys, constants and free text are left out, with the reason. It runs as it is:

  fae init clicks.csv.gz > my.toml && fae run my.toml
  fae init 'day=*/*.parquet' --label clicked --out my.toml

The look is that of `fae inspect`; names of files are written as seen from the recipe's folder.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "init", help="a first recipe for raw files, which runs as it is", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_look_options(parser)
    parser.add_argument("--out", metavar="FILE.toml", help="write it there (default: standard output)")
    parser.add_argument("--force", action="store_true", help="replace the file of --out if it is there")
    add_output_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Write the recipe."""
    from fae.core.progress import say
    from fae.inspect.first_recipe import first_recipe, recipe_faults, write_recipe

    found = inspected(options)
    text = first_recipe(found, out=options.out)
    if options.out:
        write_recipe(text, options.out, replace=options.force)
    elif not options.json and (status := write_stdout(text, "the recipe")):
        raise SystemExit(status)
    for fault in recipe_faults(found):
        say(f"init: {fault}")
    return {"recipe": text, "out": options.out}
