"""The compiled loops of ingest with the types they are called with, to be compiled before they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fae.core.compiling.argument_types import array_type, flag, number
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.notes.split_lookups import count_lookups
from fae.ingest.numbering.final_ids import rank_common
from fae.ingest.numbering.renumbering import exchange_ids
from fae.ingest.shards.part_counts import add_counts
from fae.ingest.shards.reading_loops import reading_loops

_BYTES, _NUMBERS = array_type(np.uint8, 1), array_type(np.int64, 1)
_SMALL, _IDS = array_type(np.int32, 1), array_type(np.int32, 2)


def ingest_loops(log_format: str) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each loop with numba's types of its arguments, in the order of their first calls: for ``loop.compile(types)``.

    Loops of readers are left out, but for Criteo's format.

    Parameters
    ----------
    log_format
        As the recipe's ``[log] format``.
    """
    is_criteo = log_format in CRITEO_FORMATS
    yield from reading_loops(log_format)
    yield exchange_ids, (_IDS, _NUMBERS, _NUMBERS, array_type(np.bool_, 1), _SMALL)
    yield add_counts, (_SMALL, _SMALL, _NUMBERS)
    yield rank_common, (_NUMBERS, number, number, _NUMBERS, _SMALL)
    if is_criteo:
        from fae.ingest.hex_vocabulary import write_hex

        yield write_hex, (_NUMBERS, _SMALL, _BYTES)
    final = array_type(np.int32, 1, is_file=True)
    yield count_lookups, (_IDS, number, number, flag, number, final, number, _NUMBERS)
