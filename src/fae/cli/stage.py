"""``fae ingest``, ``profile``, ``calibrate``, ``pack``, ``train``: one stage of a recipe."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from fae.cli.engine_options import add_engine_options, engine_of
from fae.cli.open_run import open_run_folder
from fae.cli.options import add_recipe_options, add_replace_option, add_training_options

_STAGES = {
    "ingest": (
        "text to ids: the columnar log",
        "Read the raw log ([log]) into DIR/log: contiguous ids by popularity, float32 dense features, splits.\n"
        'Nothing to do where [log] format = "columnar": train then names the folder of an existing log.',
    ),
    "profile": (
        "count the accesses of a sample of the inputs",
        "Draw a seeded sample of the training inputs ([hot] sample) and count the accesses of every row: DIR/profile.\n"
        "With --against RUN the log is ingested, too, and compared: what coverage and hot-input share the hot rows of\n"
        "an earlier run lose on it, table by table, and whether to calibrate again. RUN is only read.",
    ),
    "calibrate": (
        "choose the hot rows for a GPU memory budget",
        "Choose the rows that stay on the GPU within [hot] budget, staging ring included, and predict coverage and\n"
        "hot-input share: DIR/hot_set.",
    ),
    "pack": (
        "repack the log into hot and cold mini-batches",
        "Classify every input, form mini-batches and translate every lookup to its final address: DIR/packed.",
    ),
    "train": (
        "train and evaluate the model",
        "Train the model ([model], [train]) from DIR/packed, from the last checkpoint where there is one, and\n"
        "evaluate it on the test split: DIR/checkpoint.",
    ),
}


def add_parsers(verbs: Any) -> None:
    """Add the five verbs."""
    for name, (short, long) in _STAGES.items():
        parser = verbs.add_parser(
            name, help=short, description=long, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_recipe_options(parser)
        if name in ("ingest", "train"):  # what takes long to make again
            add_replace_option(parser)
            (add_engine_options if name == "ingest" else add_training_options)(parser)
        if name == "profile":
            parser.add_argument("--against", metavar="RUN", help="say what the hot rows of RUN serve of this log")
        parser.set_defaults(work=partial(work, name))


def work(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one stage."""
    if name == "ingest":
        return _ingest(options)
    if name == "train":
        from fae.cli.process.ranks import train_on_ranks

        return train_on_ranks(options)
    folder = open_run_folder(options)
    against = getattr(options, "against", None)
    return folder.stage(name) if against is None else folder.drift(against)


def _ingest(options: argparse.Namespace) -> dict[str, Any]:
    from fae.run.ahead.engine_ahead import engine_ahead

    with engine_ahead(options) as local:
        folder = open_run_folder(options)
        with engine_of(options, folder.out, local) as folder.engine:
            if not folder.engine.is_leader:
                return folder.help_ingest(folder.engine)
            return folder.stage("ingest", replace=options.replace)
