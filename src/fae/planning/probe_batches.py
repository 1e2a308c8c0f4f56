"""Small sets of batches, in memory, that look up as many different and cold rows as a recipe's own: for probes.

Every table is drawn from a Zipf law. One exponent a width of rows is chosen so that a batch has as many different rows
as the recipe's; the most popular rows are hot, as many as leave it the recipe's number of cold rows. Tables are cut
where all rows together would take more memory than a probe may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import SegmentArrays
from fae.artifacts.columnar_log import FeatureSchema, first_slots, model_features
from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.artifacts.stored.order_planes import OrderArrays
from fae.core.optimizers import row_bytes
from fae.core.own_pages import in_own_pages
from fae.core.seeds import generator
from fae.pack.in_memory import compose_batch_set
from fae.planning.step_work import StepSettings, StepWork

_BINS = 64
_STEPS = 40
_LEAST_EXPONENT, _MOST_EXPONENT = 0.02, 4.0


@dataclass(frozen=True, kw_only=True)
class ProbeHotSet:
    """The facts of a hot set that placements read."""

    layout: RowLayout
    batch_size: int
    ring_depth: int
    staging_rows: tuple[int, ...]
    mixed: bool
    optimizer: str


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Rows of a table after cutting, and its lookups in a batch."""

    feature: FeatureSchema
    dim: int
    lookups: float


def probe_batches(work: StepWork, num_batches: int, most_bytes: int) -> tuple[BatchSet, ProbeHotSet]:
    """Make batches like those of `work`.

    Parameters
    ----------
    most_bytes
        Bytes of all rows with their state, at most.
    """
    settings = work.settings
    features = cut_tables(settings, most_bytes)
    exponents, num_hot = [0.0] * len(features), [0] * len(features)
    slots_in_use = {}
    for width in work.widths:
        own = [table for table, dim in enumerate(settings.embedding_dims) if dim == width.embedding_dim]
        lists = settings.batch_size * sum(features[table].length for table in own if features[table].length > 1)
        plain = settings.batch_size * sum(features[table].length == 1 for table in own)
        in_use = min(1.0, max(0.0, (width.lookups - plain) / lists)) if lists else 1.0
        tables = []
        for table in own:
            used = settings.batch_size * features[table].length * (in_use if features[table].length > 1 else 1.0)
            slots_in_use[table] = in_use
            tables.append(_Table(feature=features[table], dim=width.embedding_dim, lookups=used))
        exponent = _exponent(tables, width.unique_rows)
        for table, hot in zip(own, _hot_rows(tables, exponent, width.unique_cold_rows), strict=True):
            exponents[table], num_hot[table] = exponent, hot
    layout = RowLayout(features, settings.embedding_dims, num_hot)
    ids = _draw(features, exponents, slots_in_use, num_batches * settings.batch_size)
    random = generator(1, "plan", "probe", "values")
    dense = random.random((len(ids), settings.num_dense), np.float32)
    labels = random.random(len(ids)) < 0.25
    groups = np.split(np.arange(len(ids), dtype=np.int64), num_batches)
    batches = _in_own_pages(compose_batch_set(ids, dense, labels, groups, layout, settings.batch_size))
    # An empty slot still has a row.
    rows = tuple(max(1, most) for most in batches.most_cold_rows)
    hot_set = ProbeHotSet(
        layout=layout, batch_size=settings.batch_size, ring_depth=work.ring_depth, staging_rows=rows,
        mixed=True, optimizer=settings.optimizer,
    )  # fmt: skip
    return batches, hot_set


def _in_own_pages(batches: BatchSet) -> BatchSet:
    """The same batches on pages of their own, so that a GPU copies from them as from the files of a run."""

    def moved(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return in_own_pages(value)
        if isinstance(value, tuple):
            return tuple(map(moved, value))
        if isinstance(value, SegmentArrays | OrderArrays):
            return replace(value, **{field.name: moved(getattr(value, field.name)) for field in fields(value)})
        return value

    arrays = batches.arrays
    return BatchSet(
        replace(arrays, **{field.name: moved(getattr(arrays, field.name)) for field in fields(arrays)}),
        batches.num_hot_batches,
    )


def cut_tables(settings: StepSettings, most_bytes: int) -> list[FeatureSchema]:
    """The tables with no more rows than fit `most_bytes` together; the largest are cut, to one number of rows."""
    sizes = np.array([feature.num_embeddings for feature in settings.features], np.int64)
    weights = np.array([row_bytes(settings.optimizer, dim) for dim in settings.embedding_dims], np.int64)
    low, high = 1, int(sizes.max())
    while low < high:
        limit = (low + high + 1) // 2
        if int((np.minimum(sizes, limit) * weights).sum()) <= most_bytes:
            low = limit
        else:
            high = limit - 1
    return [
        replace(feature, num_embeddings=min(feature.num_embeddings, low), unknown_id=-1)
        for feature in settings.features
    ]


def _popularity(size: int, exponent: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows of a table in bins by popularity: edges, float64 ``[bins + 1]`` from 0 to `size`, and each row's share."""
    edges = np.unique(np.concatenate([[0.0], np.round(np.geomspace(1, size, _BINS))]))
    power = 1.0 - exponent if abs(1.0 - exponent) > 1e-3 else 1e-3
    total = (size + 1.0) ** power - 1.0
    mass = np.diff((edges + 1.0) ** power - 1.0) / total
    return edges, mass / np.diff(edges)


def _different(tables: Sequence[_Table], exponent: float, first: Sequence[float]) -> float:
    """Expected number of different rows of a batch, from row `first` of each table on."""
    total = 0.0
    for table, start in zip(tables, first, strict=True):
        edges, share = _popularity(table.feature.num_embeddings, exponent)
        rows = np.clip(edges[1:], start, None) - np.clip(edges[:-1], start, None)
        total += float((rows * -np.expm1(-table.lookups * share)).sum())
    return total


def _bisect(low: float, high: float, is_too_low: Callable[[float], bool]) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_too_low(middle) else (low, middle)
    return (low + high) / 2


def _exponent(tables: Sequence[_Table], unique_rows: float) -> float:
    """The exponent with which a batch has that many different rows."""
    none = [0.0] * len(tables)
    return _bisect(_LEAST_EXPONENT, _MOST_EXPONENT, lambda a: _different(tables, a, none) > unique_rows)


def _hot_rows(tables: Sequence[_Table], exponent: float, unique_cold_rows: float) -> list[int]:
    """Hot rows of each table, the most popular ones of all, so that a batch has that many different cold rows."""

    def rows_above(log_share: float) -> list[float]:
        first = []
        for table in tables:
            edges, share = _popularity(table.feature.num_embeddings, exponent)
            # Lookups of a row in a batch fall with its place; between the bins' edges they are interpolated.
            expected = np.log(np.maximum(share * table.lookups, 1e-300))
            first.append(float(np.interp(-log_share, -expected, edges[1:], left=0.0, right=edges[-1])))
        return first

    if unique_cold_rows < 0.5:
        return [table.feature.num_embeddings for table in tables]
    limit = _bisect(-60.0, 30.0, lambda x: _different(tables, exponent, rows_above(x)) < unique_cold_rows)
    return [
        min(table.feature.num_embeddings, round(rows)) for table, rows in zip(tables, rows_above(limit), strict=True)
    ]


def _draw(
    features: Sequence[FeatureSchema], exponents: Sequence[float], in_use: dict[int, float], count: int
) -> npt.NDArray[np.int32]:
    """int32 ``[count, S]``: ids, most popular 0; lists are filled from their first slot on, to a random length."""
    slots = first_slots(features)
    ids = np.empty((count, slots[-1]), np.int32)
    for table, (feature, exponent) in enumerate(zip(features, exponents, strict=True)):
        random = generator(1, "plan", "probe", table)
        power = 1.0 - exponent if abs(1.0 - exponent) > 1e-3 else 1e-3
        size = feature.num_embeddings
        for slot in range(slots[table], slots[table + 1]):
            values = ((size + 1.0) ** power - 1.0) * random.random(count) + 1.0
            ids[:, slot] = np.minimum(values ** (1.0 / power) - 1.0, size - 1).astype(np.int32)
        first = slots[table]
        for part in model_features([feature]):
            if part.length > 1 and in_use[table] < 1.0:
                # Lengths from 1 on, with the mean of the recipe's.
                mean = max(1.0, in_use[table] * part.length)
                lengths = 1 + random.binomial(part.length - 1, (mean - 1.0) / (part.length - 1), count)
                unused = np.arange(part.length) >= lengths[:, None]
                ids[:, first : first + part.length][unused] = -1
            first += part.length
    return ids
