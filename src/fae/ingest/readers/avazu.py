"""Read Avazu's CSV: the CSV reader, with its `hour` (YYMMDDHH) split into day and hour of the day.

The column `hour` becomes the hour of the day. The published split is by day, so an hour with its date would be unknown
in every test input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import Chunk
from fae.ingest.readers.csv import check_csv_header, read_csv
from fae.ingest.readers.span import WHOLE_FILE, Span, SpanEnds

_HOUR = "^[0-9]{6}([01][0-9]|2[0-3])$"
_DAY_DIGITS = 6


def read_avazu(
    config: LogConfig, path: Path, *, labelled: bool = True, span: Span = WHOLE_FILE, ends: SpanEnds | None = None
) -> Iterator[Chunk]:
    """Stream a file of Avazu's format. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    for chunk in read_csv(config, path, labelled=labelled, span=span, ends=ends):
        hours = chunk.categorical[0]
        bad = ~np.asarray(pc.match_substring_regex(hours, _HOUR))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise LogError(
                f"{chunk.locate(row)}: hour is {hours[row].as_py()!a}, expected eight digits YYMMDDHH; fix the line"
            )
        yield dataclasses.replace(
            chunk,
            categorical=(pc.utf8_slice_codeunits(hours, _DAY_DIGITS), *chunk.categorical[1:]),
            days=pc.utf8_slice_codeunits(hours, 0, _DAY_DIGITS),
        )


def check_avazu_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """Look at the header alone. Raises `LogError`; see `fae.ingest.readers.dispatch.check_header`."""
    check_csv_header(config, path, labelled=labelled)
