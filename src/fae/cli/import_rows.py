"""``fae import``: pretrained rows as the first values of a run."""

from __future__ import annotations

import argparse
from typing import Any

from fae.cli.options import add_recipe_options

_DESCRIPTION = """\
Take pretrained rows into a run's first values. DIR holds vocabulary/<table>.parquet (value, id) and
tables/<table>.safetensors (weight), as `fae export` writes them. The log is ingested, if it is not yet; values are
matched by their text and counted, and widths must agree. Nothing is trained: the line that does it is printed.

  fae import served my.toml                      what of served/ the log has values for
  fae run my.toml --set train.rows_from=served   train from these rows
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "import", help="pretrained rows as first values: what matches, and how to train from them",
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("rows", metavar="DIR", help="folder of rows, such as one of `fae export`")
    add_recipe_options(parser)
    parser.set_defaults(work=work)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Ingest the log, and match the rows with its values."""
    import shlex
    from pathlib import Path

    from fae.checkpoint.pretrained_rows import find_rows, match_rows
    from fae.cli.open_run import open_run_folder
    from fae.core.progress import say
    from fae.models.registry import embedding_dims
    from fae.run.stages import INGEST

    rows, folder = find_rows(options.rows, Path()), open_run_folder(options)
    folder.stage("ingest")
    log = INGEST.open(folder)
    matched = match_rows(rows, log, embedding_dims(folder.recipe.model, log.features))
    line = shlex.join(["fae", "run", str(options.recipe), "--out", str(folder.out), "--set", f"train.rows_from={rows}"])
    say(f"import: train from them: {line}")
    return {
        "rows": str(rows),
        "tables": {
            feature.name: {
                "num_rows": feature.num_embeddings, "matched": matched[table].num_matched,
                "values_not_in_log": matched[table].num_values - matched[table].num_matched,
            }
            for table, feature in enumerate(log.features)
            if table in matched
        },
    }  # fmt: skip
