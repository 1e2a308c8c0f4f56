"""``fae inspect``: what the columns of raw files hold, before a recipe is written."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options
from fae.cli.process.streams import write_stdout
from fae.core.errors import RecipeError

_DESCRIPTION = """\
Look at raw files before anything else: format, columns, the kind of each (label, categorical, list, count, number,
timestamp, key, constant, free text), distinct values, how many occur once, how many of the last tenth were never seen
before, what is missing, and warnings below. Needs no recipe and writes nothing.

  fae inspect clicks.csv.gz
  fae inspect 'day=*/*.parquet' --json
  fae inspect huge.csv --lines all       every line, in one pass
  fae init clicks.csv.gz > my.toml       then: a first recipe from the same look

A large file is read at its begin, middle and end (a packed one at its begin): 200,000 inputs, at most 64 MiB of text.
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "inspect", help="what the columns of raw files hold: kinds, shares, warnings", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_look_options(parser)
    add_output_options(parser)
    parser.set_defaults(work=work)


def add_look_options(parser: argparse.ArgumentParser) -> None:
    """Add the files, how much of them is read, and the label's name."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="raw files of one log, or globs in quotes")
    parser.add_argument("--lines", metavar="N", default="200000", help="inputs to read, or all (default: 200000)")
    parser.add_argument("--label", metavar="COLUMN", help="the label, where the guess is wrong")


def inspected(options: argparse.Namespace) -> Any:
    """The `fae.inspect.inspection.Inspection` that the options describe."""
    from fae.inspect.inspection import inspect_files

    most: int | None = None
    if options.lines != "all":
        try:
            most = int(options.lines.replace("_", ""))
        except ValueError:
            raise RecipeError(f"--lines {options.lines!r} must be a whole number from 1 on, or all") from None
    return inspect_files(options.files, most_lines=most, label=options.label)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Look at the files."""
    from fae.inspect.inspection_text import inspection_lines, inspection_result

    found = inspected(options)
    if not options.json and (status := write_stdout("\n".join(inspection_lines(found)) + "\n", "the table")):
        raise SystemExit(status)
    return inspection_result(found)
