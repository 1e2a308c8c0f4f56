"""One line for each rank of a training: what it trained, received of the others, and waited for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fae.core.units import format_bytes, format_count
from fae.report.records import as_number
from fae.report.shown_values import seconds_text


def rank_lines(each_rank: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """``(rank, what it did)`` of ``train.each_rank`` in a run record; what is not there is left out.

    >>> rank_lines([{"rank": 1, "num_inputs": 4096, "received_bytes": 2**20, "received_bytes_per_input": 256.0}])
    [('rank 1', '4,096 inputs, received 1.0 MiB, 256 bytes an input')]
    """
    lines = []
    for place, each in enumerate(each_rank):
        rank, inputs, received, each_input, network, waited = (
            as_number(each.get(name))
            for name in (
                "rank", "num_inputs", "received_bytes", "received_bytes_per_input", "network_bytes", "waited_seconds"
            )
        )  # fmt: skip
        host = each.get("host")
        known = (
            f"on {host}" if isinstance(host, str) and host else "",
            f"{format_count(inputs)} inputs" if inputs is not None else "",
            f"received {format_bytes(int(received))}" if received is not None else "",
            f"{each_input:,.0f} bytes an input" if each_input is not None else "",
            f"{format_bytes(int(network))} of it from other hosts" if network is not None else "",
            f"{seconds_text(waited)} in exchanges with other ranks" if waited is not None else "",
        )
        lines.append((f"rank {rank if rank is not None else place:.0f}", ", ".join(text for text in known if text)))
    return lines
