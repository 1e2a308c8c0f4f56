"""Draw some raw inputs of the test split: from the raw files where they still are, else from ids and vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fae.artifacts.columnar_log import ColumnarLog, feature_tables, first_slots, model_features
from fae.core.compiled import Int64
from fae.core.errors import LogError
from fae.core.progress import task
from fae.core.whole_files import read_json
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.raw_files.digest_kinds import KINDS, content_in, digest_in
from fae.ingest.raw_files.remote_files import source_path
from fae.ingest.raw_files.source_digests import sidecar
from fae.ingest.readers.chunk import Chunk, CriteoChunk
from fae.ingest.readers.dispatch import read_chunks

GOLDEN_INPUTS = 100
_MOST_RAW_BYTES = 2**30
"""Raw files of more bytes than this are not read for a few inputs."""
_DATE = "140101"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenInputs:
    """Inputs of a finished run.

    Attributes
    ----------
    columns
        Arrow table of the raw columns, n rows.
    positions
        int64 ``[n]``: where they are in the columnar log.
    origin
        ``"raw files"`` or ``"vocabulary"``.
    """

    columns: Any
    positions: Int64
    origin: str


def draw_golden(
    log: ColumnarLog, config: LogConfig, dense: Sequence[Mapping[str, Any]], *, raw: bool = True
) -> GoldenInputs:
    """`GOLDEN_INPUTS` inputs, evenly spaced over the test split (over all inputs, where that is empty).

    Parameters
    ----------
    dense
        The dense features, as in schema.json.
    raw
        Whether raw files are looked at.
    """
    start, stop = log.split("test")
    if start == stop:
        start, stop = 0, log.num_inputs
    count = min(GOLDEN_INPUTS, stop - start)
    positions = start + (np.arange(count, dtype=np.int64) * (stop - start)) // max(count, 1)
    columns = _from_files(log, config, positions) if raw else None
    if columns is not None:
        return GoldenInputs(columns=columns, positions=positions, origin="raw files")
    columns = _from_ids(log, config, dense, positions)
    return GoldenInputs(columns=columns, positions=positions, origin="vocabulary")


def confirmed_golden(golden: GoldenInputs, served: ExportedModel, log: ColumnarLog) -> GoldenInputs:
    """Those inputs that become the log's ids again: a value may have no text that leads to its id."""
    ids, dense = served.encode({name: golden.columns.column(name) for name in golden.columns.column_names})
    same = (ids.numpy() == log.ids[golden.positions]).all(1)
    same &= np.isclose(dense.numpy(), log.dense[golden.positions], rtol=1e-6, atol=1e-6).all(1)
    return GoldenInputs(
        columns=golden.columns.filter(pa.array(same)), positions=golden.positions[same], origin=golden.origin
    )


def _from_files(log: ColumnarLog, config: LogConfig, positions: Int64) -> Any | None:
    """The raw columns, or None where the files are not there, are too large, or are in another order than the log."""
    made_with = log.manifest.parameters
    paths = _raw_files(log)
    if paths is None or made_with.get("time") or made_with.get("split", "order") != "order":
        return None
    if config.format == "taobao" or sum(path.stat().st_size for path in paths) > _MOST_RAW_BYTES:
        return None
    parts, first = [], 0
    try:
        with task("export: drawing inputs", sum(path.stat().st_size for path in paths), "bytes") as progress:
            for path in paths:
                with closing(read_chunks(config, path, labelled=False)) as chunks:
                    for chunk in chunks:
                        here = positions[(positions >= first) & (positions < first + chunk.num_inputs)] - first
                        if len(here):
                            parts.append(_raw_columns(config, chunk, here))
                        first += chunk.num_inputs
                        progress.advance(chunk.raw_bytes)
                        if first > positions[-1]:
                            return pa.concat_tables(parts, promote_options="permissive")
    except (LogError, pa.ArrowException):
        return None
    return None


def _raw_files(log: ColumnarLog) -> list[Path] | None:
    """The log's raw files in order, if each is where it was and has its size."""
    try:
        known = {
            digest_in(facts, kind): source_path(name)
            for name, facts in read_json(sidecar(log.path)).items()
            for kind in KINDS
            if digest_in(facts, kind)
        }
        found = [(known[content_in(each)[1]], each["bytes"]) for each in log.manifest.parameters["sources"]]
        return [path for path, size in found] if all(path.stat().st_size == size for path, size in found) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LogError):
        return None


def _raw_columns(config: LogConfig, chunk: Chunk | CriteoChunk, rows: Int64) -> Any:
    taken = pa.array(rows)
    names = [column.source for column in config.categorical_columns()]
    if isinstance(chunk, CriteoChunk):
        missing = np.unpackbits(chunk.missing[rows], axis=1, bitorder="little")
        counts = chunk.dense[rows].astype(np.float64)
        numbers = np.rint(np.expm1(counts)) if chunk.is_transformed else counts
        found = {
            name: pa.array(numbers[:, index], mask=missing[:, index] == 1)
            for index, name in enumerate(config.dense_columns())
        }
        keys = chunk.keys[:, rows].tolist()
        return pa.table({**found, **{n: pa.array([_hex(k) for k in own]) for n, own in zip(names, keys, strict=True)}})
    found = dict(zip(config.dense_columns(), chunk.dense, strict=True))
    found |= dict(zip(names, chunk.categorical, strict=True))
    if config.format == "avazu":
        found["hour"] = pc.binary_join_element_wise(chunk.days, chunk.categorical[0], "")
    return pa.table({name: _plain(array.take(taken)) for name, array in found.items()})


def _plain(array: Any) -> Any:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _hex(key: int) -> str:
    """The text of a key of `fae.ingest.hex_vocabulary`."""
    length, number = key >> 32, key & 0xFFFFFFFF
    return f"{number:0{length}x}" if length else ""


def _from_ids(log: ColumnarLog, config: LogConfig, dense: Sequence[Mapping[str, Any]], positions: Int64) -> Any:
    ids, numbers = log.ids[positions], log.dense[positions].astype(np.float64)
    columns, owners = model_features(log.features), feature_tables(log.features)
    slots, settings = first_slots(columns), config.categorical_columns()
    found: dict[str, Any] = {
        each["column"]: pa.array(inverse_transform(numbers[:, index], each)) for index, each in enumerate(dense)
    }
    times: dict[str, list[tuple[ColumnConfig, list[str]]]] = {}
    for index, (feature, table, setting) in enumerate(zip(columns, owners, settings, strict=True)):
        own = ids[:, slots[index] : slots[index + 1]]
        candidates = _unknown_texts(config, index, log.features[table].num_embeddings, encoded=feature.encoded)
        texts = _texts_of(log, table, own, candidates)
        if config.format == "avazu" and index == 0:
            texts = {identity: _DATE + text for identity, text in texts.items()}
        weight = f"{setting.weight_separator}1" if setting.weight_separator else ""
        lists = [[texts[each] + weight for each in row if each >= 0] for row in own.tolist()]
        # A plain column has one value in each input.
        values = lists if setting.max_length > 1 else [row[0] for row in lists]
        if setting.part is not None:
            times.setdefault(setting.source, []).append((setting, [row[0] for row in lists]))
        else:
            found[setting.name] = pa.array(values, pa.list_(pa.string()) if setting.max_length > 1 else pa.string())
    for name, parts in times.items():
        found.setdefault(name, times_with([part for part, _ in parts], [texts for _, texts in parts]))
    return pa.table(found)


def times_with(columns: Sequence[ColumnConfig], texts: Sequence[Sequence[str]]) -> Any:
    """Arrow string array ``[n]`` of times whose parts are these texts, where there are such; else empty.

    Parameters
    ----------
    columns, texts
        Parts of one column of times, and of each part the text of every input.
    """
    hours = range(24) if any(column.part == "hour" for column in columns) else (12,)
    known: dict[tuple[str, ...], str] = {}
    wanted = set(zip(*texts, strict=True))
    day = datetime(2000, 1, 1, tzinfo=UTC)
    while wanted - known.keys() and day.year < 2028:  # weekdays of dates repeat after 28 years
        moments = [day.replace(hour=hour) for hour in hours]
        for moment in moments:
            known.setdefault(tuple(_part_of(moment, column) for column in columns), moment.isoformat(" "))
        day += timedelta(days=1)
    return pa.array([known.get(each, "") for each in zip(*texts, strict=True)], pa.string())


def _part_of(moment: datetime, column: ColumnConfig) -> str:
    moment = moment.astimezone(ZoneInfo(column.zone)) if column.zone else moment
    return str(moment.weekday() if column.part == "weekday" else getattr(moment, str(column.part)))


def _unknown_texts(config: LogConfig, index: int, size: int, *, encoded: bool) -> list[str]:
    """Texts of which one is in no vocabulary."""
    if encoded:
        return [str(size)]
    part = config.categorical_columns()[index].part
    if part is not None:
        return [*map(str, range(32 if part == "day" else 24)), ""]
    if config.format in CRITEO_FORMATS:
        return [f"{number:08x}" for number in range(0xFFFFFFFF, 0xFFFFFFFF - 1000, -1)]
    if config.format == "avazu" and index == 0:
        return [f"{hour:02d}" for hour in range(24)]
    if config.categorical_columns()[index].source in config.dense_columns():
        return [str(number) for number in range(10**9, 10**9 + 1000)]
    return [f"(unknown {number})" for number in range(1000)]


def _texts_of(log: ColumnarLog, table: int, ids: npt.NDArray[np.int32], candidates: list[str]) -> dict[int, str]:
    """The text of each id in `ids`; of those that belong to no value, a candidate that the vocabulary does not have."""
    wanted = np.unique(ids[ids >= 0])
    found: dict[int, str] = {}
    taken: set[str] = set()
    for first, values in _vocabulary(log, table):
        here = wanted[(wanted >= first) & (wanted < first + len(values))]
        found |= zip(here.tolist(), values.take(pa.array(here - first)).to_pylist(), strict=True)
        taken.update(values.filter(pc.is_in(values, value_set=pa.array(candidates))).to_pylist())
    free = next((text for text in candidates if text not in taken), candidates[0])
    return {identity: free if text is None else text for identity, text in found.items()}


def _vocabulary(log: ColumnarLog, table: int) -> Iterator[tuple[int, Any]]:
    """First id and texts of each piece of a table's vocabulary, null where an id belongs to no value."""
    first = 0
    with pq.ParquetFile(log.path / "vocabulary" / f"{table}.parquet") as file:
        for batch in file.iter_batches(columns=["value"], batch_size=1 << 20):
            yield first, batch.column(0).cast(pa.string())
            first += batch.num_rows


def inverse_transform(values: npt.NDArray[np.float64], feature: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Numbers that the transform of a dense feature turns into `values`, up to rounding."""
    transform = feature["transform"]
    if transform == "log1p":
        return np.expm1(values)
    if transform == "signed_log1p":
        return np.asarray(np.copysign(np.expm1(np.abs(values)), values))
    return values * feature["deviation"] + feature["mean"] if transform == "standardize" else values
