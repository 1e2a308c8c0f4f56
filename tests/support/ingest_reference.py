"""Ids, counts and splits of a log in plain dicts: what ingest must give, written from the documentation."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fae.artifacts.columnar_log import ColumnarLog
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig


def reference(
    config: LogConfig, rows: list[dict[str, Any]], num_train_rows: int, parent: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Expected ids, counts and splits as nested lists; `parent` is the reference of the log to continue."""
    n = len(rows)
    test_start = num_train_rows if config.test else n - math.floor(n * config.effective_test_fraction() + 0.5)
    train_stop = test_start - math.floor(test_start * config.effective_validation_fraction() + 0.5)
    tables = []
    owners = [column for column in config.categorical_columns() if column.table is None]
    for position, column in enumerate(owners):
        members = [column, *(each for each in config.categorical_columns() if each.table == column.name)]
        # For each input, what each column of the table holds.
        inputs = [[_bag(each, row[each.name]) for each in members] for row in rows]
        seen = Counter(item for bags in inputs[:train_stop] for bag in bags for item in bag)
        minimum = column.min_frequency or config.min_frequency
        known: list[str | None] = parent["tables"][position]["values"] if parent else []
        own = {item for item in known if item is not None}
        rare = sum(count for item, count in seen.items() if item not in own and (item is None or count < minimum))
        kept = {item: n for item, n in seen.items() if item is not None and (item in own or n >= minimum)}
        if column.encoded:
            unknown = max(max((int(item) for item in seen if item is not None), default=-1) + 1, len(known) - 1)
            ids = {item: int(item) for item in own | kept.keys()}
            counts = [kept.get(str(i), 0) for i in range(unknown)] + [rare]
            values: list[str | None] = [*(str(i) if str(i) in ids else None for i in range(unknown)), None]
        else:
            order = sorted(kept.keys() - own, key=list(kept).index)
            order.sort(key=lambda item: -kept[item])  # stable: equals in order of first appearance
            unknown = known.index(None) if parent else sum(kept[item] >= rare for item in order)
            values = [*known, *order] if parent else [*order[:unknown], None, *order[unknown:]]
            ids = {item: i for i, item in enumerate(values) if item is not None}
            counts = [rare if item is None else kept.get(item, 0) for item in values]
        padded = [
            [
                identity
                for each, bag in zip(members, bags, strict=True)
                for identity in [ids.get(item, unknown) for item in bag] + [-1] * (each.max_length - len(bag))
            ]
            for bags in inputs
        ]
        tables.append({"ids": padded, "counts": counts, "values": values, "unknown": unknown})
    splits = {"train": [0, train_stop], "validation": [train_stop, test_start], "test": [test_start, n]}
    return {"tables": tables, "splits": splits}


def _bag(column: ColumnConfig, value: Any) -> list[str | None]:
    if column.max_length > 1:
        return [str(item) for item in value if item != ""][-column.max_length :]
    return [None if column.encoded and value is None else str(value)]


def check_ids(log: ColumnarLog, expected: dict[str, Any]) -> None:
    """Compare ids, counts, schemas and vocabularies with the reference's."""
    slots = np.concatenate([np.array(table["ids"]) for table in expected["tables"]], axis=1)
    np.testing.assert_array_equal(log.ids, slots)
    assert log.counts.tolist() == [count for table in expected["tables"] for count in table["counts"]]
    for index, (feature, table) in enumerate(zip(log.features, expected["tables"], strict=True)):
        assert feature.num_embeddings == len(table["counts"])
        assert feature.unknown_id == table["unknown"]
        vocabulary = pq.read_table(log.path / "vocabulary" / f"{index}.parquet").to_pydict()
        assert vocabulary == {"value": table["values"], "count": table["counts"]}
