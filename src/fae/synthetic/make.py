"""What ``fae synthetic`` does: write the log, a recipe beside a columnar log, and print the next command."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from fae.core.errors import RecipeError
from fae.core.files import locked_folder
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.core.whole_files import write_whole
from fae.ingest.config import LogConfig
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.text_writer import log_config, write_text


def make_synthetic(config: SyntheticConfig, out: str | Path, *, columnar: bool, encoded: bool) -> dict[str, Any]:
    """Write the log to the file `out`; a columnar one to ``out/log``, with ``out/recipe.toml``. Returns JSON values.

    Raises
    ------
    RecipeError
        If `encoded` is set for a text log.
    ArtifactError
        If it cannot be written.
    """
    out = Path(out)
    if encoded and not columnar:
        raise RecipeError("--encoded is about ids, and text has none; add --columnar")
    started = time.perf_counter()
    path = out / "log" if columnar else out
    reading = LogConfig(train=path.name, format="columnar") if columnar else log_config(config, out.name)
    recipe = recipe_text(reading)
    if columnar:
        with locked_folder(out):
            summary = write_columnar(config, path, ids="encoded" if encoded else "popularity")
            write_whole(out / "recipe.toml", recipe)
    else:
        summary = write_text(config, path)
    seconds = time.perf_counter() - started
    say(
        f"synthetic: {format_count(summary.num_inputs)} inputs like {config.shape}, {format_bytes(summary.num_bytes)}, "
        f"in {seconds:.1f} s: {path}"
    )
    say(f"synthetic: click rate {summary.click_rate:.4f}, best possible AUC {summary.best_auc:.4f}")
    if columnar:
        say(f"synthetic: next, `fae run {out / 'recipe.toml'} --out {out}`")
    else:
        say("synthetic: a recipe reads it with")
        for line in recipe.splitlines():
            say(line)
    return {
        "path": str(path), "config": dataclasses.asdict(config), "log": dataclasses.asdict(summary),
        "seconds": seconds, "recipe": recipe,
    }  # fmt: skip


def recipe_text(config: LogConfig) -> str:
    """The ``[log]`` table of a recipe, as TOML."""
    lines = ["[log]", f"format = {json.dumps(config.format)}", f"train = {json.dumps(config.train)}"]
    if config.categorical:
        lines.append("categorical = [")
        for column in config.categorical:
            if isinstance(column, str):
                lines.append(f"  {json.dumps(column)},")
            else:
                lines.append(
                    f"  {{ name = {json.dumps(column.name)}, max_length = {column.max_length}, "
                    f'pooling = "{column.pooling}" }},'
                )
        lines.append("]")
    return "\n".join(lines) + "\n"
