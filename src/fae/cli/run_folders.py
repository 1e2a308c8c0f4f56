"""``fae runs``, ``fae clean``, ``fae upgrade``: folders of runs as a whole."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_output_options

_RUNS = """\
List the runs in a folder: what each was trained on, its state, speed, test AUC and log loss, and its size on the disk.
A folder that is damaged is a line of the list.

  fae runs                        the runs in runs/, the latest first
  fae runs runs --sort auc        the best first
"""
_CLEAN = """\
Remove from a run folder what can be made again: profile, hot set, packed batches, the best weights that early stopping
kept (the checkpoint has them), and what interrupted commands left. It says what and how many bytes, and does not ask.
The log, the checkpoint, run.json, metrics and report stay, so predict, evaluate, export, `[train] from` and more epochs
work as before; `fae run` makes again what it needs and does not train again.

  fae clean runs/my --dry-run     what it would free
  fae clean runs/my --all         the log as well, where its raw files are still there and no other run reads it
"""


_UPGRADE = """\
Bring the logs and checkpoints of runs to the formats that this version of fae writes. Formats of today need nothing,
and it says so. Name the runs of a chain ([train] from) in their order; raw files are not read.

  fae upgrade runs/day1 runs/day2 --dry-run
"""


def add_parsers(verbs: Any) -> None:
    """Add the verbs."""
    parser = _add(verbs, "runs", "list the runs in a folder, with their figures", _RUNS, _list)
    parser.add_argument("folder", metavar="DIR", nargs="?", default="runs", help="folder of the runs (default: runs)")
    sorts = "name, when (default, the latest first), rate, auc, loss (the lowest first) or size"
    parser.add_argument("--sort", metavar="FIGURE", default="when", help=sorts)
    parser = _add(verbs, "clean", "free the space of what a run can make again", _CLEAN, _clean)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    everything = "also the log (its raw files must be there unchanged, and no run beside may read it) and last/"
    parser.add_argument("--all", action="store_true", dest="everything", help=everything)
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    parser = _add(verbs, "upgrade", "bring runs of older versions to today's formats", _UPGRADE, _upgrade)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs, those first that others continue")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")


def _add(verbs: Any, name: str, short: str, long: str, work: Any) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=short, description=long, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_output_options(made)
    made.set_defaults(work=work)
    return made


def _list(options: argparse.Namespace) -> dict[str, Any]:
    from fae.run.housekeeping.run_list import find_runs
    from fae.run.housekeeping.run_table import say_runs

    found = find_runs(options.folder, sort=options.sort)
    say_runs(options.folder, found)
    return {"folder": options.folder, "sort": options.sort, "runs": found}


def _clean(options: argparse.Namespace) -> dict[str, Any]:
    from fae.run.housekeeping.cleaning import clean

    return clean(options.run, everything=options.everything, dry_run=options.dry_run)


def _upgrade(options: argparse.Namespace) -> dict[str, Any]:
    from fae.run.housekeeping.upgrading import upgrade

    return upgrade(options.runs, dry_run=options.dry_run)
