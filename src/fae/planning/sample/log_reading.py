"""The log that a plan reads: the run's own, a columnar one, raw files read to their end, or a sample of these."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fae.artifacts.columnar_log import SPLITS, ColumnarLog
from fae.artifacts.manifest import is_current
from fae.calibrate.intervals import student_t_quantile
from fae.core.errors import ArtifactError, LogError, RecipeError
from fae.core.files import MANIFEST
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.ingest.column_config import columns_of_tables
from fae.ingest.ingest import ingest
from fae.ingest.log_plan import plan_ingest
from fae.ingest.raw_files.source_digests import are_digests_known
from fae.ingest.sources import MissingFilesError, SourceFile, find_sources
from fae.planning.sample.planned_log import make_planned_log, training_blocks
from fae.planning.sample.published_logs import (
    PublishedLog,
    published_log,
    published_rows,
    published_splits,
    sample_published,
)
from fae.planning.sample.raw_sample import RawSample, sample_raw
from fae.planning.sample.table_growth import RangedCount, table_rows
from fae.planning.sample.working_folder import require_room
from fae.run.context import RunContext
from fae.run.shared_logs import find_shared_log, learn_digests
from fae.run.stages import INGEST

if TYPE_CHECKING:
    from fae.run.recipe import Recipe

DEFAULT_READ = "512MiB"
_PACKED_GROWTH = {".gz": 5.0, ".zst": 5.0, ".parquet": 3.0}
"""About how many bytes of text a byte of such a file is."""
_WHOLE_GROWTH, _SAMPLE_GROWTH = 1.5, 4.0
"""Bytes of temporary files for a byte of text, where it is read whole and where a sample of it is written first."""

_PUBLISHED_BYTES = 64 * 2**20
"""Bytes of synthetic text in the place of a log that is not here: its sizes are known, and making it takes time."""
_UNREAD_ERROR = 0.1
"""How far off the inputs of a packed file may be that was not read to its end, as a share of them."""


@dataclass(frozen=True, kw_only=True)
class LogReading:
    """A columnar log for a plan.

    Attributes
    ----------
    log
        All inputs; of a sample a log with tables of the whole one's size (`fae.planning.sample.planned_log`).
    how
        ``run``: the log is in the run's folder, or in that of a run beside it; ``columnar``: the recipe names a
        columnar log; ``whole``: raw files, read to their end; ``sample``: a part of raw files.
    num_inputs
        Inputs of the whole log.
    split_sizes
        Inputs of each split of the whole log.
    rows
        Rows of each table in the whole log.
    num_read
        Inputs that were read.
    log_bytes
        Bytes of the whole columnar log on the disk.
    raw_bytes, raw_bytes_read
        Bytes of the raw files, and those of them that were read (text where it is unpacked); 0 where none was needed.
    note
        What was read, where it was a sample.
    sources
        The raw files; empty where the log is columnar.
    published
        The public log whose files are not here; None where there is something to read.
    """

    log: ColumnarLog
    how: Literal["run", "columnar", "whole", "sample"]
    num_inputs: RangedCount
    split_sizes: Mapping[str, int]
    rows: tuple[RangedCount, ...]
    num_read: int
    log_bytes: int
    raw_bytes: int = 0
    raw_bytes_read: int = 0
    note: str = ""
    sources: tuple[SourceFile, ...] = ()
    published: PublishedLog | None = None

    @classmethod
    def of_whole(
        cls, log: ColumnarLog, how: Literal["run", "columnar", "whole"], sources: Sequence[SourceFile] = ()
    ) -> LogReading:
        """A log of which every input is there."""
        rows = tuple(_exactly(feature.num_embeddings) for feature in log.features)
        raw_bytes = sum(source.num_bytes for source in sources)
        return cls(
            log=log, how=how, num_inputs=_exactly(log.num_inputs), split_sizes=_split_sizes(log), rows=rows,
            num_read=log.num_inputs, log_bytes=sum(int(facts["bytes"]) for facts in log.manifest.files.values()),
            raw_bytes=raw_bytes, raw_bytes_read=raw_bytes, sources=tuple(sources),
        )  # fmt: skip

    @property
    def is_whole(self) -> bool:
        """Whether every input of the log was read."""
        return self.how != "sample"

    @property
    def scale(self) -> float:
        """Inputs of the whole log for each that was read."""
        return self.num_inputs.value / max(1, self.num_read)

    def to_json(self) -> dict[str, Any]:
        """What was read, as JSON values."""
        return {
            "how": self.how,
            "is_exact": self.is_whole,
            "num_inputs_read": self.num_read,
            "raw_bytes": self.raw_bytes,
            "raw_bytes_read": self.raw_bytes_read,
            "note": self.in_words(),
        }

    def in_words(self) -> str:
        """One line for people."""
        inputs = f"{format_count(self.num_read)} inputs"
        if self.how == "sample":
            return self.note
        if self.how == "whole":
            return f"read every line of the log, {inputs}, {format_bytes(self.raw_bytes)}"
        where = f"ingested before, {self.log.path}" if self.how == "run" else "which is columnar"
        return f"read every input of the log, {where}: {inputs}"


def read_log(
    recipe: Recipe, out: Path | None, folder: Path, *, read_bytes: int, num_inputs: int | None = None
) -> LogReading:
    """Find or make the log of a plan; nothing is written outside `folder`.

    Parameters
    ----------
    out
        Folder of the run, whose log is taken where it is the recipe's; it need not be there.
    folder
        For temporary files.
    read_bytes
        Most bytes of text to read; of a longer log a sample is read.
    num_inputs
        Inputs of the whole log, where what is here is a part of it or nothing; None takes what is here for all of it,
        and of a public log that is not here the published number.

    Raises
    ------
    FaeError
        If the log cannot be read as the recipe describes it.
    """
    run = RunContext(recipe, out or folder / "run")
    if recipe.log.is_columnar:
        run.parent()
        if num_inputs is not None:
            raise RecipeError(
                "--inputs is for raw files, of which a part is here; a columnar log has all of its inputs"
            )
        return LogReading.of_whole(run.existing_log(), "columnar")
    parent = run.parent()
    known = parent.log if parent else None
    ingested = None if out is None or num_inputs else _ingested_log(recipe, out, known, read_bytes)
    if ingested is not None:
        return LogReading.of_whole(ingested, "run")
    try:
        sources = find_sources(recipe.log, recipe.base)
    except MissingFilesError:
        published = published_log(recipe.log)
        if published is None:
            raise
        return _of_published(recipe, published, folder, min(read_bytes, _PUBLISHED_BYTES), num_inputs, known)
    num_bytes = sum(source.num_bytes for source in sources)
    text = sum(int(source.num_bytes * _PACKED_GROWTH.get(source.path.suffix.lower(), 1.0)) for source in sources)
    if text <= read_bytes and num_inputs is None:
        require_room(folder, int(_WHOLE_GROWTH * text))
        say(f"plan: reading the log, {format_bytes(num_bytes)}")
        log = ingest(recipe.log, folder / "log", base=recipe.base, parent=known)
        return LogReading.of_whole(log, "whole", sources)
    require_room(folder, int(_SAMPLE_GROWTH * read_bytes))
    say(f"plan: reading a sample of the log, about {format_bytes(read_bytes)} of {format_bytes(text)} of text")
    sample, raw = _ingest_sample(recipe, sources, folder, read_bytes, known)
    if num_inputs is not None:
        if num_inputs < sample.num_inputs:
            raise RecipeError(
                f"--inputs = {num_inputs} is less than the {sample.num_inputs} inputs that were read here"
            )
        raw = dataclasses.replace(raw, share=sample.num_inputs / num_inputs, pieces=())
    return _of_sample(recipe, sample, raw, sources, folder, known)


def _of_published(
    recipe: Recipe, published: PublishedLog, folder: Path, read_bytes: int, num_inputs: int | None,
    known: ColumnarLog | None,
) -> LogReading:  # fmt: skip
    """A public log of which nothing is here: synthetic text of its format, with the published sizes."""
    number = num_inputs or published.num_inputs
    say(f"plan: the files of the log are not here; making text like that of {published.title} in their place")
    require_room(folder, int(_SAMPLE_GROWTH * read_bytes))
    made = sample_published(recipe.log, published, folder / "text", read_bytes, number)
    sample = ingest(made.raw.config, folder / "sample", base=recipe.base, parent=known)
    return _of_sample(recipe, sample, made.raw, made.sources, folder, known, published)


def _ingested_log(recipe: Recipe, out: Path, known: ColumnarLog | None, read_bytes: int) -> ColumnarLog | None:
    """The recipe's log in the folder of its run, or in that of another run beside it; nothing is written."""
    learn_digests(out)
    there = out / INGEST.kind
    with contextlib.suppress(LogError, ArtifactError):  # damaged or of another recipe: the run would make it again
        try:
            sources = find_sources(recipe.log, recipe.base)
            # Hashing files that are read whole anyway costs little; more is not read to find a log.
            if sum(each.num_bytes for each in sources) > read_bytes and not are_digests_known(recipe.log, sources):
                return None
            plan = plan_ingest(recipe.log, base=recipe.base, parent=known)
        except MissingFilesError:  # raw files may be gone once they are ingested
            if not (there / MANIFEST).is_file():
                return None
            plan = plan_ingest(recipe.log, base=recipe.base, previous=there, parent=known)
        if is_current(there, plan):
            return ColumnarLog(there)
        shared = find_shared_log(out, plan)
        return None if shared is None else ColumnarLog(shared)
    return None


def _ingest_sample(
    recipe: Recipe, sources: Sequence[SourceFile], folder: Path, read_bytes: int, known: ColumnarLog | None
) -> tuple[ColumnarLog, RawSample]:
    """Ingest a sample; where a piece cannot be read in the middle of a file, one of the beginnings."""
    for from_begin in (False, True):
        files = folder / f"raw{from_begin:d}"
        raw = sample_raw(recipe.log, sources, files, read_bytes, from_begin=from_begin)
        try:
            return ingest(raw.config, folder / "sample", base=recipe.base, parent=known), raw
        except LogError as error:
            if from_begin or not raw.is_spread:
                raise raw.original(error) from None
        finally:
            shutil.rmtree(files, ignore_errors=True)
    raise AssertionError("one of the two is returned or raised")


def _of_sample(
    recipe: Recipe, sample: ColumnarLog, raw: RawSample, sources: Sequence[SourceFile], folder: Path,
    known: ColumnarLog | None, published: PublishedLog | None = None,
) -> LogReading:  # fmt: skip
    num_inputs = _num_inputs(sample.num_inputs, raw, recipe.hot.confidence)
    scale = num_inputs.value / sample.num_inputs
    blocks = training_blocks(sample)
    columns = recipe.log.categorical_columns()
    minimums = [
        recipe.log.min_frequency if columns[own].min_frequency is None else int(columns[own].min_frequency or 1)
        for own, *_ in columns_of_tables(columns)
    ]
    sizes = [feature.num_embeddings for feature in known.features] if known else [0] * len(sample.features)
    if published is None:
        rows = table_rows(sample, blocks, scale, minimums, sizes)
    else:
        rows = published_rows(published, sample, num_inputs.value, minimums)
    splits = None if published is None else published_splits(recipe.log, num_inputs.value, len(sources))
    say("plan: making a log of the whole one's size of the sample")
    num_rows = [
        max(estimate.value, feature.num_embeddings) for estimate, feature in zip(rows, sample.features, strict=True)
    ]
    log = make_planned_log(sample, blocks, num_rows, folder / "log", seed=recipe.train.seed)
    note = (
        f"nothing of the log is here: these are figures of {published.title} with {format_count(num_inputs.value)} "
        "inputs, from published numbers of values and synthetic text of its format"
        if published
        else f"read a sample: {format_count(sample.num_inputs)} of about {format_count(num_inputs.value)} inputs, "
        f"{format_bytes(raw.num_bytes)} of text from {'all parts' if raw.reaches_end else 'the beginning'} of "
        + ("the file" if len(sources) == 1 else f"{raw.num_files} of {len(sources)} files")
    )
    return LogReading(
        log=log, how="sample", num_inputs=num_inputs,
        split_sizes=splits or {name: round(size * scale) for name, size in _split_sizes(sample).items()},
        rows=tuple(rows),
        num_read=sample.num_inputs, log_bytes=_log_bytes(sample, scale, num_rows),
        raw_bytes=sum(source.num_bytes for source in sources), raw_bytes_read=raw.num_bytes, note=note,
        sources=tuple(sources), published=published,
    )  # fmt: skip


def _log_bytes(sample: ColumnarLog, scale: float, num_rows: Sequence[int]) -> int:
    """Bytes of the whole columnar log: arrays of inputs grow with them, counts and vocabularies with the rows."""
    total = 0.0
    for name, facts in sample.manifest.files.items():
        if name == "counts.npy":
            total += 8 * sum(num_rows)
        elif name.startswith("vocabulary/"):
            table = int(Path(name).stem)
            total += int(facts["bytes"]) * num_rows[table] / sample.features[table].num_embeddings
        else:
            total += int(facts["bytes"]) * scale
    return int(total)


def _num_inputs(num_read: int, raw: RawSample, confidence: float) -> RangedCount:
    """Inputs of the whole log, from how the lines' lengths differ from piece to piece."""
    value = round(num_read / raw.share)
    number = len(raw.pieces)
    if number == 0:
        return _exactly(value)
    if number < 3:
        return RangedCount(value=value, low=num_read, high=max(value, 2 * value - num_read))
    num_bytes, num_lines = (sum(column) for column in zip(*raw.pieces, strict=True))
    rate = num_lines / max(1, num_bytes)
    squares = sum((lines - rate * size) ** 2 for size, lines in raw.pieces)
    error = math.sqrt(squares * number / (number - 1)) / max(1, num_lines)
    half = value * student_t_quantile(0.5 + confidence / 2, number - 1) * error
    if not raw.reaches_end:  # packed files, whose rest may be packed better or worse
        half += _UNREAD_ERROR * (value - num_read)
    return RangedCount(value=value, low=max(num_read, round(value - half)), high=round(value + half))


def _split_sizes(log: ColumnarLog) -> dict[str, int]:
    return {name: log.split(name)[1] - log.split(name)[0] for name in SPLITS}


def _exactly(value: int) -> RangedCount:
    return RangedCount(value=value, low=value, high=value)
