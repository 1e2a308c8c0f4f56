"""``fae``: parse, run one verb, turn what a user can cause into one line and exit status 2.

Importing this module imports neither numpy nor torch, so ``fae --help`` answers at once. Stdout carries results only
(``--json``); everything for people goes to stderr.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from fae.cli import (
    bench,
    demo,
    evaluate,
    export,
    import_rows,
    init,
    inspect,
    plan,
    predict,
    report,
    run,
    run_folders,
    stage,
    synthetic,
)  # fmt: skip
from fae.cli.options import command_line
from fae.cli.process.faults import machine_fault
from fae.cli.process.signals import handled_signals, interrupted_line
from fae.cli.process.streams import reserve_descriptors, write_stdout
from fae.core.compiling.hidden_packages import own_this_process
from fae.core.errors import FaeError, RecipeError
from fae.core.interrupts import Interrupted
from fae.core.printable import mute, open_log_file, tell, write_log_line
from fae.core.signal_watch import end_process, status_of
from fae.core.whole_files import json_values
from fae.distributed.places import has_launcher, is_other_rank, place_of_process

_DESCRIPTION = """\
Train recommendation models whose embedding tables are larger than GPU memory.

FAE reads the click log first and compiles it: the rows that serve most lookups stay on the GPU within a memory
budget, the rest is streamed from host memory, and the log is repacked into hot and cold mini-batches. Placement
never changes the mathematics.

  log -> ingest -> profile -> calibrate -> pack -> train -> report

  fae demo                                  see it work: no data, no GPU, under a minute
  fae inspect clicks.csv.gz                 what a raw log holds: columns, kinds, warnings
  fae init clicks.csv.gz > my.toml          a first recipe for it, which runs as it is
  fae plan recipes/frappe.toml              before a run: memory, budgets, rates, which budget to give
  fae run recipes/frappe.toml               every stage, skipping what is already done
  fae run R.toml --set hot.budget=64MiB     the one dial: GPU memory for rows, state and staging
  fae calibrate R.toml --out DIR            one stage, in the folder of a run
  fae run R.toml --set train.from=runs/a    continue an earlier run, with a new day's log
  fae predict runs/a test.csv --out s.csv   a probability a line, of files without labels too
  fae export runs/a served                  a folder that scores and serves without FAE
  fae runs                                  the runs in runs/ with their figures; fae clean RUN frees space
  fae report runs/a runs/b                  one HTML page: what came of it, runs side by side
  fae bench paper rmc2                      the paper's table, measured on this machine
"""

_EPILOG = """\
A recipe is one TOML file with [log], [model], [hot] and [train]; all but [log] have defaults. See recipes/ and docs/.
Exit status: 0 done, 2 something in the recipe, the log or the folder (one line says what), 1 a defect of FAE;
130, 143, 129 after SIGINT, SIGTERM, SIGHUP: the same command continues from there.
"""


_RANK_VERBS = ("run", "train")
"""Verbs that ranks work on together."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fae: {message}; see `{self.prog} --help`\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help on stdout; leave with status 2 where that cannot be written."""
        if write_stdout(self.format_help(), "the help"):
            raise SystemExit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        """What an error says, as a line for people."""
        tell(message)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = _Parser(
        prog="fae", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    inspect.add_parser(verbs)
    init.add_parser(verbs)
    plan.add_parser(verbs)
    run.add_parser(verbs)
    stage.add_parsers(verbs)
    predict.add_parser(verbs)
    evaluate.add_parser(verbs)
    export.add_parser(verbs)
    import_rows.add_parser(verbs)
    report.add_parser(verbs)
    run_folders.add_parsers(verbs)
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
    reserve_descriptors()
    if arguments is None:
        # Threads that come back from compiled code wait that long for one that imports a library (Python's: 5 ms).
        sys.setswitchinterval(0.0001)
        # An import makes many objects and drops few; looking for those takes a tenth of it (Python's: 700).
        gc.set_threshold(20_000)
        own_this_process()
    line = interrupted_line(sys.argv[1:] if arguments is None else arguments)
    with handled_signals(line, ends_process=arguments is None, second_ends=not has_launcher()):
        try:
            return _main(arguments)
        except KeyboardInterrupt as interrupt:
            if not is_other_rank():
                tell(line)
            status = status_of(interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT)
        finally:
            mute(False)
            open_log_file(None)
    if arguments is None:
        end_process(status)
    return status


def _main(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    if options.version:
        from importlib.metadata import version

        return write_stdout(f"fae {version('fae')}\n", "the version")
    if options.verb is None:
        return write_stdout(parser.format_help(), "the help")
    if options.verb not in _RANK_VERBS and not has_launcher() and is_other_rank():
        return 0  # the first of torchrun's ranks does such work alone
    mute(options.quiet)
    try:
        if options.log_file is not None:
            _open_log(options)
        result: dict[str, Any] = options.work(options)
    except SystemExit as end:  # ranks that were started have ended
        return end.code if isinstance(end.code, int) else 1
    except FaeError as error:
        if options.debug:
            _tell_traceback()
        else:
            tell(f"fae: {error}")
        return 2
    except Exception as error:
        line = None if options.debug else machine_fault(error)
        if line is None:
            _tell_traceback()
            return 1
        tell(f"fae: {line}")
        return 2
    if options.json:
        return write_stdout(json.dumps(json_values(result), sort_keys=True, allow_nan=False) + "\n", "the result")
    return 0


def _open_log(options: argparse.Namespace) -> None:
    place = place_of_process()
    if place.rank > 0:
        return
    try:
        open_log_file(options.log_file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"--log-file {options.log_file} cannot be written: {reason}") from error
    if place.launcher is None:  # which has written it
        write_log_line(command_line(options))


def _tell_traceback() -> None:
    for line in traceback.format_exc().splitlines():
        tell(line)


if __name__ == "__main__":
    sys.exit(main())
