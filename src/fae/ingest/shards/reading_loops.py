"""The compiled loops of reading a shard with the types they are called with: loaded once for many workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fae.core.compiling.argument_types import array_type, flag, number
from fae.core.compiling.hidden_packages import hidden
from fae.ingest.formats import CRITEO_FORMATS

_BYTES, _BITS = array_type(np.uint8, 1), array_type(np.uint8, 2)
_NUMBERS, _PAIRS = array_type(np.int64, 1), array_type(np.int64, 2)
_SMALL, _IDS = array_type(np.int32, 1), array_type(np.int32, 2)


def reading_loops(log_format: str) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each loop with numba's types of its arguments, in the order of their first calls: for ``loop.compile(types)``.

    Loops of readers are left out, but for Criteo's format.

    Parameters
    ----------
    log_format
        As the recipe's ``[log] format``.
    """
    from fae.ingest.numbering.final_ids import count_ids

    yield from _criteo_loops() if log_format in CRITEO_FORMATS else _text_loops()
    yield count_ids, (_IDS, number, number, _NUMBERS)
    if log_format == "parquet":
        from fae.ingest.coded_text import list_unknown

        yield list_unknown, (array_type(np.int32, 1, is_file=True), _SMALL, _SMALL)


def look_for_pandas(*, find: bool) -> None:
    """Let pyarrow look for pandas now, as it would with its first array; to import it takes a quarter of a second.

    Parameters
    ----------
    find
        Whether pyarrow is to find it. A conversion to pandas looks again.
    """
    import pyarrow as pa

    with contextlib.nullcontext() if find else hidden("pandas"):
        pa.infer_type([])


def load_reading_loops(log_format: str) -> None:
    """Load them, or compile those that are not kept on the disk; pyarrow is kept from importing pandas for no task."""
    look_for_pandas(find=False)
    for loop, types in reading_loops(log_format):
        if hasattr(loop, "compile"):  # not where NUMBA_DISABLE_JIT is set
            loop.compile(types)


def _criteo_loops() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    from fae.ingest.hex_vocabulary import encode_keys, enter_keys
    from fae.ingest.readers.criteo_parser import parse_lines

    yield parse_lines, (
        _BYTES, number, number, array_type(np.float32, 1), _BYTES, array_type(np.float32, 2), _PAIRS, _BITS, _PAIRS,
        _NUMBERS, flag,
    )  # fmt: skip
    yield enter_keys, (_NUMBERS, number, _NUMBERS, number)
    keys = array_type(np.int64, 1, is_file=True)
    yield encode_keys, (keys, _NUMBERS, _NUMBERS, number, number, _IDS, number, _NUMBERS, number)


def _text_loops() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    from fae.ingest.vocabulary import encode_values, rebuild_table

    text, offsets = array_type(np.uint8, 1, is_file=True), array_type(np.int32, 1, is_file=True)
    yield encode_values, (text, offsets, _BYTES, _NUMBERS, _NUMBERS, _NUMBERS, number, _SMALL, number)
    yield rebuild_table, (_NUMBERS, number, _NUMBERS)
