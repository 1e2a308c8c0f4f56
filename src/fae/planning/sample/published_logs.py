"""Public logs whose size is published: a plan of one needs no file of it, and takes synthetic text of its format.

Sources. Criteo Terabyte: 24 days and 4,373,472,329 lines, of its publisher's description; distinct values of every
column, 882,774,559 together, as DLRM's public code counts them; rows where values of fewer than 15 lines share one, as
in NVIDIA's DLRM example. Criteo Kaggle: 45,840,617 lines and distinct values, of DLRM's public code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fae.core.threads import num_threads, run_jobs
from fae.ingest.formats import KNOWN_LOGS
from fae.ingest.sources import Role, SourceFile
from fae.planning.sample.raw_sample import RawSample
from fae.planning.sample.table_growth import RangedCount
from fae.planning.stages.counts import ValueGrowth
from fae.synthetic.click_log import SyntheticLog
from fae.synthetic.config import ShapeName, SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS
from fae.synthetic.shapes import TABLE_SHAPES
from fae.synthetic.text_writer import encode_lines

if TYPE_CHECKING:
    from fae.artifacts.columnar_log import ColumnarLog
    from fae.ingest.config import LogConfig

Sizes = tuple[int, ...]

_TERABYTE_VALUES = (
    227605432, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 130229467, 3067956, 405282, 10, 2209, 11938, 155, 4, 976,
    14, 292775614, 40790948, 187188510, 590152, 12973, 108, 36,
)  # fmt: skip
_TERABYTE_FREQUENT = (
    7912889, 33823, 17139, 7339, 20046, 4, 7105, 1382, 63, 5554114, 582469, 245828, 11, 2209, 10667, 104, 4, 968, 15,
    8165896, 2675940, 7156453, 302516, 12022, 97, 35,
)  # fmt: skip
_KAGGLE_VALUES = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652,
    2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PublishedLog:
    """What is known of a public log without its files.

    Attributes
    ----------
    title
        Its name.
    shape
        The synthetic log whose text is of its format.
    num_inputs, num_files
        Inputs and files of the whole log.
    values
        Distinct values of each column.
    frequent, frequency
        Rows of each column where values of fewer inputs than `frequency` share one; empty where nobody has published
        them.
    packed_share
        Bytes of the files as they are published for each byte of their text.
    """

    title: str
    shape: ShapeName
    num_inputs: int
    num_files: int
    values: Sizes
    frequent: Sizes = ()
    frequency: int = 0
    packed_share: float

    def rows(self, column: int, minimum: int) -> float:
        """Rows of a column of the whole log where values of fewer than `minimum` inputs share one.

        Between what is published it falls as a power of `minimum`.

        >>> log = PUBLISHED_LOGS["criteo_terabyte"]
        >>> [round(log.rows(0, minimum)) for minimum in (1, 4, 15)]
        [227605432, 40773233, 7912889]
        """
        values = self.values[column]
        if minimum <= 1 or not self.frequent:
            return values
        power = math.log(self.frequent[column] / values) / math.log(self.frequency)
        return float(max(1.0, values * minimum ** min(0.0, power)))


PUBLISHED_LOGS = {
    "criteo_terabyte": PublishedLog(
        title="Criteo Terabyte", shape="terabyte", num_inputs=4_373_472_329, num_files=24, values=_TERABYTE_VALUES,
        frequent=_TERABYTE_FREQUENT, frequency=15, packed_share=0.33,
    ),
    "criteo_kaggle": PublishedLog(
        title="Criteo Kaggle", shape="criteo", num_inputs=45_840_617, num_files=1, values=_KAGGLE_VALUES,
        packed_share=0.39,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PublishedSample:
    """Synthetic text in the place of a sample, and the files that the log would have.

    Attributes
    ----------
    raw
        The sample.
    sources
        The files of the whole log; none is there.
    """

    raw: RawSample
    sources: tuple[SourceFile, ...]


def published_log(config: LogConfig) -> PublishedLog | None:
    """The public log that a recipe names by its format, where its size is published."""
    return PUBLISHED_LOGS.get(config.format)


def sample_published(
    config: LogConfig, log: PublishedLog, folder: Path, read_bytes: int, num_inputs: int
) -> PublishedSample:
    """Write synthetic text of about `read_bytes` bytes in as many files as the log has, and name these.

    Parameters
    ----------
    num_inputs
        Inputs of the whole log.
    """
    fewest = min(2, log.num_files)  # one of several is held out
    number = max(fewest, min(log.num_files, -(-num_inputs * log.num_files // log.num_inputs)))
    order = column_order(log)
    chunk_bytes = len(_chunk_text(SyntheticLog(_config(log, CHUNK_INPUTS)), 0, order))
    num_chunks = max(2, read_bytes // chunk_bytes)
    of_sample = max(fewest, min(number, num_chunks // 2))
    names = write_synthetic(_config(log, num_chunks * CHUNK_INPUTS), folder, of_sample, order)
    num_bytes = sum(name.stat().st_size for name in names)
    share = num_chunks * CHUNK_INPUTS / num_inputs
    is_packed = any(pattern.endswith((".gz", ".zst")) for pattern in _patterns(config))
    of_file = int(num_bytes / share / number * (log.packed_share if is_packed else 1.0))
    suffix = Path(_patterns(config)[0]).suffix if is_packed else ""
    sample = dataclasses.replace(config, train=tuple(map(str, names)), validation=(), test=(), min_frequency=1)
    role: Role = "train"
    return PublishedSample(
        raw=RawSample(
            config=sample, share=share, num_bytes=num_bytes, num_files=of_sample, is_spread=False, reaches_end=True,
            pieces=(), folder=folder,
        ),
        sources=tuple(
            SourceFile(path=Path(f"day_{day}{suffix}"), real=f"day_{day}", role=role, num_bytes=of_file, mtime_ns=-1)
            for day in range(number)
        ),
    )  # fmt: skip


def published_splits(config: LogConfig, num_inputs: int, num_files: int) -> dict[str, int] | None:
    """Inputs of each split where the last file is halved for validation and test; None where shares of all count."""
    known = KNOWN_LOGS[config.format]
    if known.split != "last file" or config.test_fraction is not None or num_files < 2:
        return None
    held_out = num_inputs // num_files
    return {"train": num_inputs - held_out, "validation": held_out // 2, "test": held_out - held_out // 2}


def published_rows(
    log: PublishedLog, sample: ColumnarLog, num_inputs: int, minimums: Sequence[int]
) -> list[RangedCount]:
    """Rows of each table of `num_inputs` inputs: published for the whole log, a power of their number between.

    Parameters
    ----------
    sample
        Synthetic text as ingest wrote it.
    minimums
        Inputs that a value needs for a row of its own, of each table.
    """
    found = []
    for table, (feature, minimum) in enumerate(zip(sample.features, minimums, strict=True)):
        seen, whole = feature.num_embeddings, log.rows(table, minimum)
        growth = ValueGrowth(points=((sample.num_inputs, min(seen, whole)), (log.num_inputs, whole)))
        value = max(seen, round(growth.at(num_inputs)))
        found.append(RangedCount(value=value, low=seen, high=max(value, round(whole))))
    return found


def column_order(log: PublishedLog) -> list[int]:
    """For each column of the log the synthetic column in its place: the one of the same rank by number of values.

    >>> column_order(PUBLISHED_LOGS["criteo_kaggle"]) == list(range(26))
    True
    """
    sizes = [column.num_embeddings for column in TABLE_SHAPES[log.shape].columns]
    by_size = sorted(range(len(sizes)), key=lambda column: sizes[column])
    wanted = sorted(range(len(sizes)), key=lambda column: log.values[column])
    order = [0] * len(sizes)
    for ours, theirs in zip(by_size, wanted, strict=True):
        order[theirs] = ours
    return order


def write_synthetic(config: SyntheticConfig, folder: Path, num_files: int, order: Sequence[int]) -> list[Path]:
    """Write a log of Criteo's format, cut into whole chunks of 16,384 inputs, as files ``day_0``, ``day_1`` ...

    Parameters
    ----------
    order
        The synthetic column in the place of each column.
    """
    log = SyntheticLog(config)
    num_chunks = -(-config.num_inputs // CHUNK_INPUTS)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for day in range(num_files):
        paths.append(folder / f"day_{day}")
        first, last = num_chunks * day // num_files, num_chunks * (day + 1) // num_files
        with paths[-1].open("wb") as file:
            for start in range(first, last, num_threads()):
                texts: dict[int, bytes] = {}
                indices = range(start, min(start + num_threads(), last))
                run_jobs([partial(_write_chunk, log, index, order, texts) for index in indices])
                for index in indices:
                    file.write(texts[index])
    return paths


def _write_chunk(log: SyntheticLog, index: int, order: Sequence[int], texts: dict[int, bytes]) -> None:
    texts[index] = _chunk_text(log, index, order)


def _chunk_text(log: SyntheticLog, index: int, order: Sequence[int]) -> bytes:
    chunk = log.chunk(index)
    return encode_lines(chunk.labels, chunk.counts, chunk.ids[:, order], [log.columns[column] for column in order])


def _config(log: PublishedLog, num_inputs: int) -> SyntheticConfig:
    return SyntheticConfig(shape=log.shape, num_inputs=num_inputs, scale=1.0, drift=0.0)


def _patterns(config: LogConfig) -> tuple[str, ...]:
    return (config.train,) if isinstance(config.train, str) else tuple(config.train)
