"""The log that a plan reads: the run's own, a columnar one, or raw files read into a temporary folder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import MANIFEST, is_current
from fae.core.errors import ArtifactError
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.ingest.ingest import ingest
from fae.ingest.sources import find_sources
from fae.plan.sample.working_folder import require_room
from fae.run.context import RunContext
from fae.run.stages import INGEST

if TYPE_CHECKING:
    from fae.run.recipe import Recipe

DEFAULT_READ = "512MiB"
_PACKED_GROWTH = {".gz": 5.0, ".zst": 5.0, ".parquet": 3.0}
"""About how many bytes of text a byte of such a file is."""
_TEMPORARY_GROWTH = 1.5
"""Bytes of temporary files for a byte of text."""


@dataclass(frozen=True, kw_only=True)
class LogReading:
    """A columnar log for a plan.

    Attributes
    ----------
    log
        All inputs, or those of the sample.
    how
        ``run``: the run's own log is there already; ``columnar``: the recipe names a columnar log; ``whole``: raw
        files, read to their end.
    raw_bytes, raw_bytes_read
        Bytes of the raw files, and those of them that were read; 0 where none was needed.
    """

    log: ColumnarLog
    how: Literal["run", "columnar", "whole"]
    raw_bytes: int = 0
    raw_bytes_read: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every input of the log is in `log`."""
        return True

    def to_json(self) -> dict[str, Any]:
        """What was read, as JSON values."""
        return {
            "how": self.how,
            "is_exact": self.is_whole,
            "num_inputs_read": self.log.num_inputs,
            "raw_bytes": self.raw_bytes,
            "raw_bytes_read": self.raw_bytes_read,
        }

    def in_words(self) -> str:
        """One line for people."""
        inputs = f"{format_count(self.log.num_inputs)} inputs"
        if self.how == "whole":
            return f"every line of the log, {inputs}, {format_bytes(self.raw_bytes)}"
        return f"the {'run' if self.how == 'run' else 'recipe'}'s columnar log, {inputs}, {self.log.path}"


def read_log(recipe: Recipe, out: Path | None, folder: Path, *, read_bytes: int) -> LogReading:
    """Find or make the log of a plan; nothing is written outside `folder`.

    Parameters
    ----------
    out
        Folder of the run, whose log is taken where it is the recipe's; it need not be there.
    folder
        For temporary files.
    read_bytes
        Most bytes of text to read.

    Raises
    ------
    FaeError
        If the log cannot be read as the recipe describes it.
    """
    run = RunContext(recipe, out or folder / "run")
    if recipe.log.is_columnar:
        run.parent()
        return LogReading(log=run.existing_log(), how="columnar")
    there = out / INGEST.kind if out else None
    if there is not None and (there / MANIFEST).is_file():
        with contextlib.suppress(ArtifactError):  # damaged or of another recipe: the run would make it again
            if is_current(there, INGEST.plan(run)):
                return LogReading(log=ColumnarLog(there), how="run")
    parent = run.parent()
    sources = find_sources(recipe.log, recipe.base)
    num_bytes = sum(source.num_bytes for source in sources)
    text = sum(int(source.num_bytes * _PACKED_GROWTH.get(source.path.suffix.lower(), 1.0)) for source in sources)
    require_room(folder, int(_TEMPORARY_GROWTH * min(text, read_bytes)))
    say(f"plan: reading the log, {format_bytes(num_bytes)}")
    log = ingest(recipe.log, folder / "log", base=recipe.base, parent=parent.log if parent else None)
    return LogReading(log=log, how="whole", raw_bytes=num_bytes, raw_bytes_read=num_bytes)
