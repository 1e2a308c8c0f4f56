"""``fae``: parse, run one verb, turn what a user can cause into one line and exit status 2.

Importing this module imports neither numpy nor torch, so ``fae --help`` answers at once. Stdout carries results only
(``--json``); everything for people goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from fae.cli import bench, demo, report, run, stage, synthetic
from fae.core.errors import FaeError
from fae.core.files import MACHINE_FAULTS, json_values, reason

_DESCRIPTION = """\
Train recommendation models whose embedding tables are larger than GPU memory.

FAE reads the click log first and compiles it: the rows that serve most lookups stay on the GPU within a memory
budget, the rest is streamed from host memory, and the log is repacked into hot and cold mini-batches. Placement
never changes the mathematics.

  log -> ingest -> profile -> calibrate -> pack -> train -> report

  fae demo                                  see it work: no data, no GPU, under a minute
  fae run recipes/frappe.toml               every stage, skipping what is already done
  fae run R.toml --set hot.budget=64MiB     the one dial: GPU memory for rows, state and staging
  fae calibrate R.toml --out DIR            one stage, in the folder of a run
  fae run R.toml --set train.from=runs/a    continue an earlier run, with a new day's log
  fae report runs/a runs/b                  one HTML page: what came of it, runs side by side
  fae bench paper rmc2                      the paper's table, measured on this machine
"""

_EPILOG = """\
A recipe is one TOML file with [log], [model], [hot] and [train]; all but [log] have defaults. See recipes/ and docs/.
Exit status: 0 done, 2 something in the recipe, the log or the folder (one line says what), 1 a defect of FAE.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fae: {message}; see `{self.prog} --help`\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = _Parser(
        prog="fae", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    run.add_parser(verbs)
    stage.add_parsers(verbs)
    report.add_parser(verbs)
    demo.add_parser(verbs)
    synthetic.add_parser(verbs)
    bench.add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns
    -------
    int
        Exit status.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"fae {version('fae')}")
        return 0
    if options.verb is None:
        parser.print_help()
        return 0
    try:
        result: dict[str, Any] = options.work(options)
    except FaeError as error:
        if options.debug:
            traceback.print_exc()
        else:
            # A quoted file name or field may hold line ends.
            print("fae:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except OSError as error:
        # A library may write a cache by itself; a full disk there is a fault of the machine and no defect.
        if error.errno not in MACHINE_FAULTS or options.debug:
            raise
        where = f" {error.filename}" if error.filename else ""
        print(f"fae: cannot read or write{where}: {reason(error)}; {MACHINE_FAULTS[error.errno]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fae: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(json_values(result), sort_keys=True, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
