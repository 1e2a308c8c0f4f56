"""Every embedding table of a run: rows, hot rows, bytes on either side, skew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fae.report.pictures.amounts import row_bytes_by_table
from fae.report.pictures.charts import skew_points
from fae.report.records import RunRecord, as_number
from fae.report.shown_values import DASH, Absent, Shown, show_bytes, show_count, show_share


@dataclass(frozen=True, kw_only=True)
class TableLine:
    """One embedding table as its line of the page shows it.

    Attributes
    ----------
    coverage_percent
        `coverage` as the width of a bar, in [0, 100]; None where it is not recorded.
    """

    name: str
    num_rows: Shown
    width: Shown
    num_hot: Shown
    hot_share: Shown
    coverage: Shown
    coverage_percent: float | None
    hot_bytes: Shown
    cold_bytes: Shown
    accesses: Shown
    hottest_percent: Shown


def column_names(feature: Mapping[str, Any]) -> list[str]:
    """Names of the columns that look up a table, from its entry in ``features``; one, unless columns share it."""
    parts = feature.get("parts")
    named = [str(part.get("name")) for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
    return named or [str(feature.get("name"))]


def table_lines(run: RunRecord) -> list[TableLine]:
    """A line for every embedding table, the largest first; none where the record has no tables."""
    tables = run.items("hot", "tables")
    row_bytes = row_bytes_by_table(run)
    facts = {str(one.get("name")): one for one in run.items("tables")}
    shown = {str(each.get("name")): ", ".join(column_names(each)) for each in run.items("log", "features")}
    lines = []
    for one in sorted(tables, key=lambda one: -(as_number(one.get("num_embeddings")) or 0)):
        name = str(one.get("name"))
        size, num_hot = as_number(one.get("num_embeddings")), as_number(one.get("num_hot"))
        coverage, width = as_number(one.get("coverage")), row_bytes.get(name)
        lines.append(
            TableLine(
                name=shown.get(name, name),
                num_rows=show_count(size),
                width=show_count(as_number(one.get("embedding_dim"))),
                num_hot=show_count(num_hot),
                hot_share=show_share(num_hot / size if num_hot is not None and size else None),
                coverage=show_share(coverage),
                coverage_percent=None if coverage is None else 100 * min(1.0, max(0.0, coverage)),
                hot_bytes=show_bytes(as_number(one.get("bytes"))),
                cold_bytes=show_bytes(
                    (size - num_hot) * width if size is not None and num_hot is not None and width else None
                ),
                accesses=show_count(as_number(facts.get(name, {}).get("accesses"))),
                hottest_percent=_hottest_percent(facts.get(name, {})),
            )
        )
    return lines


def _hottest_percent(facts: Mapping[str, Any]) -> Shown:
    """Share of the accesses that the hottest hundredth of the rows takes, interpolated on the recorded curve."""
    size, points = as_number(facts.get("num_embeddings")), skew_points(facts)
    if not points:
        return Absent.NOT_RECORDED if not facts or facts.get("rows") is None else "no access"
    if not size or size < 100:
        return DASH
    before = max((point for point in points if point[0] <= 0.01), default=points[0])
    after = min((point for point in points if point[0] >= 0.01), default=points[-1])
    if after[0] <= before[0]:
        return f"{100 * before[1]:.1f} %"
    between = math.log(0.01 / before[0]) / math.log(after[0] / before[0])
    return f"{100 * (before[1] + between * (after[1] - before[1])):.1f} %"
