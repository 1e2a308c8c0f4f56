"""Every embedding table of a run: rows, hot rows, bytes on either side, skew.

Place in the flow: as `fae.report.side_by_side`. Invariant: as there, a cell that the record does not fill says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from fae.report.amounts import row_bytes_of
from fae.report.charts import skew_points
from fae.report.markup import NOT_RECORDED, show_bytes, show_count, show_share, table
from fae.report.records import Run, as_number


def per_table(run: Run) -> str:
    """Every embedding table: its rows, what is hot of it, its bytes on either side, its skew."""
    tables = run.items("hot", "tables")
    if not tables:
        return f"<p>{NOT_RECORDED}</p>"
    widths = row_bytes_of(run)
    facts = {str(one.get("name")): one for one in run.items("tables")}
    rows = []
    for one in sorted(tables, key=lambda one: -(as_number(one.get("num_embeddings")) or 0)):
        name = str(one.get("name"))
        size, num_hot = as_number(one.get("num_embeddings")), as_number(one.get("num_hot"))
        served, width = as_number(one.get("coverage")), widths.get(name)
        share = num_hot / size if num_hot is not None and size else None
        cold = (size - num_hot) * width if size is not None and num_hot is not None and width else None
        cells = [
            show_count(size), show_count(as_number(one.get("embedding_dim"))), show_count(num_hot), show_share(share),
            show_share(served) + _share_bar(served), show_bytes(as_number(one.get("bytes"))), show_bytes(cold),
            show_count(as_number(facts.get(name, {}).get("accesses"))), _one_per_cent(facts.get(name, {})),
        ]  # fmt: skip
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        )
    head = ["table", "rows", "width", "hot rows", "of its rows", "coverage", "hot bytes", "cold bytes", "accesses",
            "hottest 1 % take"]  # fmt: skip
    return table(head, rows)


def _share_bar(value: float | None) -> str:
    if value is None:
        return ""
    return f'<span class="share"><i class="fill s1" style="width:{100 * min(1.0, max(0.0, value)):.1f}%"></i></span>'


def _one_per_cent(facts: Mapping[str, Any]) -> str:
    """Accesses of the hottest hundredth of the rows, read off the recorded curve between its points."""
    size, points = as_number(facts.get("num_embeddings")), skew_points(facts)
    if not points:
        return NOT_RECORDED if not facts or facts.get("rows") is None else "no access"
    if not size or size < 100:
        return "&ndash;"
    before = max((point for point in points if point[0] <= 0.01), default=points[0])
    after = min((point for point in points if point[0] >= 0.01), default=points[-1])
    if after[0] <= before[0]:
        return f"{100 * before[1]:.1f} %"
    between = math.log(0.01 / before[0]) / math.log(after[0] / before[0])
    return f"{100 * (before[1] + between * (after[1] - before[1])):.1f} %"
