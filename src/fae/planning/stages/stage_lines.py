"""The stages of a plan as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fae.core.units import format_bytes, format_count, format_duration

_PARTS = 0.1
"""Pieces of work that are a tenth of all time at least are named."""


def stage_table(stages: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """Rows of a table, the head first, and sentences below it.

    Parameters
    ----------
    stages
        ``stages`` of a plan.
    """
    cores, machines = stages["cores"], stages["machines"]
    rows = [[f"on {cores} cores", "time", "memory", "disk at most", "stays"]]
    for each in (*stages["stages"], {"name": "all", **stages["total"]}):
        sizes = [format_bytes(each[name]) for name in ("memory_bytes", "disk_bytes", "stays_bytes")]
        rows.append([each["name"], format_duration(each["seconds"]), *sizes])
    measured, total = stages["measured"], stages["total"]["seconds"]
    text = "synthetic text" if measured["is_synthetic"] else "a sample of the log"
    lines = [
        f"from the real stages on {text}, {format_count(measured['num_inputs'])} inputs, with {measured['workers']} "
        f"threads of this machine; disk: with what earlier stages leave, the raw files not counted"
    ]
    if machines > 1:
        lines.append(f"{machines} machines read the log (--worker i/{machines}); one of them does the rest")
    long = [
        (each["seconds"], each["name"], each["waits_for_disk"])
        for stage in stages["stages"]
        for each in stage["work"]
        if each["seconds"] > _PARTS * total
    ]
    if long:
        parts = ", ".join(
            f"{name} {format_duration(seconds)}{' (waits for the disk)' if waits else ''}"
            for seconds, name, waits in sorted(long, reverse=True)
        )
        lines.append(f"longest: {parts}")
    if stages["num_epochs"] > 1:
        lines.append(f"an epoch takes {format_duration(stages['epoch_seconds'])}")
    return rows, [*lines, *stages["notes"]]
