"""What ``fae synthetic`` does: write the log, a recipe beside a columnar log, and print the next command."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import locked_folder, reason
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.core.whole_files import read_plain_start, write_whole
from fae.ingest.config import LogConfig
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.text_writer import log_config, write_text

_COMPARED_INPUTS, _COMPARED_BYTES = 100, 1 << 16


def make_synthetic(config: SyntheticConfig, out: str | Path, *, columnar: bool, encoded: bool) -> dict[str, Any]:
    """Write the log to the file `out`; a columnar one to ``out/log``, with ``out/recipe.toml``. Returns JSON values.

    Raises
    ------
    RecipeError
        If `encoded` is set for a text log.
    ArtifactError
        If it cannot be written, or something is there that this command did not make.
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
            _check_columnar(path)
            summary = write_columnar(config, path, ids="encoded" if encoded else "popularity")
            _write_recipe(out / "recipe.toml", recipe)
    else:
        _check_text(config, path)
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


def _check_text(config: SyntheticConfig, path: Path) -> None:
    """Refuse to replace a file that is not the beginning of this very log: it may be somebody's only copy."""
    if not path.exists() and not path.is_symlink():
        return
    try:
        kept = read_plain_start(path, _COMPARED_BYTES)
    except OSError as error:
        raise ArtifactError(f"{path} is there and is no plain file ({reason(error)}); choose another --out") from None
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "log"
        with contextlib.redirect_stderr(io.StringIO()):
            write_text(config, sample, num_inputs=min(config.num_inputs, _COMPARED_INPUTS))
        made = sample.read_bytes()
    size = min(len(kept), len(made))
    if kept[:size] != made[:size]:
        raise ArtifactError(
            f"{path} is there and is not the log of these options; move it away, or choose another --out"
        )


def _check_columnar(path: Path) -> None:
    """Refuse to replace a log that ingest made: its vocabulary is what a trained run beside it needs."""
    if (path / "vocabulary").is_dir():
        raise ArtifactError(f"{path} is a log that `fae ingest` made; move it away, or choose another --out")


def _write_recipe(path: Path, text: str) -> None:
    if path.exists() and path.read_bytes() != text.encode():
        say(f"synthetic: {path} is there and says something else, so it is kept")
    else:
        write_whole(path, text)


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
