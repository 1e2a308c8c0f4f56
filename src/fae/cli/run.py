"""``fae run``: every stage of a recipe."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.engine_options import add_engine_options, engine_of
from fae.cli.open_run import open_run_folder
from fae.cli.options import (
    add_recipe_options,
    add_replace_option,
    add_training_options,
    command_line,
)

_DESCRIPTION = """\
Run every stage of a recipe: ingest, profile, calibrate, pack, train. A stage whose artifact is already in the folder,
made from the same parents with the same parameters, is skipped; an interrupted training continues from its last
checkpoint, and more [train] epochs continue a finished one. A finished training of another recipe is replaced only with
--replace: without it a line says what differs, and nothing is done. With [train] from = RUN it continues that run: its
ids are kept, new ones are appended, and training starts from its rows and weights. Writes DIR/run.json.

A log that a run in a folder beside DIR has ingested already is used from there, by a link: no second ingest, no copy.

A log that is columnar already, made by `fae ingest` or `fae synthetic --columnar`, is read where it is:

  [log]
  format = "columnar"
  train = "runs/big/log"          its folder, from the recipe's folder on
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run", help="every stage of a recipe, skipping what is done", description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_recipe_options(parser)
    add_replace_option(parser)
    add_training_options(parser)
    add_engine_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Run it."""
    from fae.cli.process.ranks import ranks_of
    from fae.core.progress import say
    from fae.run.ahead.engine_ahead import engine_ahead
    from fae.run.ahead.libraries_ahead import libraries_ahead

    with ranks_of(options) as ranks:
        if not ranks.is_first:
            return open_run_folder(options, ranks).help_train()
        with engine_ahead(options) as local:
            folder = open_run_folder(options, ranks)
            with engine_of(options, folder.out, local) as folder.engine:
                if not folder.engine.is_leader:
                    return folder.help_ingest(folder.engine)
                libraries_ahead(folder.recipe, folder.out, options.device)
                record = folder.run(replace=options.replace, command=command_line(options))
    say(f"run: the whole record is in {folder.out / 'run.json'}")
    return record
