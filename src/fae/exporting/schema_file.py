"""Build schema.json: everything that somebody needs to score raw inputs without FAE, in data and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fae.artifacts.columnar_log import ColumnarLog, feature_tables, first_slots, model_features
from fae.exporting.served_model import model_inputs
from fae.exporting.standalone.scoring.exported_model import FORMAT_VERSION
from fae.ingest.config import LogConfig
from fae.ingest.dense.dense_rules import dense_rules
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.scored.scored_log import log_settings

_RULES = {
    "input": (
        "The columns of an input are named by `features` and `dense`; their order and other columns do not "
        "matter."
    ),
    "text": (
        "A categorical value is text, byte for byte: it is not trimmed, and case matters. A whole number is its "
        'decimal text, also where it is stored as a float or decimal (7.0 is "7"); other fractions are refused. '
        'true and false are "true" and "false"; a date is YYYY-MM-DD, a time has a fraction of a second no longer'
        " than needed, and ends in Z where it has a zone."
    ),
    "missing": (
        "A missing value, and every word of `input.missing`, is the empty text, a value like any other in a plain"
        " column: it has a row of its own where the vocabulary has it. In a list it is left out."
    ),
    "vocabulary": (
        "vocabulary/<table>.parquet maps a value's text to its id, which is the number of its row in the table."
    ),
    "unknown": (
        "A value that the vocabulary does not have gets the table's `unknown_id`, the row that training gave to "
        "rare and unknown values."
    ),
    "encoded": (
        "In a table with `encoded`, values are whole numbers; zeros in front do not count. One that the "
        "vocabulary does not have, or that is missing, gets `unknown_id`."
    ),
    "lists": (
        "A feature with `length` above 1 is a list. Text is split at `separator` (with `brackets`: it is printed "
        "as [1, 2] or ['a' 'b'], and brackets and quotes are taken off). Behind the last `weight_separator` of an"
        " item is a number, which is dropped. Then missing items and `padding` are left out, and the last "
        "`length` items are kept, oldest first, in the first slots; other slots are unused (id -1), and their "
        "rows are zeros."
    ),
    "pooling": (
        "sum adds the rows of the slots in use, in order; mean divides that by their number (at least 1); none "
        "keeps all slots as [length, embedding_dim], and the model also takes the number of slots in use."
    ),
    "forms": (
        "A feature with `text` = hex (Criteo's format) has values of up to 8 digits 0-9, a-f; \"7\" and \"07\" are "
        "two. With `text` = YYMMDDHH (Avazu's hour) the value is the last two of eight digits."
    ),
    "parts": (
        "A feature with `part` takes the hour (0 to 23), weekday (0 is Monday), day or month of the time in its "
        "column, in the time zone `zone` (null: UTC). A time is Unix time from 1973 on (the number of digits says"
        " whether in s, ms, us or ns), ISO 8601, YYYYMMDD, YYMMDDHH or YYYYMMDDHHMMSS; without a zone it is in "
        "UTC. A date alone is that day in every zone, and its hour is 0."
    ),
    "dense": (
        "A dense feature is a number in float64, raised to `low` and lowered to `high` where these are not null, "
        "then transformed (log1p: log(1 + max(x, 0)); signed_log1p: sign(x) log(1 + |x|); standardize: (x - mean)"
        " / deviation; none: x), then rounded to float32. A missing one becomes 0 behind the transform."
    ),
    "quantised": (
        "Rows are used as float32. A row of dtype int8 is its `weight` times its `scale`."
    ),
}  # fmt: skip


def exported_settings(log: ColumnarLog) -> LogConfig:
    """The ``[log]`` settings that raw inputs of a finished run are read by.

    Raises
    ------
    ArtifactError
        If the log has no vocabulary.
    """
    if log.manifest.parameters.get("format") == "taobao":
        return LogConfig(format="taobao", train="UserBehavior.csv")
    return log_settings(log, ["log"], labelled=False)


def build_schema(
    log: ColumnarLog, config: LogConfig, model: Mapping[str, Any], dims: Sequence[int], stems: Sequence[str]
) -> dict[str, Any]:
    """The content of schema.json, but for where the rows are (`tables[].rows`, `tables[].dtype`) and `golden`.

    Parameters
    ----------
    model
        Parameters of the recipe's ``[model]``.
    dims, stems
        Width and file name of each table.
    """
    columns, owners = model_features(log.features), feature_tables(log.features)
    slots, settings = first_slots(columns), config.categorical_columns()
    column_dims = [dims[table] for table in owners]
    features = [
        {
            "name": feature.name, "column": setting.source, "part": setting.part, "zone": setting.zone,
            "text": _text_form(config, index), "table": log.features[table].name, "length": feature.length,
            "keeps": "last", "pooling": feature.pooling, "first_slot": first, "separator": setting.separator,
            "brackets": setting.brackets, "padding": setting.padding, "weight_separator": setting.weight_separator,
        }
        for index, (feature, table, first, setting) in enumerate(
            zip(columns, owners, slots[:-1], settings, strict=True)
        )
    ]  # fmt: skip
    tables = [
        {
            "name": feature.name, "num_rows": feature.num_embeddings, "embedding_dim": dim,
            "unknown_id": feature.unknown_id, "encoded": feature.encoded, "vocabulary": f"vocabulary/{stem}.parquet",
        }
        for feature, dim, stem in zip(log.features, dims, stems, strict=True)
    ]  # fmt: skip
    return {
        "kind": "fae_export_schema",
        "format_version": FORMAT_VERSION,
        "input": _input_facts(config),
        "features": features,
        "tables": tables,
        "dense": dense_features(log, config),
        "model": {
            "file": "model.pt2", "name": model.get("name", "dlrm"), "settings": dict(model),
            "inputs": model_inputs(columns, column_dims, len(log.dense_names)),
            "output": {
                "name": "score", "shape": ["batch"], "dtype": "float64",
                "meaning": f"probability that {config.label_column()!r} is 1",
            },
        },
        "rules": _RULES,
    }  # fmt: skip


def _input_facts(config: LogConfig) -> dict[str, Any]:
    """How files of the run's own format are written."""
    columns, separator, quote = list(config.columns), config.separator, config.quote
    if config.format in CRITEO_FORMATS:
        columns = [config.label_column(), *config.dense_columns(), *(c.name for c in config.categorical_columns())]
        separator, quote = "\t", ""
    return {
        "format": config.format, "columns": columns, "label": config.label_column(), "separator": separator,
        "quote": quote, "escape": config.escape, "decimal": config.decimal, "missing": list(config.missing),
    }  # fmt: skip


def dense_features(log: ColumnarLog, config: LogConfig) -> list[dict[str, Any]]:
    """Name, column, transform and constants of each dense feature."""
    rules = dense_rules(config, log.manifest.summary.get("dense_constants"))
    return [{"name": rule.name, "column": rule.name, **rule.to_summary()} for rule in rules]


def _text_form(config: LogConfig, index: int) -> str | None:
    """The form that a format gives to the text of a column; None where any text is a value."""
    if config.format == "avazu" and index == 0:
        return "YYMMDDHH"
    return "hex" if config.format in CRITEO_FORMATS else None
