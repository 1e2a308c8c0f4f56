"""Turn chunks of a log into numbers: labels, dense features and provisional ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.core.threads import run_jobs
from fae.ingest.column_config import columns_of_tables, tables_of
from fae.ingest.config import LogConfig
from fae.ingest.continued_ids import KnownIds
from fae.ingest.dense.dense_rules import DenseRule, dense_rules
from fae.ingest.dense_values import to_dense, to_labels, to_weights
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.notes.dense_facts import pack_missing
from fae.ingest.provisional_ids import ColumnEncoder, encode_together, find_owner
from fae.ingest.readers.chunk import Chunk, CriteoChunk
from fae.ingest.scratch import Scratch


def make_encoders(config: LogConfig, scratch: Scratch, known: Sequence[KnownIds | None]) -> list[ColumnEncoder]:
    """One encoder for each categorical column, in the order of the slots; `known` has one for each table."""
    encoders: list[ColumnEncoder] = []
    hexadecimal = config.format in CRITEO_FORMATS
    columns = config.categorical_columns()
    for column, table in zip(columns, tables_of(columns), strict=True):
        first_slot = encoders[-1].slots.stop if encoders else 0
        encoders.append(
            ColumnEncoder(
                column, first_slot, scratch, hexadecimal=hexadecimal, known=known[table], missing=config.missing,
                owner=find_owner(encoders, column),
            )
        )  # fmt: skip
    return encoders


class EncodedRows(NamedTuple):
    """The inputs of one chunk as numbers.

    Attributes
    ----------
    ids
        int32 ``[n, S]``, as the encoders number them.
    dense
        float32 ``[n, K]``, transformed.
    labels
        uint8 ``[n]``; None where the chunk has no labels.
    missing
        uint8 ``[n, ceil(K / 8)]``: bits of missing dense values (`fae.ingest.notes.dense_facts`).
    vanished, largest
        int64 and float64 ``[K]``: negative values that became 0, and the largest absolute value that is in `dense`.
    raw
        float64 ``[n, U]``: the numbers of the columns whose constants are not known, NaN where one is missing; they are
        0 in `dense`.
    weights
        float32 ``[n]``; None where the chunk has none.
    """

    ids: npt.NDArray[np.int32]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8] | None
    missing: npt.NDArray[np.uint8]
    vanished: npt.NDArray[np.int64]
    largest: npt.NDArray[np.float64]
    raw: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float32] | None = None


def encode_rows(
    config: LogConfig,
    chunk: Chunk | CriteoChunk,
    encoders: Sequence[ColumnEncoder],
    rules: Sequence[DenseRule] | None = None,
) -> EncodedRows:
    """Turn a chunk into numbers, on all threads.

    Parameters
    ----------
    rules
        What is done to dense columns; left out, what `config` says.

    Raises
    ------
    LogError
        If a value is not what its column holds; it names the first.
    """
    rules = dense_rules(config) if rules is None else rules
    if isinstance(chunk, Chunk):
        return _encode_chunk(config, chunk, encoders, rules)
    return _encode_parsed(chunk, encoders, rules)


def _encode_parsed(chunk: CriteoChunk, encoders: Sequence[ColumnEncoder], rules: Sequence[DenseRule]) -> EncodedRows:
    id_rows = np.empty((chunk.num_inputs, len(encoders)), np.int32)

    def id_job(index: int) -> Callable[[], None]:
        return lambda: encoders[index].encode_keys(chunk.keys[index], id_rows)

    run_jobs([*map(id_job, range(len(encoders)))])
    # Negative counts of Criteo's format are few, and a logarithm is never large.
    vanished, largest = np.zeros(chunk.dense.shape[1], np.int64), np.zeros(chunk.dense.shape[1])
    dense, raw = chunk.dense, np.empty((chunk.num_inputs, 0))
    if not chunk.is_transformed:
        dense, raw = _transformed(chunk, rules)
        largest = np.maximum(dense.max(axis=0, initial=0.0), -dense.min(axis=0, initial=0.0)).astype(float)
    return EncodedRows(id_rows, dense, chunk.labels, chunk.missing, vanished, largest, raw)


def _transformed(
    chunk: CriteoChunk, rules: Sequence[DenseRule]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Counts that the parser has not transformed, and those of columns whose constants are not known."""
    missing = np.unpackbits(chunk.missing, axis=1, count=len(rules), bitorder="little").astype(np.bool_)
    numbers = chunk.dense.astype(np.float64)
    known = [rule.is_known for rule in rules]
    dense = np.zeros_like(chunk.dense)
    for index, rule in enumerate(rules):
        if known[index]:
            dense[:, index] = np.where(missing[:, index], 0.0, rule.apply(numbers[:, index]))
    return dense, np.where(missing, np.nan, numbers)[:, [not each for each in known]]


def _encode_chunk(
    config: LogConfig, chunk: Chunk, encoders: Sequence[ColumnEncoder], rules: Sequence[DenseRule]
) -> EncodedRows:
    names = config.dense_columns()
    places = {index: place for place, index in enumerate(i for i, rule in enumerate(rules) if not rule.is_known)}
    raw = np.empty((chunk.num_inputs, len(places)), np.float64)
    id_rows = np.empty((chunk.num_inputs, encoders[-1].slots.stop), np.int32)
    dense_rows = np.empty((chunk.num_inputs, len(names)), np.float32)
    label_rows = None if chunk.label is None else np.empty(chunk.num_inputs, np.uint8)
    missing = np.empty((chunk.num_inputs, len(names)), np.bool_)
    vanished, largest = np.empty(len(names), np.int64), np.empty(len(names), np.float64)

    def label_job() -> None:
        if label_rows is not None:
            label_rows[:] = to_labels(chunk.label, config.label_column(), chunk.locate, config)

    weight_rows = None if chunk.weight is None else np.empty(chunk.num_inputs, np.float32)

    def weight_job() -> None:
        if weight_rows is not None:
            weight_rows[:] = to_weights(chunk.weight, config.weight or "", chunk.locate, config)

    def dense_job(index: int) -> Callable[[], None]:
        def job() -> None:
            rule = rules[index]
            column = to_dense(
                chunk.dense[index], rule if rule.has_constants else rule.transform, names[index], chunk.locate,
                missing=config.missing, decimal=config.decimal,
            )  # fmt: skip
            dense_rows[:, index] = column.values
            missing[:, index] = False if column.missing is None else column.missing
            vanished[index], largest[index] = column.vanished, column.largest
            if index in places:
                raw[:, places[index]] = column.numbers
                raw[missing[:, index], places[index]] = np.nan

        return job

    def id_job(members: list[int]) -> Callable[[], None]:
        arrays = [chunk.categorical[index] for index in members]
        return lambda: encode_together([encoders[index] for index in members], arrays, id_rows, chunk.locate)

    tables = columns_of_tables([encoder.config for encoder in encoders])
    run_jobs([label_job, weight_job, *map(dense_job, range(len(names))), *map(id_job, tables)])
    return EncodedRows(id_rows, dense_rows, label_rows, pack_missing(missing), vanished, largest, raw, weight_rows)
